/* Why the first task makes the mounts and not a process of our own: what Slurm has prepared for tasks (a private /tmp,
 * the job's cgroup) is then below them, and no process has to hold them. Namespaces go with slurmstepd, whose sockets have
 * them, and the last task. That all tasks share them lets them look into each other's memory (process_vm_readv(2)), as
 * MPI libraries do.
 *
 * Until it executes its program, a task has slurmstepd's memory and descriptors, and is not dumpable: the user's other
 * processes can't look into it, nor take descriptors of it (ptrace(2), pidfd_getfd(2)). It must stay so. */
#include "step_tree.h"

#include "closed.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What is sent: this letter, with a namespace's descriptor if it is MADE. */
enum { MADE = 'm', FAILED = 'f' };

bool step_tree_prepare(struct step_tree *tree, struct plan_complaint *complaint)
{
    if (pipe2(tree->turn, O_CLOEXEC | O_NONBLOCK) == 0 && write(tree->turn[1], "", 1) == 1 &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, tree->user) == 0 &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, tree->mount) == 0)
        return true;
    plan_complain(complaint, "no descriptors for the step's tasks: %s", strerror(errno));
    return false;
}

/* Room for the descriptor, aligned as cmsg(3) wants it. */
union control {
    char room[CMSG_SPACE(sizeof(int))];
    struct cmsghdr header;
};

/* `fd` is -1 for none. */
static bool tell(const int *sockets, char letter, int fd)
{
    union control control = {.room = {0}};
    struct iovec data = {&letter, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        *header = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    return sendmsg(sockets[1], &message, MSG_NOSIGNAL) == 1;
}

/* The letter that was sent, and a copy of the descriptor or -1. The message stays for the others. */
static char look(const int *sockets, int *fd)
{
    union control control;
    char letter;
    struct iovec data = {&letter, 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    *fd = -1;
    if (recvmsg(sockets[0], &message, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1)
        return '\0';
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_len == CMSG_LEN(sizeof *fd))
        memcpy(fd, CMSG_DATA(header), sizeof *fd);
    return letter;
}

bool step_tree_give_user(const struct step_tree *tree, int user, struct plan_complaint *complaint)
{
    if (tell(tree->user, MADE, user))
        return true;
    plan_complain(complaint, "the step's user namespace can't be passed on: %s", strerror(errno));
    return false;
}

/* The builder ------------------------------------------------------------------------------------------------------- */

static bool join_user_namespace(const struct step_tree *tree, struct plan_complaint *complaint)
{
    CLOSED int user = -1;
    if (look(tree->user, &user) == MADE && setns(user, CLONE_NEWUSER) == 0)
        return true;
    plan_complain(complaint, "the step's user namespace can't be entered: %s", strerror(errno));
    return false;
}

static bool build(const struct step_tree *tree, struct plan *plan, struct plan_complaint *complaint)
{
    struct plan_options options = {.old_mount_api = false};
    if (!plan_fresh(plan, complaint) || !plan_serve(plan, complaint) || !join_user_namespace(tree, complaint) ||
        !plan_enter_mounts(complaint))
        return false;
    enum plan_applied applied = plan_apply(plan, &options, complaint);
    if (applied == PLAN_OVERLAY_REFUSED) {
        struct plan_complaint reason = *complaint;
        plan_complain(complaint, "the kernel refuses an overlay to this task, though not to cdi-hpc: %.256s", reason.text);
    }
    return applied == PLAN_APPLIED;
}

static bool build_and_tell(const struct step_tree *tree, struct plan *plan, struct plan_complaint *complaint)
{
    /* Opened before: the container's /proc is what the plan says. */
    CLOSED int own = open("/proc/self/ns", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (own < 0 || !build(tree, plan, complaint)) {
        if (own < 0)
            plan_complain(complaint, "/proc/self/ns: %s", strerror(errno));
        tell(tree->mount, FAILED, -1);
        return false;
    }
    CLOSED int mount = openat(own, "mnt", O_RDONLY | O_CLOEXEC);
    if (mount >= 0 && tell(tree->mount, MADE, mount))
        return true;
    plan_complain(complaint, "the step's mounts can't be passed on: %s", strerror(errno));
    tell(tree->mount, FAILED, -1);
    return false;
}

/* The others -------------------------------------------------------------------------------------------------------- */

/* Wait for the builder's word. */
static bool hear(const struct step_tree *tree, int seconds, struct turn *turn, struct plan_complaint *complaint)
{
    struct pollfd waiting = {tree->mount[0], POLLIN, 0};
    int ready;
    while ((ready = poll(&waiting, 1, seconds * 1000)) < 0 && errno == EINTR)
        ;
    if (ready != 1) {
        plan_complain(complaint, "the step's first task has not made its mounts within %d s", seconds);
        return false;
    }
    char letter = look(tree->mount, &turn->mount);
    if (letter == MADE && turn->mount >= 0)
        return true;
    plan_complain(complaint, "the step's mounts have not arrived: %s", strerror(errno));
    if (letter == FAILED)
        complaint->text[0] = '\0'; /* the builder says it */
    return false;
}

static bool join(const struct step_tree *tree, const struct turn *turn, struct plan_complaint *complaint)
{
    CLOSED int mount = turn->mount;
    if (!join_user_namespace(tree, complaint))
        return false;
    if (setns(mount, CLONE_NEWNS) == 0)
        return true;
    plan_complain(complaint, "the step's mounts can't be entered: %s", strerror(errno));
    return false;
}

/* Both -------------------------------------------------------------------------------------------------------------- */

bool step_tree_begin(const struct step_tree *tree, int seconds, struct turn *turn, struct plan_complaint *complaint)
{
    char byte;
    *turn = (struct turn){.is_first = read(tree->turn[0], &byte, 1) == 1, .mount = -1};
    return turn->is_first || hear(tree, seconds, turn, complaint);
}

void step_tree_give_up(const struct step_tree *tree, const struct turn *turn)
{
    if (turn->is_first)
        tell(tree->mount, FAILED, -1);
}

bool step_tree_enter(const struct step_tree *tree, const struct turn *turn, struct plan *plan,
                     struct plan_complaint *complaint)
{
    char directory[PLAN_MAX_PATH];
    if (getcwd(directory, sizeof directory) == NULL || directory[0] != '/')
        strcpy(directory, "/");
    if (!(turn->is_first ? build_and_tell(tree, plan, complaint) : join(tree, turn, complaint)))
        return false;
    if (chdir(directory) < 0 && chdir("/") < 0) {
        plan_complain(complaint, "/: can't be entered: %s", strerror(errno));
        return false;
    }
    return plan_drop_privileges(true, complaint);
}
