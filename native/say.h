/* Lines on standard error. */
#ifndef CDI_HPC_SAY_H
#define CDI_HPC_SAY_H

#include <stddef.h>

/* Exit statuses of our own, those of env(1) and chroot(1). */
enum { FAILED = 125, NOT_EXECUTABLE = 126, NOT_FOUND = 127 };

/* "cdi-hpc: LEVEL: TEXT", or without a level "cdi-hpc: TEXT"; nothing in it can control a terminal. */
void say(const char *level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The text as one line that a terminal shows as it is: what is not printable is escaped as in a Python string (and
 * as cdi_hpc.errors.printable does). Longer text is cut off. */
void make_printable(const char *text, char *printable, size_t size);

#endif
