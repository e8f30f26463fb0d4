/* Whose step it is. */
#ifndef CDI_SPANK_JOB_H
#define CDI_SPANK_JOB_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct job {
    uid_t uid; /* its user */
    gid_t gid;
    uint32_t node; /* number of this node in it */
    bool is_sealed; /* only plans that were compiled for a step are taken: seals.h */
};

#endif
