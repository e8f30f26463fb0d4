/* What the SPANK plugin puts into a step's environment for launchers that know nothing of us, and how it is taken back by
 * whoever applies the devices himself (as cdi_hpc/launch/inheritance.py). */
#ifndef CDI_HPC_HANDOFF_H
#define CDI_HPC_HANDOFF_H

#include <stdbool.h>

/* Holds lines NAME=VALUE, of what was put there. */
#define HANDOFF_VARIABLE "CDI_HPC_HANDOFF"

/* A variable's value without ours: what the user has added to it stays, and so does one that he has changed. Changes
 * `value` in its place; false if nothing of it is left, and the variable is to go. */
bool handoff_remove(char *value, const char *ours);

/* Take all of it out of our own environment. False where there is no memory. */
bool handoff_forget(void);

#endif
