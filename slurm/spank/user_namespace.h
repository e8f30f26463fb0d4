/* The user namespace of a step's tasks. It is made by a program of the job's user, and not by a task: while a process makes
 * one its files in /proc have to be the user's, and then so is all that it holds, which in a task is memory and
 * descriptors of slurmstepd, who is root. */
#ifndef CDI_SPANK_USER_NAMESPACE_H
#define CDI_SPANK_USER_NAMESPACE_H

#include "job.h"
#include "plan.h"
#include "program.h"
#include "site.h"

#include <stdbool.h>

/* Start the program that makes it. As program_start. */
bool user_namespace_begin(struct program *holder, const struct site *site, struct job job,
                          struct plan_complaint *complaint);

/* Wait until it is made; a descriptor of it, or -1 with a complaint. The program still has to be killed. */
int user_namespace_take(struct program *holder, struct plan_complaint *complaint);

#endif
