/* The Python program behind us: it compiles plans, and does whatever we do not. */
#ifndef CDI_HPC_FRONT_H
#define CDI_HPC_FRONT_H

/* Set for a front that is executed inside of our user namespace: there all other owners look the same, so that it can't
 * tell who may be believed (cdi_hpc/launch/inheritance.py). */
#define INSIDE_VARIABLE "CDI_HPC_INSIDE"

enum front_task {
    FRONT_COMPILE, /* compile a plan for this command line, then execute us again */
    FRONT_RUN,     /* do it all, without us */
    FRONT_EXEC_COMPILE, /* the same two for a launcher, whose name is argv[0] */
    FRONT_EXEC,
    FRONT_HELP,
    FRONT_VERSION,
};

/* Become `cdi-hpc` with the arguments of our own command line. Says so and returns an exit status if it is not
 * there. */
int become_front(enum front_task task, int argc, char **argv);

#endif
