/* Opening and mounting below a directory, never out of it, with whatever calls the kernel has. */
#ifndef CDI_HPC_MOUNT_CALLS_H
#define CDI_HPC_MOUNT_CALLS_H

#include <stdbool.h>

/* Which of the newer calls may be tried. A call that turns out to be missing, or hidden by a seccomp filter, is not
 * tried again. All false: mount(2) and openat(2) alone. */
struct mount_calls {
    bool openat2;       /* Linux 5.6 */
    bool open_tree;     /* open_tree and move_mount, Linux 5.2 */
    bool mount_setattr; /* Linux 5.12 */
};

/* Open a relative path that leads nowhere but down and holds no link. -1 with errno: ELOOP for a link on the way. */
int open_beneath(struct mount_calls *calls, int directory, const char *path, int flags);

/* Bind `source`, seen from the directory `from`, on `path` below `directory`; the empty source is `from` itself.
 * Returns a descriptor of the new mount's root, or -1 with errno. */
int bind_beneath(struct mount_calls *calls, int from, const char *source, bool recursive, int directory,
                 const char *path);

/* Mount a new file system on `path` below `directory`. Returns a descriptor of its root, or -1 with errno. */
int mount_beneath(struct mount_calls *calls, const char *fstype, const char *source, unsigned long flags,
                  const char *data, int directory, const char *path);

/* Move the mount whose root is open to `path` below `directory`. The descriptor stays that of the mount. */
int move_beneath(struct mount_calls *calls, int mounted, int directory, const char *path);

/* Add flags to the mount whose root is open; what it has already, it keeps. */
int restrict_mount(struct mount_calls *calls, int mounted, unsigned long flags);

/* Change the propagation type of the mount whose root is open (mount_namespaces(7)). */
int propagate_mount(int mounted, unsigned long flags);

int exchange_root(const char *new_root, const char *put_old);

/* A path that leads to what a descriptor has open, whatever its name: mount(2) takes no descriptors. */
struct fd_path {
    char text[32];
};
struct fd_path fd_path(int fd);

#endif
