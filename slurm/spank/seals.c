#include "seals.h"

#include "cache.h"
#include "closed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A seal is a line. */
enum { LINE = SEAL_DIGITS + 1, MOST_BYTES = 1024 * LINE };

/* What is full is kept once more: plans whose seals are in neither file are compiled again. */
static const char *const suffixes[] = {"", ".old"};

enum { CURRENT, OLD, FILES };

static void name_of(char name[32], uid_t uid, int which)
{
    snprintf(name, 32, "%u.seals%s", uid, suffixes[which]);
}

bool is_of_system(const char *plan)
{
    struct cache system = system_cache();
    size_t length = strlen(system.path);
    return strncmp(plan, system.path, length) == 0 && plan[length] == '/' && strchr(plan + length + 1, '/') == NULL;
}

/* Steps that add a seal at the same time may write more than MOST_BYTES: nobody waits for them with the file locked. */
static bool has_line(int fd, off_t size, const char *seal)
{
    char line[LINE + 1];
    size_t count = 0;
    FREED char *text = malloc((size_t)size + 1);
    if (text == NULL)
        return false;
    for (ssize_t got = 1; got > 0 && count < (size_t)size; count += got > 0 ? (size_t)got : 0)
        got = read(fd, text + count, (size_t)size - count);
    snprintf(line, sizeof line, "%s\n", seal);
    return memmem(text, count, line, LINE) != NULL;
}

bool seal_is_known(const struct site *site, uid_t uid, const char *seal)
{
    CLOSED int top = open(site->cache, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    for (int which = 0; top >= 0 && which < FILES; which++) {
        char name[32];
        struct stat status;
        name_of(name, uid, which);
        CLOSED int fd = openat(top, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == 0 &&
            (status.st_mode & (S_IWGRP | S_IWOTH)) == 0 && has_line(fd, status.st_size, seal))
            return true;
    }
    return false;
}

bool seal_becomes_known(const struct site *site, uid_t uid, const char *seal)
{
    const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
    for (int tries = 0; tries < 100; tries++) {
        if (seal_is_known(site, uid, seal))
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

/* Which errno stands in the way, or 0. slurmstepd has threads: only calls that signal-safety(7) allows, and snprintf. */
static int add_as_root(const struct site *site, uid_t uid, const char *seal)
{
    char name[32], old[32], line[LINE + 1];
    struct stat status;
    name_of(name, uid, CURRENT);
    name_of(old, uid, OLD);
    snprintf(line, sizeof line, "%s\n", seal);
    if (seteuid(0) < 0 || setegid(0) < 0)
        return errno;
    CLOSED int top = open(site->cache, O_DIRECTORY | O_NOFOLLOW | O_RDONLY | O_CLOEXEC);
    if (top < 0)
        return errno;
    if (fstatat(top, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_size >= MOST_BYTES &&
        renameat(top, name, top, old) < 0 && errno != ENOENT)
        return errno;
    CLOSED int fd = openat(top, name, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0 || fchmod(fd, 0644) < 0) /* whatever the umask */
        return errno;
    ssize_t written = write(fd, line, LINE);
    return written == LINE ? 0 : written < 0 ? errno : ENOSPC;
}

bool seal_add(const struct site *site, uid_t uid, const char *seal, struct plan_complaint *complaint)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        _exit(add_as_root(site, uid, seal));
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    int number = child < 0 ? errno : WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
    plan_complain(complaint, "%s/%u.seals: the plan can't be sealed: %s (ask the administrator: cache= in plugstack.conf)", site->cache, uid,
                  strerror(number));
    return false;
}
