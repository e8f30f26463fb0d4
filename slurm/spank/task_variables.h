/* The environment of a step's tasks. Steps that are started in them inherit it, and take back what is not theirs: so the
 * environment also says which of it is ours. */
#ifndef CDI_SPANK_TASK_VARIABLES_H
#define CDI_SPANK_TASK_VARIABLES_H

#include "plan.h"

#include <slurm/spank.h>
#include <stdbool.h>

/* Take back what an outer step has set. */
void variables_forget_outer(spank_t spank);

/* Give the task the plan's variables. False where Slurm does not take them, or there is no memory. */
bool variables_set(spank_t spank, const struct plan *plan);

/* Tell the launchers in the task: ours where the plan lies, others the plan itself, as far as their variables can say it.
 * False as above. */
bool variables_hand_over(spank_t spank, const struct plan *plan, const char *path);

#endif
