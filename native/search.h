/* Looking for the plan of a launch, and what every launch does with one. */
#ifndef CDI_HPC_SEARCH_H
#define CDI_HPC_SEARCH_H

#include "cache.h"
#include "key.h"
#include "plan.h"

enum found { FRESH, STALE, MISSING };

/* What is looked for. */
struct search {
    int verbosity; /* below 0: errors only; above 0: notes as well */
    const void *launch;
    bool (*key)(const void *launch, struct caller caller, char key[PLAN_KEY_DIGITS + 1]);
    const char *suffix; /* of the files' names: NULL for "plan" */
};

/* Look in one cache. The plan is one to be freed if it is FRESH. */
enum found find_in(const struct search *search, const struct cache *cache, struct caller caller, struct plan *plan,
                   char key[PLAN_KEY_DIGITS + 1]);

/* Look in the system's cache and then in the user's. The plan is one to be freed if it is FRESH, and `where` says which
 * cache it is in. One of the system's that could not be applied is passed over. What keeps a plan from being used is said. */
enum found find_plan(const struct search *search, const struct cache *own, struct plan *plan, struct cache *where,
                     char key[PLAN_KEY_DIGITS + 1]);

/* A plan could not be applied, though nothing that it was made from has changed: say why, and see to it that a later launch
 * does not try again. */
void give_up_plan(const struct plan *plan, const struct cache *where, const struct cache *own, int verbosity,
                  const char *reason);

void say_warning(int verbosity, const char *text);
void say_note(int verbosity, const char *text);

/* Say the plan's warnings and notes. */
void report(const struct plan *plan, int verbosity);

/* How a plan's steps are done, by CDI_HPC_MOUNT_API. */
struct plan_options step_options(int verbosity);

#endif
