#include "job_gpus.h"

#include <errno.h>
#include <slurm/slurm.h>
#include <slurm/slurm_errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Whether a GRES has a count, behind its last colon, that is not 0. */
static bool counts_some(const char *gres)
{
    const char *count = memrchr(gres, ':', strcspn(gres, "(,"));
    return count != NULL && strtoul(count + 1, NULL, 10) > 0;
}

/* Whether one of a node's GRES, "gpu:a100:2(IDX:0-1),nic:1(IDX:0)", is a GPU. */
static bool lists_gpus(const char *gres)
{
    for (const char *found = gres; found != NULL && (found = strstr(found, "gpu:")) != NULL; found++)
        if ((found == gres || found[-1] == ',') && counts_some(found))
            return true;
    return false;
}

#if SLURM_VERSION_NUMBER >= SLURM_VERSION_NUM(26, 5, 0)
static uint32_t number_of(const job_info_t *job)
{
    return job->step_id.job_id;
}

static int load_job(job_info_msg_t **answer, uint32_t number)
{
    slurm_step_id_t id = SLURM_STEP_ID_INITIALIZER;
    id.job_id = number;
    return slurm_load_job(answer, id, SHOW_DETAIL);
}
#else
static uint32_t number_of(const job_info_t *job)
{
    return job->job_id;
}

static int load_job(job_info_msg_t **answer, uint32_t number)
{
    return slurm_load_job(answer, number, SHOW_DETAIL);
}
#endif

bool job_gpus_ask(uint32_t job, uint32_t node, bool *has, struct plan_complaint *complaint)
{
    job_info_msg_t *answer = NULL;
    *has = false;
    if (load_job(&answer, job) != SLURM_SUCCESS) {
        plan_complain(complaint, "Slurm's controller does not say which GPUs the job has: %s (is slurmctld running? try again)",
                      slurm_strerror(errno));
        return false;
    }
    for (uint32_t i = 0; i < answer->record_count; i++) {
        const job_info_t *found = &answer->job_array[i];
        if (number_of(found) == job && node < found->gres_detail_cnt)
            *has = lists_gpus(found->gres_detail_str[node]);
    }
    slurm_free_job_info_msg(answer);
    return true;
}
