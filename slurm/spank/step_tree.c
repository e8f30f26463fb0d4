/* Why the first task and not a process of our own: what Slurm has prepared for tasks (a private /tmp, the job's cgroup)
 * is then below the new mounts, no process has to hold the namespaces, and they go with the last task. That all tasks
 * share them lets them look into each other's memory (process_vm_readv(2)), as MPI libraries do. */
#include "step_tree.h"

#include "closed.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { USER, MOUNT, NAMESPACES };

/* What the builder sends: this letter, with the namespaces' descriptors if it is BUILT. */
enum { BUILT = 'b', FAILED = 'f' };

bool step_tree_prepare(struct step_tree *tree, struct plan_complaint *complaint)
{
    if (pipe2(tree->turn, O_CLOEXEC | O_NONBLOCK) == 0 && write(tree->turn[1], "", 1) == 1 &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, tree->result) == 0)
        return true;
    plan_complain(complaint, "no descriptors for the step's tasks: %s", strerror(errno));
    return false;
}

/* Room for the descriptors, aligned as cmsg(3) wants it. */
union control {
    char room[CMSG_SPACE(NAMESPACES * sizeof(int))];
    struct cmsghdr header;
};

static bool tell(const struct step_tree *tree, char letter, const int *namespaces)
{
    union control control = {.room = {0}};
    struct iovec data = {&letter, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (namespaces != NULL) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        *header = (struct cmsghdr){CMSG_LEN(NAMESPACES * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(header), namespaces, NAMESPACES * sizeof(int));
    }
    return sendmsg(tree->result[1], &message, MSG_NOSIGNAL) == 1;
}

/* The builder ------------------------------------------------------------------------------------------------------- */

/* slurmstepd's change of ids has made this process undumpable, and /proc/self/uid_map root's (proc(5), prctl(2)). */
static bool enter_namespaces(struct plan_complaint *complaint)
{
    int dumpable = prctl(PR_GET_DUMPABLE);
    prctl(PR_SET_DUMPABLE, 1);
    bool entered = plan_enter(complaint);
    prctl(PR_SET_DUMPABLE, dumpable);
    return entered;
}

static bool build(struct plan *plan, struct plan_complaint *complaint)
{
    struct plan_options options = {.old_mount_api = false};
    if (!plan_fresh(plan, complaint) || !plan_serve(plan, complaint) || !enter_namespaces(complaint))
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
    if (own < 0 || !build(plan, complaint)) {
        if (own < 0)
            plan_complain(complaint, "/proc/self/ns: %s", strerror(errno));
        tell(tree, FAILED, NULL);
        return false;
    }
    CLOSED int user = openat(own, "user", O_RDONLY | O_CLOEXEC);
    CLOSED int mount = openat(own, "mnt", O_RDONLY | O_CLOEXEC);
    if (user >= 0 && mount >= 0 && tell(tree, BUILT, (const int[]){user, mount}))
        return true;
    plan_complain(complaint, "the step's namespaces can't be passed on: %s", strerror(errno));
    tell(tree, FAILED, NULL);
    return false;
}

/* The others -------------------------------------------------------------------------------------------------------- */

/* Wait for the builder's word, and take copies of its descriptors. The message stays for the others. */
static bool hear(const struct step_tree *tree, int seconds, struct turn *turn, struct plan_complaint *complaint)
{
    struct pollfd waiting = {tree->result[0], POLLIN, 0};
    int ready;
    while ((ready = poll(&waiting, 1, seconds * 1000)) < 0 && errno == EINTR)
        ;
    union control control;
    char letter = FAILED;
    struct iovec data = {&letter, 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (ready != 1 || recvmsg(tree->result[0], &message, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1) {
        plan_complain(complaint, "the step's first task has not made its namespaces within %d s", seconds);
        return false;
    }
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (letter != BUILT || header == NULL || header->cmsg_len != CMSG_LEN(NAMESPACES * sizeof(int))) {
        complaint->text[0] = '\0';
        return false;
    }
    int namespaces[NAMESPACES];
    memcpy(namespaces, CMSG_DATA(header), sizeof namespaces);
    turn->user = namespaces[USER];
    turn->mount = namespaces[MOUNT];
    return true;
}

static bool join(const struct turn *turn, struct plan_complaint *complaint)
{
    CLOSED int user = turn->user, mount = turn->mount;
    if (setns(user, CLONE_NEWUSER) == 0 && setns(mount, CLONE_NEWNS) == 0)
        return true;
    plan_complain(complaint, "the step's namespaces can't be entered: %s", strerror(errno));
    return false;
}

/* Both -------------------------------------------------------------------------------------------------------------- */

bool step_tree_begin(const struct step_tree *tree, int seconds, struct turn *turn, struct plan_complaint *complaint)
{
    char byte;
    *turn = (struct turn){.is_first = read(tree->turn[0], &byte, 1) == 1, .user = -1, .mount = -1};
    return turn->is_first || hear(tree, seconds, turn, complaint);
}

void step_tree_give_up(const struct step_tree *tree, const struct turn *turn)
{
    if (turn->is_first)
        tell(tree, FAILED, NULL);
}

bool step_tree_enter(const struct step_tree *tree, const struct turn *turn, struct plan *plan,
                     struct plan_complaint *complaint)
{
    char directory[PLAN_MAX_PATH];
    if (getcwd(directory, sizeof directory) == NULL || directory[0] != '/')
        strcpy(directory, "/");
    if (!(turn->is_first ? build_and_tell(tree, plan, complaint) : join(turn, complaint)))
        return false;
    if (chdir(directory) < 0 && chdir("/") < 0) {
        plan_complain(complaint, "/: can't be entered: %s", strerror(errno));
        return false;
    }
    return plan_drop_privileges(true, complaint);
}
