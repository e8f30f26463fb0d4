/* How the shim reads command lines:
 *
 *   reading-dump PROFILE IN-ORDER WANTED DEVICES < LINES
 *
 * LINES are fields that end with NUL: a number, then as many words, and so on. IN-ORDER and WANTED are 0 or 1. What is
 * written for each line are such fields, too: "refused", or "leave" or "help", a number, as many words, or "launch",
 * the key, and numbers with as many fields after each: words, subcommand, options (COUNT, NAME, "=VALUE" or ""), command.
 */
#include "key.h"
#include "launcher_options.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void put(const char *field)
{
    fwrite(field, 1, strlen(field) + 1, stdout);
}

static void put_number(size_t number)
{
    printf("%zu%c", number, '\0');
}

static void put_words(char *const *words, size_t count)
{
    put_number(count);
    for (size_t i = 0; i < count; i++)
        put(words[i]);
}

static size_t count_words(char *const *words)
{
    size_t count = 0;
    while (words[count] != NULL)
        count++;
    return count;
}

static void put_run(struct run_of_words run)
{
    put_number(run.count);
    for (const char *word = run.first; run.count > 0; word = next_word(word), run.count--)
        put(word);
}

static void put_given(const struct given *given)
{
    put_number(given->count);
    put(given->option->names.first);
    printf("%s%s%c", given->value == NULL ? "" : "=", given->value == NULL ? "" : given->value, '\0');
}

static void put_launch(const struct invocation *invocation, enum wish wish, const char *devices)
{
    bool by_default = wish == BY_DEFAULT && !invocation_asks(invocation);
    char key[PLAN_KEY_DIGITS + 1], cwd[PLAN_MAX_PATH];
    if (getcwd(cwd, sizeof cwd) == NULL ||
        !compute_launcher_key(invocation, (struct wanted){devices, by_default}, cwd, (struct caller){.everybody = false}, key))
        exit(1);
    put("launch");
    put(key);
    put_words(invocation->words, invocation->count);
    put_run(invocation->subcommand == NULL ? (struct run_of_words){0} : invocation->subcommand->words);
    put_number(invocation->givens);
    for (size_t i = 0; i < invocation->givens; i++)
        put_given(&invocation->given[i]);
    put_words(invocation->command, count_words(invocation->command));
}

static void put_reading(const struct profile *profile, char **words, char **argv)
{
    struct invocation invocation = {0};
    enum wish wish = (enum wish)(argv[3][0] - '0');
    switch (invocation_read(&invocation, profile, words, argv[2][0] == '1', wish)) {
    case READ_LEAVE:
        put("leave");
        put_words(invocation.words, invocation.count);
        break;
    case READ_HELP:
        put("help");
        put_words(invocation.words, invocation.count);
        break;
    case READ_REFUSED:
        put("refused");
        break;
    case READ_LAUNCH:
        put_launch(&invocation, wish, argv[4]);
        break;
    }
    invocation_free(&invocation);
}

/* A field of standard input in memory of its own, or NULL at the end. */
static char *take(void)
{
    char *field = NULL;
    size_t size = 0;
    if (getdelim(&field, &size, '\0', stdin) > 0)
        return field;
    free(field);
    return NULL;
}

int main(int argc, char **argv)
{
    struct profile profile = {0};
    int fd = argc == 5 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0 || !profile_read(&profile, fd)) {
        fputs("the profile is not taken\n", stderr);
        profile_free(&profile);
        return 2;
    }
    for (char *number; (number = take()) != NULL; free(number)) {
        size_t count = strtoul(number, NULL, 10);
        char **words = calloc(count + 1, sizeof *words);
        for (size_t i = 0; i < count; i++)
            words[i] = take();
        put_reading(&profile, words, argv);
        for (size_t i = 0; i < count; i++)
            free(words[i]);
        free(words);
    }
    profile_free(&profile);
    return fflush(stdout) == 0 ? 0 : 1;
}
