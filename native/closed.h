/* Descriptors that close themselves at the end of their scope. */
#ifndef CDI_HPC_CLOSED_H
#define CDI_HPC_CLOSED_H

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static inline void close_descriptor(const int *fd)
{
    /* What failed is what the caller reports, not how the cleaning up went. */
    int saved = errno;
    if (*fd >= 0)
        close(*fd);
    errno = saved;
}

static inline void free_memory(void *pointer)
{
    void **memory = pointer;
    free(*memory);
}

#define CLOSED __attribute__((cleanup(close_descriptor)))
#define FREED __attribute__((cleanup(free_memory)))

#endif
