/* A key is the SHA-256 of NUL-ended fields, in this order:
 *
 *   "cdi-hpc-key-1", the software's version, "embedded" (the launcher),
 *   uid, gid, supplementary groups sorted, each once, with commas (all three empty for everybody),
 *   the image's real path,
 *   "d:" DEVICE for each device, "c:" DIR for each --cdi-dir, or "C:" CDI_HPC_DIRS when there is none and it is set,
 *   "b:" BIND for each bind,
 *   "w" if --writable-tmpfs, "n" if --contain, "s:" STAGE, "S" if --strict, "h:" UNKNOWN-HOOKS,
 *   "cwd:" DIRECTORY if something of the above may depend on the working directory.
 *
 * --env, --workdir, -v and -q are not in it: they don't change a plan. Whether a device is a relative file is asked of
 * its text alone, and rather yes than no: one key too many costs one compilation, one too few a wrong plan.
 */
#include "key.h"

#include "closed.h"
#include "sha256.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* A file can only be meant by a path that begins with "/", "./" or "../" or ends in ".json" or ".yaml", and a device
 * may be a comma list of several. */
static bool may_be_relative_file(const char *device)
{
    bool like_a_file = strstr(device, "./") != NULL || strstr(device, ".json") != NULL || strstr(device, ".yaml") != NULL;
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

bool compute_key(const struct options *options, const char *image, const char *cwd, struct caller caller,
                 char key[PLAN_KEY_DIGITS + 1])
{
    struct sha256 hash;
    const char *directories = options->cdi_dirs.count > 0 ? NULL : getenv("CDI_HPC_DIRS");
    sha256_begin(&hash);
    add(&hash, "", "cdi-hpc-key-1");
    add(&hash, "", VERSION);
    add(&hash, "", "embedded");
    if (!add_caller(&hash, caller))
        return false;
    add(&hash, "", image);
    add_all(&hash, "d:", &options->devices);
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
    if (any(&options->devices, may_be_relative_file) || any(&options->cdi_dirs, is_relative) ||
        any(&options->binds, is_relative) || (directories != NULL && lists_relative(directories)))
        add(&hash, "cwd:", cwd);
    sha256_finish(&hash, key);
    return true;
}
