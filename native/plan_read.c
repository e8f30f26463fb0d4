/* The reader of the wire format (docs/plan-format.md): everything is checked here, once, so that nobody has to later.
 *
 * A plan is one block of memory, the file's bytes, and records are looked at where they lie. Nothing is allocated for
 * a record or a field, and no array of records is made: a hostile file costs its own size and no more.
 */
#include "closed.h"
#include "mount_flags.h"
#include "plan.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Name and version, each with its NUL. */
static const char header[] = "cdi-hpc-plan\0"
                             "2";

void plan_complain(struct plan_complaint *complaint, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(complaint->text, sizeof complaint->text, format, arguments);
    va_end(arguments);
}

/* What a field may hold ------------------------------------------------------------------------------------------- */

static bool is_text(const char *field)
{
    (void)field;
    return true;
}

static bool is_key(const char *field)
{
    return strlen(field) == PLAN_KEY_DIGITS && strspn(field, "0123456789abcdef") == PLAN_KEY_DIGITS;
}

/* Decimal, as short as it can be, at most `most`. One value has one spelling: a plan has one encoding. */
static bool is_number_to(const char *field, uint64_t most)
{
    if (field[0] == '\0' || (field[0] == '0' && field[1] != '\0'))
        return false;
    uint64_t value = 0;
    for (; *field != '\0'; field++) {
        if (*field < '0' || *field > '9')
            return false;
        uint64_t digit = (uint64_t)(*field - '0');
        if (digit > most || value > (most - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    return true;
}

static bool is_number(const char *field)
{
    return is_number_to(field, UINT64_MAX);
}

/* The highest one means "no id" to the kernel. */
static bool is_id(const char *field)
{
    return is_number_to(field, UINT32_MAX - 1);
}

static bool is_mode(const char *field)
{
    return is_number_to(field, 07777);
}

/* st_mode, file type included. */
static bool is_full_mode(const char *field)
{
    return is_number_to(field, UINT32_MAX);
}

static bool is_yes_or_no(const char *field)
{
    return is_number_to(field, 1);
}

/* Nanoseconds since the epoch; before it, too: a file's time is anything. */
static bool is_time(const char *field)
{
    if (field[0] == '-')
        return field[1] != '0' && is_number_to(field + 1, INT64_MAX);
    return is_number_to(field, INT64_MAX);
}

static bool is_host_path(const char *field)
{
    return field[0] == '/' && strlen(field) < PLAN_MAX_PATH;
}

/* One or more components, none of them empty, `.` or `..`. */
static bool is_below(const char *field)
{
    if (strlen(field) >= PLAN_MAX_PATH - 1)
        return false;
    for (;;) {
        size_t length = strcspn(field, "/");
        if (length == 0 || (field[0] == '.' && (length == 1 || (length == 2 && field[1] == '.'))))
            return false;
        if (field[length] == '\0')
            return true;
        field += length + 1;
    }
}

static bool is_place(const char *field)
{
    return field[0] == '/' && (field[1] == '\0' || is_below(field + 1));
}

/* A place that is not the root, in the tree or on the host. */
static bool is_below_root(const char *field)
{
    return field[0] == '/' && is_below(field + 1);
}

static bool is_index(const char *field)
{
    return is_number_to(field, PLAN_MAX_WORD);
}

static bool is_link_text(const char *field)
{
    return field[0] != '\0' && strlen(field) < PLAN_MAX_PATH;
}

static bool is_assignment(const char *field)
{
    return field[0] != '\0' && strcspn(field, "=") > 0 && strchr(field, '=') != NULL;
}

/* What tmpfs(5) takes for a size, or nothing. */
static bool is_limit(const char *field)
{
    size_t digits = strspn(field, "0123456789");
    size_t unit = field[digits] != '\0' && strchr("kKmMgGtTpPeE%", field[digits]) != NULL;
    return field[digits + unit] == '\0' && digits >= unit;
}

static bool is_word(const char *field)
{
    return field[0] != '\0';
}

static bool is_flags(const char *field)
{
    unsigned long bits;
    return mount_flag_bits(field, &bits);
}

static bool is_propagation(const char *field)
{
    unsigned long bits;
    return mount_propagation_bits(field, &bits);
}

/* Records --------------------------------------------------------------------------------------------------------- */

static const struct shape {
    const char *name;
    bool (*field[PLAN_MAX_FIELDS])(const char *); /* NULL after the last one */
} shapes[] = {
    [PLAN_KEY] = {"key", {is_key}},
    [PLAN_OWNER] = {"owner", {is_id, is_id}},
    [PLAN_STAGE] = {"stage", {is_host_path}},
    /* path, device, inode, size, mtime, ctime */
    [PLAN_FILE] = {"file", {is_host_path, is_number, is_number, is_number, is_time, is_time}},
    [PLAN_DIR] = {"dir", {is_host_path, is_number, is_number, is_time, is_time}},
    /* path, device, inode, number of the node, st_mode, owner, group */
    [PLAN_NODE] = {"node", {is_host_path, is_number, is_number, is_number, is_full_mode, is_id, is_id}},
    [PLAN_ABSENT] = {"absent", {is_host_path}},
    [PLAN_LINK] = {"link", {is_host_path, is_link_text}},
    [PLAN_WARN] = {"warn", {is_text}},
    [PLAN_NOTE] = {"note", {is_text}},
    [PLAN_ENV] = {"env", {is_assignment}},
    [PLAN_DEFAULT] = {"default", {is_assignment}},
    [PLAN_PROGRAM] = {"program", {is_host_path}},
    [PLAN_ARG] = {"arg", {is_text}},
    [PLAN_KEEP] = {"keep", {is_index}},
    /* prefix, path in the stage, suffix */
    [PLAN_STAGEARG] = {"stagearg", {is_text, is_below, is_text}},
    /* file, directory that it is mounted on, where in the file it begins, whether its files are the caller's */
    [PLAN_SQUASHFS] = {"squashfs", {is_host_path, is_below_root, is_number, is_yes_or_no}},
    /* path of the launcher's file, variable that ends it, devices in words, what stands for all edits */
    [PLAN_PEERS] = {"peers", {is_host_path, is_text, is_text, is_key}},
    [PLAN_MKDIR] = {"mkdir", {is_place, is_mode}},
    [PLAN_MKFILE] = {"mkfile", {is_place, is_mode}},
    [PLAN_COPY] = {"copy", {is_below, is_place, is_mode}},
    [PLAN_SYMLINK] = {"symlink", {is_place, is_link_text}},
    /* source, place, recursive, flags, propagation */
    [PLAN_BIND] = {"bind", {is_host_path, is_place, is_yes_or_no, is_flags, is_propagation}},
    [PLAN_BINDSTAGED] = {"bindstaged", {is_below, is_place, is_flags}},
    /* place, upper layer, lower layer, writable, mode of the writable root, flags, size of what is written */
    [PLAN_OVERLAY] = {"overlay", {is_place, is_below, is_host_path, is_yes_or_no, is_mode, is_flags, is_limit}},
    /* type, source, place, flags, data */
    [PLAN_MOUNT] = {"mount", {is_word, is_text, is_place, is_flags, is_text}},
    [PLAN_RESTRICT] = {"restrict", {is_place, is_flags}},
    [PLAN_PLACE] = {"place", {is_below_root}},
    /* place of a mount in the tree, path of the host */
    [PLAN_MOVE] = {"move", {is_below_root, is_below_root}},
    [PLAN_END] = {"end", {NULL}},
};

static bool find_kind(const char *name, enum plan_kind *kind)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (strcmp(shapes[i].name, name) == 0) {
            *kind = (enum plan_kind)i;
            return true;
        }
    }
    return false;
}

/* The text at `*at` up to its NUL, and `*at` after it; NULL where the plan ends before the NUL. */
static const char *take(const struct plan *plan, size_t *at)
{
    const char *text = plan->text + *at;
    const char *end = memchr(text, '\0', plan->size - *at);
    if (end == NULL)
        return NULL;
    *at += (size_t)(end - text) + 1;
    return text;
}

/* One record, checked. */
static bool take_record(const struct plan *plan, size_t *at, struct plan_record *record,
                        struct plan_complaint *complaint)
{
    size_t start = *at;
    const char *name = take(plan, at);
    if (name == NULL) {
        plan_complain(complaint, "byte %zu: the plan ends without its last record", start);
        return false;
    }
    if (!find_kind(name, &record->kind)) {
        plan_complain(complaint, "byte %zu: no record is called '%.40s'", start, name);
        return false;
    }
    const struct shape *shape = &shapes[record->kind];
    for (size_t i = 0; i < PLAN_MAX_FIELDS && shape->field[i] != NULL; i++) {
        record->field[i] = take(plan, at);
        if (record->field[i] == NULL) {
            plan_complain(complaint, "byte %zu: the plan ends inside of record '%s'", start, name);
            return false;
        }
        if (!shape->field[i](record->field[i])) {
            plan_complain(complaint, "byte %zu: field %zu of record '%s' can't be '%.200s'", start, i + 1, name,
                          record->field[i]);
            return false;
        }
    }
    return true;
}

uint64_t plan_number(const char *field)
{
    return strtoull(field, NULL, 10);
}

int64_t plan_time(const char *field)
{
    return strtoll(field, NULL, 10);
}

bool plan_next(const struct plan *plan, size_t *cursor, struct plan_record *record)
{
    if (*cursor == 0)
        *cursor = plan->body;
    /* Checked before: names are known and every field ends. */
    if (!find_kind(take(plan, cursor), &record->kind) || record->kind == PLAN_END)
        return false;
    const struct shape *shape = &shapes[record->kind];
    for (size_t i = 0; i < PLAN_MAX_FIELDS && shape->field[i] != NULL; i++)
        record->field[i] = take(plan, cursor);
    return true;
}

/* What must hold between records ---------------------------------------------------------------------------------- */


/* The place that a step makes or changes, NULL for records that are no steps. */
static const char *place_of(const struct plan_record *record)
{
    switch (record->kind) {
    case PLAN_MKDIR:
    case PLAN_MKFILE:
    case PLAN_SYMLINK:
    case PLAN_OVERLAY:
    case PLAN_RESTRICT:
        return record->field[0];
    case PLAN_COPY:
    case PLAN_BIND:
    case PLAN_BINDSTAGED:
        return record->field[1];
    case PLAN_MOUNT:
        return record->field[2];
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
    case PLAN_SQUASHFS:
    case PLAN_PEERS:
    case PLAN_PLACE:
    case PLAN_MOVE:
    case PLAN_END:
        break;
    }
    return NULL;
}

static bool makes_root(const struct plan_record *record)
{
    return record->kind == PLAN_BIND || record->kind == PLAN_OVERLAY || record->kind == PLAN_MOUNT;
}

/* Why a step can't stand where it does, or NULL. */
static const char *misplaced_step(const struct plan *plan, const struct plan_record *record, const char *place)
{
    bool at_root = strcmp(place, "/") == 0;
    if (plan->place != NULL)
        return "it comes after the tree was put at its place";
    if (!plan->has_steps && !(at_root && makes_root(record)))
        return "the first step must make the root directory";
    if (plan->has_steps && at_root && record->kind != PLAN_RESTRICT)
        return "the root directory is made once";
    if (record->kind == PLAN_OVERLAY && !at_root && strcmp(record->field[3], "1") == 0)
        return "only the root directory can be writable";
    return NULL;
}

/* Whether the plan says which file there was at the path of its SquashFS file. Only after all records were checked. */
static bool knows_squashfs(const struct plan *plan)
{
    struct plan_record record;
    for (size_t cursor = 0; plan_next(plan, &cursor, &record);)
        if (record.kind == PLAN_FILE && strcmp(record.field[0], plan->squashfs) == 0)
            return true;
    return false;
}

/* Why a plan can't end so, or NULL. */
static const char *incomplete(const struct plan *plan)
{
    if (!plan->has_steps && (plan->program == NULL || plan->squashfs != NULL))
        return "no step makes the root directory";
    if (plan->has_steps && plan->program != NULL && plan->place == NULL)
        return "the program is the host's, and the root directory would not be";
    if (plan->squashfs != NULL && !knows_squashfs(plan))
        return "no file record tells which file squashfs means";
    return NULL;
}

/* What a record needs before it. */
enum { NEEDS_STAGE = 1, NEEDS_NO_STEP = 2, NEEDS_STEP = 4, NEEDS_PLACE = 8, NEEDS_PROGRAM = 16, ONCE = 32 };

static const unsigned needs[] = {
    [PLAN_COPY] = NEEDS_STAGE,
    [PLAN_BINDSTAGED] = NEEDS_STAGE,
    [PLAN_OVERLAY] = NEEDS_STAGE,
    [PLAN_PROGRAM] = ONCE,
    [PLAN_ARG] = NEEDS_PROGRAM,
    [PLAN_KEEP] = NEEDS_PROGRAM,
    [PLAN_STAGEARG] = NEEDS_PROGRAM | NEEDS_STAGE,
    [PLAN_SQUASHFS] = ONCE | NEEDS_NO_STEP,
    [PLAN_PEERS] = ONCE | NEEDS_NO_STEP,
    [PLAN_PLACE] = ONCE | NEEDS_STEP,
    [PLAN_MOVE] = NEEDS_PLACE,
    [PLAN_END] = 0,
};

static bool is_second(const struct plan *plan, enum plan_kind kind)
{
    return (kind == PLAN_PROGRAM && plan->program != NULL) || (kind == PLAN_SQUASHFS && plan->squashfs != NULL) ||
           (kind == PLAN_PLACE && plan->place != NULL) || (kind == PLAN_PEERS && plan->peers.prefix != NULL);
}

/* Which of its needs a record lacks, or NULL. */
static const char *lacking(const struct plan *plan, enum plan_kind kind)
{
    unsigned needed = needs[kind];
    if ((needed & NEEDS_STAGE) != 0 && plan->stage == NULL)
        return "it needs a stage and the plan has none";
    if ((needed & NEEDS_PROGRAM) != 0 && plan->program == NULL)
        return "it is a word for a program that has not been named";
    if ((needed & NEEDS_PLACE) != 0 && plan->place == NULL)
        return "the tree has not been put at a place";
    if ((needed & NEEDS_STEP) != 0 && !plan->has_steps)
        return "there is no tree yet";
    if ((needed & NEEDS_NO_STEP) != 0 && plan->has_steps)
        return "it comes before the steps";
    return (needed & ONCE) != 0 && is_second(plan, kind) ? "a plan has one" : NULL;
}

/* Why a record can't be the one with this number (from 0), or NULL. */
static const char *misplaced(const struct plan *plan, size_t number, const struct plan_record *record)
{
    if ((number == 0) != (record->kind == PLAN_KEY))
        return "key is the first record and no other";
    if ((number == 1) != (record->kind == PLAN_OWNER))
        return "owner is the second record and no other";
    if (record->kind == PLAN_STAGE && number != 2)
        return "stage is the third record or none";
    if (record->kind == PLAN_END)
        return incomplete(plan);
    const char *reason = lacking(plan, record->kind), *place = place_of(record);
    return reason == NULL && place != NULL ? misplaced_step(plan, record, place) : reason;
}

static void remember(struct plan *plan, const struct plan_record *record)
{
    if (place_of(record) != NULL)
        plan->has_steps = true;
    if (record->kind == PLAN_KEY) {
        plan->key = record->field[0];
    } else if (record->kind == PLAN_OWNER) {
        plan->uid = (uid_t)plan_number(record->field[0]);
        plan->gid = (gid_t)plan_number(record->field[1]);
    } else if (record->kind == PLAN_STAGE) {
        plan->stage = record->field[0];
    } else if (record->kind == PLAN_PROGRAM) {
        plan->program = record->field[0];
    } else if (record->kind == PLAN_SQUASHFS) {
        plan->squashfs = record->field[0];
        plan->offset = record->field[2];
        plan->is_owned = record->field[3][0] == '1';
    } else if (record->kind == PLAN_PEERS) {
        plan->peers = (struct plan_sharing){
            .prefix = record->field[0],
            .variable = record->field[1],
            .devices = record->field[2],
            .edits = record->field[3],
        };
    } else if (record->kind == PLAN_PLACE) {
        plan->place = record->field[0];
    }
}

bool plan_parse(struct plan *plan, char *text, size_t size, struct plan_complaint *complaint)
{
    *plan = (struct plan){.text = text, .size = size, .body = sizeof header};
    if (size < sizeof header || memcmp(text, header, sizeof header) != 0) {
        plan_complain(complaint, "it does not begin as a plan of version 2 does");
        return false;
    }
    struct plan_record record = {.kind = PLAN_KEY};
    size_t at = plan->body;
    for (size_t number = 0; record.kind != PLAN_END; number++) {
        size_t start = at;
        if (!take_record(plan, &at, &record, complaint))
            return false;
        const char *reason = misplaced(plan, number, &record);
        if (reason != NULL) {
            plan_complain(complaint, "byte %zu: record '%s': %s", start, shapes[record.kind].name, reason);
            return false;
        }
        remember(plan, &record);
    }
    if (at != size) {
        plan_complain(complaint, "byte %zu: something follows the last record", at);
        return false;
    }
    return true;
}

/* Files ----------------------------------------------------------------------------------------------------------- */

/* Exactly `size` bytes and then the end of the file. */
static bool read_whole(int fd, char *text, size_t size)
{
    size_t have = 0;
    char beyond;
    for (;;) {
        ssize_t got = have < size ? read(fd, text + have, size - have) : read(fd, &beyond, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0 || have == size)
            return got == 0 && have == size;
        have += (size_t)got;
    }
}

bool plan_read(struct plan *plan, int fd, struct plan_complaint *complaint)
{
    *plan = (struct plan){0};
    struct stat status;
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode)) {
        plan_complain(complaint, "it is not a regular file");
        return false;
    }
    if (status.st_size <= 0 || status.st_size > PLAN_MAX_BYTES) {
        plan_complain(complaint, "it has %lld bytes; a plan has 1 to %d", (long long)status.st_size, PLAN_MAX_BYTES);
        return false;
    }
    size_t size = (size_t)status.st_size;
    char *text = malloc(size);
    if (text == NULL || !read_whole(fd, text, size)) {
        free(text);
        plan_complain(complaint, "it can't be read whole");
        return false;
    }
    return plan_parse(plan, text, size, complaint);
}

void plan_free(struct plan *plan)
{
    free(plan->text);
    if (plan->server.started) {
        close_descriptor(&plan->server.socket);
        close_descriptor(&plan->server.said);
    }
    if (plan->peers.is_locked)
        close_descriptor(&plan->peers.lock);
    *plan = (struct plan){0};
}
