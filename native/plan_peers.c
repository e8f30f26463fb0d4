/* Launches that share one container: only the first of them applies the plan (Python: launch/peers.py, which says why).
 *
 * Which is the first is known by a file that the launcher makes when it begins the container. Until it is there, the
 * first one has a lock, in a process that outlives this program: descriptors of ours end when the launcher is executed.
 */
#include "closed.h"
#include "plan.h"
#include "sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum {
    PAUSE_NS = 1000000,       /* between two looks at the file */
    PATIENCE_S = 30,          /* for the launcher to make it */
    MAX_DESCRIPTORS = 1 << 16 /* that are closed: more are no pipe that somebody waits for the end of */
};

static bool is_there(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0;
}

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
}

/* The launcher's file. False if its path is too long. */
static bool name_file(const struct plan *plan, char *path, size_t size)
{
    const char *const *peers = plan->peers;
    const char *value = peers[1][0] != '\0' ? getenv(peers[1]) : "";
    int length = value != NULL ? snprintf(path, size, "%s%s", peers[0], value)
                               : snprintf(path, size, "%s%ld", peers[0], (long)getppid());
    return length > 0 && (size_t)length < size;
}

static int open_lock(const char *directory, const char *path)
{
    struct sha256 hash;
    char digits[65], name[PLAN_MAX_PATH];
    sha256_begin(&hash);
    sha256_add(&hash, path, strlen(path));
    sha256_finish(&hash, digits);
    int length = snprintf(name, sizeof name, "%s/%.32s.peers.lock", directory, digits);
    if (length < 0 || (size_t)length >= sizeof name) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
}

static void wait_until_made(const char *path, pid_t launcher)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    for (time_t end = now.tv_sec + PATIENCE_S; now.tv_sec < end; clock_gettime(CLOCK_MONOTONIC, &now)) {
        if (is_there(path) || kill(launcher, 0) < 0)
            return;
        pause_briefly();
    }
}

/* Keep the lock in a process that nobody waits for, until the launcher, which we become, made its file or ended. */
static bool hold_until_made(int lock, const char *path)
{
    pid_t launcher = getpid(), child = fork();
    if (child < 0)
        return false;
    if (child > 0)
        return waitpid(child, NULL, 0) == child;
    if (fork() == 0 && dup2(lock, STDIN_FILENO) == STDIN_FILENO) {
        for (int fd = STDIN_FILENO + 1; fd < MAX_DESCRIPTORS; fd++)
            close(fd);
        wait_until_made(path, launcher);
    }
    _exit(0);
}

bool plan_is_first(const struct plan *plan, const char *directory, bool *first, struct plan_complaint *complaint)
{
    *first = true;
    if (plan->peers[0] == NULL)
        return true;
    char path[PLAN_MAX_PATH];
    CLOSED int lock = name_file(plan, path, sizeof path) ? open_lock(directory, path) : -1;
    if (lock < 0) {
        plan_complain(complaint, "%s: others can't be waited for: %s", plan->peers[0], strerror(errno));
        return false;
    }
    while (!is_there(path) && flock(lock, LOCK_EX | LOCK_NB) < 0)
        pause_briefly();
    *first = !is_there(path);
    if (!*first || hold_until_made(lock, path))
        return true;
    plan_complain(complaint, "%s: others can't be made to wait: %s", path, strerror(errno));
    return false;
}
