/* Where compiled plans lie, and whether a file there may be trusted. */
#ifndef CDI_HPC_CACHE_H
#define CDI_HPC_CACHE_H

#include "plan.h"

#ifndef SYSTEM_CACHE
#define SYSTEM_CACHE "/var/cache/cdi-hpc"
#endif

struct cache {
    char path[PLAN_MAX_PATH];
    uid_t owner;
    mode_t others; /* mode bits that the directory must not have */
    bool is_systems;
    bool is_told_by_front; /* Python is asked in any case, and says what is wrong with it */
};

/* The caller's own, where no file says otherwise: $CDI_HPC_CACHE_DIRECTORY; $XDG_RUNTIME_DIR/cdi-hpc if that directory is
 * the caller's; ${TMPDIR:-/tmp}/cdi-hpc-UID. */
struct cache user_cache(void);

/* Whether the variable says where it is. */
bool cache_is_chosen(void);

/* Put a cache somewhere else. Too long a path is no path: nothing is there. */
void cache_set_path(struct cache *cache, const char *path);

/* The system's, written by root alone. */
struct cache system_cache(void);

/* Open the plan with this key. -1 where there is none, with a complaint if there is something that can't be trusted. */
int cache_open(const struct cache *cache, const char *key, struct plan_complaint *complaint);

/* The same for any file there, by its name. */
int cache_open_file(const struct cache *cache, const char *name, struct plan_complaint *complaint);

/* Remove the plan with this key, if it is there: a later launch has it made anew. */
void cache_discard(const struct cache *cache, const char *key);

/* The same for a plan of the system's: note in the user's cache that it is not for him, until it is made anew. */
void cache_pass_over(const struct cache *own, const char *key);
bool cache_is_passed_over(const struct cache *own, const struct cache *system, const char *key);

#endif
