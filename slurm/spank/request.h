/* What a job asks for: text in, text out. */
#ifndef CDI_SPANK_REQUEST_H
#define CDI_SPANK_REQUEST_H

#include "plan.h"

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

/* Whether it is --cdi=none. */
bool request_is_off(const struct request *request);

/* Whether a value can be one of --cdi: "none", or VENDOR/CLASS[=NAME] with commas between them, each in CDI's grammar. */
bool request_devices_are_valid(const char *devices, struct plan_complaint *complaint);

/* Whether the options go together, each by itself being valid. */
bool request_is_consistent(const struct request *request, struct plan_complaint *complaint);

/* What is asked for, one by one: VENDOR/CLASS or VENDOR/CLASS=NAME each. Which devices that means is the compiler's to
 * find out, who knows the specs and the site's configuration (cdi_hpc/resolve/step_devices.py). */
struct devices {
    char **name; /* NULL at the end */
    char *memory;
};

/* Split a valid value of --cdi; false where there is no memory. */
bool devices_split(const char *requested, struct devices *devices);

void devices_free(struct devices *devices);

#endif
