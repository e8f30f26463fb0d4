#include "site.h"

#include "request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool read_path(const char *value, const char **path)
{
    *path = value;
    return value[0] == '/' && strlen(value) < PLAN_MAX_PATH;
}

static bool read_choice(const char *value, const char *yes, const char *no, bool *chosen)
{
    *chosen = strcmp(value, yes) == 0;
    return *chosen || strcmp(value, no) == 0;
}

static bool read_seconds(const char *value, int *seconds)
{
    char *end;
    errno = 0;
    long number = strtol(value, &end, 10);
    *seconds = (int)number;
    return errno == 0 && end != value && *end == '\0' && 1 <= number && number <= 3600;
}

bool read_mode(const char *word, enum mode *mode)
{
    *mode = strcmp(word, "mounts") == 0 ? MOUNTS : HANDOFF;
    return *mode == MOUNTS || strcmp(word, "handoff") == 0;
}

/* As --cdi; "none" is no default. */
static bool read_default(const char *value, const char **devices)
{
    struct plan_complaint complaint;
    *devices = strcmp(value, "none") == 0 ? NULL : value;
    return request_devices_are_valid(value, &complaint);
}

/* One argument; false if its value is none. `*known` if there is such an argument. */
static bool read_argument(struct site *site, const char *name, size_t length, const char *value, bool *known)
{
#define IS(text) (length == strlen(text) && memcmp(name, text, length) == 0)
    *known = true;
    if (IS("cdi-hpc"))
        return read_path(value, &site->compiler);
    if (IS("cdi-hpc-run"))
        return read_path(value, &site->runner);
    if (IS("cache"))
        return read_path(value, &site->cache);
    if (IS("cdi-dir"))
        return site->cdi_dir_count < SITE_MAX_DIRS && read_path(value, &site->cdi_dirs[site->cdi_dir_count++]);
    if (IS("default"))
        return read_default(value, &site->default_devices);
    if (IS("mode"))
        return read_mode(value, &site->mode);
    if (IS("gpus"))
        return read_choice(value, "allocated", "shared", &site->gpus_are_allocated);
    if (IS("timeout"))
        return read_seconds(value, &site->timeout);
#undef IS
    *known = false;
    return false;
}

bool site_read(struct site *site, int count, char **arguments, struct plan_complaint *complaint)
{
    *site = (struct site){
        .compiler = "/usr/bin/cdi-hpc",
        .runner = "/usr/bin/cdi-hpc-run",
        .mode = HANDOFF,
        .gpus_are_allocated = true,
        .timeout = 20,
    };
    for (int i = 0; i < count; i++) {
        const char *equals = strchr(arguments[i], '=');
        bool known = false;
        if (equals != NULL &&
            read_argument(site, arguments[i], (size_t)(equals - arguments[i]), equals + 1, &known))
            continue;
        plan_complain(complaint, "plugstack.conf: '%s': %s", arguments[i],
                      known ? "it can't have this value" : "there is no such argument");
        return false;
    }
    return true;
}
