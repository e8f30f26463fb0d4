/* The namespaces of a step on a node. The mounts are made by the task that comes first; the others enter them. */
#ifndef CDI_SPANK_STEP_TREE_H
#define CDI_SPANK_STEP_TREE_H

#include "plan.h"

#include <stdbool.h>

/* Descriptors that the tasks inherit. Sockets hold one message each, a namespace's descriptor, which is looked at and left. */
struct step_tree {
    int turn[2]; /* a pipe with one byte in it: who takes it builds */
    int user[2]; /* a pair of sockets: the user namespace (user_namespace.h) */
    int mount[2];
};

/* Before anything is forked. */
bool step_tree_prepare(struct step_tree *tree, struct plan_complaint *complaint);

/* Before the tasks are forked, by any process: what slurmstepd 26.05 calls user_init in with contain_spank has its memory,
 * but copies of its descriptors. */
bool step_tree_give_user(const struct step_tree *tree, int user, struct plan_complaint *complaint);

/* What a task is to do. */
struct turn {
    bool is_first;
    int mount; /* else: the namespace to enter */
};

/* In each task: whether it is the first; if not, wait until the first one has built. False with a complaint; with an
 * empty one if the first task has failed, which says why itself. */
bool step_tree_begin(const struct step_tree *tree, int seconds, struct turn *turn, struct plan_complaint *complaint);

/* The task, a process with one thread that is the user's, goes there: its root directory is the plan's, the working
 * directory what it was or /, and privileges are given up. */
bool step_tree_enter(const struct step_tree *tree, const struct turn *turn, struct plan *plan,
                     struct plan_complaint *complaint);

/* In place of step_tree_enter: the others need not wait for this task. */
void step_tree_give_up(const struct step_tree *tree, const struct turn *turn);

#endif
