/* Launches that share one container: only the first of them applies the plan (Python: launch/peers.py, which says why,
 * and why the lock is where it is).
 *
 * Which is the first is known by a file that the launcher makes when it begins the container. Until it is there, the
 * first one has a lock, at last in a process that outlives this program: descriptors of ours end when the launcher is
 * executed. Not before that, or who can't use the plan and goes on without one would wait for himself.
 * That process notes in the lock's file, as "DEVICE:INODE EDITS DEVICES", which file the launcher made and for what.
 */
#include "closed.h"
#include "plan.h"
#include "sha256.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define LOCK_SUFFIX ".peers.lock"

enum {
    PAUSE_NS = 1000000,       /* between two looks at the file */
    PATIENCE_S = 30,          /* for the launcher to make it */
    MAX_NOTE = PLAN_MAX_PATH, /* bytes: more devices are not named */
    MAX_IDENTITY = 48,        /* two numbers with a colon between them */
    DONE_S = 3600,            /* after that, nobody looks for a note any more */
    LOCK = 0,                 /* where the process that waits has the lock, */
    WATCH = 1,                /* and what tells of new files */
    MAX_DESCRIPTORS = 1 << 16 /* that are closed: more are no pipe that somebody waits for the end of */
};

/* Which file it is, or "" if there is none. */
static void identify(const char *path, char identity[MAX_IDENTITY])
{
    struct stat status;
    identity[0] = '\0';
    if (lstat(path, &status) == 0)
        snprintf(identity, MAX_IDENTITY, "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
}

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
}

/* The launcher's file. False if its path is too long. */
static bool name_file(const struct plan_sharing *peers, char *path, size_t size)
{
    const char *value = peers->variable[0] != '\0' ? getenv(peers->variable) : "";
    int length = value != NULL ? snprintf(path, size, "%s%s", peers->prefix, value)
                               : snprintf(path, size, "%s%ld", peers->prefix, (long)getppid());
    return length > 0 && (size_t)length < size;
}

/* The directory of locks: beside the launcher's file. False if its path is too long. */
static bool name_directory(const char *path, char *directory, size_t size)
{
    int length = snprintf(directory, size, "%.*s/cdi-hpc-%u", (int)(strrchr(path, '/') - path), path, geteuid());
    return length > 0 && (size_t)length < size;
}

static bool cant_wait(struct plan_complaint *complaint, const char *path, const char *reason)
{
    plan_complain(complaint, "%s: launches that share a container can't wait for each other there: %s", path, reason);
    return false;
}

/* Anybody could have made it. */
static bool is_ours_alone(int directory, const char *path, struct plan_complaint *complaint)
{
    struct stat status;
    char reason[128] = "";
    if (fstat(directory, &status) < 0)
        return cant_wait(complaint, path, strerror(errno));
    if (status.st_uid != geteuid())
        snprintf(reason, sizeof reason, "it belongs to user %u (ask him or the administrator to remove it)", status.st_uid);
    else if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        snprintf(reason, sizeof reason, "others have access to it (chmod 700 it)");
    return reason[0] == '\0' || cant_wait(complaint, path, reason);
}

/* The directory of locks, made if it is not there, or -1. */
static int open_directory(const char *path, struct plan_complaint *complaint)
{
    char name[PLAN_MAX_PATH];
    if (!name_directory(path, name, sizeof name)) {
        cant_wait(complaint, path, strerror(ENAMETOOLONG));
        return -1;
    }
    if (mkdir(name, S_IRWXU) == 0)
        chmod(name, S_IRWXU); /* whatever the umask */
    int directory = open(name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0)
        cant_wait(complaint, name, errno == ENOTDIR ? "it is a link, or no directory" : strerror(errno));
    else if (is_ours_alone(directory, name, complaint))
        return directory;
    else
        close(directory);
    return -1;
}

