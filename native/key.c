/* A key is the SHA-256 of NUL-ended fields, in this order:
 *
 *   "cdi-hpc-key-1", the software's version, "embedded" or "handoff" (the launcher),
 *   uid, gid, supplementary groups sorted, each once, with commas (all three empty for everybody),
 *   the image's real path,
 *   "d:" DEVICE for each device, "a:" GRES=NUMBERS for each GRES that Slurm gave to a step,
 *   "c:" DIR for each --cdi-dir, or "C:" CDI_HPC_DIRS when there is none and it is set,
 *   "b:" BIND for each bind,
 *   "w" if --writable-tmpfs, "n" if --contain, "s:" STAGE, "S" if --strict, "h:" UNKNOWN-HOOKS,
 *   "f:" PREFLIGHT, "g:" NAME=VALUE for each variable by which the user's own configuration is found and that is set
 *   (none for everybody),
 *   "cwd:" DIRECTORY if something of the above may depend on the working directory.
 *
 * --env, --workdir, -v and -q are not in it: they don't change a plan. Whether a device is a relative file is asked of
 * its text alone, and rather yes than no: one key too many costs one compilation, one too few a wrong plan.
 *
 * That of a launch through a launcher has, after the groups:
 *
 *   "p:" real path of the launcher, "i:" IMAGE, "r:" the real path that leads to (empty: to none), "s:" WORD of the
 *   subcommand,
 *   for each option in its order: "D" a device, "c" spec directories, "x" and then the first name for a switch of ours;
 *   else COUNT of its words ":" first name, after "k:" if it is passed on whatever its value is, or "o:";
 *   after "x" and "o:", "=:" VALUE if there is one,
 *   "d:" DEVICE for each, "c:" DIR for each, or "C:" the variable that lists them,
 *   "default" if the devices are the configuration's,
 *   "v:" NAME=VALUE for each variable that may change a plan, sorted,
 *   "g:" as above,
 *   "cwd:" DIRECTORY if the launcher shows it or any path may be relative. What a launcher takes for a path, it alone
 *   knows: every piece of an option's value between ":", "," and "=" has to be an absolute one.
 *
 * That of an extract of the configuration (extract.h) has only "cdi-hpc-extract-1", the version, the user's numbers, "g:",
 * and for a user "host:" and the machine's name: it may be a part of where his plans are.
 */
#include "key.h"

#include "closed.h"
#include "sha256.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifndef VERSION
#error "compile with -DVERSION=\"...\", that of cdi_hpc/__init__.py"
#endif

static void add(struct sha256 *hash, const char *prefix, const char *text)
{
    sha256_add(hash, prefix, strlen(prefix));
    sha256_add(hash, text, strlen(text) + 1);
}

static void add_all(struct sha256 *hash, const char *prefix, const struct values *values)
{
    for (size_t i = 0; i < values->count; i++)
        add(hash, prefix, values->item[i]);
}

static int compare_groups(const void *left, const void *right)
{
    gid_t first = *(const gid_t *)left, second = *(const gid_t *)right;
    return (first > second) - (first < second);
}

static bool add_groups(struct sha256 *hash)
{
    int count = getgroups(0, NULL);
    if (count < 0)
        return false;
    FREED gid_t *groups = calloc((size_t)count + 1, sizeof *groups);
    if (groups == NULL || getgroups(count, groups) != count)
        return false;
    qsort(groups, (size_t)count, sizeof *groups, compare_groups);
    for (int i = 0; i < count; i++) {
        char number[16];
        if (i > 0 && groups[i] == groups[i - 1])
            continue;
        int length = snprintf(number, sizeof number, "%s%u", i > 0 ? "," : "", groups[i]);
        sha256_add(hash, number, (size_t)length);
    }
    add(hash, "", "");
    return true;
}

