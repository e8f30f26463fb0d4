#include "mount_calls.h"

#include "closed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

/* The C library's headers know these calls late or never, and the kernel's headers clash with theirs (and are not
 * where musl's compiler looks). The numbers and values are the kernel's ABI. */
#if defined(__alpha__) || defined(__mips__)
#error "the system call numbers below are other ones here"
#endif
#ifndef SYS_open_tree
#define SYS_open_tree 428
#endif
#ifndef SYS_move_mount
#define SYS_move_mount 429
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

enum {
    NO_MAGIC_LINKS = 0x02, /* openat2(2) */
    NO_LINKS = 0x04,
    BENEATH = 0x08,
    TREE_CLONE = 1, /* open_tree(2) */
    TREE_RECURSIVE = 0x8000,
    FROM_DESCRIPTOR = 0x04, /* move_mount(2) */
    TO_DESCRIPTOR = 0x40,
    EMPTY_PATH = 0x1000, /* AT_EMPTY_PATH */
};

struct how { /* struct open_how */
    uint64_t flags, mode, resolve;
};

struct attributes { /* struct mount_attr */
    uint64_t set, clear, propagation, user_namespace;
};

/* mount(2) bits and their mount_setattr(2) counterparts. */
static const struct {
    unsigned long bit;
    uint64_t attribute;
} attribute_bits[] = {
    {MS_RDONLY, 0x01}, {MS_NOSUID, 0x02}, {MS_NODEV, 0x04}, {MS_NOEXEC, 0x08}, {MS_NODIRATIME, 0x80}, {256, 0x200000},
};

enum { ATIME_MASK = 0x70, ATIME_NEVER = 0x10, ATIME_STRICT = 0x20 }; /* relative atime is 0 */

/* statvfs(3) bits and their mount(2) counterparts; 0x1000 and above are not in every C library's header. */
static const struct {
    unsigned long found, bit;
} statvfs_bits[] = {
    {0x0001, MS_RDONLY},  {0x0002, MS_NOSUID},     {0x0004, MS_NODEV},    {0x0008, MS_NOEXEC},
    {0x0400, MS_NOATIME}, {0x0800, MS_NODIRATIME}, {0x1000, MS_RELATIME}, {0x2000, 256},
};

/* Whether a call is not there for us: not in the kernel, or refused by a filter whatever its arguments are. */
static bool is_missing(int error)
{
    return error == ENOSYS || error == EPERM;
}

struct fd_path fd_path(int fd)
{
    struct fd_path path;
    snprintf(path.text, sizeof path.text, "/proc/self/fd/%d", fd);
    return path;
}

static bool is_link(int directory, const char *name)
{
    char text[1];
    return readlinkat(directory, name, text, sizeof text) >= 0;
}

/* One component; ELOOP where it is a link, as openat2 says, also where openat says ENOTDIR or opens the link. */
static int open_component(int directory, const char *name, int flags)
{
    int fd = openat(directory, name, flags | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOTDIR)
            errno = is_link(directory, name) ? ELOOP : ENOTDIR;
        return -1;
    }
    if ((flags & O_PATH) != 0 && is_link(fd, "")) {
        close(fd);
        errno = ELOOP;
        return -1;
    }
    return fd;
}

