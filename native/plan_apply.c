/* The steps of a plan, in a mount namespace of our own.
 *
 * Order of things. The first step makes the container's root on a directory of the host ("the yard": /tmp, in our
 * namespace only). That would hide what the host has there, and sources may lie in it; so the new mount is moved at
 * once on top of the host's root directory. What is mounted there hides nothing from us: a path is looked up from the
 * root directory that a process has, and ours is still the one below. So every host path is what it always was,
 * /proc/self/fd included, we have the container's root by a descriptor, and one more descriptor is open at a time
 * whatever the number of binds. At the end the container's root becomes ours (pivot_root(2)), or it is moved from the
 * top to its place among the host's directories; if an overlay was refused, it is let go of.
 *
 * Considered and rejected: opening all sources beforehand (as many descriptors as binds, against the usual limit of
 * 1024); a second tmpfs as a workspace (what the Python runner does: two mounts and an exchange more); to exchange the
 * roots at once, and for a place once more (two more walks of the kernel through all processes, and never possible on a
 * node that lives in its initramfs); to build the tree where it belongs (it would hide the image from the steps that
 * bring its entries back); a detached mount (open_tree(2)), which can't be mounted upon before Linux 6.15.
 *
 * Container paths hold no link and no "..": the plan's maker resolved them. open_beneath sees to it that this is
 * still so. An image that was changed meanwhile stops the launch, and never leads out of the root.
 */
#include "closed.h"
#include "mount_calls.h"
#include "mount_flags.h"
#include "plan.h"
#include "plan_serve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

/* Directories, below "/", that may serve as the yard; the first that exists and is no link is taken. */
static const char *const yards[] = {"tmp", "var/tmp", "mnt", "run"};

struct work {
    struct plan *plan;
    struct mount_calls calls;
    const char *yard;
    int host, root, stage; /* directories; root is -1 until the first step is done */
    bool yard_is_covered;  /* by the file system of a writable root */
    bool on_top;           /* the container's root lies on the host's, and the yard is the host's again */
    const char *image;     /* where the SquashFS file is mounted, or NULL */
};

/* Where a container path is: the directory it is below, and the rest of the path. */
struct spot {
    int directory;
    const char *path;
};

static struct spot spot_of(const struct work *work, const char *place)
{
    if (work->root < 0)
        return (struct spot){work->host, work->yard};
    return (struct spot){work->root, strcmp(place, "/") == 0 ? "." : place + 1};
}

/* Making files ---------------------------------------------------------------------------------------------------- */

/* The directory that holds `place`, opened, and the last component in `name`. */
static int open_parent(struct work *work, const char *place, const char **name)
{
    const char *slash = strrchr(place, '/');
    *name = slash + 1;
    if (slash == place)
        return fcntl(work->root, F_DUPFD_CLOEXEC, 0);
    char parent[PLAN_MAX_PATH];
    size_t length = (size_t)(slash - place) - 1;
    memcpy(parent, place + 1, length);
    parent[length] = '\0';
    return open_beneath(&work->calls, work->root, parent, O_PATH | O_DIRECTORY);
}

static int make_directory(struct work *work, const char *place, mode_t mode)
{
    const char *name;
    CLOSED int parent = open_parent(work, place, &name);
    if (parent < 0 || mkdirat(parent, name, mode) < 0)
        return -1;
    /* mkdir(2) takes no set-user-ID and set-group-ID bits. */
    return (mode & (S_ISUID | S_ISGID)) == 0 ? 0 : fchmodat(parent, name, mode, 0);
}

static int make_link(struct work *work, const char *place, const char *text)
{
    const char *name;
    CLOSED int parent = open_parent(work, place, &name);
    return parent < 0 ? -1 : symlinkat(text, parent, name);
}

static int create_file(struct work *work, const char *place, mode_t mode)
{
    const char *name;
    CLOSED int parent = open_parent(work, place, &name);
    if (parent < 0)
        return -1;
    return openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
}

static int write_all(int fd, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t written = write(fd, bytes, count);
        if (written < 0 && errno != EINTR)
            return -1;
        if (written > 0) {
            bytes += written;
            count -= (size_t)written;
        }
    }
    return 0;
}

