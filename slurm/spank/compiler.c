#include "compiler.h"

#include "closed.h"
#include "seals.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Exit statuses of a child that did not come to execute its program; those of a program are lower. */
enum { NOT_THE_USER = 200, NO_DESCRIPTORS, NOT_EXECUTED };

/* Exit status of `cdi-hpc-run --print-plan` where there is no fresh plan, and of `cdi-hpc compile --seal` where somebody
 * else has written it meanwhile. */
enum { NO_PLAN = 1 };

enum { STDOUT, STDERR, STREAMS, TEXT = 2 * PLAN_MAX_PATH };

struct answer {
    int status; /* of waitpid(2) */
    char text[STREAMS][TEXT];
};

/* A plan, as the programs name it. */
struct found {
    char seal[SEAL_DIGITS + 1];
    char path[PLAN_MAX_PATH];
};

/* The child ---------------------------------------------------------------------------------------------------------
 *
 * slurmstepd has threads, so until exec only calls that signal-safety(7) allows are made. In user_init its effective
 * ids are the user's and the others root's: a program could become root again. */

/* Rights that do nothing here. The kernel lets no process debug another that has a capability more than itself
 * (cap_ptrace_access_check): with one of these, what plans for a step is out of reach of its user's other processes. */
static const int harmless[] = {CAP_WAKE_ALARM, CAP_BLOCK_SUSPEND, CAP_AUDIT_WRITE, CAP_NET_BIND_SERVICE};

static bool set_capabilities(uint64_t kept)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {
        {.permitted = (uint32_t)kept, .inheritable = (uint32_t)kept},
        {.permitted = (uint32_t)(kept >> 32), .inheritable = (uint32_t)(kept >> 32)},
    };
    return syscall(SYS_capset, &header, data) == 0;
}

/* Of what root could do, one of these, for the program as well; nothing where slurmstepd has none of them. */
static bool keep_harmless_right(void)
{
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (set_capabilities(UINT64_C(1) << harmless[i]))
            return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, harmless[i], 0, 0) == 0 || set_capabilities(0);
    return set_capabilities(0);
}

static bool become_user(struct job job)
{
    if (getuid() == 0 && geteuid() != 0 && seteuid(0) < 0)
        return false;
    bool is_root = geteuid() == 0 && job.uid != 0;
    if (is_root && prctl(PR_SET_KEEPCAPS, 1) < 0)
        return false;
    /* Supplementary groups are the user's already. */
    if (geteuid() == 0 && (setresgid(job.gid, job.gid, job.gid) < 0 || setresuid(job.uid, job.uid, job.uid) < 0))
        return false;
    if (is_root && !keep_harmless_right())
        return false;
    uid_t uid[3];
    gid_t gid[3];
    return getresuid(&uid[0], &uid[1], &uid[2]) == 0 && getresgid(&gid[0], &gid[1], &gid[2]) == 0 &&
           uid[0] == job.uid && uid[1] == job.uid && uid[2] == job.uid && gid[0] == job.gid &&
           gid[1] == job.gid && gid[2] == job.gid && (job.uid == 0 || setuid(0) < 0);
}

static void restore_signals(void)
{
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL); /* those that can't be changed are what they are */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void close_from(int first)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, first, ~0U, 0) == 0)
        return;
#endif
    for (long fd = first, end = sysconf(_SC_OPEN_MAX); fd < end; fd++)
        close((int)fd);
}

static _Noreturn void be_program(struct job job, char *const *words, char *const *environment, const int *streams)
{
    if (!become_user(job))
        _exit(NOT_THE_USER);
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* after the ids: changing those undoes it */
    restore_signals();
    int nothing = open("/dev/null", O_RDONLY);
    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(streams[STDOUT], STDOUT_FILENO) < 0 ||
        dup2(streams[STDERR], STDERR_FILENO) < 0)
        _exit(NO_DESCRIPTORS);
    close_from(STDERR_FILENO + 1);
    umask(077);
    /* slurmstepd must not be killed for want of memory; we may. */
    int score = open("/proc/self/oom_score_adj", O_WRONLY);
    if (score >= 0 && (write(score, "0", 1) < 0 || close(score) < 0))
        _exit(NO_DESCRIPTORS);
    execve(words[0], words, environment);
    _exit(NOT_EXECUTED);
}

/* The parent -------------------------------------------------------------------------------------------------------- */

static int milliseconds_until(const struct timespec *deadline)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long long left = (deadline->tv_sec - now.tv_sec) * 1000LL + (deadline->tv_nsec - now.tv_nsec) / 1000000;
    return left < 0 ? 0 : (int)left;
}

