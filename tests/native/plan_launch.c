/* A launcher's launch, without a command line to be understood:
 *
 *   plan-launch PLAN [WORD...] [-- COMMAND...]
 *
 * reads the plan, does its steps if it has any, and executes its program; WORDs are the user's own. A plan without a
 * program executes COMMAND. Where an overlay or an image is refused, a COMMAND shows what is left; without one, the
 * exit status is 124. Variables: CDI_HPC_MOUNT_API as for cdi-hpc-run; NO_NEW_PRIVS; NOT_FRESH: whatever has changed;
 * PEERS: directory for the locks of launches that share a container.
 */
#include "plan.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FAILED = 125, REFUSED = 124 };

static int fail(int status, const char *what, const struct plan_complaint *complaint)
{
    fprintf(stderr, "%s: %s\n", what, complaint->text);
    return status;
}

static int dress(struct plan *plan, struct plan_complaint *complaint)
{
    const char *api = getenv("CDI_HPC_MOUNT_API");
    struct plan_options options = {.old_mount_api = api != NULL && strcmp(api, "old") == 0};
    if (!plan_serve(plan, complaint))
        return fail(REFUSED, "serve", complaint);
    if (!plan_enter(complaint))
        return fail(FAILED, "enter", complaint);
    switch (plan_apply(plan, &options, complaint)) {
    case PLAN_APPLIED:
        return 0;
    case PLAN_OVERLAY_REFUSED:
        return fail(REFUSED, "overlay refused", complaint);
    case PLAN_IMAGE_REFUSED:
        return fail(REFUSED, "image refused", complaint);
    case PLAN_STEP_FAILED:
    case PLAN_FAILED:
        break;
    }
    return fail(FAILED, "apply", complaint);
}

int main(int argc, char **argv)
{
    struct plan plan = {0};
    struct plan_complaint complaint = {.text = "no PLAN"};
    int fd = argc > 1 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
    int given = 0;
    while (2 + given < argc && strcmp(argv[2 + given], "--") != 0)
        given++;
    char **command = argc > 2 + given ? argv + 2 + given + 1 : argv + argc;
    if (!plan_read(&plan, fd, &complaint) || (getenv("NOT_FRESH") == NULL && !plan_fresh(&plan, &complaint)))
        return fail(FAILED, "plan", &complaint);
    char **words = plan.program == NULL ? command
                                        : plan_words(&plan, "launcher", argv + 2, (size_t)given, command, &complaint);
    if (words == NULL)
        return fail(FAILED, "words", &complaint);
    bool first = true;
    bool shares = getenv("PEERS") != NULL;
    if (shares && !plan_is_first(&plan, &first, &complaint))
        return fail(FAILED, "peers", &complaint);
    bool dresses = plan.has_steps && first;
    int status = dresses ? dress(&plan, &complaint) : 0;
    if (status == REFUSED && *command != NULL)
        execvp(*command, command);
    if (status == 0 && dresses && shares && !plan_hold_others(&plan, &complaint))
        status = fail(FAILED, "peers", &complaint);
    if (status == 0 && dresses && !plan_drop_privileges(getenv("NO_NEW_PRIVS") != NULL, &complaint))
        status = fail(FAILED, "privileges", &complaint);
    if (status == 0)
        execvp(plan.program == NULL ? words[0] : plan.program, words);
    if (plan.program != NULL)
        free(words);
    plan_free(&plan);
    return status == 0 ? 127 : status;
}
