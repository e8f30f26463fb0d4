/* mount(8) flag names, and propagation names, as the wire format has them. */
#ifndef CDI_HPC_MOUNT_FLAGS_H
#define CDI_HPC_MOUNT_FLAGS_H

#include <stdbool.h>

/* mount(2) bits of a comma list of flag names; false where a name is unknown or empty. "" is the empty list. */
bool mount_flag_bits(const char *names, unsigned long *bits);

/* mount(2) bits of a propagation name, MS_REC included where the name begins with r; "" is 0. */
bool mount_propagation_bits(const char *name, unsigned long *bits);

#endif