/* Take what is there on one stream; false at its end. What is too long is cut off. */
static bool drain(int fd, char *text, size_t *used)
{
    char beyond[1024];
    size_t room = TEXT - 1 - *used;
    ssize_t count = read(fd, room > 0 ? text + *used : beyond, room > 0 ? room : sizeof beyond);
    if (count > 0 && room > 0)
        *used += (size_t)count;
    return count > 0 || (count < 0 && errno == EINTR);
}

/* Read both streams to their ends; false if that takes too long. */
static bool listen_to(const int *streams, struct answer *answer, const struct timespec *deadline)
{
    struct pollfd waiting[STREAMS] = {{streams[STDOUT], POLLIN, 0}, {streams[STDERR], POLLIN, 0}};
    size_t used[STREAMS] = {0, 0};
    while (waiting[STDOUT].fd >= 0 || waiting[STDERR].fd >= 0) {
        int ready = poll(waiting, STREAMS, milliseconds_until(deadline));
        if (ready == 0)
            return false;
        for (int i = 0; ready > 0 && i < STREAMS; i++)
            if (waiting[i].revents != 0 && !drain(waiting[i].fd, answer->text[i], &used[i]))
                waiting[i].fd = -1;
    }
    return true;
}

/* Wait for the child; false if that takes too long. A program closes its streams when it ends, or before. */
static bool wait_for(pid_t child, int *status, const struct timespec *deadline)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    for (;;) {
        pid_t ended = waitpid(child, status, WNOHANG);
        if (ended == child || (ended < 0 && errno != EINTR))
            return ended == child;
        if (milliseconds_until(deadline) == 0)
            return false;
        nanosleep(&pause, NULL);
    }
}

static void say_not_executed(const char *program, int status, struct plan_complaint *complaint)
{
    struct stat found;
    if (status == NOT_THE_USER)
        plan_complain(complaint, "%s: not executed: this process can't become the job's user", program);
    else if (status == NO_DESCRIPTORS)
        plan_complain(complaint, "%s: not executed: there are no descriptors for it", program);
    else
        plan_complain(complaint, "%s: can't be executed: %s (install cdi-hpc on this node, or correct plugstack.conf)",
                      program, stat(program, &found) < 0 ? strerror(errno) : "it is no program, or not for the job's user");
}

/* Start a program as the user. Returns the child, or -1; `streams` are then to be read. */
static pid_t start(struct job job, char *const *words, char *const *environment, int *streams)
{
    int out[2], err[2];
    if (pipe2(out, O_CLOEXEC) < 0)
        return -1;
    if (pipe2(err, O_CLOEXEC) < 0) {
        close(out[0]);
        close(out[1]);
        return -1;
    }
    pid_t child = fork();
    if (child == 0)
        be_program(job, words, environment, (const int[]){out[1], err[1]});
    close(out[1]);
    close(err[1]);
    streams[STDOUT] = out[0];
    streams[STDERR] = err[0];
    return child;
}

/* Run a program as the user, at most for the site's time. False with a complaint if it did not come to exit. */
static bool run(const struct site *site, struct job job, char *const *words, char *const *environment,
                struct answer *answer, struct plan_complaint *complaint)
{
    struct timespec deadline;
    int streams[STREAMS] = {-1, -1};
    *answer = (struct answer){0};
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += site->timeout;
    pid_t child = start(job, words, environment, streams);
    CLOSED int out = streams[STDOUT], err = streams[STDERR];
    if (child < 0) {
        plan_complain(complaint, "%s: can't be started: %s", words[0], strerror(errno));
        return false;
    }
    bool ended = listen_to((const int[]){out, err}, answer, &deadline) && wait_for(child, &answer->status, &deadline);
    /* Its whole session: what it may have left behind, too. */
    kill(-child, SIGKILL);
    if (!ended) {
        kill(child, SIGKILL);
        while (waitpid(child, &answer->status, 0) < 0 && errno == EINTR)
            ;
        plan_complain(complaint, "%s: it has not ended within %d s (timeout= in plugstack.conf)", words[0], site->timeout);
        return false;
    }
    if (WIFSIGNALED(answer->status)) {
        plan_complain(complaint, "%s: it was ended by signal %d", words[0], WTERMSIG(answer->status));
        return false;
    }
    if (WEXITSTATUS(answer->status) >= NOT_THE_USER) {
        say_not_executed(words[0], WEXITSTATUS(answer->status), complaint);
        return false;
    }
    return true;
}

/* Command lines ----------------------------------------------------------------------------------------------------- */

enum { MOST_WORDS = 4096, OPTION = PLAN_MAX_PATH + 16 };

