#include "sha256.h"

#include <string.h>

static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotated(uint32_t word, unsigned by)
{
    return (word >> by) | (word << (32 - by));
}

static void mix(struct sha256 *hash)
{
    uint32_t schedule[64];
    for (size_t i = 0; i < 16; i++) {
        const unsigned char *at = hash->block + 4 * i;
        schedule[i] = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    }
    for (size_t i = 16; i < 64; i++) {
        uint32_t old = schedule[i - 15], late = schedule[i - 2];
        uint32_t first = rotated(old, 7) ^ rotated(old, 18) ^ (old >> 3);
        uint32_t second = rotated(late, 17) ^ rotated(late, 19) ^ (late >> 10);
        schedule[i] = schedule[i - 16] + first + schedule[i - 7] + second;
    }
    uint32_t word[8];
    memcpy(word, hash->state, sizeof word);
    for (size_t i = 0; i < 64; i++) {
        uint32_t a = word[0], e = word[4];
        uint32_t choice = (e & word[5]) ^ (~e & word[6]);
        uint32_t majority = (a & word[1]) ^ (a & word[2]) ^ (word[1] & word[2]);
        uint32_t first = word[7] + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + choice + constants[i] + schedule[i];
        uint32_t second = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + majority;
        memmove(word + 1, word, 7 * sizeof *word);
        word[4] += first;
        word[0] = first + second;
    }
    for (size_t i = 0; i < 8; i++)
        hash->state[i] += word[i];
}

void sha256_begin(struct sha256 *hash)
{
    *hash = (struct sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
                                      0x1f83d9ab, 0x5be0cd19}};
}

void sha256_add(struct sha256 *hash, const void *bytes, size_t count)
{
    const unsigned char *from = bytes;
    while (count > 0) {
        size_t used = hash->length % sizeof hash->block, room = sizeof hash->block - used;
        size_t some = count < room ? count : room;
        memcpy(hash->block + used, from, some);
        hash->length += some;
        from += some;
        count -= some;
        if (some == room)
            mix(hash);
    }
}

void sha256_finish(struct sha256 *hash, char digits[65])
{
    static const unsigned char padding[64] = {0x80};
    uint64_t bits = hash->length * 8;
    size_t used = hash->length % 64;
    sha256_add(hash, padding, used < 56 ? 56 - used : 120 - used);
    unsigned char length[8];
    for (size_t i = 0; i < 8; i++)
        length[i] = (unsigned char)(bits >> (56 - 8 * i));
    sha256_add(hash, length, sizeof length);
    for (size_t i = 0; i < 64; i++)
        digits[i] = "0123456789abcdef"[hash->state[i / 8] >> (28 - 4 * (i % 8)) & 15];
    digits[64] = '\0';
}