static bool add_caller(struct sha256 *hash, struct caller caller)
{
    if (caller.everybody) {
        sha256_add(hash, "\0\0", 3);
        return true;
    }
    char number[16];
    snprintf(number, sizeof number, "%u", geteuid());
    add(hash, "", number);
    snprintf(number, sizeof number, "%u", getegid());
    add(hash, "", number);
    return add_groups(hash);
}

static bool is_relative(const char *path)
{
    return path[0] != '/';
}

/* A file can only be meant by a path that begins with "/", "./" or "../" or ends in ".json", ".yaml" or ".lock", and a
 * device may be a comma list of several. */
static bool may_be_relative_file(const char *device)
{
    bool like_a_file = strstr(device, "./") != NULL || strstr(device, ".json") != NULL ||
                       strstr(device, ".yaml") != NULL || strstr(device, ".lock") != NULL;
    return like_a_file && (is_relative(device) || strchr(device, ',') != NULL);
}

static bool any(const struct values *values, bool (*holds)(const char *))
{
    for (size_t i = 0; i < values->count; i++)
        if (holds(values->item[i]))
            return true;
    return false;
}

/* Whether a colon list of directories has one that is relative. */
static bool lists_relative(const char *directories)
{
    for (;;) {
        size_t length = strcspn(directories, ":");
        if (length > 0 && is_relative(directories))
            return true;
        if (directories[length] == '\0')
            return false;
        directories += length + 1;
    }
}

/* Sorted. Those of cdi_hpc/compiled/cache_key.py. */
static const char *const configuration_variables[] = {
    "CDI_HPC_ALL_MEANS", "CDI_HPC_STRICT", "CDI_HPC_UNKNOWN_HOOKS", "CDI_HPC_UNSUPPORTED", "HOME", "XDG_CONFIG_HOME",
};

static void add_configuration(struct sha256 *hash)
{
    size_t count = sizeof configuration_variables / sizeof *configuration_variables;
    for (size_t i = 0; i < count; i++) {
        const char *name = configuration_variables[i], *value = getenv(name);
        if (value == NULL || *value == '\0')
            continue;
        sha256_add(hash, "g:", 2);
        sha256_add(hash, name, strlen(name));
        add(hash, "=", value);
    }
}

bool compute_key(const struct options *options, const char *image, const char *cwd, struct caller caller,
                 char key[PLAN_KEY_DIGITS + 1])
{
    struct sha256 hash;
    const char *directories = options->cdi_dirs.count > 0 ? NULL : getenv("CDI_HPC_DIRS");
    sha256_begin(&hash);
    add(&hash, "", "cdi-hpc-key-1");
    add(&hash, "", VERSION);
    add(&hash, "", options->is_handoff ? "handoff" : "embedded");
    if (!add_caller(&hash, caller))
        return false;
    add(&hash, "", image);
    add_all(&hash, "d:", &options->devices);
    add_all(&hash, "a:", &options->gres);
    add_all(&hash, "c:", &options->cdi_dirs);
    if (directories != NULL)
        add(&hash, "C:", directories);
    add_all(&hash, "b:", &options->binds);
    if (options->writable_tmpfs)
        add(&hash, "w", "");
    if (options->contain)
        add(&hash, "n", "");
    add(&hash, "s:", options->stage);
    if (options->strict)
        add(&hash, "S", "");
    add(&hash, "h:", options->unknown_hooks);
    add(&hash, "f:", options->preflight);
    if (!caller.everybody)
        add_configuration(&hash);
    if (any(&options->devices, may_be_relative_file) || any(&options->cdi_dirs, is_relative) ||
        any(&options->binds, is_relative) || (directories != NULL && lists_relative(directories)))
        add(&hash, "cwd:", cwd);
    sha256_finish(&hash, key);
    return true;
}

/* Launches through a launcher ------------------------------------------------------------------------------------- */

extern char **environ;

static const char *const our_marks[] = {[USE_DEVICE] = "D", [USE_DIRECTORIES] = "c", [USE_SWITCH] = "x"};

