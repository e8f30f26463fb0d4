#include "request.h"

#include "closed.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char none[] = "none";

bool request_is_made(const struct request *request)
{
    return request->devices != NULL && strcmp(request->devices, none) != 0;
}

/* The grammar of names (cdi_hpc/names.py) -------------------------------------------------------------------------- */

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

static bool read_item(const char *text, size_t length, struct item *item)
{
    const char *slash = memchr(text, '/', length), *equals = memchr(text, '=', length);
    if (slash == NULL || (equals != NULL && equals < slash))
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

/* Allocation ------------------------------------------------------------------------------------------------------- */

/* The class that Slurm's GRES of the same name stands for. */
static const char gpu_class[] = "gpu";

static bool is_allocated_by_slurm(const struct item *item)
{
    return item->equals - item->slash - 1 == strlen(gpu_class) &&
           memcmp(item->text + item->slash + 1, gpu_class, strlen(gpu_class)) == 0;
}

static bool has_name(const struct item *item, const char *name, size_t length)
{
    return item->equals < item->length && item->length - item->equals - 1 == length &&
           memcmp(item->text + item->equals + 1, name, length) == 0;
}

static bool wants_all(const struct item *item)
{
    return item->equals == item->length || has_name(item, "all", strlen("all"));
}

static bool are_numbers(const char *gpus)
{
    return gpus[0] != '\0' && gpus[strspn(gpus, "0123456789,")] == '\0' && gpus[0] != ',' &&
           strstr(gpus, ",,") == NULL && gpus[strlen(gpus) - 1] != ',';
}

/* What an item means where Slurm allocates; written to `out`, at the end a comma. */
static bool write_allocated(FILE *out, const struct item *item, const char *gpus, struct plan_complaint *complaint)
{
    const char *gpu;
    size_t length;
    bool found = false;
    for (const char *list = gpus; next_item(&list, &gpu, &length);) {
        if (!wants_all(item) && !has_name(item, gpu, length))
            continue;
        fprintf(out, "%.*s=%.*s,", (int)item->equals, item->text, (int)length, gpu);
        found = true;
    }
    if (!found)
        plan_complain(complaint, "device '%.*s': it was not allocated to this step, which has %.*s=%s (ask for %.*s, what "
                      "was allocated)", (int)item->length, item->text, (int)item->equals, item->text, gpus,
                      (int)item->equals, item->text);
    return found;
}

static bool write_item(FILE *out, const struct item *item, const struct site *site, const char *gpus,
                       struct plan_complaint *complaint)
{
    bool allocated = is_allocated_by_slurm(item);
    if (allocated && site->gpus_are_allocated) {
        if (gpus != NULL && gpus[0] != '\0' && are_numbers(gpus))
            return write_allocated(out, item, gpus, complaint);
        if (gpus == NULL || gpus[0] == '\0')
            plan_complain(complaint, "device '%.*s': this step has no GPUs allocated (ask for some: --gres=gpu:1, "
                          "--gpus-per-task=1)", (int)item->length, item->text);
        else
            plan_complain(complaint, "device '%.*s': Slurm names this step's GPUs '%.128s', and not by numbers",
                          (int)item->length, item->text, gpus);
        return false;
    }
    if (!allocated && !site->others_are_allowed) {
        plan_complain(complaint, "device '%.*s': this site gives out GPUs only (others=refuse in plugstack.conf)",
                      (int)item->length, item->text);
        return false;
    }
    fprintf(out, "%.*s,", (int)item->length, item->text);
    return true;
}

/* Point at each name of the list; commas in `memory` become ends of strings. */
static bool split(struct devices *devices)
{
    size_t count = 1;
    for (const char *c = devices->memory; *c != '\0'; c++)
        count += *c == ',';
    devices->name = calloc(count + 1, sizeof *devices->name);
    if (devices->name == NULL)
        return false;
    char *rest = devices->memory;
    for (size_t i = 0; i < count; i++)
        devices->name[i] = strsep(&rest, ",");
    return true;
}

bool request_allocate(const char *requested, const struct site *site, const char *gpus, struct devices *devices,
                      struct plan_complaint *complaint)
{
    FREED char *written = NULL;
    size_t size = 0, length;
    const char *text;
    struct item item;
    bool good = true;
    FILE *out = open_memstream(&written, &size);
    if (out == NULL)
        return plan_complain(complaint, "%s", strerror(errno)), false;
    for (const char *list = requested; good && next_item(&list, &text, &length);)
        good = read_item(text, length, &item) && write_item(out, &item, site, gpus, complaint);
    if (fclose(out) != 0)
        return plan_complain(complaint, "%s", strerror(errno)), false;
    if (!good || size == 0)
        return false;
    written[size - 1] = '\0'; /* the last comma */
    *devices = (struct devices){.text = strdup(written), .memory = strdup(written)};
    if (devices->text != NULL && devices->memory != NULL && split(devices))
        return true;
    plan_complain(complaint, "%s", strerror(ENOMEM));
    return false;
}

void devices_free(struct devices *devices)
{
    free(devices->text);
    free(devices->name);
    free(devices->memory);
    *devices = (struct devices){0};
}
