/* A compiled plan: read it, see whether it is still fresh, apply it.
 *
 * The library's whole interface. It knows nothing of CDI, of Slurm or of a command line: the program cdi-hpc-run and
 * the SPANK plugin use it alike. Nothing here prints or exits; what went wrong is left in a struct plan_complaint.
 *
 * The wire format is described in docs/plan-format.md; cdi_hpc/compiled/wire.py writes it.
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
    PLAN_MAX_WORD = 0x7ffffffe,  /* highest index of a word of a command line (MAX_ARG_STRINGS of Linux, from 0) */
};

/* In the order of the table in plan_read.c. */
enum plan_kind {
    PLAN_KEY, PLAN_OWNER, PLAN_STAGE,                                   /* the head */
    PLAN_FILE, PLAN_DIR, PLAN_NODE, PLAN_ABSENT, PLAN_LINK,             /* what it was made from */
    PLAN_WARN, PLAN_NOTE, PLAN_ENV, PLAN_DEFAULT,                       /* what to say, and the environment */
    PLAN_PROGRAM, PLAN_ARG, PLAN_KEEP, PLAN_STAGEARG,                   /* a launcher and its command line */
    PLAN_SQUASHFS, PLAN_PEERS,                                          /* before the steps */
    PLAN_MKDIR, PLAN_MKFILE, PLAN_COPY, PLAN_SYMLINK,                   /* steps */
    PLAN_BIND, PLAN_BINDSTAGED, PLAN_OVERLAY, PLAN_MOUNT, PLAN_RESTRICT,
    PLAN_PLACE, PLAN_MOVE,                                              /* after the steps */
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

/* The process that serves a SquashFS file, from plan_serve to plan_apply. */
struct plan_server {
    bool started;
    int socket; /* takes the descriptor of /dev/fuse */
    int said;   /* file with what it says on standard error */
};

/* Launches that share a container, for plan_is_first; all NULL without any. */
struct plan_sharing {
    const char *prefix;   /* of the path of the launcher's file */
    const char *variable; /* whose value ends it, "" for none */
    const char *devices;  /* that this plan is for, in words */
    const char *edits;    /* what stands for everything that they bring */
    bool is_locked;       /* this is the first launch, and the others wait for as long as `lock` is open */
    int lock;
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
    bool has_steps;       /* without any, no namespace is needed: neither plan_enter nor plan_apply */
    const char *place;    /* directory of the host that the tree is put over, or NULL: it becomes the root directory */
    const char *squashfs; /* file with a SquashFS that plan_serve serves, or NULL */
    const char *offset;   /* where in the file that begins, a number */
    bool is_owned;        /* its files are shown as the caller's */
    struct plan_sharing peers;
    const char *program;  /* launcher to execute in place of the user's command, or NULL */
    struct plan_server server;
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

/* Start what serves the plan's SquashFS file, a process of its own: squashfuse from the PATH, idle until plan_apply
 * has mounted. It ends with the last process of the mount namespace, or with ours if plan_apply is never reached.
 * False: squashfuse or /dev/fuse is missing, or the file is another one than plan_fresh saw; nothing has been changed,
 * and the launch may be made another way. Does nothing for a plan without `squashfs`. Between plan_fresh and
 * plan_enter. */
bool plan_serve(struct plan *plan, struct plan_complaint *complaint);

/* Whether this launch is the first of those that share a container, and has to apply the plan; the others only execute
 * the launcher. It is, where the plan knows of no others. False with a complaint where there can be no lock, or where the
 * container has other devices than this plan. After plan_fresh, before plan_serve. */
bool plan_is_first(struct plan *plan, bool *first, struct plan_complaint *complaint);

/* Have the others wait on after the launcher is executed, until it has begun the container or ended: the last thing
 * before that. If a launch comes to nothing before, nobody waits for it any more. Does nothing where there are no
 * others. A process with one thread. */
bool plan_hold_others(const struct plan *plan, struct plan_complaint *complaint);

/* New user and mount namespaces in which uid and gid are what they were (Python: runner.enter_namespaces). */
bool plan_enter(struct plan_complaint *complaint);

/* The same one by one: the user namespace, whose maker's files in /proc must be his own for it (proc(5), "dumpable"), and
 * by anybody who is in one, the mount namespace. */
bool plan_enter_user(struct plan_complaint *complaint);
bool plan_enter_mounts(struct plan_complaint *complaint);

enum plan_applied {
    PLAN_APPLIED,         /* the root directory is the container's, or the tree is at the plan's `place` */
    PLAN_OVERLAY_REFUSED, /* the kernel refuses an overlay here; all mounts are the host's, as after plan_enter */
    PLAN_IMAGE_REFUSED,   /* the SquashFS file can't be mounted; the same */
    PLAN_STEP_FAILED,     /* any other step can't be done; the same */
    PLAN_FAILED,          /* anything may be half done: exit */
};

struct plan_options {
    bool old_mount_api;             /* only mount(2) and openat(2), as if the kernel had nothing newer */
    void (*tell)(const char *line); /* called before each step, or NULL */
};

/* A step in one line, as it is told before it is done. False for a record that is none. */
bool plan_tell(const struct plan_record *record, struct plan_complaint *line);

/* Make the container's tree, and go there or put it at the plan's `place`. Afterwards the working directory is /: the
 * one before may be covered now, and has to be entered again by its path. Only after plan_fresh, plan_serve and
 * plan_enter, in a process with one thread. */
enum plan_applied plan_apply(struct plan *plan, const struct plan_options *options,
                             struct plan_complaint *complaint);

/* No capability, now or after any exec (capabilities(7)); only after plan_enter, which is what gave them. With
 * `no_new_privs` (prctl(2)) no program's file gives any either; a launcher that is executed in our namespace decides
 * on that for itself. */
bool plan_drop_privileges(bool no_new_privs, struct plan_complaint *complaint);

/* A launcher's command line, NULL at the end, for plan->program: `name` is its word 0, then come the plan's words,
 * among them some of the user's (`given` of them, his words after the program's name, as they were typed), then
 * `command`, NULL at its end: the user's command as it was found among his words, or NULL for none.
 *
 * One free() frees it; name, words and command have to stay. NULL with a complaint where the plan asks for a word that
 * was not given (it is not this invocation's plan) or there is no memory. */
char **plan_words(const struct plan *plan, const char *name, char *const *words, size_t given, char *const *command,
                  struct plan_complaint *complaint);

void plan_complain(struct plan_complaint *complaint, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
