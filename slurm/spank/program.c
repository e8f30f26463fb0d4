#include "program.h"

#include "closed.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Exit statuses of a child that did not come to execute its program; those of a program are lower. */
enum { NOT_THE_USER = 200, PROTECTED, NO_DESCRIPTORS, NOT_EXECUTED };

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

static bool become_root(void)
{
    return getuid() != 0 || geteuid() == 0 || seteuid(0) == 0;
}

/* slurmstepd must not be killed for want of memory; we may. Before the ids change: after that the file is root's. */
static bool can_be_killed(void)
{
    static const char path[] = "/proc/self/oom_score_adj";
    CLOSED int score = open(path, O_RDONLY | O_CLOEXEC);
    char sign;
    if (score < 0 || read(score, &sign, 1) != 1)
        return false;
    CLOSED int other = sign == '-' ? open(path, O_WRONLY | O_CLOEXEC) : -1;
    return sign != '-' || (other >= 0 && write(other, "0", 1) == 1);
}

static bool become_user(struct job job)
{
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
    if (!become_root())
        _exit(NOT_THE_USER);
    if (!can_be_killed())
        _exit(PROTECTED);
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
    size_t room = PROGRAM_TEXT - 1 - *used;
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
    else if (status == PROTECTED)
        plan_complain(complaint, "%s: not executed: slurmstepd's protection from want of memory can't be given up", program);
    else if (status == NO_DESCRIPTORS)
        plan_complain(complaint, "%s: not executed: there are no descriptors for it", program);
    else
        plan_complain(complaint, "%s: can't be executed: %s (install cdi-hpc on this node, or correct plugstack.conf)",
                      program, stat(program, &found) < 0 ? strerror(errno) : "it is no program, or not for the job's user");
}

/* In the parent: start it. */
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

bool program_start(struct program *program, const struct site *site, struct job job, char *const *words,
                   char *const *environment, struct plan_complaint *complaint)
{
    *program = (struct program){.name = words[0], .timeout = site->timeout, .streams = {-1, -1}};
    clock_gettime(CLOCK_MONOTONIC, &program->deadline);
    program->deadline.tv_sec += site->timeout;
    program->child = start(job, words, environment, program->streams);
    if (program->child > 0)
        return true;
    plan_complain(complaint, "%s: can't be started: %s", words[0], strerror(errno));
    close_descriptor(&program->streams[STDOUT]);
    close_descriptor(&program->streams[STDERR]);
    return false;
}

void program_kill(struct program *program)
{
    int status;
    for (int i = 0; i < STREAMS; i++) {
        close_descriptor(&program->streams[i]);
        program->streams[i] = -1;
    }
    if (program->child <= 0)
        return;
    /* Its whole session: what it may have left behind, too. */
    kill(-program->child, SIGKILL);
    kill(program->child, SIGKILL);
    while (waitpid(program->child, &status, 0) < 0 && errno == EINTR)
        ;
    program->child = 0;
}

/* Whether it came to exit by itself, and was executed at all. */
static bool has_run(const struct program *program, int status, struct plan_complaint *complaint)
{
    if (WIFSIGNALED(status))
        plan_complain(complaint, "%s: it was ended by signal %d", program->name, WTERMSIG(status));
    else if (WEXITSTATUS(status) >= NOT_THE_USER)
        say_not_executed(program->name, WEXITSTATUS(status), complaint);
    else
        return true;
    return false;
}

bool program_end(struct program *program, struct answer *answer, struct plan_complaint *complaint)
{
    pid_t session = program->child;
    *answer = (struct answer){0};
    bool ended = listen_to(program->streams, answer, &program->deadline) &&
                 wait_for(session, &answer->status, &program->deadline);
    if (ended) {
        kill(-session, SIGKILL); /* what it may have left behind */
        program->child = 0;
    }
    program_kill(program);
    if (ended)
        return has_run(program, answer->status, complaint);
    plan_complain(complaint, "%s: it has not ended within %d s (timeout= in plugstack.conf)", program->name, program->timeout);
    return false;
}

bool program_run(const struct site *site, struct job job, char *const *words, char *const *environment,
                 struct answer *answer, struct plan_complaint *complaint)
{
    struct program program;
    return program_start(&program, site, job, words, environment, complaint) && program_end(&program, answer, complaint);
}

bool program_has_spoken(const struct program *program)
{
    struct pollfd waiting = {program->streams[STDOUT], POLLIN, 0};
    int ready;
    while ((ready = poll(&waiting, 1, milliseconds_until(&program->deadline))) < 0 && errno == EINTR)
        ;
    return ready == 1 && (waiting.revents & POLLIN) != 0;
}

void program_errors(const char *program, char *said, struct plan_complaint *complaint)
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
