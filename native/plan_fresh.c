/* Whether a plan still describes the machine: every file it was made from by what stat(2) tells, none of them read.
 *
 * mtime can be set back by whoever may write to a file; ctime can't, so both are compared, in nanoseconds. Where a
 * time is compared it must be equal, not older: clocks are set back, and packages bring files with old times.
 */
#include "plan_fresh.h"

#include "closed.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

static bool is_time(struct timespec time, const char *field)
{
    /* tv_sec of a hostile file system may overflow: as unsigned that is defined, and differs as it should. */
    uint64_t nanoseconds = (uint64_t)time.tv_sec * 1000000000U + (uint64_t)time.tv_nsec;
    return nanoseconds == (uint64_t)plan_time(field);
}

static bool is_same(const struct stat *status, const char *device, const char *inode)
{
    return status->st_dev == plan_number(device) && status->st_ino == plan_number(inode);
}

bool is_file_of(const struct plan_record *record, const struct stat *status)
{
    const char *const *field = record->field;
    return S_ISREG(status->st_mode) && is_same(status, field[1], field[2]) &&
           (uint64_t)status->st_size == plan_number(field[3]) && is_time(status->st_mtim, field[4]) &&
           is_time(status->st_ctim, field[5]);
}

static bool is_same_file(const struct plan_record *record)
{
    struct stat status;
    return stat(record->field[0], &status) == 0 && is_file_of(record, &status);
}

static bool is_same_directory(const struct plan_record *record)
{
    const char *const *field = record->field;
    struct stat status;
    return stat(field[0], &status) == 0 && S_ISDIR(status.st_mode) && is_same(&status, field[1], field[2]) &&
           is_time(status.st_mtim, field[3]) && is_time(status.st_ctim, field[4]);
}

/* The times of a device node change with its use, and nothing depends on them. */
static bool is_same_node(const struct plan_record *record)
{
    const char *const *field = record->field;
    struct stat status;
    return stat(field[0], &status) == 0 && is_same(&status, field[1], field[2]) &&
           status.st_rdev == plan_number(field[3]) && status.st_mode == plan_number(field[4]) &&
           status.st_uid == plan_number(field[5]) && status.st_gid == plan_number(field[6]);
}

/* Not there, or not to be seen by this user: the plan was made by him, and it was the same to him then. */
static bool is_absent(const struct plan_record *record)
{
    struct stat status;
    return stat(record->field[0], &status) < 0;
}

static bool is_same_link(const struct plan_record *record)
{
    char text[PLAN_MAX_PATH];
    ssize_t length = readlink(record->field[0], text, sizeof text);
    return length > 0 && (size_t)length < sizeof text && strlen(record->field[1]) == (size_t)length &&
           memcmp(record->field[1], text, (size_t)length) == 0;
}

/* The stage is part of what the container will see: it must be the owner's alone. */
static bool check_stage(struct plan *plan, struct plan_complaint *complaint)
{
    CLOSED int fd = open(plan->stage, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) < 0) {
        plan_complain(complaint, "%s: the plan's stage can't be used: %s", plan->stage, strerror(errno));
        return false;
    }
    if (status.st_uid != plan->uid) {
        plan_complain(complaint, "%s: the plan's stage belongs to user %u, not to %u", plan->stage, status.st_uid,
                      plan->uid);
        return false;
    }
    if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        plan_complain(complaint, "%s: others may write to the plan's stage", plan->stage);
        return false;
    }
    plan->stage_device = status.st_dev;
    plan->stage_inode = status.st_ino;
    return true;
}

/* Records that say nothing about the machine as it was hold anyway. */
static bool holds(const struct plan_record *record)
{
    switch (record->kind) {
    case PLAN_FILE:
        return is_same_file(record);
    case PLAN_DIR:
        return is_same_directory(record);
    case PLAN_NODE:
        return is_same_node(record);
    case PLAN_ABSENT:
        return is_absent(record);
    case PLAN_LINK:
        return is_same_link(record);
    case PLAN_KEY:
    case PLAN_OWNER:
    case PLAN_STAGE:
    case PLAN_WARN:
    case PLAN_NOTE:
    case PLAN_ENV:
    case PLAN_DEFAULT:
    case PLAN_PROGRAM:
    case PLAN_ARG:
    case PLAN_KEEP:
    case PLAN_STAGEARG:
    case PLAN_SQUASHFS:
    case PLAN_PEERS:
    case PLAN_MKDIR:
    case PLAN_MKFILE:
    case PLAN_COPY:
    case PLAN_SYMLINK:
    case PLAN_BIND:
    case PLAN_BINDSTAGED:
    case PLAN_OVERLAY:
    case PLAN_MOUNT:
    case PLAN_RESTRICT:
    case PLAN_PLACE:
    case PLAN_MOVE:
    case PLAN_END:
        break;
    }
    return true;
}

bool plan_fresh(struct plan *plan, struct plan_complaint *complaint)
{
    struct plan_record record;
    for (size_t cursor = 0; plan_next(plan, &cursor, &record);) {
        if (!holds(&record)) {
            plan_complain(complaint, "%s: it has changed since the plan was made", record.field[0]);
            return false;
        }
    }
    return plan->stage == NULL || check_stage(plan, complaint);
}
