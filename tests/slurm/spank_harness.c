/* The plugin without Slurm: every callback, in the order and with the ids of each of Slurm's programs, and Slurm's
 * functions as stubs that do what a test wants. Plugin and stubs are built with sanitizers: make -C slurm/spank asan.
 *
 *   spank_harness PLUGIN < SCENARIOS
 *
 * A scenario is a list of words, each ended by NUL; an empty one ends it. Each has a process of its own.
 *
 *   context=srun|allocator|slurmstepd|slurmd|job_script|error
 *   argument=TEXT            of plugstack.conf
 *   getenv=NAME=VALUE        in the environment of the process
 *   env=NAME=VALUE           in the step's
 *   option=NAME[=VALUE]      given to the plugin's callback; without a value, NULL
 *   uid=, gid=, step=, tasks=NUMBER
 *   gres=TEXT                what the controller says that the job has on this node
 *   fail=FUNCTION:NUMBER     the NUMBERth call of it fails, counted from 1
 *
 * What happens is said line by line, in which \xNN stands for a byte: see say(). */
#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <slurm/slurm.h>
#include <slurm/spank.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_WORDS = 256, MOST_VARIABLES = 512, MOST_OPTIONS = 8, LINE = 4096, SHOWN = 1500, NO_TASK = -1, JOB = 7 };

static struct {
    spank_context_t context;
    char *words[MOST_WORDS];
    size_t word_count;
    char *arguments[MOST_WORDS];
    int argument_count;
    char *variables[MOST_VARIABLES]; /* of the step; NULL where one was */
    struct spank_option *options[MOST_OPTIONS];
    size_t option_count;
    uid_t uid;
    gid_t gid;
    uint32_t step;
    int tasks, task;
    const char *gres;
} now;

static void *plugin;

static _Noreturn void die(const char *what)
{
    perror(what);
    _exit(97);
}

/* One line, written at once: several processes write. */
__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    char text[LINE], line[4 * LINE + 2];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    char *end = line;
    for (int i = 0; i < length && i < LINE - 1; i++)
        end += isprint((unsigned char)text[i]) && text[i] != '\\' ? sprintf(end, "%c", text[i])
                                                               : sprintf(end, "\\x%02x", (unsigned char)text[i]);
    *end++ = '\n';
    if (write(STDOUT_FILENO, line, (size_t)(end - line)) < 0)
        die("write");
}

/* Failures ---------------------------------------------------------------------------------------------------------- */

#define FUNCTIONS(X)                                                                                                  \
    X(spank_option_register) X(spank_get_item) X(spank_getenv) X(spank_setenv) X(spank_unsetenv) X(malloc) X(calloc)  \
    X(strdup) X(strndup) X(asprintf) X(open_memstream) X(fork) X(pipe2) X(socketpair) X(open) X(openat) X(read)       \
    X(write) X(poll) X(waitpid) X(getcwd) X(chdir) X(unshare) X(setns) X(mount) X(sendmsg) X(recvmsg) X(memfd_create) \
    X(mkdir) X(mkdirat) X(fchownat) X(nanosleep) X(slurm_load_job)

enum function {
#define X(name) F_##name,
    FUNCTIONS(X)
#undef X
    F_COUNT
};

static const char *const function_names[] = {
#define X(name) #name,
    FUNCTIONS(X)
#undef X
};

static unsigned calls[F_COUNT], failing[F_COUNT];

static bool fails(enum function function, int error)
{
    if (++calls[function] != failing[function])
        return false;
    errno = error;
    return true;
}

/* The linker gives the plugin these in place of the C library's (--wrap, WRAPPED of slurm/spank/Makefile). */
#define WRAP(type, name, parameters, values, error, failed)                                                           \
    type __wrap_##name parameters;                                                                                    \
    type __wrap_##name parameters { return fails(F_##name, error) ? (failed) : name values; }

