/* A launcher's command line, read by its own option table. cdi_hpc/launch/launcher_options.py reads it in the same way. */
#ifndef CDI_HPC_LAUNCHER_OPTIONS_H
#define CDI_HPC_LAUNCHER_OPTIONS_H

#include "profile.h"

#include <stdbool.h>
#include <stddef.h>

/* An option as it was given. */
struct given {
    const struct launcher_option *option;
    const char *value; /* NULL: none */
    size_t count;      /* of its words among the invocation's */
};

/* A command line in order: options, subcommand, options, image. Begin with one that is all zero; invocation_free it in
 * any case. */
struct invocation {
    const struct profile *profile;
    const struct subcommand *subcommand; /* NULL: there are none */
    struct given *given;
    size_t givens;
    char **words; /* the image last; for READ_HELP and READ_LEAVE, what to execute the launcher with */
    size_t count;
    char **command; /* after the image, NULL at the end */
    const char *image;
    char **others;
    char *text;
};

enum reading {
    READ_LEAVE,   /* the launcher is executed with the words as they were typed, but for ours */
    READ_HELP,    /* the launcher's help, then ours */
    READ_LAUNCH,  /* devices are asked for */
    READ_REFUSED, /* something is wrong, or there is no memory: the Python front says it */
};

/* Whether devices are wanted, whatever the words say. */
enum wish {
    NOT_WANTED,
    BY_DEFAULT, /* somebody may have configured some: what is not understood is the launcher's all the same */
    WANTED,
};

/* Read words (NULL at the end) after the program's name. `in_order`: options end at the first word that is none. */
enum reading invocation_read(struct invocation *invocation, const struct profile *profile, char **words, bool in_order,
                             enum wish wish);

/* Whether a device's text names a lock file (cdi_hpc/spec/names.py). */
bool is_lock_file(const char *text);

/* Whether a device is asked for by an option. */
bool invocation_asks(const struct invocation *invocation);

void invocation_free(struct invocation *invocation);

#endif