static void add_option(struct sha256 *hash, const struct given *given)
{
    enum option_use use = given->option->use;
    const char *name = given->option->names.first;
    if (use == USE_DEVICE || use == USE_DIRECTORIES || use == USE_SWITCH) {
        add(hash, "", our_marks[use]);
        if (use == USE_SWITCH)
            add(hash, "", name);
    } else {
        add(hash, use == USE_KEEP ? (given->count == 1 ? "k:1:" : "k:2:") : (given->count == 1 ? "o:1:" : "o:2:"), name);
    }
    if ((use == USE_SWITCH || use == USE_PLAN) && given->value != NULL)
        add(hash, "=:", given->value);
}

static void add_image(struct sha256 *hash, const char *image)
{
    char path[PLAN_MAX_PATH];
    add(hash, "i:", image);
    add(hash, "r:", realpath(image, path) == NULL ? "" : path);
}

/* Those of options, or else of the environment. */
static void add_devices(struct sha256 *hash, const struct invocation *invocation, const char *devices)
{
    bool any_given = false;
    for (size_t i = 0; i < invocation->givens; i++) {
        const struct given *given = &invocation->given[i];
        if (given->option->use != USE_DEVICE)
            continue;
        add(hash, "d:", given->value == NULL ? "" : given->value);
        any_given = true;
    }
    if (!any_given)
        add(hash, "d:", devices);
}

/* Spec directories one by one, with colons or commas between them in an option. False where no option has any. */
static bool add_directories(struct sha256 *hash, const struct invocation *invocation)
{
    bool any_given = false;
    for (size_t i = 0; i < invocation->givens; i++) {
        const struct given *given = &invocation->given[i];
        if (given->option->use != USE_DIRECTORIES || given->value == NULL)
            continue;
        for (const char *path = given->value; *path != '\0';) {
            size_t length = strcspn(path, ":,");
            if (length > 0) {
                sha256_add(hash, "c:", 2);
                sha256_add(hash, path, length);
                add(hash, "", "");
                any_given = true;
            }
            path += length + (path[length] != '\0');
        }
    }
    return any_given;
}

static const char *directory_list(const struct profile *profile)
{
    const char *own = profile->directories_variable == NULL ? NULL : getenv(profile->directories_variable);
    return own != NULL && *own != '\0' ? own : getenv("CDI_HPC_DIRS");
}

static bool matches(const char *assignment, const char *pattern)
{
    size_t name = strcspn(assignment, "="), length = strlen(pattern);
    if (length > 0 && pattern[length - 1] == '*')
        return name >= length - 1 && memcmp(assignment, pattern, length - 1) == 0;
    return name == length && memcmp(assignment, pattern, length) == 0;
}

static bool is_relevant(const struct profile *profile, const char *assignment)
{
    for (size_t i = 0; i < profile->variables; i++)
        if (matches(assignment, profile->variable[i]))
            return true;
    return false;
}

/* Of several with one name, the first counts. */
static bool is_first(char **entry)
{
    size_t length = strcspn(*entry, "=") + 1;
    for (char **before = environ; before < entry; before++)
        if (strncmp(*before, *entry, length) == 0)
            return false;
    return true;
}