/* A command line that is put together; `overflow` once there was no room or memory for a word. */
struct line {
    char *word[MOST_WORDS];
    size_t count;
    bool overflow;
};

static void add(struct line *line, const char *prefix, const char *value)
{
    char *word = NULL;
    if (line->count + 1 >= MOST_WORDS || asprintf(&word, "%s%s", prefix, value) < 0)
        line->overflow = true;
    else
        line->word[line->count++] = word;
}

static void free_line(struct line *line)
{
    for (size_t i = 0; i < line->count; i++)
        free(line->word[i]);
}

static void add_site(struct line *line, const struct site *site)
{
    for (size_t i = 0; i < site->cdi_dir_count; i++)
        add(line, "--cdi-dir=", site->cdi_dirs[i]);
}

static void add_grant(struct line *line, const struct wish *wish)
{
    if (wish->gpus != NULL)
        add(line, "--gres=gpu=", wish->gpus);
}

static void find_line(struct line *line, const struct site *site, const struct wish *wish)
{
    add(line, site->runner, "");
    add(line, "--print-plan", "");
    if (wish->is_handoff)
        add(line, "--handoff", "");
    add_grant(line, wish);
    for (size_t i = 0; wish->devices.name[i] != NULL; i++)
        add(line, "--device=", wish->devices.name[i]);
    add_site(line, site);
    add(line, "--", "");
    add(line, wish->image, "");
    add(line, "--", "");
    add(line, "true", ""); /* the command is not part of a plan, but of a command line */
}

static void compile_line(struct line *line, const struct site *site, const struct wish *wish)
{
    add(line, site->compiler, "");
    add(line, "compile", "");
    add(line, "--seal", "");
    if (wish->is_anew)
        add(line, "--anew", "");
    if (wish->is_handoff)
        add(line, "--handoff", "");
    add_grant(line, wish);
    add(line, "--image=", wish->image);
    add_site(line, site);
    add(line, "--", "");
    for (size_t i = 0; wish->devices.name[i] != NULL; i++)
        add(line, wish->devices.name[i], "");
}

/* Nothing of slurmstepd's environment or of the job's. The node's number is for a program of the site's in their place. */
static void environment_lines(struct line *line, const struct site *site, struct job job)
{
    char directory[PLAN_MAX_PATH + 16], number[16];
    add(line, "PATH=", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    add(line, "LC_ALL=", "C.UTF-8");
    add(line, "PYTHONNOUSERSITE=", "1"); /* without HOME, Python finds ~/.local by the number of the user */
    snprintf(number, sizeof number, "%u", job.node);
    add(line, "SLURM_NODEID=", number);
    if (site->cache == NULL)
        return;
    snprintf(directory, sizeof directory, "%s/%u", site->cache, job.uid);
    add(line, "XDG_RUNTIME_DIR=", directory);
}

/* What it says ------------------------------------------------------------------------------------------------------ */

/* The program's errors without its name before each; all it said where none is marked as one. */
static void take_errors(const char *program, char *said, struct plan_complaint *complaint)
{
    static const char mark[] = "cdi-hpc: error: ";
    size_t used = 0;
    complaint->text[0] = '\0';
    char *rest = said, *last = NULL;
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        last = *line != '\0' ? line : last;
        if (strncmp(line, mark, strlen(mark)) != 0 || used + strlen(line) + 2 > sizeof complaint->text)
            continue;
        used += (size_t)snprintf(complaint->text + used, sizeof complaint->text - used, "%s%s", used > 0 ? "\n" : "",
                                 line + strlen(mark));
    }
    if (used == 0)
        plan_complain(complaint, "%s: it has failed: %.1024s", program, last != NULL ? last : "it does not say why");
}

/* SHA-256, two spaces, one absolute path and a newline. What the path leads to is the tasks' to find out, who are the
 * user's. */
static bool take_plan(const char *program, const char *said, struct found *found, struct plan_complaint *complaint)
{
    const char *path = said + SEAL_DIGITS + 2;
    bool good = strspn(said, "0123456789abcdef") == SEAL_DIGITS && strncmp(said + SEAL_DIGITS, "  /", 3) == 0;
    size_t length = good ? strcspn(path, "\n") : 0;
    if (!good || path[length] != '\n' || path[length + 1] != '\0' || length >= sizeof found->path) {
        plan_complain(complaint, "%s: it has not answered with the path of a plan", program);
        return false;
    }
    snprintf(found->seal, sizeof found->seal, "%.*s", SEAL_DIGITS, said);
    snprintf(found->path, sizeof found->path, "%.*s", (int)length, path);
    return true;
}

typedef void line_maker(struct line *, const struct site *, const struct wish *);

