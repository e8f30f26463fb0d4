#include "say.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 16384, ESCAPE = 10 };

/* Ranges that Python calls unprintable, less the unassigned ones: controls, separators, formats, private use. */
static const struct {
    uint32_t first, last;
} unprintable[] = {
    {0x00, 0x1f},     {0x7f, 0xa0},     {0xad, 0xad},     {0x600, 0x605},   {0x61c, 0x61c},
    {0x6dd, 0x6dd},   {0x70f, 0x70f},   {0x1680, 0x1680}, {0x180e, 0x180e}, {0x2000, 0x200f},
    {0x2028, 0x202f}, {0x205f, 0x206f}, {0x3000, 0x3000}, {0xd800, 0xf8ff}, {0xfeff, 0xfeff},
    {0xfff0, 0xfffb}, {0xfffe, 0xffff}, {0xe0000, 0x10ffff},
};

static bool is_printable(uint32_t code)
{
    for (size_t i = 0; i < sizeof unprintable / sizeof *unprintable; i++)
        if (unprintable[i].first <= code && code <= unprintable[i].last)
            return false;
    return true;
}

/* Length of the UTF-8 sequence at `text` and the code point in it; 0 where the bytes are not UTF-8. */
static size_t decode(const unsigned char *text, uint32_t *code)
{
    static const struct {
        unsigned char mask, lead;
        uint32_t least;
    } forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t more = 0; more < sizeof forms / sizeof *forms; more++) {
        if ((text[0] & forms[more].mask) != forms[more].lead)
            continue;
        uint32_t value = text[0] & (unsigned char)~forms[more].mask;
        for (size_t i = 1; i <= more; i++) {
            if ((text[i] & 0xc0) != 0x80)
                return 0;
            value = value << 6 | (text[i] & 0x3fU);
        }
        bool surrogate = 0xd800 <= value && value <= 0xdfff;
        if (value < forms[more].least || value > 0x10ffff || surrogate)
            return 0;
        *code = value;
        return more + 1;
    }
    return 0;
}

static int escape(uint32_t code, char *into, size_t size)
{
    if (code == '\n')
        return snprintf(into, size, "\\n");
    if (code == '\r')
        return snprintf(into, size, "\\r");
    if (code == '\t')
        return snprintf(into, size, "\\t");
    if (code < 0x100)
        return snprintf(into, size, "\\x%02x", code);
    return code < 0x10000 ? snprintf(into, size, "\\u%04x", code) : snprintf(into, size, "\\U%08x", code);
}

void make_printable(const char *text, char *printable, size_t size)
{
    size_t used = 0;
    while (*text != '\0' && used + ESCAPE < size) {
        uint32_t code;
        size_t length = decode((const unsigned char *)text, &code);
        if (length > 0 && is_printable(code)) {
            memcpy(printable + used, text, length);
            used += length;
        } else {
            /* A byte that is no UTF-8 is what Python makes of it in a file name. */
            code = length > 0 ? code : 0xdc00U + (unsigned char)*text;
            used += (size_t)escape(code, printable + used, size - used);
        }
        text += length > 0 ? length : 1;
    }
    printable[used] = '\0';
}

void say(const char *level, const char *format, ...)
{
    char text[LINE], line[LINE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    int prefix = snprintf(line, sizeof line, "cdi-hpc: %s%s", level, *level == '\0' ? "" : ": ");
    make_printable(text, line + prefix, sizeof line - (size_t)prefix - 1);
    size_t length = strlen(line);
    line[length++] = '\n';
    /* One call: lines of ranks that share a terminal do not mix. Nobody to tell if it fails. */
    if (write(STDERR_FILENO, line, length) < 0)
        return;
}
