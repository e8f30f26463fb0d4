/* Which plans were made for a step by the site's compiler.
 *
 * A user's plans lie in a directory of his own, and he can write there what he likes. So root keeps the SHA-256 of each
 * plan that was compiled for a step, in CACHE/UID.seals, and a step takes no other plan. Only where the daemons are
 * root's and the site has named a directory (cache= in plugstack.conf). */
#ifndef CDI_SPANK_SEALS_H
#define CDI_SPANK_SEALS_H

#include "plan.h"
#include "site.h"

#include <stdbool.h>
#include <sys/types.h>

/* Hexadecimal digits. */
enum { SEAL_DIGITS = 64 };

/* Where a path has nothing but what root wrote: no seal is needed. */
bool is_of_system(const char *plan);

/* Whether a plan of the user's has been sealed. May be called by the user's processes. */
bool seal_is_known(const struct site *site, uid_t uid, const char *seal);

/* Wait until it is: whoever has compiled the plan is about to seal it. False if that takes too long. */
bool seal_becomes_known(const struct site *site, uid_t uid, const char *seal);

/* Seal a plan. Called with root's ids behind the user's. */
bool seal_add(const struct site *site, uid_t uid, const char *seal, struct plan_complaint *complaint);

#endif