static int copy_file(struct work *work, const char *source, const char *place, mode_t mode)
{
    CLOSED int from = open_beneath(&work->calls, work->stage, source, O_RDONLY | O_NONBLOCK);
    CLOSED int to = from < 0 ? -1 : create_file(work, place, S_IRUSR | S_IWUSR);
    if (to < 0)
        return -1;
    char bytes[16384];
    ssize_t count;
    while ((count = read(from, bytes, sizeof bytes)) > 0)
        if (write_all(to, bytes, (size_t)count) < 0)
            return -1;
    return count < 0 ? -1 : fchmod(to, mode);
}

static int make_file(struct work *work, const char *place, mode_t mode)
{
    CLOSED int fd = create_file(work, place, mode);
    return fd < 0 ? -1 : 0;
}

/* Mounting -------------------------------------------------------------------------------------------------------- */

/* Pass on the root of a new mount: it becomes the container's root if there is none yet. */
static int keep_or_close(struct work *work, int mounted)
{
    if (work->root < 0)
        work->root = mounted;
    else
        close_descriptor(&mounted);
    return 0;
}

/* What `source` names in the directory `from` appears at `place`. */
static int bind_at(struct work *work, int from, const char *source, bool recursive, const char *place,
                   const char *flag_names, const char *propagation)
{
    unsigned long flags, type;
    mount_flag_bits(flag_names, &flags);
    mount_propagation_bits(propagation, &type);
    struct spot spot = spot_of(work, place);
    int mounted = bind_beneath(&work->calls, from, source, recursive, spot.directory, spot.path);
    if (mounted < 0)
        return -1;
    if ((flags != 0 && restrict_mount(&work->calls, mounted, flags) < 0) ||
        (type != 0 && propagate_mount(mounted, type) < 0)) {
        close_descriptor(&mounted);
        return -1;
    }
    return keep_or_close(work, mounted);
}

static int bind_staged(struct work *work, const char *source, const char *place, const char *flag_names)
{
    CLOSED int from = open_beneath(&work->calls, work->stage, source, O_PATH);
    return from < 0 ? -1 : bind_at(work, from, "", false, place, flag_names, "");
}

static int mount_new(struct work *work, const char *const *field)
{
    unsigned long flags;
    mount_flag_bits(field[3], &flags);
    struct spot spot = spot_of(work, field[2]);
    int mounted = mount_beneath(&work->calls, field[0], field[1], flags, field[4], spot.directory, spot.path);
    return mounted < 0 ? -1 : keep_or_close(work, mounted);
}

/* A tmpfs over the yard that takes what is written to the root, as much as `limit` says if it says anything. Returns
 * its root directory. */
static int mount_writable(struct work *work, mode_t mode, const char *limit)
{
    char data[64];
    int length = snprintf(data, sizeof data, limit[0] != '\0' ? "mode=755,size=%s" : "mode=755", limit);
    if (length < 0 || (size_t)length >= sizeof data) {
        errno = EINVAL;
        return -1;
    }
    int fd = mount_beneath(&work->calls, "tmpfs", "cdi-hpc", MS_NOSUID | MS_NODEV, data, work->host, work->yard);
    if (fd < 0)
        return -1;
    work->yard_is_covered = true;
    if (mkdirat(fd, "upper", mode) < 0 || mkdirat(fd, "work", 0700) < 0) {
        close_descriptor(&fd);
        return -1;
    }
    return fd;
}

/* An overlay, its layers named by descriptors: paths would have to be escaped and may be longer than the mount
 * call's one page, or fsconfig(2)'s 256 bytes. Sets `*refused` if it is the overlay that the kernel does not want. */
static int mount_overlay(struct work *work, const char *const *field, bool *refused)
{
    bool writable = strcmp(field[3], "1") == 0;
    CLOSED int upper = open_beneath(&work->calls, work->stage, field[1], O_PATH | O_DIRECTORY);
    CLOSED int lower = upper < 0 ? -1 : open(field[2], O_PATH | O_DIRECTORY | O_CLOEXEC);
    CLOSED int written = writable && lower >= 0 ? mount_writable(work, (mode_t)plan_number(field[4]), field[6]) : -1;
    if (lower < 0 || (writable && written < 0))
        return -1;
    char data[256];
    struct fd_path layers[] = {fd_path(upper), fd_path(lower)};
    int length = snprintf(data, sizeof data, "lowerdir=%s:%s", layers[0].text, layers[1].text);
    if (writable) {
        struct fd_path top = fd_path(written);
        snprintf(data + length, sizeof data - (size_t)length, ",upperdir=%s/upper,workdir=%s/work,userxattr", top.text,
                 top.text);
    }
    unsigned long flags;
    mount_flag_bits(field[5], &flags);
    struct spot spot = spot_of(work, field[0]);
    CLOSED int target = open_beneath(&work->calls, spot.directory, spot.path, O_PATH | O_DIRECTORY);
    if (target < 0) /* it is the place that is wrong, and an underlay would not help */
        return -1;
    int mounted = mount_beneath(&work->calls, "overlay", "overlay", flags, data, spot.directory, spot.path);
    *refused = mounted < 0;
    return mounted < 0 ? -1 : keep_or_close(work, mounted);
}

