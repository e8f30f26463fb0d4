#include "request.h"

#include "site.h"

#include <stdlib.h>
#include <string.h>

static const char none[] = "none";

bool request_is_off(const struct request *request)
{
    return request->devices != NULL && strcmp(request->devices, none) == 0;
}

bool request_is_made(const struct request *request)
{
    return request->devices != NULL && !request_is_off(request);
}

/* The grammar of names (cdi_hpc/spec/names.py) -------------------------------------------------------------------------- */

static bool is_letter(char c)
{
    return ('a' <= c && c <= 'z') || ('A' <= c && c <= 'Z');
}

static bool is_alphanumeric(char c)
{
    return is_letter(c) || ('0' <= c && c <= '9');
}

/* Letters, digits and `others`; what is first and last is not one of the others. */
static bool is_word(const char *text, size_t length, const char *others)
{
    if (length == 0 || !is_alphanumeric(text[0]) || !is_alphanumeric(text[length - 1]))
        return false;
    for (size_t i = 0; i < length; i++)
        if (!is_alphanumeric(text[i]) && strchr(others, text[i]) == NULL)
            return false;
    return true;
}

/* One item of a request, pointing into it. */
struct item {
    const char *text;
    size_t length, slash, equals; /* lengths up to those characters; without "=", equals is all of it */
};

/* What cdi-hpc would take for a spec or a lock in the user's working directory (cdi_hpc/spec/request.py). */
static bool is_file(const char *text, size_t length)
{
    static const char *const ends[] = {".json", ".yaml", ".lock"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (length >= strlen(ends[i]) && memcmp(text + length - strlen(ends[i]), ends[i], strlen(ends[i])) == 0)
            return true;
    return false;
}

static bool read_item(const char *text, size_t length, struct item *item)
{
    const char *slash = memchr(text, '/', length), *equals = memchr(text, '=', length);
    if (slash == NULL || (equals != NULL && equals < slash))
        return false;
    if (is_file(text, length))
        return false;
    *item = (struct item){text, length, (size_t)(slash - text), equals == NULL ? length : (size_t)(equals - text)};
    return is_letter(text[0]) && is_word(text, item->slash, "_-.") && is_letter(slash[1]) &&
           is_word(slash + 1, item->equals - item->slash - 1, "_-.") &&
           (equals == NULL || is_word(equals + 1, length - item->equals - 1, "_-.:"));
}

/* The next item of a comma list; false at its end. */
static bool next_item(const char **list, const char **text, size_t *length)
{
    if (*list == NULL)
        return false;
    *text = *list;
    *length = strcspn(*list, ",");
    *list = (*list)[*length] == ',' ? *list + *length + 1 : NULL;
    return true;
}

bool request_devices_are_valid(const char *devices, struct plan_complaint *complaint)
{
    if (strcmp(devices, none) == 0)
        return true;
    const char *text;
    size_t length;
    struct item item;
    for (const char *list = devices; next_item(&list, &text, &length);) {
        if (!read_item(text, length, &item)) {
            plan_complain(complaint, "--cdi: '%.*s' is not a device (VENDOR/CLASS=NAME, VENDOR/CLASS=all, VENDOR/CLASS, or "
                          "with commas several of these; or none)", (int)(length < 256 ? length : 256), text);
            return false;
        }
    }
    return true;
}

bool request_is_consistent(const struct request *request, struct plan_complaint *complaint)
{
    enum mode mode = MOUNTS;
    if (request->image == NULL)
        return true;
    if (!request_is_made(request)) {
        plan_complain(complaint, "--cdi-image: there are no devices for it (give --cdi=DEVICE)");
        return false;
    }
    if (request->mode != NULL && read_mode(request->mode, &mode) && mode == HANDOFF) {
        plan_complain(complaint, "--cdi-image: tasks run in the image, --cdi-mode=handoff leaves that to a launcher "
                      "(leave one of them out)");
        return false;
    }
    return true;
}

/* Devices ---------------------------------------------------------------------------------------------------------- */

bool devices_split(const char *requested, struct devices *devices)
{
    size_t count = 1;
    for (const char *c = requested; *c != '\0'; c++)
        count += *c == ',';
    *devices = (struct devices){.memory = strdup(requested), .name = calloc(count + 1, sizeof *devices->name)};
    if (devices->memory == NULL || devices->name == NULL)
        return false;
    char *rest = devices->memory;
    for (size_t i = 0; i < count; i++)
        devices->name[i] = strsep(&rest, ",");
    return true;
}

void devices_free(struct devices *devices)
{
    free(devices->name);
    free(devices->memory);
    *devices = (struct devices){0};
}
