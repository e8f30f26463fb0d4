/* What a job asks for, and which devices that means: text in, text out. */
#ifndef CDI_SPANK_REQUEST_H
#define CDI_SPANK_REQUEST_H

#include "plan.h"
#include "site.h"

#include <stdbool.h>
#include <stddef.h>

/* The options as they were given; NULL where one was not. */
struct request {
    char *devices; /* --cdi */
    char *mode;    /* --cdi-mode */
    char *image;   /* --cdi-image */
};

/* Whether devices are asked for; --cdi=none asks for none. */
bool request_is_made(const struct request *request);

/* Whether a value can be one of --cdi: "none", or VENDOR/CLASS[=NAME] with commas between them, each in CDI's grammar. */
bool request_devices_are_valid(const char *devices, struct plan_complaint *complaint);

/* Whether the options go together, each by itself being valid. */
bool request_is_consistent(const struct request *request, struct plan_complaint *complaint);

/* Devices by their names, each VENDOR/CLASS or VENDOR/CLASS=NAME. */
struct devices {
    char *text;  /* all of them, with commas */
    char **name; /* each of them, NULL at the end */
    char *memory;
};

/* The devices that a request means for a step.
 *
 * `gpus` is what Slurm gave to the step on this node, "0,1", or NULL for none. Where the site has GPUs as GRES, the
 * class `gpu` is what was given, by number, and nothing else. False with a complaint for what the step can't have. */
bool request_allocate(const char *requested, const struct site *site, const char *gpus, struct devices *devices,
                      struct plan_complaint *complaint);

void devices_free(struct devices *devices);

#endif