WRAP(void *, malloc, (size_t size), (size), ENOMEM, NULL)
WRAP(void *, calloc, (size_t count, size_t size), (count, size), ENOMEM, NULL)
WRAP(char *, strdup, (const char *text), (text), ENOMEM, NULL)
WRAP(char *, strndup, (const char *text, size_t size), (text, size), ENOMEM, NULL)
WRAP(FILE *, open_memstream, (char **text, size_t *size), (text, size), ENOMEM, NULL)
WRAP(pid_t, fork, (void), (), EAGAIN, -1)
WRAP(int, pipe2, (int fds[2], int flags), (fds, flags), EMFILE, -1)
WRAP(int, socketpair, (int domain, int type, int protocol, int fds[2]), (domain, type, protocol, fds), EMFILE, -1)
WRAP(ssize_t, read, (int fd, void *data, size_t size), (fd, data, size), EIO, -1)
WRAP(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), ENOSPC, -1)
WRAP(int, poll, (struct pollfd *fds, nfds_t count, int timeout), (fds, count, timeout), EINTR, -1)
WRAP(pid_t, waitpid, (pid_t pid, int *status, int options), (pid, status, options), EINTR, -1)
WRAP(char *, getcwd, (char *path, size_t size), (path, size), ENOENT, NULL)
WRAP(int, chdir, (const char *path), (path), EACCES, -1)
WRAP(int, unshare, (int flags), (flags), EPERM, -1)
WRAP(int, setns, (int fd, int type), (fd, type), EPERM, -1)
WRAP(int, mount, (const char *a, const char *b, const char *c, unsigned long d, const void *e), (a, b, c, d, e), EPERM, -1)
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags), ENOBUFS, -1)
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags), ENOBUFS, -1)
WRAP(int, memfd_create, (const char *name, unsigned flags), (name, flags), EMFILE, -1)
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), ENOSPC, -1)
WRAP(int, mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode), ENOSPC, -1)
WRAP(int, fchownat, (int fd, const char *path, uid_t uid, gid_t gid, int flags), (fd, path, uid, gid, flags), EPERM, -1)

int __wrap_asprintf(char **text, const char *format, ...);
int __wrap_asprintf(char **text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = fails(F_asprintf, ENOMEM) ? -1 : vasprintf(text, format, arguments);
    va_end(arguments);
    return length;
}

static mode_t mode_of(int flags, va_list arguments)
{
    return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return fails(F_open, EMFILE) ? -1 : open(path, flags, mode);
}

int __wrap_openat(int fd, const char *path, int flags, ...);
int __wrap_openat(int fd, const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return fails(F_openat, EMFILE) ? -1 : openat(fd, path, flags, mode);
}

/* Nobody has to hear what tasks say before they end. */
int __wrap_nanosleep(const struct timespec *time, struct timespec *rest);
int __wrap_nanosleep(const struct timespec *time, struct timespec *rest)
{
    const struct timespec short_time = {.tv_nsec = time->tv_nsec > 2000000 ? 1000 : time->tv_nsec};
    return fails(F_nanosleep, EINTR) ? -1 : nanosleep(&short_time, rest);
}

/* Slurm's functions ------------------------------------------------------------------------------------------------- */

/* The plugin has only its address. */
struct spank_handle {
    char byte;
};

spank_context_t spank_context(void)
{
    return now.context;
}

spank_err_t spank_option_register(spank_t spank, struct spank_option *option)
{
    (void)spank;
    if (fails(F_spank_option_register, ENOMEM) || now.option_count == MOST_OPTIONS)
        return ESPANK_NOSPACE;
    now.options[now.option_count++] = option;
    return ESPANK_SUCCESS;
}

spank_err_t spank_get_item(spank_t spank, spank_item_t item, ...)
{
    (void)spank;
    if (fails(F_spank_get_item, 0))
        return ESPANK_ERROR;
    if (now.context != S_CTX_REMOTE)
        return ESPANK_NOT_REMOTE;
    spank_err_t error = ESPANK_SUCCESS;
    va_list arguments;
    va_start(arguments, item);
    if (item == S_JOB_UID)
        *va_arg(arguments, uid_t *) = now.uid;
    else if (item == S_JOB_GID)
        *va_arg(arguments, gid_t *) = now.gid;
    else if (item == S_JOB_ID)
        *va_arg(arguments, uint32_t *) = JOB;
    else if (item == S_JOB_NODEID)
        *va_arg(arguments, uint32_t *) = 0;
    else if (item == S_JOB_STEPID)
        *va_arg(arguments, uint32_t *) = now.step;
    else if (item == S_TASK_ID && now.task != NO_TASK)
        *va_arg(arguments, int *) = now.task;
    else
        error = item == S_TASK_ID ? ESPANK_NOT_TASK : ESPANK_BAD_ARG;
    va_end(arguments);
    return error;
}

static char **variable(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < MOST_VARIABLES; i++)
        if (now.variables[i] != NULL && strncmp(now.variables[i], name, length) == 0 && now.variables[i][length] == '=')
            return &now.variables[i];
    return NULL;
}