static int compare_words(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

/* False where there is no memory. */
static bool add_variables(struct sha256 *hash, const struct profile *profile)
{
    size_t count = 0;
    for (char **entry = environ; *entry != NULL; entry++)
        count += is_relevant(profile, *entry);
    FREED char **found = calloc(count + 1, sizeof *found);
    if (found == NULL)
        return false;
    count = 0;
    for (char **entry = environ; *entry != NULL; entry++)
        if (strchr(*entry, '=') != NULL && is_relevant(profile, *entry) && is_first(entry))
            found[count++] = *entry;
    qsort(found, count, sizeof *found, compare_words);
    for (size_t i = 0; i < count; i++)
        add(hash, "v:", found[i]);
    return true;
}

bool compute_extract_key(struct caller caller, char key[PLAN_KEY_DIGITS + 1])
{
    struct sha256 hash;
    sha256_begin(&hash);
    add(&hash, "", "cdi-hpc-extract-1");
    add(&hash, "", VERSION);
    if (!add_caller(&hash, caller))
        return false;
    struct utsname machine;
    if (!caller.everybody) {
        add_configuration(&hash);
        add(&hash, "host:", uname(&machine) == 0 ? machine.nodename : "");
    }
    sha256_finish(&hash, key);
    return true;
}

/* Whether a piece of a value is no absolute path. */
static bool has_relative_piece(const char *value)
{
    for (;; value++) {
        if (is_relative(value))
            return true;
        value += strcspn(value, ":,=");
        if (*value == '\0')
            return false;
    }
}

static bool has_relative_variable(const char *names)
{
    char name[PLAN_MAX_PATH];
    for (size_t length; *names != '\0'; names += length + (names[length] == ',')) {
        length = strcspn(names, ",");
        snprintf(name, sizeof name, "%.*s", (int)length, names);
        const char *value = getenv(name);
        if (value != NULL && is_relative(value))
            return true;
    }
    return false;
}

/* Whether a list of spec directories in an option, with colons or commas, has one that is relative. */
static bool names_relative(const char *directories)
{
    for (const char *path = directories; *path != '\0';) {
        size_t length = strcspn(path, ":,");
        if (length > 0 && is_relative(path))
            return true;
        path += length + (path[length] != '\0');
    }
    return false;
}

static bool is_relative_given(const struct given *given)
{
    if (given->value == NULL)
        return false;
    switch (given->option->use) {
    case USE_PLAN:
    case USE_SWITCH:
        return has_relative_piece(given->value);
    case USE_DEVICE:
        return may_be_relative_file(given->value);
    case USE_DIRECTORIES:
        return names_relative(given->value);
    case USE_KEEP:
    case USE_LEAVE:
    case USE_HELP:
        break;
    }
    return false;
}

/* Whether the launcher shows its working directory, or any path may be relative. */
static bool depends_on_directory(const struct invocation *invocation, const char *devices, const char *directories)
{
    const char *paths = invocation->profile->path_variables;
    if (paths == NULL || is_relative(invocation->image) || has_relative_variable(paths) ||
        (directories != NULL && lists_relative(directories)))
        return true;
    bool any_device = false;
    for (size_t i = 0; i < invocation->givens; i++) {
        if (is_relative_given(&invocation->given[i]))
            return true;
        any_device = any_device || invocation->given[i].option->use == USE_DEVICE;
    }
    return !any_device && may_be_relative_file(devices);
}

bool compute_launcher_key(const struct invocation *invocation, struct wanted wanted, const char *cwd,
                          struct caller caller, char key[PLAN_KEY_DIGITS + 1])
{
    struct sha256 hash;
    const struct profile *profile = invocation->profile;
    sha256_begin(&hash);
    add(&hash, "", "cdi-hpc-key-1");
    add(&hash, "", VERSION);
    add(&hash, "", profile->backend);
    if (!add_caller(&hash, caller))
        return false;
    add(&hash, "p:", profile->program);
    add_image(&hash, invocation->image);
    if (invocation->subcommand != NULL) {
        const char *word = invocation->subcommand->words.first;
        for (size_t i = 0; i < invocation->subcommand->words.count; i++, word = next_word(word))
            add(&hash, "s:", word);
    }
    for (size_t i = 0; i < invocation->givens; i++)
        add_option(&hash, &invocation->given[i]);
    add_devices(&hash, invocation, wanted.devices);
    const char *directories = add_directories(&hash, invocation) ? NULL : directory_list(profile);
    if (directories != NULL)
        add(&hash, "C:", directories);
    if (wanted.by_default)
        add(&hash, "", "default");
    if (!add_variables(&hash, profile))
        return false;
    if (!caller.everybody)
        add_configuration(&hash);
    if (depends_on_directory(invocation, wanted.devices, directories))
        add(&hash, "cwd:", cwd);
    sha256_finish(&hash, key);
    return true;
}
