/* The server of a plan's SquashFS file: squashfuse, as a process outside of the container's namespaces.
 *
 * It is forked before there are namespaces, and waits. plan_apply opens /dev/fuse, mounts, and sends the descriptor;
 * then the server executes squashfuse on it: libfuse 3 takes /dev/fd/N for a mount that is made already. Since nothing
 * of the server is in the mount namespace, the mount goes when the last process of the command goes, however it ends,
 * and the server sees that and goes as well. It is not a child of the command, has none of its descriptors and is not
 * of its session: neither wait(2), nor a pipe's end, nor the terminal shows that it is there.
 *
 * Considered and rejected: squashfuse mounting by itself in our namespace (it would keep the namespace, and so the
 * mount, and so itself alive, or have to be ended by somebody who may be killed himself); one server for all launches
 * of an image (a mount in one user namespace can't be brought into another).
 */
#include "plan_serve.h"

#include "closed.h"
#include "plan_fresh.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#ifndef SYS_close_range
#define SYS_close_range 436 /* Linux 5.9 */
#endif

/* The faster one first. */
static const char *const programs[] = {"squashfuse_ll", "squashfuse"};

/* Where the server has what it is given. */
enum { IMAGE = STDERR_FILENO + 1, SOCKET, DEVICE };

/* Bytes kept of what the server says. */
enum { SAID = 2048 };

/* Finding what is needed ------------------------------------------------------------------------------------------ */

static bool find_on_path(const char *program, char path[PLAN_MAX_PATH])
{
    const char *directories = getenv("PATH");
    while (directories != NULL && *directories != '\0') {
        size_t length = strcspn(directories, ":");
        int written = snprintf(path, PLAN_MAX_PATH, "%.*s/%s", (int)length, directories, program);
        /* The server works in "/": a relative directory would be another one there. */
        if (*directories == '/' && written < PLAN_MAX_PATH && access(path, X_OK) == 0)
            return true;
        directories += length + (directories[length] == ':');
    }
    return false;
}

static bool find_program(char path[PLAN_MAX_PATH], struct plan_complaint *complaint)
{
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
        if (find_on_path(programs[i], path))
            return true;
    plan_complain(complaint, "squashfuse: not on the PATH (install it)");
    return false;
}

static bool can_use_fuse(struct plan_complaint *complaint)
{
    if (access("/dev/fuse", R_OK | W_OK) == 0)
        return true;
    plan_complain(complaint, "/dev/fuse: squashfuse needs it: %s (ask for chmod 666 /dev/fuse)", strerror(errno));
    return false;
}

static bool is_recorded(const struct plan *plan, const struct stat *status)
{
    struct plan_record record;
    for (size_t cursor = 0; plan_next(plan, &cursor, &record);)
        if (record.kind == PLAN_FILE && strcmp(record.field[0], plan->squashfs) == 0)
            return is_file_of(&record, status);
    return false;
}