static bool ask(line_maker *make, const struct site *site, struct job job, const struct wish *wish,
                struct answer *answer, struct plan_complaint *complaint)
{
    struct line words = {.count = 0}, environment = {.count = 0};
    make(&words, site, wish);
    environment_lines(&environment, site, job);
    bool good = !words.overflow && !environment.overflow;
    if (good)
        good = run(site, job, words.word, environment.word, answer, complaint);
    else
        plan_complain(complaint, "--cdi: too many devices");
    free_line(&words);
    free_line(&environment);
    return good;
}

enum outcome { FOUND, NONE, FAILED };

/* Ask one of the two programs for a plan. */
static enum outcome seek(line_maker *make, const struct site *site, struct job job, const struct wish *wish,
                         struct found *found, struct plan_complaint *complaint)
{
    struct answer answer;
    const char *program = make == find_line ? site->runner : site->compiler;
    if (!ask(make, site, job, wish, &answer, complaint))
        return FAILED;
    if (WEXITSTATUS(answer.status) == 0)
        return take_plan(program, answer.text[STDOUT], found, complaint) ? FOUND : FAILED;
    if (WEXITSTATUS(answer.status) == NO_PLAN && (make == find_line || answer.text[STDERR][0] == '\0'))
        return NONE;
    take_errors(program, answer.text[STDERR], complaint);
    return FAILED;
}

static bool is_believed(const struct site *site, struct job job, const struct found *found)
{
    return !job.is_sealed || is_of_system(found->path) || seal_is_known(site, job.uid, found->seal);
}

/* A plan is compiled now; what comes of it is sealed. */
static enum outcome compile(const struct site *site, struct job job, const struct wish *wish, struct found *found,
                            struct plan_complaint *complaint)
{
    enum outcome outcome = seek(compile_line, site, job, wish, found, complaint);
    if (outcome == FOUND && job.is_sealed && !seal_add(site, job.uid, found->seal, complaint))
        return FAILED;
    return outcome;
}

/* Another step, or the user, has written the plan at the same time. A step's is sealed in a moment. */
static bool is_anothers(const struct site *site, struct job job, const struct wish *wish, struct found *found,
                        struct plan_complaint *complaint)
{
    return seek(find_line, site, job, wish, found, complaint) == FOUND &&
           (is_believed(site, job, found) || seal_becomes_known(site, job.uid, found->seal));
}

bool find_plan(const struct site *site, struct job job, const struct wish *wish, char path[PLAN_MAX_PATH],
               struct plan_complaint *complaint)
{
    struct found found;
    struct wish insisting = *wish;
    insisting.is_anew = true;
    enum outcome outcome = seek(find_line, site, job, wish, &found, complaint);
    if (outcome == FOUND && !is_believed(site, job, &found))
        outcome = NONE;
    if (outcome == NONE)
        outcome = compile(site, job, wish, &found, complaint);
    if (outcome == NONE && is_anothers(site, job, wish, &found, complaint))
        outcome = FOUND;
    if (outcome == NONE)
        outcome = compile(site, job, &insisting, &found, complaint);
    if (outcome == NONE)
        plan_complain(complaint, "%s: it has not answered with the path of a plan", site->compiler);
    if (outcome != FOUND)
        return false;
    memcpy(path, found.path, sizeof found.path);
    return true;
}

/* Directories -------------------------------------------------------------------------------------------------------- */

bool make_user_cache(const struct site *site, struct job job, struct plan_complaint *complaint)
{
    if (site->cache == NULL)
        return true;
    if (mkdir(site->cache, 0755) == 0)
        chmod(site->cache, 0755); /* whatever the umask; if it fails, the user will say what he can't do */
    CLOSED int top = open(site->cache, O_DIRECTORY | O_NOFOLLOW | O_RDONLY | O_CLOEXEC);
    struct stat status;
    char name[16];
    snprintf(name, sizeof name, "%u", job.uid);
    if (top < 0 || fstat(top, &status) < 0) {
        plan_complain(complaint, "%s: no directory for plans: %s (cache= in plugstack.conf)", site->cache, strerror(errno));
        return false;
    }
    if (status.st_uid != geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        plan_complain(complaint, "%s: not used for plans: others may write to it (cache= in plugstack.conf)", site->cache);
        return false;
    }
    if (mkdirat(top, name, 0700) == 0 && fchownat(top, name, job.uid, job.gid, AT_SYMLINK_NOFOLLOW) == 0)
        return true;
    if (errno == EEXIST && fstatat(top, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode) &&
        status.st_uid == job.uid)
        return true;
    plan_complain(complaint, "%s/%s: no directory for the user's plans: %s", site->cache, name, strerror(errno));
    return false;
}
