#include "cache.h"

#include "closed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NOTE_SUFFIX ".passed-over"

static bool is_own_directory(const char *path)
{
    struct stat status;
    return path != NULL && path[0] == '/' && stat(path, &status) == 0 && S_ISDIR(status.st_mode) &&
           status.st_uid == geteuid();
}

static const char *chosen(void)
{
    const char *path = getenv("CDI_HPC_CACHE_DIRECTORY");
    return path == NULL ? "" : path;
}

bool cache_is_chosen(void)
{
    return chosen()[0] != '\0';
}

void cache_set_path(struct cache *cache, const char *path)
{
    int length = snprintf(cache->path, sizeof cache->path, "%s", path);
    if (length < 0 || (size_t)length >= sizeof cache->path)
        cache->path[0] = '\0';
    for (size_t end = strlen(cache->path); end > 0 && cache->path[end - 1] == '/'; end--)
        cache->path[end - 1] = '\0';
}

struct cache user_cache(void)
{
    struct cache cache = {.owner = geteuid(), .others = S_IRWXG | S_IRWXO};
    if (cache_is_chosen()) { /* what is no absolute path is for Python to refuse */
        cache_set_path(&cache, chosen()[0] == '/' && strchr(chosen(), '{') == NULL ? chosen() : "");
        return cache;
    }
    const char *runtime = getenv("XDG_RUNTIME_DIR"), *temporary = getenv("TMPDIR");
    int length;
    if (is_own_directory(runtime)) {
        length = snprintf(cache.path, sizeof cache.path, "%s/cdi-hpc", runtime);
    } else {
        const char *top = temporary != NULL && temporary[0] == '/' ? temporary : "/tmp";
        length = snprintf(cache.path, sizeof cache.path, "%s/cdi-hpc-%u", top, cache.owner);
    }
    /* Too long a path is no path: nothing is there. */
    if (length < 0 || (size_t)length >= sizeof cache.path)
        cache.path[0] = '\0';
    return cache;
}

struct cache system_cache(void)
{
    return (struct cache){.path = SYSTEM_CACHE, .owner = 0, .others = S_IWGRP | S_IWOTH, .is_systems = true};
}

static int open_directory(const struct cache *cache, struct plan_complaint *complaint)
{
    int fd = open(cache->path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        if (errno != ENOENT)
            plan_complain(complaint, "%s: not used for plans: %s", cache->path,
                          errno == ENOTDIR || errno == ELOOP ? "it is a link, or no directory" : strerror(errno));
        return -1;
    }
    struct stat status;
    if (fstat(fd, &status) < 0)
        plan_complain(complaint, "%s: not used for plans: %s", cache->path, strerror(errno));
    else if (status.st_uid != cache->owner)
        plan_complain(complaint, "%s: not used for plans: it belongs to user %u, not to %u", cache->path,
                      status.st_uid, cache->owner);
    else if ((status.st_mode & cache->others) != 0)
        plan_complain(complaint, "%s: not used for plans: others have access to it (mode %o)", cache->path,
                      status.st_mode & 07777U);
    else
        return fd;
    close(fd);
    return -1;
}

int cache_open_file(const struct cache *cache, const char *name, struct plan_complaint *complaint)
{
    complaint->text[0] = '\0';
    CLOSED int directory = open_directory(cache, complaint);
    if (directory < 0)
        return -1;
    int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        if (errno != ENOENT)
            plan_complain(complaint, "%s/%s: not used: %s", cache->path, name,
                          errno == ELOOP ? "it is a link" : strerror(errno));
        return -1;
    }
    struct stat status;
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
        plan_complain(complaint, "%s/%s: not used: it is not a regular file (remove it)", cache->path, name);
    else if (status.st_uid != cache->owner)
        plan_complain(complaint, "%s/%s: not used: it belongs to user %u, not to %u", cache->path, name,
                      status.st_uid, cache->owner);
    else if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        plan_complain(complaint, "%s/%s: not used: others may write to it (mode %o)", cache->path, name,
                      status.st_mode & 07777U);
    else if (status.st_nlink > 1) /* none is right: it was replaced this moment, and what we have is whole */
        plan_complain(complaint, "%s/%s: not used: it has other names (hard links)", cache->path, name);
    else
        return fd;
    close(fd);
    return -1;
}

int cache_open(const struct cache *cache, const char *key, struct plan_complaint *complaint)
{
    char name[PLAN_KEY_DIGITS + sizeof ".plan"];
    snprintf(name, sizeof name, "%s.plan", key);
    return cache_open_file(cache, name, complaint);
}

void cache_discard(const struct cache *cache, const char *key)
{
    struct plan_complaint complaint;
    char name[PLAN_KEY_DIGITS + sizeof ".plan"];
    CLOSED int directory = open_directory(cache, &complaint);
    snprintf(name, sizeof name, "%s.plan", key);
    if (directory >= 0) /* if it can't be removed, each launch finds out again */
        unlinkat(directory, name, 0);
}

/* A file whose time is what counts. */
static void name_note(const char *key, char name[PLAN_KEY_DIGITS + sizeof NOTE_SUFFIX])
{
    snprintf(name, PLAN_KEY_DIGITS + sizeof NOTE_SUFFIX, "%s%s", key, NOTE_SUFFIX);
}

static bool is_made_since(const struct cache *system, const char *key, const struct stat *note)
{
    struct plan_complaint complaint;
    CLOSED int fd = cache_open(system, key, &complaint);
    struct stat plan;
    if (fd < 0 || fstat(fd, &plan) < 0)
        return true;
    return plan.st_ctim.tv_sec != note->st_mtim.tv_sec ? plan.st_ctim.tv_sec > note->st_mtim.tv_sec
                                                       : plan.st_ctim.tv_nsec > note->st_mtim.tv_nsec;
}

void cache_pass_over(const struct cache *own, const char *key)
{
    struct plan_complaint complaint;
    char name[PLAN_KEY_DIGITS + sizeof NOTE_SUFFIX];
    name_note(key, name);
    if (mkdir(own->path, S_IRWXU) == 0)
        chmod(own->path, S_IRWXU); /* whatever the umask */
    CLOSED int directory = open_directory(own, &complaint);
    if (directory < 0) /* then each launch finds out again, as where a plan can't be removed */
        return;
    CLOSED int fd = openat(directory, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd >= 0)
        futimens(fd, NULL);
}

bool cache_is_passed_over(const struct cache *own, const struct cache *system, const char *key)
{
    struct plan_complaint complaint;
    struct stat note;
    char name[PLAN_KEY_DIGITS + sizeof NOTE_SUFFIX];
    name_note(key, name);
    CLOSED int directory = open_directory(own, &complaint);
    return directory >= 0 && fstatat(directory, name, &note, AT_SYMLINK_NOFOLLOW) == 0 &&
           !is_made_since(system, key, &note);
}
