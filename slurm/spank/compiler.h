/* The plan of a step: found among the user's, or compiled now, by a process that is the user's in every respect. */
#ifndef CDI_SPANK_COMPILER_H
#define CDI_SPANK_COMPILER_H

#include "job.h"
#include "plan.h"
#include "request.h"
#include "site.h"

#include <stdbool.h>

/* What a plan is wanted for. */
struct wish {
    struct devices devices; /* as they are asked for */
    const char *gpus;       /* which ones Slurm gave to the step, "0,2", "" for none; NULL where it gives out none */
    const char *image;      /* that the tasks run in; "/" is the machine itself */
    bool is_handoff;        /* for launchers in the step; else for the tasks themselves */
    bool is_anew;           /* also if somebody else has just made one */
};

/* Give the user a directory for his plans below the site's `cache`, if there is one. Called as root: no directory that
 * the user could have made or exchanged is entered. */
bool make_user_cache(const struct site *site, struct job job, struct plan_complaint *complaint);

/* Path of a fresh plan. May be called with root's ids behind the user's, and with other
 * threads running; the working directory is the user's. The complaint may have several lines. */
bool find_plan(const struct site *site, struct job job, const struct wish *wish, char path[PLAN_MAX_PATH],
               struct plan_complaint *complaint);

#endif
