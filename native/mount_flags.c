#include "mount_flags.h"

#include <stddef.h>
#include <string.h>
#include <sys/mount.h>

/* Linux 5.10; in glibc's header since 2.34. */
#define NOSYMFOLLOW 256UL

static const struct {
    const char *name;
    unsigned long bit;
} flags[] = {
    {"ro", MS_RDONLY},
    {"nosuid", MS_NOSUID},
    {"nodev", MS_NODEV},
    {"noexec", MS_NOEXEC},
    {"noatime", MS_NOATIME},
    {"nodiratime", MS_NODIRATIME},
    {"relatime", MS_RELATIME},
    {"strictatime", MS_STRICTATIME},
    {"nosymfollow", NOSYMFOLLOW},
};

static const struct {
    const char *name;
    unsigned long bits;
} propagations[] = {
    {"", 0},
    {"private", MS_PRIVATE},
    {"rprivate", MS_PRIVATE | MS_REC},
    {"slave", MS_SLAVE},
    {"rslave", MS_SLAVE | MS_REC},
    {"shared", MS_SHARED},
    {"rshared", MS_SHARED | MS_REC},
    {"unbindable", MS_UNBINDABLE},
    {"runbindable", MS_UNBINDABLE | MS_REC},
};

static unsigned long bit_of(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (strlen(flags[i].name) == length && memcmp(flags[i].name, name, length) == 0)
            return flags[i].bit;
    return 0;
}

bool mount_flag_bits(const char *names, unsigned long *bits)
{
    *bits = 0;
    while (*names != '\0') {
        size_t length = strcspn(names, ",");
        unsigned long bit = bit_of(names, length);
        if (bit == 0 || (names[length] == ',' && names[length + 1] == '\0'))
            return false;
        *bits |= bit;
        names += length + (names[length] == ',');
    }
    return true;
}

bool mount_propagation_bits(const char *name, unsigned long *bits)
{
    for (size_t i = 0; i < sizeof propagations / sizeof *propagations; i++) {
        if (strcmp(propagations[i].name, name) == 0) {
            *bits = propagations[i].bits;
            return true;
        }
    }
    return false;
}
