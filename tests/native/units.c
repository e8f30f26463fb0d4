/* Parts of the native runner that a test in Python can't reach one by one. Built with sanitizers: make check. */
#include "mount_flags.h"
#include "plan.h"
#include "say.h"
#include "sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

static int failures;

static void check(bool holds, const char *what, const char *detail)
{
    if (holds)
        return;
    failures++;
    fprintf(stderr, "FAILED: %s: %s\n", what, detail);
}

/* FIPS 180-4 example values, and the empty message. */
static void sha256_gives_the_published_digests(void)
{
    static const struct {
        const char *message, *digest;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrst"
         "nopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sha256 hash;
        char digits[65];
        sha256_begin(&hash);
        sha256_add(&hash, cases[i].message, strlen(cases[i].message));
        sha256_finish(&hash, digits);
        check(strcmp(digits, cases[i].digest) == 0, "sha256", cases[i].message);
    }
}

/* Every length around the block size, whole and byte by byte. */
static void sha256_does_not_mind_how_a_message_is_cut(void)
{
    char message[200];
    memset(message, 'x', sizeof message);
    for (size_t length = 0; length <= sizeof message; length++) {
        struct sha256 whole, cut;
        char first[65], second[65];
        sha256_begin(&whole);
        sha256_add(&whole, message, length);
        sha256_finish(&whole, first);
        sha256_begin(&cut);
        for (size_t i = 0; i < length; i++)
            sha256_add(&cut, message + i, 1);
        sha256_finish(&cut, second);
        check(strcmp(first, second) == 0, "sha256 in pieces", first);
    }
}

static void text_for_a_terminal_controls_nothing(void)
{
    static const struct {
        const char *text, *printable;
    } cases[] = {
        {"plain text, 'quoted' \\ and all", "plain text, 'quoted' \\ and all"},
        {"line\nof\ttext\r", "line\\nof\\ttext\\r"},
        {"\033[31mred\177", "\\x1b[31mred\\x7f"},
        {"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
        {"\xc2\x9b" "31m", "\\x9b31m"},                   /* the one-byte form of ESC [ */
        {"\xe2\x80\xae" "evil", "\\u202eevil"},           /* right to left from here on */
        {"\xf3\xa0\x80\x81tag", "\\U000e0001tag"},
        {"cut \xe2\x80", "cut \\udce2\\udc80"},
        {"\xff\xfe", "\\udcff\\udcfe"},
        {"\xc0\xaf long", "\\udcc0\\udcaf long"},          /* an overlong slash */
        {"\xed\xa0\x80 half", "\\udced\\udca0\\udc80 half"}, /* half of a surrogate pair */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char printable[256];
        make_printable(cases[i].text, printable, sizeof printable);
        check(strcmp(printable, cases[i].printable) == 0, "make_printable", printable);
    }
}

static void long_text_is_cut_off_and_never_written_past_the_end(void)
{
    char text[512];
    memset(text, '\033', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (size_t size = 1; size < 64; size++) {
        char *printable = malloc(size);
        if (printable == NULL)
            abort();
        make_printable(text, printable, size);
        check(strlen(printable) < size, "make_printable", "too long");
        free(printable);
    }
}

static void flag_names_are_mounts_own(void)
{
    static const struct {
        const char *names;
        bool valid;
        unsigned long bits;
    } cases[] = {
        {"", true, 0},
        {"ro", true, MS_RDONLY},
        {"nodev,nosuid,ro", true, MS_NODEV | MS_NOSUID | MS_RDONLY},
        {"relatime,noexec", true, MS_RELATIME | MS_NOEXEC},
        {"rw", false, 0},
        {"r", false, 0},
        {"roo", false, 0},
        {"ro,", false, 0},
        {",ro", false, 0},
        {"ro,,nodev", false, 0},
        {",", false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned long bits;
        bool valid = mount_flag_bits(cases[i].names, &bits);
        check(valid == cases[i].valid && (!valid || bits == cases[i].bits), "mount_flag_bits", cases[i].names);
    }
}

#define KEY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HEAD "cdi-hpc-plan\0" "2\0" "key\0" KEY "\0owner\0" "1000\0" "100\0"

/* One of each record. */
static const char sample[] =
    HEAD "stage\0/run/stage\0"
    "file\0/etc/cdi/a.yaml\0" "1\0" "2\0" "3\0" "-4\0" "5\0"
    "dir\0/etc/cdi\0" "1\0" "2\0" "9223372036854775807\0" "0\0"
    "node\0/dev/null\0" "1\0" "18446744073709551615\0" "3\0" "8630\0" "0\0" "0\0"
    "absent\0/var/run/cdi\0" "link\0/dev/gpu\0nvidia0\0" "warn\0a warning\0" "note\0\0" "env\0A=b=c\0"
    "file\0/a.sqfs\0" "1\0" "2\0" "3\0" "4\0" "5\0"
    "default\0B=\0" "program\0/bin/ch-run\0" "arg\0\0" "keep\0" "7\0" "stagearg\0--overlay=\0a/b\0:ro\0"
    "squashfs\0/a.sqfs\0/run/image\0" "4096\0" "1\0" "peers\0/dev/shm/x-\0STEP\0'a/b=c'\0" KEY "\0"
    "overlay\0/\0stage/1\0/images/a\0" "1\0" "493\0nodev,ro\0" "12%\0"
    "mkdir\0/dev/a\0" "493\0" "mkfile\0/dev/b\0" "420\0" "copy\0content1\0/dev/c\0" "420\0"
    "symlink\0/dev/d\0../x\0" "bind\0/lib/x\0/lib/y\0" "1\0ro,nosuid\0rslave\0"
    "bindstaged\0stage/2\0/proc/p\0\0" "mount\0tmpfs\0dev\0/dev\0nosuid\0mode=755\0" "restrict\0/\0ro\0"
    "place\0/images/a\0" "move\0/dev\0/dev\0" "end";

static bool accepts(const char *bytes, size_t size)
{
    struct plan plan;
    struct plan_complaint complaint = {.text = ""};
    char *text = malloc(size > 0 ? size : 1);
    if (text == NULL)
        abort();
    memcpy(text, bytes, size);
    bool accepted = plan_parse(&plan, text, size, &complaint);
    check(accepted == (complaint.text[0] == '\0'), "complaint", complaint.text);
    plan_free(&plan);
    return accepted;
}

static void every_truncation_is_refused(void)
{
    char detail[32];
    check(accepts(sample, sizeof sample), "sample", "refused");
    for (size_t size = 0; size < sizeof sample; size++) {
        snprintf(detail, sizeof detail, "%zu bytes accepted", size);
        check(!accepts(sample, size), "truncation", detail);
    }
}

/* Not that all are refused, a path may have another letter: that the sanitizers see nothing. */
static void no_changed_byte_confuses_the_reader(void)
{
    static const char values[] = {'\0', '/', '.', '-', '9', '\xff'};
    char changed[sizeof sample];
    for (size_t at = 0; at < sizeof sample; at++) {
        for (size_t i = 0; i < sizeof values; i++) {
            memcpy(changed, sample, sizeof sample);
            changed[at] = values[i];
            accepts(changed, sizeof changed);
        }
    }
}

int main(void)
{
    sha256_gives_the_published_digests();
    sha256_does_not_mind_how_a_message_is_cut();
    text_for_a_terminal_controls_nothing();
    long_text_is_cut_off_and_never_written_past_the_end();
    flag_names_are_mounts_own();
    every_truncation_is_refused();
    no_changed_byte_confuses_the_reader();
    if (failures == 0)
        puts("units: all passed");
    return failures != 0;
}
