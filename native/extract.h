/* What has to be known of the site's and the user's configuration before a plan is looked for. No YAML is read here: Python
 * leaves an extract (cdi_hpc/compiled/extract.py) in the form of a compiled plan, fresh for as long as the files are as they were.
 * Its environment records are answers: "cache.directory=/local/me", "devices.ch-run=nvidia.com/gpu=all". */
#ifndef CDI_HPC_EXTRACT_H
#define CDI_HPC_EXTRACT_H

#include "cache.h"

/* Where it is, if Python has compiled a plan this moment and could not leave it where it is looked for first. */
#define EXTRACT_VARIABLE "CDI_HPC_EXTRACT_IN"

enum configured {
    NOT_CONFIGURED, /* there are no files: every key has its default */
    CONFIGURED,
    CONFIGURED_SOMEHOW, /* there are files, and no fresh extract of them */
};

/* Begin with one that is all zero; plan_free its plan in any case. */
struct extract {
    enum configured state;
    struct plan plan;
    struct cache cache; /* where the user's plans are, as far as that is known */
};

void extract_read(struct extract *extract);

/* Where `name` is "cache." or "devices." and `of` what is asked about: the answer, "" if there is none. */
const char *extract_value(const struct extract *extract, const char *name, const char *of);

#endif
