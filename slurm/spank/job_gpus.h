/* What Slurm's controller says of a job's GPUs: the variables that say so are the user's to set in a batch script. */
#ifndef CDI_SPANK_JOB_GPUS_H
#define CDI_SPANK_JOB_GPUS_H

#include "plan.h"

#include <stdbool.h>
#include <stdint.h>

/* Whether the controller has given GPUs to the job on its `node`th node, counted from 0. False, with a complaint, where
 * it does not answer. */
bool job_gpus_ask(uint32_t job, uint32_t node, bool *has, struct plan_complaint *complaint);

#endif
