#include "user_namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

bool user_namespace_begin(struct program *holder, const struct site *site, struct job job,
                          struct plan_complaint *complaint)
{
    char *words[] = {(char *)site->runner, (char *)"--hold-user-namespace", NULL};
    char *environment[] = {(char *)"LC_ALL=C.UTF-8", NULL};
    return program_start(holder, site, job, words, environment, complaint);
}

/* It is waiting to be killed: no other process can have its number. */
static int open_namespace(const struct program *holder, struct plan_complaint *complaint)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/user", holder->child);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        plan_complain(complaint, "%s: the step's user namespace can't be opened: %s", path, strerror(errno));
    return fd;
}

static void say_why_not(struct program *holder, struct plan_complaint *complaint)
{
    struct answer answer;
    if (program_end(holder, &answer, complaint))
        program_errors(holder->name, answer.text[STDERR], complaint);
}

int user_namespace_take(struct program *holder, struct plan_complaint *complaint)
{
    int fd = -1;
    if (program_has_spoken(holder))
        fd = open_namespace(holder, complaint);
    else
        say_why_not(holder, complaint);
    return fd;
}
