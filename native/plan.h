/* A compiled plan: read it, see whether it is still fresh, apply it.
 *
 * The library's whole interface. It knows nothing of CDI, of Slurm or of a command line: the program cdi-hpc-run and
 * the SPANK plugin use it alike. Nothing here prints or exits; what went wrong is left in a struct plan_complaint.
 *
 * The wire format is described in the appendix of docs/hpc.md; cdi_hpc/wire.py writes it.
 */
#ifndef CDI_HPC_PLAN_H
#define CDI_HPC_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    PLAN_KEY_DIGITS = 64,        /* SHA-256 in hexadecimal */
    PLAN_MAX_BYTES = 64 << 20,   /* a longer file is refused: 2,000 mounts take less than one MiB */
    PLAN_MAX_FIELDS = 7,
    PLAN_MAX_PATH = 4096,        /* PATH_MAX of Linux, the final NUL included */
};

/* In the order of the table in plan_read.c. */
enum plan_kind {
    PLAN_KEY, PLAN_OWNER, PLAN_STAGE,                                   /* the head */
    PLAN_FILE, PLAN_DIR, PLAN_NODE, PLAN_ABSENT, PLAN_LINK,             /* what it was made from */
    PLAN_WARN, PLAN_NOTE, PLAN_ENV,                                     /* what to say, and the environment */
    PLAN_MKDIR, PLAN_MKFILE, PLAN_COPY, PLAN_SYMLINK,                   /* steps */
    PLAN_BIND, PLAN_BINDSTAGED, PLAN_OVERLAY, PLAN_MOUNT, PLAN_RESTRICT,
    PLAN_END,
};

/* One record. The fields lie in the plan's text, each ends with NUL, and each was checked when the plan was read. */
struct plan_record {
    enum plan_kind kind;
    const char *field[PLAN_MAX_FIELDS];
};

/* What went wrong, in one line without a final newline; empty when nothing did. */
struct plan_complaint {
    char text[2 * PLAN_MAX_PATH];
};

/* A plan in memory. Begin with one that is all zero; plan_free it in any case. */
struct plan {
    char *text; /* the file's bytes */
    size_t size;
    size_t body; /* offset of the first record after the header */
    const char *key;
    uid_t uid; /* whose plan it is */
    gid_t gid;
    const char *stage;    /* directory on disk with layers and file contents, or NULL */
    dev_t stage_device;   /* which directory that was when plan_fresh looked at it */
    ino_t stage_inode;
};

/* Read a plan from a regular file, all of it. False with a complaint for anything but a whole, valid plan. */
bool plan_read(struct plan *plan, int fd, struct plan_complaint *complaint);

/* The same for bytes in memory: `text` comes from malloc and belongs to the plan from here on, valid or not. */
bool plan_parse(struct plan *plan, char *text, size_t size, struct plan_complaint *complaint);

void plan_free(struct plan *plan);

/* The records one after the other: begin with `*cursor` 0; false after the last one before `end`. */
bool plan_next(const struct plan *plan, size_t *cursor, struct plan_record *record);

/* The value of a field that holds a number. */
uint64_t plan_number(const char *field);
int64_t plan_time(const char *field);

/* Whether everything the plan was made from is as it was, and its stage is there and nobody else's. False with the
 * first thing that differs. Call it before plan_enter: in a user namespace other owners can't be told apart. */
bool plan_fresh(struct plan *plan, struct plan_complaint *complaint);

/* New user and mount namespaces in which uid and gid are what they were (Python: runner.enter_namespaces). */
bool plan_enter(struct plan_complaint *complaint);

enum plan_applied {
    PLAN_APPLIED,         /* the root directory is the container's; the working directory is / */
    PLAN_OVERLAY_REFUSED, /* the kernel refuses an overlay here; the root directory is the host's, as after plan_enter */
    PLAN_FAILED,          /* a step failed, anything may be half done: exit */
};

struct plan_options {
    bool old_mount_api;             /* only mount(2) and openat(2), as if the kernel had nothing newer */
    void (*tell)(const char *line); /* called before each step, or NULL */
};

/* Make the container's root and go there. Only after plan_fresh and plan_enter, in a process with one thread. */
enum plan_applied plan_apply(const struct plan *plan, const struct plan_options *options,
                             struct plan_complaint *complaint);

/* No capability, now or after any exec, and no_new_privs (capabilities(7)). */
bool plan_drop_privileges(struct plan_complaint *complaint);

void plan_complain(struct plan_complaint *complaint, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
