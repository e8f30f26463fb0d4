/* SHA-256 (FIPS 180-4), for keys of a few hundred bytes: clear before fast. */
#ifndef CDI_HPC_SHA256_H
#define CDI_HPC_SHA256_H

#include <stddef.h>
#include <stdint.h>

struct sha256 {
    uint32_t state[8];
    uint64_t length; /* bytes so far */
    unsigned char block[64];
};

void sha256_begin(struct sha256 *hash);
void sha256_add(struct sha256 *hash, const void *bytes, size_t count);
/* 64 lower case hexadecimal digits and a NUL. */
void sha256_finish(struct sha256 *hash, char digits[65]);

#endif