/* What openat2 does for open_beneath, component by component. */
static int walk_beneath(int directory, const char *path, int flags)
{
    int current = -1;
    for (;;) {
        char name[256];
        size_t length = strcspn(path, "/");
        if (length >= sizeof name) {
            close_descriptor(&current);
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(name, path, length);
        name[length] = '\0';
        bool last = path[length] == '\0';
        int next = open_component(current < 0 ? directory : current, name, last ? flags : O_PATH | O_DIRECTORY);
        close_descriptor(&current);
        if (next < 0 || last)
            return next;
        current = next;
        path += length + 1;
    }
}

int open_beneath(struct mount_calls *calls, int directory, const char *path, int flags)
{
    if (calls->openat2) {
        struct how how = {.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
                          .resolve = BENEATH | NO_LINKS | NO_MAGIC_LINKS};
        int fd = (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
        if (fd >= 0 || !is_missing(errno))
            return fd;
        calls->openat2 = false;
    }
    return walk_beneath(directory, path, flags);
}

/* A copy of a mount, moved to where it belongs: no path is looked up twice, and the descriptor stays that of the
 * new mount. */
static int bind_tree(struct mount_calls *calls, int from, const char *source, bool recursive, int target)
{
    unsigned how = TREE_CLONE | O_CLOEXEC | (recursive ? TREE_RECURSIVE : 0U) | (*source == '\0' ? EMPTY_PATH : 0U);
    int tree = (int)syscall(SYS_open_tree, from, source, how);
    if (tree < 0) {
        calls->open_tree = !is_missing(errno);
        return -1;
    }
    if (syscall(SYS_move_mount, tree, "", target, "", FROM_DESCRIPTOR | TO_DESCRIPTOR) < 0) {
        calls->open_tree = !is_missing(errno);
        close_descriptor(&tree);
        return -1;
    }
    return tree;
}

int bind_beneath(struct mount_calls *calls, int from, const char *source, bool recursive, int directory,
                 const char *path)
{
    CLOSED int target = open_beneath(calls, directory, path, O_PATH);
    if (target < 0)
        return -1;
    if (calls->open_tree) {
        int mounted = bind_tree(calls, from, source, recursive, target);
        if (mounted >= 0 || calls->open_tree)
            return mounted;
    }
    struct fd_path from_path = fd_path(from), target_path = fd_path(target);
    const char *name = *source == '\0' ? from_path.text : source;
    if (mount(name, target_path.text, NULL, MS_BIND | (recursive ? MS_REC : 0UL), NULL) < 0)
        return -1;
    /* Opened again: the descriptor from before names what is underneath. */
    return open_beneath(calls, directory, path, O_PATH);
}

int mount_beneath(struct mount_calls *calls, const char *fstype, const char *source, unsigned long flags,
                  const char *data, int directory, const char *path)
{
    CLOSED int target = open_beneath(calls, directory, path, O_PATH);
    if (target < 0)
        return -1;
    /* mount(2) does in one call what takes five of the newer ones, and its options may be longer than 255 bytes. */
    struct fd_path target_path = fd_path(target);
    if (mount(source, target_path.text, fstype, flags, *data == '\0' ? NULL : data) < 0)
        return -1;
    return open_beneath(calls, directory, path, O_PATH);
}

int move_beneath(struct mount_calls *calls, int mounted, int directory, const char *path)
{
    CLOSED int target = open_beneath(calls, directory, path, O_PATH);
    if (target < 0)
        return -1;
    if (calls->open_tree) {
        if (syscall(SYS_move_mount, mounted, "", target, "", FROM_DESCRIPTOR | TO_DESCRIPTOR) == 0)
            return 0;
        if (!is_missing(errno))
            return -1;
        calls->open_tree = false;
    }
    struct fd_path from_path = fd_path(mounted), target_path = fd_path(target);
    return mount(from_path.text, target_path.text, NULL, MS_MOVE, NULL);
}

static struct attributes attributes_of(unsigned long flags)
{
    struct attributes attributes = {0};
    for (size_t i = 0; i < sizeof attribute_bits / sizeof *attribute_bits; i++)
        if ((flags & attribute_bits[i].bit) != 0)
            attributes.set |= attribute_bits[i].attribute;
    /* As mount(2) has it: strict wins over never, and never over relative. */
    if ((flags & (MS_STRICTATIME | MS_NOATIME | MS_RELATIME)) != 0)
        attributes.clear = ATIME_MASK;
    if ((flags & MS_STRICTATIME) != 0)
        attributes.set |= ATIME_STRICT;
    else if ((flags & MS_NOATIME) != 0)
        attributes.set |= ATIME_NEVER;
    return attributes;
}

/* In a user namespace, a remount must name the flags that the mount has already, else EPERM. */
static unsigned long present_flags(int mounted)
{
    struct statvfs found;
    unsigned long bits = 0;
    if (fstatvfs(mounted, &found) < 0)
        return 0;
    for (size_t i = 0; i < sizeof statvfs_bits / sizeof *statvfs_bits; i++)
        if ((found.f_flag & statvfs_bits[i].found) != 0)
            bits |= statvfs_bits[i].bit;
    return bits;
}

int restrict_mount(struct mount_calls *calls, int mounted, unsigned long flags)
{
    if (calls->mount_setattr) {
        struct attributes attributes = attributes_of(flags);
        if (syscall(SYS_mount_setattr, mounted, "", EMPTY_PATH, &attributes, sizeof attributes) == 0)
            return 0;
        if (!is_missing(errno))
            return -1;
        calls->mount_setattr = false;
    }
    struct fd_path path = fd_path(mounted);
    return mount(NULL, path.text, NULL, MS_BIND | MS_REMOUNT | flags | present_flags(mounted), NULL);
}

int propagate_mount(int mounted, unsigned long flags)
{
    struct fd_path path = fd_path(mounted);
    return mount(NULL, path.text, NULL, flags, NULL);
}

int exchange_root(const char *new_root, const char *put_old)
{
    return (int)syscall(SYS_pivot_root, new_root, put_old);
}
