/* Finding a launcher behind its drop-ins. As find_launcher() in cdi_hpc/launch/profile.py. */
#ifndef CDI_HPC_LOCATE_H
#define CDI_HPC_LOCATE_H

#include "plan.h"

enum { MAX_DROP_INS = 4 };

struct launcher {
    const char *command;       /* base name that was typed */
    const char *argv0;         /* what it is told of its own name */
    char path[PLAN_MAX_PATH];  /* where it was found */
    char program[PLAN_MAX_PATH]; /* without links */
    char drop_in[MAX_DROP_INS][PLAN_MAX_PATH]; /* directories of drop-ins before it on the PATH */
    size_t drop_ins;
    bool is_script; /* a site's own, which may look for the launcher as we did */
};

/* The first executable file on the PATH with the launcher's name that is no drop-in of ours. A `name` that is a path to
 * anything else is the launcher itself. False where there is none. */
bool find_launcher(struct launcher *launcher, const char *name);

/* Before a launcher is executed. A script that finds us where it looks for the launcher would never end: false, and
 * said, after a few rounds. They are counted in a variable that only scripts see. The number of a process would not tell:
 * the script may start another one each time. */
bool count_scripts(const struct launcher *launcher);

#endif
