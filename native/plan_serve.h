/* The two ends of handing a FUSE mount over: between plan_apply and the server that plan_serve started. */
#ifndef CDI_HPC_PLAN_SERVE_H
#define CDI_HPC_PLAN_SERVE_H

#include "plan.h"

/* Give the server its descriptor of /dev/fuse. -1 with errno. */
int give_to_server(const struct plan_server *server, int device);

/* The last line of what the server has said; false if it has said nothing. */
bool words_of_server(const struct plan_server *server, struct plan_complaint *said);

#endif
