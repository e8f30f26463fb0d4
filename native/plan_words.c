/* The command line of a launcher that a plan's records spell. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

static bool is_word(enum plan_kind kind)
{
    return kind == PLAN_ARG || kind == PLAN_KEEP || kind == PLAN_STAGEARG;
}

/* Bytes of a word with a path of the stage, its NUL included. */
static size_t staged_size(const struct plan *plan, const struct plan_record *record)
{
    return strlen(record->field[0]) + strlen(plan->stage) + 1 + strlen(record->field[1]) + strlen(record->field[2]) + 1;
}

/* How many words a plan has, and how many bytes those take that lie nowhere else. */
static void measure(const struct plan *plan, size_t *words, size_t *bytes)
{
    struct plan_record record;
    *words = *bytes = 0;
    for (size_t cursor = 0; plan_next(plan, &cursor, &record);) {
        *words += is_word(record.kind);
        *bytes += record.kind == PLAN_STAGEARG ? staged_size(plan, &record) : 0;
    }
}

static size_t count(char *const *words)
{
    size_t found = 0;
    while (words != NULL && words[found] != NULL)
        found++;
    return found;
}

/* Write a word with a path of the stage; returns where the next one goes. */
static char *write_staged(char *at, const struct plan *plan, const struct plan_record *record)
{
    at = stpcpy(at, record->field[0]);
    at = stpcpy(at, plan->stage);
    *at++ = '/';
    at = stpcpy(at, record->field[1]);
    return stpcpy(at, record->field[2]) + 1;
}

/* The words of the plan, from `to` on; `text` is for those that lie nowhere else. Returns where the next word goes. */
static char **spell(const struct plan *plan, char **to, char *text, char *const *words, size_t given,
                    struct plan_complaint *complaint)
{
    struct plan_record record;
    for (size_t cursor = 0; plan_next(plan, &cursor, &record);) {
        if (record.kind == PLAN_ARG) {
            *to++ = plan->text + (record.field[0] - plan->text);
        } else if (record.kind == PLAN_STAGEARG) {
            *to++ = text;
            text = write_staged(text, plan, &record);
        } else if (record.kind == PLAN_KEEP) {
            uint64_t index = plan_number(record.field[0]);
            if (index >= given) {
                plan_complain(complaint, "the plan is for a command line of more than %zu words", given);
                return NULL;
            }
            *to++ = words[index];
        }
    }
    return to;
}

char **plan_words(const struct plan *plan, const char *name, char *const *words, size_t given, char *const *command,
                  struct plan_complaint *complaint)
{
    size_t own, bytes, last = count(command);
    measure(plan, &own, &bytes);
    char **line = malloc((1 + own + last + 1) * sizeof *line + bytes);
    if (line == NULL) {
        plan_complain(complaint, "no memory is left");
        return NULL;
    }
    char *text = (char *)(line + 1 + own + last + 1);
    line[0] = (char *)(uintptr_t)name;
    char **end = spell(plan, line + 1, text, words, given, complaint);
    if (end == NULL) {
        free(line);
        return NULL;
    }
    for (size_t i = 0; i < last; i++)
        *end++ = command[i];
    *end = NULL;
    return line;
}