static int restrict_place(struct work *work, const char *place, const char *flag_names)
{
    unsigned long flags;
    mount_flag_bits(flag_names, &flags);
    struct spot spot = spot_of(work, place);
    CLOSED int mounted = open_beneath(&work->calls, spot.directory, spot.path, O_PATH);
    return mounted < 0 ? -1 : restrict_mount(&work->calls, mounted, flags);
}

/* A SquashFS file by way of FUSE: we mount, since /dev/fuse has to be opened in the user namespace that the mount
 * belongs to, and the server outside of it gets the descriptor (Documentation/filesystems/fuse.rst). */
static int mount_squashfs(struct work *work, const char *file, const char *place)
{
    if (!work->plan->server.started) {
        errno = ENOTCONN;
        return -1;
    }
    CLOSED int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (device < 0)
        return -1;
    char data[128];
    snprintf(data, sizeof data, "fd=%d,rootmode=40000,user_id=%u,group_id=%u", device, geteuid(), getegid());
    CLOSED int mounted = mount_beneath(&work->calls, "fuse.squashfuse", file, MS_RDONLY | MS_NOSUID | MS_NODEV, data,
                                       work->host, place + 1);
    if (mounted < 0)
        return -1;
    work->image = place;
    if (give_to_server(&work->plan->server, device) < 0)
        return -1;
    /* From here on the server has the only descriptor: if it ends, whoever waits for it is told so. */
    close_descriptor(&device);
    device = -1;
    struct statfs found; /* the first question waits until the server is there, and tells whether it likes the file */
    return fstatfs(mounted, &found);
}

/* Roots ----------------------------------------------------------------------------------------------------------- */

static int let_go_of_yard(const struct work *work)
{
    char yard[32];
    snprintf(yard, sizeof yard, "/%s", work->yard);
    return umount2(yard, MNT_DETACH | UMOUNT_NOFOLLOW);
}

/* After the first step: from the yard to the top. */
static int uncover_yard(struct work *work)
{
    if (move_beneath(&work->calls, work->root, work->host, ".") < 0)
        return -1;
    work->on_top = true;
    return work->yard_is_covered ? let_go_of_yard(work) : 0;
}

/* The container's root becomes the root directory, and the host's is let go of. */
static int go_to_root(const struct work *work)
{
    if (fchdir(work->root) < 0)
        return -1;
    if (exchange_root(".", ".") == 0) /* now the host's lies on top, and "." leads to what does */
        return umount2(".", MNT_DETACH) < 0 ? -1 : chdir("/");
    /* The kernel's own rootfs, of a diskless node that never left its initramfs, can't be exchanged. It stays below,
     * out of reach; chroot(2) to what is on top of everything does not count as a chroot for user_namespaces(7). */
    return errno != EINVAL || chroot(".") < 0 ? -1 : chdir("/");
}

/* The container's root moves to a directory of the host. */
static int put_at_place(struct work *work, const char *place)
{
    return move_beneath(&work->calls, work->root, work->host, place + 1);
}

/* A mount of the tree moves to a path of the host. */
static int move_out(struct work *work, const char *mounted, const char *to)
{
    CLOSED int fd = open_beneath(&work->calls, work->root, mounted + 1, O_PATH);
    return fd < 0 ? -1 : move_beneath(&work->calls, fd, work->host, to + 1);
}

