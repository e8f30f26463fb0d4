/* What plan_serve needs to know of freshness. */
#ifndef CDI_HPC_PLAN_FRESH_H
#define CDI_HPC_PLAN_FRESH_H

#include "plan.h"

#include <sys/stat.h>

/* Whether a file is the one that a record of kind PLAN_FILE describes. */
bool is_file_of(const struct plan_record *record, const struct stat *status);

#endif