spank_err_t spank_getenv(spank_t spank, const char *name, char *value, int size)
{
    (void)spank;
    if (fails(F_spank_getenv, 0))
        return ESPANK_NOSPACE;
    if (now.context != S_CTX_REMOTE)
        return ESPANK_NOT_REMOTE;
    if (name == NULL || value == NULL || size <= 0)
        return ESPANK_BAD_ARG;
    char **found = variable(name);
    if (found == NULL)
        return ESPANK_ENV_NOEXIST;
    const char *text = strchr(*found, '=') + 1;
    size_t copied = strnlen(text, (size_t)size - 1);
    memcpy(value, text, copied);
    value[copied] = '\0';
    return text[copied] == '\0' ? ESPANK_SUCCESS : ESPANK_NOSPACE;
}

static void put(char **place, const char *name, const char *value)
{
    char *text = NULL;
    if (place == NULL)
        for (size_t i = 0; i < MOST_VARIABLES && place == NULL; i++)
            place = now.variables[i] == NULL ? &now.variables[i] : NULL;
    if (place == NULL || asprintf(&text, "%s=%s", name, value) < 0)
        die("no room for a variable");
    free(*place);
    *place = text;
}

spank_err_t spank_setenv(spank_t spank, const char *name, const char *value, int overwrite)
{
    (void)spank;
    if (fails(F_spank_setenv, 0))
        return ESPANK_ENV_NOEXIST;
    if (now.context != S_CTX_REMOTE)
        return ESPANK_NOT_REMOTE;
    if (name == NULL || value == NULL || *name == '\0' || strchr(name, '=') != NULL)
        return ESPANK_BAD_ARG;
    char **found = variable(name);
    if (found != NULL && overwrite == 0)
        return ESPANK_ENV_EXISTS;
    put(found, name, value);
    return ESPANK_SUCCESS;
}

spank_err_t spank_unsetenv(spank_t spank, const char *name)
{
    (void)spank;
    if (fails(F_spank_unsetenv, 0))
        return ESPANK_ERROR;
    if (now.context != S_CTX_REMOTE)
        return ESPANK_NOT_REMOTE;
    char **found = variable(name);
    if (found != NULL) {
        free(*found);
        *found = NULL;
    }
    return ESPANK_SUCCESS;
}

char *slurm_strerror(int error)
{
    return strerror(error);
}

/* The controller's answer, each part of it by itself: reading on is seen. */
#if SLURM_VERSION_NUMBER >= SLURM_VERSION_NUM(26, 5, 0)
int slurm_load_job(job_info_msg_t **answer, slurm_step_id_t id, uint16_t flags)
#else
int slurm_load_job(job_info_msg_t **answer, uint32_t id, uint16_t flags)
#endif
{
    (void)id;
    (void)flags;
    if (fails(F_slurm_load_job, ECONNREFUSED))
        return SLURM_ERROR;
    *answer = calloc(1, sizeof **answer);
    job_info_t *job = calloc(1, sizeof *job);
    if (*answer == NULL || job == NULL)
        die("calloc");
#if SLURM_VERSION_NUMBER >= SLURM_VERSION_NUM(26, 5, 0)
    job->step_id.job_id = JOB;
#else
    job->job_id = JOB;
#endif
    if (now.gres != NULL) {
        job->gres_detail_cnt = 1;
        job->gres_detail_str = calloc(1, sizeof *job->gres_detail_str);
        if (job->gres_detail_str == NULL || (job->gres_detail_str[0] = strdup(now.gres)) == NULL)
            die("strdup");
    }
    (*answer)->record_count = 1;
    (*answer)->job_array = job;
    return SLURM_SUCCESS;
}

void slurm_free_job_info_msg(job_info_msg_t *answer)
{
    if (answer->job_array->gres_detail_cnt > 0)
        free(answer->job_array->gres_detail_str[0]);
    free(answer->job_array->gres_detail_str);
    free(answer->job_array);
    free(answer);
}

/* All of the text is looked at, and so are its bounds. */
static void hear(const char *who, const char *format, va_list arguments)
{
    char *text = NULL;
    if (vasprintf(&text, format, arguments) < 0)
        die("vasprintf");
    say("%s %.*s", who, SHOWN, text);
    free(text);
}

void slurm_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    hear("slurm_error", format, arguments);
    va_end(arguments);
}

void slurm_spank_log(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    hear("slurm_spank_log", format, arguments);
    va_end(arguments);
}

