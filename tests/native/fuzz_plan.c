/* The reader, fed with anything: it must refuse it, or give back exactly what it was given.
 *
 * With libFuzzer (make fuzz), or with -DONE_FILE as a program that reads one plan on standard input (AFL++).
 */
#include "plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

/* A plan has one encoding: header and records written again are the bytes that were read. */
static void compare(const struct plan *plan, const unsigned char *data)
{
    size_t at = plan->body, fields = 0;
    struct plan_record record;
    for (size_t cursor = 0; plan_next(plan, &cursor, &record);) {
        at += strlen(plan->text + at) + 1; /* the record's name */
        for (size_t i = 0; i < PLAN_MAX_FIELDS && at < cursor; i++, fields++) {
            if (record.field[i] != plan->text + at)
                abort();
            at += strlen(record.field[i]) + 1;
        }
        if (at != cursor)
            abort();
    }
    if (at + sizeof "end" != plan->size || memcmp(plan->text, data, plan->size) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    /* Of exactly that size: one byte beyond is found by AddressSanitizer. */
    char *text = malloc(size > 0 ? size : 1);
    struct plan plan;
    struct plan_complaint complaint = {.text = ""};
    if (text == NULL)
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    if (plan_parse(&plan, text, size, &complaint))
        compare(&plan, data);
    else if (complaint.text[0] == '\0')
        abort();
    plan_free(&plan);
    return 0;
}

#ifdef ONE_FILE
int main(void)
{
    static unsigned char data[1 << 20];
    return LLVMFuzzerTestOneInput(data, fread(data, 1, sizeof data, stdin));
}
#endif
