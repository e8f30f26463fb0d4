/* The last steps to the user's command: environment, working directory, exec. As cdi_hpc/launch/process.py. */
#ifndef CDI_HPC_LAUNCH_H
#define CDI_HPC_LAUNCH_H

#include "options.h"
#include "plan.h"

#include <stdbool.h>

/* The command's environment: the caller's, then the plan's, then --env, and for a command of the user's a PATH if there
 * is none. The strings belong to where they came from; NULL where there is no memory. */
char **launch_environment(const struct plan *plan, const struct values *given);

/* Tell, where that much is wanted, which variables the plan sets; and which command is executed, as a shell takes it.
 * What is longer than a line of ours ends with "...". As cdi_hpc/launch/telling.py. */
void tell_environment(const struct plan *plan, int verbosity);
void tell_command(const char *program, char *const *arguments, int verbosity);

/* Take away what is between us and the Python front, for a program that is executed with our own environment. */
void remove_private_variables(void);

/* plan_enter; a front that is executed from now on is told so. */
bool enter_namespaces(struct plan_complaint *complaint);

/* Go to `wanted`, or to `current` if the container has it, or to /. */
bool launch_directory(const char *wanted, const char *current, struct plan_complaint *complaint);

/* Become the command, looked up as a shell would on the PATH of `environment`. Says what is wrong and returns an exit
 * status if that is impossible. Signal dispositions are the caller's. */
int launch_command(char **command, char **environment);

#endif
