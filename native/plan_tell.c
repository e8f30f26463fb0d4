/* What a launch does, one line for each step, for whoever asked with -v. cdi_hpc/launch/telling.py has the same words. */
#include "plan.h"

#include <stdio.h>

/* " (FLAGS)", or nothing where there are none. */
struct flags {
    char text[128]; /* all flags that a plan can have, each once, take less */
};

static struct flags flags_of(const char *names)
{
    struct flags flags = {.text = ""};
    if (names[0] != '\0')
        snprintf(flags.text, sizeof flags.text, " (%s)", names);
    return flags;
}

bool plan_tell(const struct plan_record *record, struct plan_complaint *line)
{
    const char *const *field = record->field;
    switch (record->kind) {
    case PLAN_SQUASHFS:
        plan_complain(line, "mount %s with squashfuse", field[0]);
        return true;
    case PLAN_MKDIR:
        plan_complain(line, "directory %s", field[0]);
        return true;
    case PLAN_MKFILE:
        plan_complain(line, "file %s", field[0]);
        return true;
    case PLAN_COPY:
        plan_complain(line, "file %s", field[1]);
        return true;
    case PLAN_SYMLINK:
        plan_complain(line, "link %s -> %s", field[0], field[1]);
        return true;
    case PLAN_BIND:
        plan_complain(line, "bind %s -> %s%s", field[0], field[1], flags_of(field[3]).text);
        return true;
    case PLAN_BINDSTAGED:
        plan_complain(line, "bind staged file -> %s%s", field[1], flags_of(field[2]).text);
        return true;
    case PLAN_OVERLAY:
        plan_complain(line, "overlay %s -> %s%s", field[2], field[0], flags_of(field[5]).text);
        return true;
    case PLAN_MOUNT:
        plan_complain(line, "mount %s -> %s%s", field[0], field[2], flags_of(field[3]).text);
        return true;
    case PLAN_RESTRICT:
        plan_complain(line, "remount %s%s", field[0], flags_of(field[1]).text);
        return true;
    case PLAN_PLACE:
        plan_complain(line, "place tree -> %s", field[0]);
        return true;
    case PLAN_MOVE:
        plan_complain(line, "move tree's %s -> %s", field[0], field[1]);
        return true;
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
    return false;
}
