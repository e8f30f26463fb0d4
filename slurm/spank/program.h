/* Programs that are run as the job's user: in every respect his, and nothing of slurmstepd's is left in them. */
#ifndef CDI_SPANK_PROGRAM_H
#define CDI_SPANK_PROGRAM_H

#include "job.h"
#include "plan.h"
#include "site.h"

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

enum { STDOUT, STDERR, STREAMS, PROGRAM_TEXT = 2 * PLAN_MAX_PATH };

/* What it said, cut off where that was too much. */
struct answer {
    int status; /* of waitpid(2) */
    char text[STREAMS][PROGRAM_TEXT];
};

/* One that is running. */
struct program {
    const char *name;
    pid_t child; /* leader of a session of its own */
    int streams[STREAMS];
    int timeout; /* seconds from start to end */
    struct timespec deadline;
};

/* Start it, with `words` and `environment` ended by NULL. May be called with root's ids behind the user's, and with other
 * threads running. False with a complaint; if not, program_end or program_kill has to be called. */
bool program_start(struct program *program, const struct site *site, struct job job, char *const *words,
                   char *const *environment, struct plan_complaint *complaint);

/* Wait until it has said something, or has ended without a word (false), or its time is over (false). */
bool program_has_spoken(const struct program *program);

/* Listen until it ends, at most for the site's time. False with a complaint if it did not come to exit. */
bool program_end(struct program *program, struct answer *answer, struct plan_complaint *complaint);

/* End it and all of its session. */
void program_kill(struct program *program);

/* program_start and program_end. */
bool program_run(const struct site *site, struct job job, char *const *words, char *const *environment,
                 struct answer *answer, struct plan_complaint *complaint);

/* What one of ours said of its failure: its errors, without its name before each; its last line where none is marked as
 * one. Changes `said`. */
void program_errors(const char *program, char *said, struct plan_complaint *complaint);

#endif