/* The file that plan_fresh saw: from here on its name does not matter. */
static int open_image(const struct plan *plan, struct plan_complaint *complaint)
{
    int fd = open(plan->squashfs, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat status;
    if (fd >= 0 && fstat(fd, &status) == 0 && is_recorded(plan, &status))
        return fd;
    plan_complain(complaint, "%s: %s", plan->squashfs,
                  fd < 0 ? strerror(errno) : "it has changed since the plan was made");
    close_descriptor(&fd);
    return -1;
}

/* A file for standard error that can't grow: a server may complain for days. */
static int open_said(void)
{
    int fd = memfd_create("squashfuse", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && ftruncate(fd, SAID) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == 0)
        return fd;
    close_descriptor(&fd);
    return open("/dev/null", O_RDWR | O_CLOEXEC);
}

/* The server's process -------------------------------------------------------------------------------------------- */

static void close_from(unsigned first)
{
    struct rlimit limit;
    if (syscall(SYS_close_range, first, ~0U, 0U) == 0 || getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    for (rlim_t fd = first; fd < limit.rlim_cur; fd++)
        close((int)fd);
}

/* Standard streams, the image and the socket, and nothing else. First out of the way of the numbers wanted: one of them
 * may be another's. */
static bool arrange_descriptors(int image, int socket, int said)
{
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    const int wanted[] = {nothing, nothing, said, image, socket};
    int moved[sizeof wanted / sizeof *wanted];
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if ((moved[i] = fcntl(wanted[i], F_DUPFD_CLOEXEC, DEVICE)) < 0)
            return false;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (dup2(moved[i], (int)i) < 0)
            return false;
    close_from(DEVICE);
    return fcntl(SOCKET, F_SETFD, FD_CLOEXEC) == 0;
}

/* Dispositions and masks outlive an exec, and were meant for the command. */
static void forget_signals(void)
{
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* One descriptor in its envelope (cmsg(3)). */
struct envelope {
    struct msghdr message;
    struct iovec part;
    char byte;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
};

static void make_envelope(struct envelope *envelope)
{
    *envelope = (struct envelope){.byte = 0};
    envelope->part = (struct iovec){&envelope->byte, 1};
    envelope->message = (struct msghdr){
        .msg_iov = &envelope->part,
        .msg_iovlen = 1,
        .msg_control = envelope->control,
        .msg_controllen = sizeof envelope->control,
    };
}

/* Wait for the descriptor of the mount, and have it at DEVICE, as the next free one. False if the launch came to
 * nothing: the other end is closed then. */
static bool receive_device(void)
{
    struct envelope envelope;
    make_envelope(&envelope);
    ssize_t got;
    do
        got = recvmsg(SOCKET, &envelope.message, 0);
    while (got < 0 && errno == EINTR);
    return got == 1 && fcntl(DEVICE, F_GETFD) >= 0;
}

static _Noreturn void serve(const char *program, int image, const struct plan *plan, int socket, int said)
{
    char image_path[32], device_path[32], options[sizeof "offset=18446744073709551615,uid=4294967295,gid=4294967295"];
    int length = snprintf(options, sizeof options, "offset=%s", plan->offset);
    if (plan->is_owned)
        snprintf(options + length, sizeof options - (size_t)length, ",uid=%u,gid=%u", geteuid(), getegid());
    snprintf(image_path, sizeof image_path, "/proc/self/fd/%d", IMAGE);
    snprintf(device_path, sizeof device_path, "/dev/fd/%d", DEVICE);
    forget_signals();
    if (arrange_descriptors(image, socket, said) && chdir("/") == 0 && receive_device()) {
        /* In the foreground: it is in the background already. */
        execl(program, program, "-f", "-o", options, image_path, device_path, (char *)NULL);
        dprintf(STDERR_FILENO, "%s: can't be executed: %s\n", program, strerror(errno));
    }
    _exit(1);
}

/* Forked twice: the process that executes the command must not find a child that it knows nothing of. */
static bool start(const char *program, int image, const struct plan *plan, int socket, int said)
{
    pid_t child = fork();
    if (child == 0) {
        if (setsid() >= 0 && fork() == 0)
            serve(program, image, plan, socket, said);
        _exit(0); /* if there is no server, the socket's other end is closed, and plan_apply hears of it */
    }
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
        continue;
    return child > 0;
}

bool plan_serve(struct plan *plan, struct plan_complaint *complaint)
{
    char program[PLAN_MAX_PATH];
    if (plan->squashfs == NULL)
        return true;
    if (!can_use_fuse(complaint) || !find_program(program, complaint))
        return false;
    CLOSED int image = open_image(plan, complaint);
    if (image < 0)
        return false;
    CLOSED int theirs = -1;
    int ends[2], said = open_said();
    if (said >= 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0) {
        plan->server = (struct plan_server){.started = true, .socket = ends[0], .said = said};
        theirs = ends[1];
        if (start(program, image, plan, theirs, said))
            return true;
    }
    plan_complain(complaint, "%s: can't be started: %s", program, strerror(errno));
    return false;
}

/* Our end --------------------------------------------------------------------------------------------------------- */

int give_to_server(const struct plan_server *server, int device)
{
    struct envelope envelope;
    make_envelope(&envelope);
    struct cmsghdr *header = CMSG_FIRSTHDR(&envelope.message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof device)};
    memcpy(CMSG_DATA(header), &device, sizeof device);
    return sendmsg(server->socket, &envelope.message, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

bool words_of_server(const struct plan_server *server, struct plan_complaint *said)
{
    char text[SAID + 1];
    ssize_t length = server->started ? pread(server->said, text, SAID, 0) : 0;
    text[length > 0 ? length : 0] = '\0'; /* and the bytes that were not written are NUL */
    char *end = text + strlen(text);
    while (end > text && end[-1] == '\n')
        *--end = '\0';
    const char *line = strrchr(text, '\n');
    plan_complain(said, "%s", line == NULL ? text : line + 1);
    return said->text[0] != '\0';
}
