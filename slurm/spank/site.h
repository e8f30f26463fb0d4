/* What the site says about us: the arguments in plugstack.conf. */
#ifndef CDI_SPANK_SITE_H
#define CDI_SPANK_SITE_H

#include "plan.h"

#include <stdbool.h>
#include <stddef.h>

enum mode {
    HANDOFF, /* the step's launchers are told, and do it */
    MOUNTS,  /* the step's tasks have the devices themselves */
};

enum { SITE_MAX_DIRS = 16 };

struct site {
    const char *compiler; /* cdi-hpc */
    const char *runner;   /* cdi-hpc-run */
    const char *cache;    /* directory in which each user gets one for his plans, or NULL */
    const char *cdi_dirs[SITE_MAX_DIRS];
    size_t cdi_dir_count;
    const char *default_devices; /* of steps that have GPUs, where nobody has said anything; or NULL */
    enum mode mode;
    bool gpus_are_allocated; /* Slurm gives GPUs to jobs (GRES) */
    int timeout;             /* seconds that the compiler may take */
};

/* False, with a complaint, for the first argument that is not understood. The arguments have to stay. */
bool site_read(struct site *site, int count, char **arguments, struct plan_complaint *complaint);

/* A value of --cdi-mode or mode=; false if it is none. */
bool read_mode(const char *word, enum mode *mode);

#endif
