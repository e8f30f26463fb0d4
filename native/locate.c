#include "locate.h"

#include "closed.h"
#include "shim.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* A drop-in where this program is not installed begins so (profile.SCRIPT_HEAD). */
static const char script_head[] = "#!/bin/sh\n# A drop-in of cdi-hpc: see 'cdi-hpc shims --help'.\n";

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

bool is_shim(const char *name)
{
    return name != NULL && strncmp(base_name(name), "cdi-hpc", strlen("cdi-hpc")) != 0;
}

static bool is_executable(const char *path, struct stat *status)
{
    return stat(path, status) == 0 && S_ISREG(status->st_mode) && faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0;
}

static bool is_script_of_ours(const char *path)
{
    char head[sizeof script_head - 1];
    CLOSED int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    return fd >= 0 && read(fd, head, sizeof head) == (ssize_t)sizeof head && memcmp(head, script_head, sizeof head) == 0;
}

/* This program, another copy of it, or a script in its place. */
static bool is_drop_in(const char *path, const struct stat *status, const struct stat *own)
{
    if (status->st_dev == own->st_dev && status->st_ino == own->st_ino)
        return true;
    char real[PATH_MAX];
    return (realpath(path, real) != NULL && strcmp(base_name(real), RUNNER) == 0) || is_script_of_ours(path);
}

static void remember_drop_in(struct launcher *launcher, const char *path)
{
    if (launcher->drop_ins < MAX_DROP_INS)
        snprintf(launcher->drop_in[launcher->drop_ins++], PLAN_MAX_PATH, "%.*s",
                 (int)(base_name(path) - path), path);
}

/* A candidate's path, "./" for an empty directory; false if it is too long for one. */
static bool join(char *path, const char *directory, size_t length, const char *name)
{
    int needed = length == 0 ? snprintf(path, PLAN_MAX_PATH, "./%s", name)
                             : snprintf(path, PLAN_MAX_PATH, "%.*s/%s", (int)length, directory, name);
    return needed > 0 && needed < PLAN_MAX_PATH;
}

static bool search_path(struct launcher *launcher, const struct stat *own)
{
    const char *path = getenv("PATH");
    for (path = path == NULL ? "/bin:/usr/bin" : path;; path++) {
        size_t length = strcspn(path, ":");
        struct stat status;
        if (join(launcher->path, path, length, launcher->command) && is_executable(launcher->path, &status)) {
            if (!is_drop_in(launcher->path, &status, own))
                return true;
            remember_drop_in(launcher, launcher->path);
        }
        path += length;
        if (*path == '\0')
            return false;
    }
}

bool find_launcher(struct launcher *launcher, const char *name)
{
    struct stat own, status;
    bool is_path = strchr(name, '/') != NULL, found = false;
    launcher->command = base_name(name);
    launcher->drop_ins = 0;
    if (stat("/proc/self/exe", &own) < 0)
        return false;
    if (is_path && strlen(name) < PLAN_MAX_PATH && is_executable(name, &status)) {
        strcpy(launcher->path, name);
        found = !is_drop_in(name, &status, &own);
        if (!found)
            remember_drop_in(launcher, name);
    } else if (is_path) {
        return false;
    }
    if (!found && !search_path(launcher, &own))
        return false;
    launcher->argv0 = is_path ? launcher->path : name;
    return realpath(launcher->path, launcher->program) != NULL;
}