static int open_lock(int directory, const char *path, struct plan_complaint *complaint)
{
    struct sha256 hash;
    char digits[65], name[sizeof digits + sizeof LOCK_SUFFIX];
    sha256_begin(&hash);
    sha256_add(&hash, path, strlen(path));
    sha256_finish(&hash, digits);
    snprintf(name, sizeof name, "%.32s%s", digits, LOCK_SUFFIX);
    int lock = openat(directory, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (lock >= 0 && fchmod(lock, S_IRUSR | S_IWUSR) == 0) /* whatever the umask */
        return lock;
    cant_wait(complaint, path, strerror(errno));
    close_descriptor(&lock);
    return -1;
}

/* Lock, together with others if the launcher's file is there and alone if not; and which file that is. False if the
 * file system takes no lock. */
static bool take_lock(int lock, const char *path, char identity[MAX_IDENTITY])
{
    for (;; pause_briefly()) {
        char now[MAX_IDENTITY];
        identify(path, identity);
        if (flock(lock, (identity[0] != '\0' ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0) {
            identify(path, now);
            if (strcmp(now, identity) == 0)
                return true;
            flock(lock, LOCK_UN); /* it came or went this moment */
        } else if (errno != EWOULDBLOCK && errno != EINTR) {
            return false;
        }
    }
}

static bool is_removed(int lock)
{
    struct stat status;
    return fstat(lock, &status) == 0 && status.st_nlink == 0;
}

/* The lock of the container with this file, and which file that is; or -1. */
static int lock_container(const char *path, char identity[MAX_IDENTITY], struct plan_complaint *complaint)
{
    CLOSED int directory = open_directory(path, complaint);
    while (directory >= 0) {
        int lock = open_lock(directory, path, complaint);
        if (lock < 0)
            return -1;
        if (!take_lock(lock, path, identity))
            cant_wait(complaint, path, strerror(errno));
        else if (!is_removed(lock))
            return lock;
        else { /* it was taken for an old one this moment */
            close(lock);
            continue;
        }
        close(lock);
        return -1;
    }
    return -1;
}

/* The others --------------------------------------------------------------------------------------------------------- */

/* Cut a text at its first blank; returns what comes after that. */
static char *cut(char *text)
{
    char *blank = strchr(text, ' ');
    if (blank == NULL)
        return text + strlen(text);
    *blank = '\0';
    return blank + 1;
}

/* Whether the container has what this plan is for. */
static bool has_the_same(int lock, const char *path, const char *identity, const struct plan_sharing *peers,
                         struct plan_complaint *complaint)
{
    char note[MAX_NOTE + 1];
    ssize_t length = pread(lock, note, MAX_NOTE, 0);
    note[length > 0 ? length : 0] = '\0';
    char *edits = cut(note), *devices = cut(edits);
    static const char begun[] = "the container that is shared",
                      fix[] = "ask for the same devices, or begin another container";
    if (strcmp(note, identity) != 0)
        plan_complain(complaint, "%s: %s was begun without devices, or has ended, and %s was asked for (%s)", path, begun,
                      peers->devices, fix);
    else if (strcmp(edits, peers->edits) == 0)
        return true;
    else if (strcmp(devices, peers->devices) == 0)
        plan_complain(complaint, "%s: %s has another %s than was asked for (%s)", path, begun, devices, fix);
    else
        plan_complain(complaint, "%s: %s has %s, and %s was asked for (%s)", path, begun, devices, peers->devices, fix);
    return false;
}

/* The first ----------------------------------------------------------------------------------------------------------- */

/* A descriptor that tells of every new name in the file's directory, or -1: looking now and then would miss a file that
 * is taken away again at once, as that of a container for one process is. */
static int watch_directory(const char *path)
{
    char directory[PLAN_MAX_PATH];
    int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    snprintf(directory, sizeof directory, "%.*s/", (int)(strrchr(path, '/') - path), path);
    if (watch >= 0 && inotify_add_watch(watch, directory, IN_CREATE | IN_MOVED_TO) < 0)
        close_descriptor(&watch);
    return watch;
}

/* Whether the name was made since the last time. */
static bool was_made(int watch, const char *name)
{
    _Alignas(struct inotify_event) char events[MAX_NOTE];
    bool made = false;
    for (ssize_t length; (length = read(watch, events, sizeof events)) > 0;)
        for (const char *at = events; at < events + length;) {
            const struct inotify_event *event = (const void *)at;
            made = made || (event->len > 0 && strcmp(event->name, name) == 0);
            at += sizeof *event + event->len;
        }
    return made;
}

/* Which file the launcher made, or "" for none: what is there once the launcher has ended may be the next one's. */
static void wait_until_made(const char *path, pid_t launcher, int watch, char identity[MAX_IDENTITY])
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    for (time_t end = now.tv_sec + PATIENCE_S; now.tv_sec < end; clock_gettime(CLOCK_MONOTONIC, &now)) {
        bool made = was_made(watch, strrchr(path, '/') + 1);
        identify(path, identity);
        if (kill(launcher, 0) < 0)
            break;
        if (made || identity[0] != '\0')
            return;
        pause_briefly();
    }
    identity[0] = '\0';
}

/* What who comes later has to ask for. */
static void write_note(int lock, const char *identity, const struct plan_sharing *peers)
{
    if (identity[0] != '\0' && ftruncate(lock, 0) == 0)
        dprintf(lock, "%s %s %s", identity, peers->edits, peers->devices);
}

static bool is_done(int directory, const char *name)
{
    struct stat status;
    size_t length = strlen(name), suffix = strlen(LOCK_SUFFIX);
    return length > suffix && strcmp(name + length - suffix, LOCK_SUFFIX) == 0 &&
           fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && time(NULL) - status.st_mtime > DONE_S;
}

/* Take away locks of containers that are long there: their files may lie in memory. */
static void remove_done(const char *path)
{
    char name[PLAN_MAX_PATH];
    DIR *directory = name_directory(path, name, sizeof name) ? opendir(name) : NULL;
    if (directory == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (!is_done(dirfd(directory), entry->d_name))
            continue;
        CLOSED int lock = openat(dirfd(directory), entry->d_name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0)
            unlinkat(dirfd(directory), entry->d_name, 0);
    }
    closedir(directory);
}

static _Noreturn void keep_lock(int lock, int watch, const char *path, const struct plan_sharing *peers, pid_t launcher)
{
    char identity[MAX_IDENTITY];
    /* Out of the way of the numbers wanted first. */
    int from[] = {fcntl(lock, F_DUPFD, WATCH + 1), fcntl(watch, F_DUPFD, WATCH + 1)};
    if (from[0] >= 0 && dup2(from[0], LOCK) == LOCK) {
        close(WATCH);
        dup2(from[1], WATCH);
        for (int fd = WATCH + 1; fd < MAX_DESCRIPTORS; fd++)
            close(fd);
        wait_until_made(path, launcher, WATCH, identity);
        write_note(LOCK, identity, peers);
        close(LOCK);
        remove_done(path);
    }
    _exit(0);
}

/* Keep the lock in a process that nobody waits for, until the launcher, which we become, made its file or ended. */
static bool hold_until_made(int lock, const char *path, const struct plan_sharing *peers)
{
    CLOSED int watch = watch_directory(path);
    pid_t launcher = getpid(), child = fork();
    if (child < 0)
        return false;
    if (child > 0)
        return waitpid(child, NULL, 0) == child;
    if (fork() == 0)
        keep_lock(lock, watch, path, peers, launcher);
    _exit(0);
}

bool plan_is_first(struct plan *plan, bool *first, struct plan_complaint *complaint)
{
    struct plan_sharing *peers = &plan->peers;
    char path[PLAN_MAX_PATH], identity[MAX_IDENTITY];
    *first = true;
    if (peers->prefix == NULL)
        return true;
    if (!name_file(peers, path, sizeof path))
        return cant_wait(complaint, peers->prefix, strerror(ENAMETOOLONG));
    CLOSED int lock = lock_container(path, identity, complaint);
    if (lock < 0)
        return false;
    *first = identity[0] == '\0';
    if (!*first)
        return has_the_same(lock, path, identity, peers, complaint);
    peers->is_locked = true;
    peers->lock = lock;
    lock = -1;
    return true;
}

bool plan_hold_others(const struct plan *plan, struct plan_complaint *complaint)
{
    const struct plan_sharing *peers = &plan->peers;
    char path[PLAN_MAX_PATH];
    if (!peers->is_locked || (name_file(peers, path, sizeof path) && hold_until_made(peers->lock, path, peers)))
        return true;
    return cant_wait(complaint, path, strerror(errno));
}
