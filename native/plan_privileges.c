/* The capabilities of the user namespace end here: mounts are made, and a command has no business with them. */
#include "plan.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* From linux/capability.h and linux/prctl.h, which a musl compiler does not find. */
enum { CAPABILITY_VERSION_3 = 0x20080522, CAPABILITIES = 64 };
#ifndef PR_CAP_AMBIENT
#define PR_CAP_AMBIENT 47
#define PR_CAP_AMBIENT_CLEAR_ALL 4
#endif

struct capability_header {
    uint32_t version;
    int32_t pid;
};

struct capability_sets {
    uint32_t effective, permitted, inheritable;
};

/* A process of user 0 would get the bounding set back at exec. */
static int drop_bounding_set(void)
{
    for (unsigned long capability = 0; capability < CAPABILITIES; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0UL, 0UL, 0UL) < 0)
            return errno == EINVAL ? 0 : -1; /* one past the last that this kernel has */
    return 0;
}

bool plan_drop_privileges(bool no_new_privs, struct plan_complaint *complaint)
{
    struct capability_header header = {.version = CAPABILITY_VERSION_3};
    struct capability_sets none[2] = {{0, 0, 0}, {0, 0, 0}};
    if (drop_bounding_set() < 0 || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0UL, 0UL, 0UL) < 0 ||
        syscall(SYS_capset, &header, none) < 0 ||
        (no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL) < 0)) {
        plan_complain(complaint, "kernel: privileges can't be given up: %s", strerror(errno));
        return false;
    }
    return true;
}
