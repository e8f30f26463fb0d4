#include "options.h"

#include "launcher_options.h"

#include <stdlib.h>
#include <string.h>

enum place { DEVICE, LOCK, CDI_DIR, BIND, ENV, WORKDIR, STAGE, HOOKS, PREFLIGHT, WRITABLE, CONTAIN, STRICT, RUNNER, VERBOSE, QUIET, HELP };

static const struct option {
    const char *name;
    char letter; /* NUL: none */
    enum place place;
    bool takes_value;
} known[] = {
    {"device", 'd', DEVICE, true},
    {"lock", '\0', LOCK, true},
    {"cdi-dir", '\0', CDI_DIR, true},
    {"bind", '\0', BIND, true},
    {"env", '\0', ENV, true},
    {"workdir", '\0', WORKDIR, true},
    {"stage", '\0', STAGE, true},
    {"unknown-hooks", '\0', HOOKS, true},
    {"preflight", '\0', PREFLIGHT, true},
    {"writable-tmpfs", '\0', WRITABLE, false},
    {"contain", '\0', CONTAIN, false},
    {"strict", '\0', STRICT, false},
    {"runner", '\0', RUNNER, true},
    {"verbose", 'v', VERBOSE, false},
    {"quiet", 'q', QUIET, false},
    {"help", 'h', HELP, false},
};

static const char *const stages[] = {"auto", "overlay", "underlay", NULL};
static const char *const runners_that_are_us[] = {"auto", "native", NULL};
static const char *const hook_policies[] = {"warn", "fail", NULL};
static const char *const preflights[] = {"auto", "fail", "warn", "off", NULL};

static bool is_one_of(const char *const *words, const char *word)
{
    for (; *words != NULL; words++)
        if (strcmp(*words, word) == 0)
            return true;
    return false;
}

static void append(struct values *values, const char *value)
{
    values->item[values->count++] = value;
}

/* Take one option in; `value` is NULL for a flag. */
static bool set(struct options *options, enum place place, const char *value)
{
    switch (place) {
    case DEVICE:
        append(&options->devices, value);
        break;
    case LOCK: /* it stands for the devices in it */
        append(&options->devices, value);
        return is_lock_file(value);
    case CDI_DIR:
        append(&options->cdi_dirs, value);
        break;
    case BIND:
        append(&options->binds, value);
        break;
    case ENV:
        append(&options->env, value);
        return *value != '\0' && *value != '=';
    case WORKDIR:
        options->workdir = value;
        break;
    case STAGE:
        options->stage = value;
        return is_one_of(stages, value);
    case HOOKS:
        options->unknown_hooks = value;
        return is_one_of(hook_policies, value);
    case PREFLIGHT:
        options->preflight = value;
        return is_one_of(preflights, value);
    case WRITABLE:
        options->writable_tmpfs = true;
        break;
    case CONTAIN:
        options->contain = true;
        break;
    case STRICT:
        options->strict = true;
        break;
    case RUNNER:
        return is_one_of(runners_that_are_us, value);
    case VERBOSE:
        options->verbosity++;
        break;
    case QUIET:
        options->verbosity--;
        break;
    case HELP:
        options->help = true;
        break;
    }
    return true;
}

static const struct option *find_name(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].name) == length && memcmp(known[i].name, name, length) == 0)
            return &known[i];
    return NULL;
}

static const struct option *find_letter(char letter)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].letter == letter)
            return &known[i];
    return NULL;
}

/* --name, --name=value or --name value; `*next` is the argument after it. */
static bool take_name(struct options *options, const char *text, char ***next)
{
    size_t length = strcspn(text, "=");
    const struct option *option = find_name(text, length);
    if (option == NULL)
        return false;
    const char *value = text[length] == '=' ? text + length + 1 : NULL;
    if (!option->takes_value)
        return value == NULL && set(options, option->place, NULL);
    if (value == NULL)
        value = *(*next)++;
    return value != NULL && set(options, option->place, value);
}

/* -vq, -dVALUE, -d VALUE. */
static bool take_letters(struct options *options, const char *letters, char ***next)
{
    for (; *letters != '\0'; letters++) {
        const struct option *option = find_letter(*letters);
        if (option == NULL)
            return false;
        if (option->takes_value) {
            const char *value = letters[1] != '\0' ? letters + 1 : *(*next)++;
            return value != NULL && set(options, option->place, value);
        }
        if (!set(options, option->place, NULL))
            return false;
    }
    return true;
}

static bool take_options(struct options *options, char ***next)
{
    while (**next != NULL) {
        const char *word = **next;
        if (word[0] != '-' || word[1] == '\0')
            return true;
        (*next)++;
        if (word[1] != '-') {
            if (!take_letters(options, word + 1, next))
                return false;
        } else if (word[2] == '\0') {
            return true;
        } else if (!take_name(options, word + 2, next)) {
            return false;
        }
    }
    return true;
}

bool options_parse(struct options *options, int argc, char **argv)
{
    size_t most = (size_t)argc;
    *options = (struct options){.stage = "auto", .unknown_hooks = "warn", .preflight = "auto"};
    const char *preflight = getenv("CDI_HPC_PREFLIGHT");
    if (preflight != NULL && *preflight != '\0' && !set(options, PREFLIGHT, preflight))
        return false;
    options->memory = calloc(4 * most, sizeof *options->memory);
    if (options->memory == NULL)
        return false;
    options->devices.item = options->memory;
    options->cdi_dirs.item = options->memory + most;
    options->binds.item = options->memory + 2 * most;
    options->env.item = options->memory + 3 * most;
    char **next = argv + 1;
    if (!take_options(options, &next))
        return false;
    if (options->help)
        return true;
    if (*next == NULL)
        return false;
    const char *wanted = getenv("CDI_HPC_DEVICES");
    if (options->devices.count == 0 && wanted != NULL && *wanted != '\0')
        append(&options->devices, wanted);
    options->image = *next++;
    if (*next != NULL && strcmp(*next, "--") == 0)
        next++;
    options->command = next;
    return *next != NULL;
}

void options_free(struct options *options)
{
    free(options->memory);
}
