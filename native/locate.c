#include "locate.h"

#include "closed.h"
#include "say.h"
#include "shim.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A drop-in where this program is not installed begins so (profile.SCRIPT_HEAD). */
static const char script_head[] = "#!/bin/sh\n# A drop-in of cdi-hpc: see 'cdi-hpc shims --help'.\n";

/* An ELF note, by which copies of this program know each other whatever they are called (profile.PROGRAM_MARK). Linkers
 * put notes into a file's first page. */
static const struct {
    Elf64_Nhdr header;
    char mark[16];
} note __attribute__((section(".note.cdi-hpc"), used, aligned(4))) = {
    .header = {.n_namesz = 8, .n_descsz = 8, .n_type = 1},
    .mark = "cdi-hpc\0drop-in",
};

enum { FIRST_PAGE = 4096 };

/* What counts how often a launcher that is a script has been started, and how often it may be (profile.MOST_SCRIPTS). */
#define SCRIPTS_VARIABLE "CDI_HPC_SCRIPTS"
enum { MOST_SCRIPTS = 8 };

enum kind { DROP_IN, SCRIPT, PROGRAM };

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

static bool begins_with(const char *text, size_t length, const char *head)
{
    return length >= strlen(head) && memcmp(text, head, strlen(head)) == 0;
}

/* By what a file has in its first page. One that can't be read is a program. */
static enum kind kind_of(const char *path)
{
    char page[FIRST_PAGE];
    CLOSED int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    ssize_t got = fd < 0 ? 0 : read(fd, page, sizeof page);
    size_t length = got < 0 ? 0 : (size_t)got;
    if (begins_with(page, length, "#!"))
        return begins_with(page, length, script_head) ? DROP_IN : SCRIPT;
    bool is_copy = begins_with(page, length, ELFMAG) && memmem(page, length, note.mark, sizeof note.mark) != NULL;
    return is_copy ? DROP_IN : PROGRAM;
}

/* This program, another copy of it, or a script in its place; or else the launcher. */
static enum kind look_at(const char *path, const struct stat *status, const struct stat *own)
{
    char real[PATH_MAX];
    if (status->st_dev == own->st_dev && status->st_ino == own->st_ino)
        return DROP_IN;
    if (realpath(path, real) != NULL && strcmp(base_name(real), RUNNER) == 0)
        return DROP_IN;
    return kind_of(path);
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
            enum kind kind = look_at(launcher->path, &status, own);
            launcher->is_script = kind == SCRIPT;
            if (kind != DROP_IN)
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
        enum kind kind = look_at(name, &status, &own);
        launcher->is_script = kind == SCRIPT;
        found = kind != DROP_IN;
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

bool count_scripts(const struct launcher *launcher)
{
    const char *before = getenv(SCRIPTS_VARIABLE);
    int count = before == NULL ? 0 : atoi(before);
    if (!launcher->is_script)
        return unsetenv(SCRIPTS_VARIABLE) == 0;
    if (getenv("CDI_HPC_COMPILED") != NULL) /* counted before the plan was compiled */
        return true;
    if (count >= MOST_SCRIPTS) {
        say("error",
            "%s: this script executes %s, which is the drop-in that executes it (let it name the launcher by its path)",
            launcher->path, launcher->command);
        return false;
    }
    char number[16];
    snprintf(number, sizeof number, "%d", count < 0 ? 1 : count + 1);
    return setenv(SCRIPTS_VARIABLE, number, 1) == 0;
}
