/* The key of a launch: what a compiled plan is found by. cdi_hpc/compiled/cache_key.py computes the same one. */
#ifndef CDI_HPC_KEY_H
#define CDI_HPC_KEY_H

#include "launcher_options.h"
#include "options.h"
#include "plan.h"

#include <stdbool.h>

/* Who launches. A plan for everybody (the system's cache) names nobody. */
struct caller {
    bool everybody;
};

/* False where memory or the kernel fails. `image` is its real path, `cwd` the working directory. */
bool compute_key(const struct options *options, const char *image, const char *cwd, struct caller caller,
                 char key[PLAN_KEY_DIGITS + 1]);

/* Devices for where no option has any: of the environment, or else of the configuration. */
struct wanted {
    const char *devices; /* "" for none */
    bool by_default;     /* they are the configuration's */
};

/* That of a launch through a launcher. */
bool compute_launcher_key(const struct invocation *invocation, struct wanted wanted, const char *cwd,
                          struct caller caller, char key[PLAN_KEY_DIGITS + 1]);

/* That of an extract of the configuration. */
bool compute_extract_key(struct caller caller, char key[PLAN_KEY_DIGITS + 1]);

#endif