/* Everything undone: the container's root is let go of, and the image. */
static int go_back_to_host(const struct work *work)
{
    if (work->on_top && (fchdir(work->root) < 0 || umount2(".", MNT_DETACH) < 0))
        return -1;
    if (!work->on_top && work->yard_is_covered && let_go_of_yard(work) < 0)
        return -1;
    if (work->image != NULL && umount2(work->image, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
        return -1;
    return chdir("/");
}

/* Steps ----------------------------------------------------------------------------------------------------------- */

static int do_step(struct work *work, const struct plan_record *record, bool *refused)
{
    const char *const *field = record->field;
    switch (record->kind) {
    case PLAN_SQUASHFS:
        return mount_squashfs(work, field[0], field[1]);
    case PLAN_MKDIR:
        return make_directory(work, field[0], (mode_t)plan_number(field[1]));
    case PLAN_MKFILE:
        return make_file(work, field[0], (mode_t)plan_number(field[1]));
    case PLAN_COPY:
        return copy_file(work, field[0], field[1], (mode_t)plan_number(field[2]));
    case PLAN_SYMLINK:
        return make_link(work, field[0], field[1]);
    case PLAN_BIND:
        return bind_at(work, AT_FDCWD, field[0], strcmp(field[2], "1") == 0, field[1], field[3], field[4]);
    case PLAN_BINDSTAGED:
        return bind_staged(work, field[0], field[1], field[2]);
    case PLAN_OVERLAY:
        return mount_overlay(work, field, refused);
    case PLAN_MOUNT:
        return mount_new(work, field);
    case PLAN_RESTRICT:
        return restrict_place(work, field[0], field[1]);
    case PLAN_PLACE:
        return put_at_place(work, field[0]);
    case PLAN_MOVE:
        return move_out(work, field[0], field[1]);
    case PLAN_KEY:
    case PLAN_OWNER:
    case PLAN_STAGE:
    case PLAN_FILE:
    case PLAN_DIR:
    case PLAN_NODE:
    case PLAN_ABSENT:
    case PLAN_LINK:
    case PLAN_WARN:
    case PLAN_NOTE:
    case PLAN_ENV:
    case PLAN_DEFAULT:
    case PLAN_PROGRAM:
    case PLAN_ARG:
    case PLAN_KEEP:
    case PLAN_STAGEARG:
    case PLAN_PEERS:
    case PLAN_END:
        break;
    }
    return 0;
}

/* Why a step failed; "" for a record that is none. Container path first. */
static void complain_of(const struct plan_record *record, const char *reason, struct plan_complaint *line)
{
    const char *const *field = record->field;
    line->text[0] = '\0';
    switch (record->kind) {
    case PLAN_SQUASHFS:
        plan_complain(line, "%s: can't mount it at %s with squashfuse: %s", field[0], field[1], reason);
        break;
    case PLAN_MKDIR:
        plan_complain(line, "%s: can't make the directory: %s", field[0], reason);
        break;
    case PLAN_MKFILE:
        plan_complain(line, "%s: can't make the file: %s", field[0], reason);
        break;
    case PLAN_COPY:
        plan_complain(line, "%s: can't write the file: %s", field[1], reason);
        break;
    case PLAN_SYMLINK:
        plan_complain(line, "%s: can't make the link to %s: %s", field[0], field[1], reason);
        break;
    case PLAN_BIND:
        plan_complain(line, "%s: can't bind %s there: %s", field[1], field[0], reason);
        break;
    case PLAN_BINDSTAGED:
        plan_complain(line, "%s: can't bind our file %s there: %s", field[1], field[0], reason);
        break;
    case PLAN_OVERLAY:
        plan_complain(line, "%s: can't lay %s over %s there: %s", field[0], field[1], field[2], reason);
        break;
    case PLAN_MOUNT:
        plan_complain(line, "%s: can't mount %s there: %s", field[2], field[0], reason);
        break;
    case PLAN_RESTRICT:
        plan_complain(line, "%s: can't set %s: %s", field[0], field[1], reason);
        break;
    case PLAN_PLACE:
        plan_complain(line, "%s: can't put the tree over it: %s", field[0], reason);
        break;
    case PLAN_MOVE:
        plan_complain(line, "%s: can't move the tree's %s there: %s", field[1], field[0], reason);
        break;
    case PLAN_KEY:
    case PLAN_OWNER:
    case PLAN_STAGE:
    case PLAN_FILE:
    case PLAN_DIR:
    case PLAN_NODE:
    case PLAN_ABSENT:
    case PLAN_LINK:
    case PLAN_WARN:
    case PLAN_NOTE:
    case PLAN_ENV:
    case PLAN_DEFAULT:
    case PLAN_PROGRAM:
    case PLAN_ARG:
    case PLAN_KEEP:
    case PLAN_STAGEARG:
    case PLAN_PEERS:
    case PLAN_END:
        break;
    }
}

static void tell_step(const struct plan_options *options, const struct plan_record *record)
{
    struct plan_complaint line;
    if (options->tell != NULL && plan_tell(record, &line))
        options->tell(line.text);
}

/* Why a step failed, and what that means for the launch. Errno is the step's. */
static enum plan_applied explain(const struct work *work, const struct plan_record *record, bool refused,
                                 struct plan_complaint *complaint)
{
    const char *error = strerror(errno);
    struct plan_complaint said;
    if (refused) {
        plan_complain(complaint, "%s", error);
        return PLAN_OVERLAY_REFUSED;
    }
    if (record->kind != PLAN_SQUASHFS) {
        complain_of(record, error, complaint);
        return record->kind == PLAN_PLACE || record->kind == PLAN_MOVE ? PLAN_FAILED : PLAN_STEP_FAILED;
    }
    bool spoke = words_of_server(&work->plan->server, &said);
    complain_of(record, spoke ? said.text : error, complaint);
    return PLAN_IMAGE_REFUSED;
}

static enum plan_applied do_steps(struct work *work, const struct plan_options *options,
                                  struct plan_complaint *complaint)
{
    struct plan_record record;
    for (size_t cursor = 0; plan_next(work->plan, &cursor, &record);) {
        bool refused = false;
        tell_step(options, &record);
        if (do_step(work, &record, &refused) < 0)
            return explain(work, &record, refused, complaint);
        if (work->root >= 0 && !work->on_top && uncover_yard(work) < 0) {
            plan_complain(complaint, "/: the tree can't be moved there: %s", strerror(errno));
            return PLAN_FAILED;
        }
    }
    return PLAN_APPLIED;
}

/* Preparations ---------------------------------------------------------------------------------------------------- */

static bool find_yard(struct work *work, struct plan_complaint *complaint)
{
    for (size_t i = 0; i < sizeof yards / sizeof *yards; i++) {
        CLOSED int fd = open_beneath(&work->calls, work->host, yards[i], O_PATH | O_DIRECTORY);
        if (fd >= 0) {
            work->yard = yards[i];
            return true;
        }
    }
    plan_complain(complaint, "/tmp: not there, and a place for private mounts is needed (make the directory)");
    return false;
}

/* Opened again: a descriptor from before unshare(2) names the old namespace's mount, and overlayfs refuses that. */
static bool open_stage(struct work *work, struct plan_complaint *complaint)
{
    const struct plan *plan = work->plan;
    if (plan->stage == NULL)
        return true;
    work->stage = open(plan->stage, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;
    if (work->stage >= 0 && fstat(work->stage, &status) == 0 && status.st_dev == plan->stage_device &&
        status.st_ino == plan->stage_inode)
        return true;
    plan_complain(complaint, "%s: the plan's stage was exchanged this moment", plan->stage);
    return false;
}

static enum plan_applied apply(struct work *work, const struct plan_options *options, struct plan_complaint *complaint)
{
    work->host = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (work->host < 0) {
        plan_complain(complaint, "/: can't be opened: %s", strerror(errno));
        return PLAN_FAILED;
    }
    if (!find_yard(work, complaint) || !open_stage(work, complaint))
        return PLAN_FAILED;
    enum plan_applied result = do_steps(work, options, complaint);
    if (result == PLAN_APPLIED && (work->plan->place != NULL ? chdir("/") : go_to_root(work)) < 0) {
        plan_complain(complaint, "/: can't be the working directory: %s", strerror(errno));
        return PLAN_FAILED;
    }
    if (result != PLAN_APPLIED && result != PLAN_FAILED && go_back_to_host(work) < 0) {
        plan_complain(complaint, "/: can't undo the mounts: %s", strerror(errno));
        return PLAN_FAILED;
    }
    return result;
}

enum plan_applied plan_apply(struct plan *plan, const struct plan_options *options, struct plan_complaint *complaint)
{
    bool newer = !options->old_mount_api;
    struct work work = {
        .plan = plan,
        .calls = {.openat2 = newer, .open_tree = newer, .mount_setattr = newer},
        .host = -1,
        .root = -1,
        .stage = -1,
    };
    mode_t mask = umask(0);
    enum plan_applied result = apply(&work, options, complaint);
    umask(mask);
    close_descriptor(&work.stage);
    close_descriptor(&work.root);
    close_descriptor(&work.host);
    return result;
}
