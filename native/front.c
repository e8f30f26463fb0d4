#include "front.h"

#include "closed.h"
#include "plan.h"
#include "say.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* argv for the front: what stands before our own arguments. */
static const struct {
    const char *word[2];
} tasks[] = {
    [FRONT_COMPILE] = {{"run", "--compile-and-run"}},
    [FRONT_RUN] = {{"run", "--runner=python"}},
    [FRONT_EXEC_COMPILE] = {{"exec", "--compile-and-run"}},
    [FRONT_EXEC] = {{"exec", "--runner=python"}},
    [FRONT_HELP] = {{"run", "--help"}},
    [FRONT_VERSION] = {{"--version", NULL}},
};

/* From which of our arguments on the front gets them. */
static int first_argument(enum front_task task, int argc)
{
    if (task == FRONT_HELP || task == FRONT_VERSION)
        return argc;
    return task == FRONT_EXEC_COMPILE || task == FRONT_EXEC ? 0 : 1;
}

/* Our own file, "" if the kernel won't say. */
static void find_ourselves(char path[PLAN_MAX_PATH])
{
    ssize_t length = readlink("/proc/self/exe", path, PLAN_MAX_PATH - 1);
    path[length > 0 ? length : 0] = '\0';
}

static bool is_beside(const char *file, char path[PLAN_MAX_PATH])
{
    const char *slash = strrchr(file, '/');
    int length = slash == NULL ? 0 : snprintf(path, PLAN_MAX_PATH, "%.*s/cdi-hpc", (int)(slash - file), file);
    return length > 0 && length < PLAN_MAX_PATH && access(path, X_OK) == 0;
}

/* The front's file: beside us, or beside the drop-in that was called by its path (a link to us), or a bare name to be
 * looked up on the PATH. */
static void find_front(const char *own, const char *called, char path[PLAN_MAX_PATH])
{
    const char *chosen = getenv("CDI_HPC_PYTHON_FRONT");
    if (chosen != NULL && *chosen != '\0')
        snprintf(path, PLAN_MAX_PATH, "%s", chosen);
    else if (!is_beside(own, path) && !is_beside(called, path))
        snprintf(path, PLAN_MAX_PATH, "cdi-hpc");
}

int become_front(enum front_task task, int argc, char **argv)
{
    char own[PLAN_MAX_PATH], front[PLAN_MAX_PATH];
    find_ourselves(own);
    find_front(own, argv[0], front);
    FREED const char **words = calloc((size_t)argc + 4, sizeof *words);
    if (words == NULL) {
        say("error", "%s", strerror(ENOMEM));
        return FAILED;
    }
    size_t count = 0;
    words[count++] = "cdi-hpc";
    for (size_t i = 0; i < 2 && tasks[task].word[i] != NULL; i++)
        words[count++] = tasks[task].word[i];
    for (int i = first_argument(task, argc); i < argc; i++)
        words[count++] = argv[i];
    setenv("CDI_HPC_NATIVE", own, 1);
    execvp(front, (char **)(uintptr_t)words);
    say("error", "%s: can't be executed, and is needed to compile plans: %s (install it beside %s or on the PATH)", front,
        strerror(errno), own);
    return FAILED;
}