/* Slurm's programs -------------------------------------------------------------------------------------------------- */

static struct spank_handle handle;

/* Call it, if the plugin has it. */
static int call(const char *name)
{
    int (*callback)(spank_t, int, char **);
    *(void **)(void *)&callback = dlsym(plugin, name);
    if (callback == NULL)
        return 0;
    int status = callback(&handle, now.argument_count, now.arguments);
    say("called %s %d", name, status);
    return status;
}

/* A copy that ends where a value ends: reading on is seen. */
static char *exact(const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL)
        die("strdup");
    return copy;
}

static int give_option(const char *text)
{
    size_t length = strcspn(text, "=");
    for (size_t i = 0; i < now.option_count; i++) {
        struct spank_option *option = now.options[i];
        if (strlen(option->name) != length || strncmp(option->name, text, length) != 0)
            continue;
        char *value = text[length] == '=' ? exact(text + length + 1) : NULL;
        int status = option->cb(option->val, value, now.context == S_CTX_REMOTE);
        free(value);
        say("option %s %d", option->name, status);
        return status;
    }
    say("option %.*s unknown", (int)length, text);
    return -1;
}

static const char *word_after(const char *name, size_t *cursor)
{
    size_t length = strlen(name);
    while (*cursor < now.word_count) {
        const char *word = now.words[(*cursor)++];
        if (strncmp(word, name, length) == 0)
            return word + length;
    }
    return NULL;
}

/* srun ends at the first one that is refused; slurmstepd takes no notice. */
static bool give_options(void)
{
    const char *text;
    for (size_t cursor = 0; (text = word_after("option=", &cursor)) != NULL;)
        if (give_option(text) < 0 && now.context != S_CTX_REMOTE)
            return false;
    return true;
}

static void say_namespace(const char *when)
{
    char target[64] = "";
    ssize_t length = readlink("/proc/self/ns/mnt", target, sizeof target - 1);
    say("namespace %s %d %s", when, now.task, length > 0 ? target : strerror(errno));
}

static void say_calls(void)
{
    for (int i = 0; i < F_COUNT; i++)
        if (calls[i] > 0)
            say("calls %s %u", function_names[i], calls[i]);
}

static _Noreturn void be_task(void)
{
    call("slurm_spank_task_init_privileged");
    if (geteuid() == 0 && now.uid != 0 && (setresgid(now.gid, now.gid, now.gid) < 0 || setresuid(now.uid, now.uid, now.uid) < 0))
        die("setresuid");
    say_namespace("before");
    if (call("slurm_spank_task_init") < 0)
        _exit(1);
    say_namespace("after");
    for (size_t i = 0; i < MOST_VARIABLES; i++)
        if (now.variables[i] != NULL)
            say("env %d %.*s", now.task, SHOWN, now.variables[i]);
    say("id %d %u %u", now.task, geteuid(), getegid());
    say_calls();
    _exit(0);
}

