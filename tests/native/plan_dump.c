/* Reads the plans named on its command line. Standard output gets what was read, written again: header, records, end.
 * A plan that is refused is a line on standard error, and the exit status is 1. */
#include "closed.h"
#include "plan.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static void write_again(const struct plan *plan)
{
    struct plan_record record;
    size_t before = plan->body;
    fwrite("cdi-hpc-plan\0" "2", 1, sizeof "cdi-hpc-plan\0" "2", stdout);
    for (size_t cursor = 0; plan_next(plan, &cursor, &record); before = cursor) {
        const char *name = plan->text + before;
        size_t rest = cursor - before - strlen(name) - 1;
        fwrite(name, 1, strlen(name) + 1, stdout);
        for (size_t i = 0; rest > 0; i++) {
            size_t length = strlen(record.field[i]) + 1;
            fwrite(record.field[i], 1, length, stdout);
            rest -= length;
        }
    }
    fwrite("end", 1, sizeof "end", stdout);
}

static int dump(const char *path)
{
    struct plan plan;
    struct plan_complaint complaint;
    CLOSED int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    bool read = plan_read(&plan, fd, &complaint);
    if (read)
        write_again(&plan);
    else
        fprintf(stderr, "%s\n", complaint.text);
    plan_free(&plan);
    return read ? 0 : 1;
}

int main(int argc, char **argv)
{
    int status = 0;
    for (int i = 1; i < argc; i++)
        status |= dump(argv[i]);
    return status;
}
