/* The drop-in for a launcher that somebody else made: the same program, called by the launcher's name.
 *
 *   ch-run [OPTION of ch-run, --device DEVICE, --cdi[=DEVICE], ...] IMAGE -- COMMAND
 *
 * It executes the launcher of that name, the next one on the PATH. Where no device is asked for, and none is configured
 * for such launches, that is all. Otherwise it does so from a compiled plan. What can't be decided without specs, or the
 * launcher itself, is the Python front's.
 */
#ifndef CDI_HPC_SHIM_H
#define CDI_HPC_SHIM_H

#include <stdbool.h>

/* Name of the program by which it is itself. */
#define RUNNER "cdi-hpc-run"

/* Whether we were called by a launcher's name. */
bool is_shim(const char *name);

/* Become the launcher. Says what is wrong and returns an exit status if that is impossible. */
int shim(int argc, char **argv);

#endif
