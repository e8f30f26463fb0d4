/* The command line of cdi-hpc-run: that of `cdi-hpc run`. */
#ifndef CDI_HPC_OPTIONS_H
#define CDI_HPC_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

/* Values of an option that can be repeated, in their order. */
struct values {
    const char **item;
    size_t count;
};

struct options {
    struct values devices, cdi_dirs, binds, env;
    struct values gres; /* GRES=NUMBERS each: what Slurm gave to a step; only --print-plan and --print-key have it */
    bool is_handoff;    /* the plan is one for launchers that somebody starts later; likewise */
    const char *workdir; /* NULL: not given */
    const char *stage, *unknown_hooks, *preflight;
    bool writable_tmpfs, contain, strict, help;
    int verbosity; /* each -v adds one, each -q takes one */
    const char *image;
    char **command; /* ends with NULL */
    const char **memory;
};

/* False where the command line is not understood: the Python front says why, in one place for both. */
bool options_parse(struct options *options, int argc, char **argv);

void options_free(struct options *options);

#endif