static void run_tasks(void)
{
    pid_t children[64];
    for (now.task = 0; now.task < now.tasks; now.task++) {
        pid_t child = fork();
        if (child < 0)
            die("fork");
        if (child == 0)
            be_task();
        children[now.task] = child;
        call("slurm_spank_task_post_fork");
    }
    for (now.task = 0; now.task < now.tasks; now.task++) {
        int status;
        if (waitpid(children[now.task], &status, 0) < 0)
            die("waitpid");
        say("task %d %d", now.task, WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
        call("slurm_spank_task_exit");
    }
    now.task = NO_TASK;
}

/* The sanitizers' allocator must not be locked by it when we fork: it has begun, and does nothing more. */
static void *wait_for_ever(void *has_begun)
{
    pthread_barrier_wait(has_begun);
    for (;;)
        pause();
    return NULL;
}

static void start_thread(void)
{
    static pthread_barrier_t has_begun;
    pthread_t thread;
    if (pthread_barrier_init(&has_begun, NULL, 2) != 0 || pthread_create(&thread, NULL, wait_for_ever, &has_begun) != 0)
        die("pthread_create");
    pthread_barrier_wait(&has_begun);
}

/* user_init has the user's effective ids and root's real ones. */
static void call_user_init(void)
{
    bool is_root = geteuid() == 0 && now.uid != 0;
    if (is_root && (setegid(now.gid) < 0 || seteuid(now.uid) < 0))
        die("seteuid");
    call("slurm_spank_user_init");
    if (is_root && (seteuid(0) < 0 || setegid(0) < 0))
        die("seteuid");
}

static void be_slurmstepd(void)
{
    start_thread();
    if (call("slurm_spank_init") < 0 || (give_options(), call("slurm_spank_init_post_opt")) < 0)
        return;
    call_user_init();
    run_tasks();
}

static void be_command(void)
{
    if (call("slurm_spank_init") < 0 || !give_options() || call("slurm_spank_init_post_opt") < 0)
        return;
    if (now.context == S_CTX_LOCAL)
        call("slurm_spank_local_user_init");
}

static void be_slurmd(void)
{
    call("slurm_spank_init");
    call("slurm_spank_slurmd_exit");
}

static void be_job_script(void)
{
    if (call("slurm_spank_init") < 0)
        return;
    give_options();
    call("slurm_spank_job_prolog");
    call("slurm_spank_job_epilog");
}

static const struct {
    const char *name;
    spank_context_t context;
    void (*be)(void);
} programs[] = {
    {"srun", S_CTX_LOCAL, be_command},          {"allocator", S_CTX_ALLOCATOR, be_command},
    {"slurmstepd", S_CTX_REMOTE, be_slurmstepd}, {"slurmd", S_CTX_SLURMD, be_slurmd},
    {"job_script", S_CTX_JOB_SCRIPT, be_job_script}, {"error", S_CTX_ERROR, be_command},
};

/* Scenarios --------------------------------------------------------------------------------------------------------- */

static int count_descriptors(void)
{
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    if (directory == NULL)
        die("/proc/self/fd");
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static void take_failure(const char *text)
{
    const char *colon = strchr(text, ':');
    for (int i = 0; colon != NULL && i < F_COUNT; i++)
        if (strlen(function_names[i]) == (size_t)(colon - text) && strncmp(function_names[i], text, (size_t)(colon - text)) == 0)
            failing[i] = (unsigned)atoi(colon + 1);
}

static long number(const char *name, long otherwise)
{
    size_t cursor = 0;
    const char *text = word_after(name, &cursor);
    return text == NULL ? otherwise : strtol(text, NULL, 10);
}

static void prepare(void)
{
    const char *text;
    for (size_t cursor = 0; (text = word_after("argument=", &cursor)) != NULL;)
        now.arguments[now.argument_count++] = exact(text);
    for (size_t cursor = 0; (text = word_after("getenv=", &cursor)) != NULL;)
        if (putenv(exact(text)) != 0)
            die("putenv");
    size_t count = 0;
    for (size_t cursor = 0; (text = word_after("env=", &cursor)) != NULL;)
        now.variables[count++] = exact(text);
    for (size_t cursor = 0; (text = word_after("fail=", &cursor)) != NULL;)
        take_failure(text);
    now.uid = (uid_t)number("uid=", (long)geteuid());
    now.gid = (gid_t)number("gid=", (long)getegid());
    now.step = (uint32_t)number("step=", 0);
    now.tasks = (int)number("tasks=", 2);
    now.task = NO_TASK;
    size_t found = 0;
    now.gres = word_after("gres=", &found);
}

static int play(const char *path)
{
    size_t cursor = 0;
    const char *name = word_after("context=", &cursor);
    prepare();
    plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (plugin == NULL) {
        say("not loaded: %s", dlerror());
        return 1;
    }
    int before = count_descriptors();
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
        if (name != NULL && strcmp(programs[i].name, name) == 0) {
            now.context = programs[i].context;
            programs[i].be();
        }
    if (now.context != S_CTX_SLURMD)
        call("slurm_spank_exit");
    say("descriptors %d", count_descriptors() - before);
    say("children %s", waitpid(-1, NULL, WNOHANG) < 0 ? "none" : "left");
    say_calls();
    return 0;
}

static void run_scenario(const char *path)
{
    int status;
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0)
        exit(play(path));
    if (waitpid(child, &status, 0) < 0)
        die("waitpid");
    say("ended %d", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
}

int main(int argc, char **argv)
{
    char *word = NULL;
    size_t room = 0;
    if (argc != 2) {
        fprintf(stderr, "usage: spank_harness PLUGIN < SCENARIOS\n");
        return 2;
    }
    while (getdelim(&word, &room, '\0', stdin) > 0) {
        if (*word != '\0' && now.word_count < MOST_WORDS) {
            now.words[now.word_count++] = exact(word);
            continue;
        }
        run_scenario(argv[1]);
        while (now.word_count > 0)
            free(now.words[--now.word_count]);
    }
    free(word);
    return 0;
}
