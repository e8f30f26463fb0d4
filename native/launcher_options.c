#include "launcher_options.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* What became of a word. */
enum outcome { TAKEN, OTHER, LEFT, HELP, NOT_UNDERSTOOD, REFUSED };

struct reader {
    struct invocation *invocation;
    char **all, **next;
    size_t others;
    const struct launcher_option *option; /* the table that counts now */
    size_t options;
    char *text; /* where the next word that was not typed so goes */
    bool in_order;
    bool ended;           /* by a "--" */
    char **word;          /* that is being read */
    size_t before, given; /* words and options that those before it have made */
};

/* What is passed on is the launcher's. */
static bool is_ours(const struct launcher_option *option)
{
    return option->use == USE_DEVICE || option->use == USE_DIRECTORIES || option->use == USE_SWITCH;
}

bool is_lock_file(const char *text)
{
    static const char suffix[] = ".lock";
    size_t length = strlen(text), end = sizeof suffix - 1;
    bool is_path = *text == '/' || strncmp(text, "./", 2) == 0 || strncmp(text, "../", 3) == 0;
    return length >= end && strcmp(text + length - end, suffix) == 0 && (is_path || strchr(text, '=') == NULL);
}

bool invocation_asks(const struct invocation *invocation)
{
    for (size_t i = 0; i < invocation->givens; i++)
        if (invocation->given[i].option->use == USE_DEVICE)
            return true;
    return false;
}

static void add_word(struct reader *reader, const char *word)
{
    reader->invocation->words[reader->invocation->count++] = (char *)(uintptr_t)word;
}

static void add_run(struct reader *reader, struct run_of_words run)
{
    for (const char *word = run.first; run.count > 0; word = next_word(word), run.count--)
        add_word(reader, word);
}

static void take_rest(struct reader *reader)
{
    while (*reader->next != NULL)
        reader->invocation->others[reader->others++] = *reader->next++;
}

/* Names ------------------------------------------------------------------------------------------------------------ */

/* Whether one of an option's names is these bytes, or begins with them. */
static bool is_named(const struct launcher_option *option, const char *name, size_t length, bool whole)
{
    const char *known = option->names.first;
    for (size_t i = 0; i < option->names.count; i++, known = next_word(known))
        if (strncmp(known, name, length) == 0 && (!whole || known[length] == '\0'))
            return true;
    return false;
}

static const struct launcher_option *find_exact(const struct reader *reader, const char *name, size_t length)
{
    for (size_t i = 0; i < reader->options; i++)
        if (is_named(&reader->option[i], name, length, true))
            return &reader->option[i];
    return NULL;
}

/* The only option with a name that begins so; what is the beginning of one of the launcher's means that. */
static const struct launcher_option *find_abbreviated(const struct reader *reader, const char *name, size_t length)
{
    const struct launcher_option *found[2] = {NULL, NULL};
    size_t count[2] = {0, 0};
    for (size_t i = 0; i < reader->options; i++) {
        if (!is_named(&reader->option[i], name, length, false))
            continue;
        bool ours = is_ours(&reader->option[i]);
        found[ours] = &reader->option[i];
        count[ours]++;
    }
    bool ours = count[false] == 0;
    return count[ours] == 1 ? found[ours] : NULL;
}

/* Options ---------------------------------------------------------------------------------------------------------- */

/* strconv.ParseBool of Go. */
static bool is_one_of(const char *value, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(*words, value) == 0)
            return true;
    return false;
}

static bool is_false(const char *value)
{
    static const char *const words[] = {"0", "f", "F", "false", "FALSE", "False", NULL};
    return is_one_of(value, words);
}

static bool is_true(const char *value)
{
    static const char *const words[] = {"1", "t", "T", "true", "TRUE", "True", NULL};
    return is_one_of(value, words);
}

/* Whether a switch may have this value. */
static bool may_be_switch(const struct reader *reader, const char *value)
{
    return reader->invocation->profile->is_pflag && (is_true(value) || is_false(value));
}

static bool has_ours(const struct invocation *invocation)
{
    for (size_t i = 0; i < invocation->givens; i++)
        if (is_ours(invocation->given[i].option))
            return true;
    return false;
}

/* The launcher's help is asked for with the words as they are, or if some are ours, with what asks for it alone. */
static enum outcome ask_for_help(struct reader *reader, const char *word, const char *second)
{
    struct invocation *invocation = reader->invocation;
    bool as_typed = !has_ours(invocation);
    invocation->count = 0;
    for (char **typed = reader->all; as_typed && *typed != NULL; typed++)
        add_word(reader, *typed);
    if (!as_typed && invocation->subcommand != NULL)
        add_run(reader, invocation->subcommand->words);
    if (!as_typed)
        add_word(reader, word);
    if (!as_typed && second != NULL)
        add_word(reader, second);
    return HELP;
}

static bool is_word_of_ours(const struct invocation *invocation, size_t givens, const char *word)
{
    for (size_t i = 0; i < givens; i++)
        if (is_ours(invocation->given[i].option) && invocation->given[i].option->names.first == word)
            return true;
    return false;
}

/* The launcher may not know our options: it gets the first `count` words without them. False: none are ours. */
static bool drop_ours(struct invocation *invocation, size_t count, size_t givens)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (!is_word_of_ours(invocation, givens, invocation->words[i]))
            invocation->words[kept++] = invocation->words[i];
    invocation->count = kept;
    return kept < count;
}

/* Leave the launcher what is its own business: the `whole`, or what follows once a word says so. */
static enum reading leave(struct reader *reader, bool whole)
{
    struct invocation *invocation = reader->invocation;
    char **rest = whole ? NULL : reader->word;
    if (drop_ours(invocation, whole ? invocation->count : reader->before, whole ? invocation->givens : reader->given)) {
        if (whole && reader->ended)
            add_word(reader, "--");
        for (size_t i = 0; i < reader->others; i++)
            add_word(reader, invocation->others[i]);
    } else {
        invocation->count = 0;
        rest = reader->all;
    }
    for (; rest != NULL && *rest != NULL; rest++)
        add_word(reader, *rest);
    return READ_LEAVE;
}

/* Take an option in, which is one word, or two if there is a `second`. */
static enum outcome add_given(struct reader *reader, const struct launcher_option *option, const char *value,
                              const char *word, const char *second)
{
    struct invocation *invocation = reader->invocation;
    bool off = option->arity == ARITY_NONE && value != NULL && is_false(value);
    if (option->use == USE_LEAVE && !off)
        return LEFT;
    if (option->use == USE_HELP && !off)
        return ask_for_help(reader, word, second);
    if ((option->use == USE_DEVICE || option->use == USE_DIRECTORIES) && value != NULL && *value == '\0')
        return REFUSED;
    if (is_ours(option)) {
        word = option->names.first;
        second = NULL;
    }
    invocation->given[invocation->givens++] =
        (struct given){.option = option, .value = value, .count = second == NULL ? 1 : 2};
    add_word(reader, word);
    if (second != NULL)
        add_word(reader, second);
    return TAKEN;
}

/* An option without its value is the launcher's to complain of, unless it is one that it does not know. */
static enum outcome lacks_value(const struct launcher_option *option)
{
    return is_ours(option) ? REFUSED : NOT_UNDERSTOOD;
}

/* --name, --name=value, --name value. */
static enum outcome take_long(struct reader *reader, const char *word)
{
    size_t length = strcspn(word, "=");
    const struct launcher_option *option = find_exact(reader, word, length);
    if (option == NULL && !reader->invocation->profile->is_pflag)
        option = find_abbreviated(reader, word, length);
    if (option == NULL)
        return NOT_UNDERSTOOD;
    const char *value = word[length] == '=' ? word + length + 1 : NULL;
    if (value != NULL && option->arity == ARITY_NONE && !may_be_switch(reader, value))
        return NOT_UNDERSTOOD;
    const char *second = NULL;
    if (value == NULL && option->arity == ARITY_REQUIRED) {
        if (*reader->next == NULL)
            return lacks_value(option);
        value = second = *reader->next++;
    }
    /* The option's name is another one of "--device", or a part of it. */
    bool is_lock = option->use == USE_DEVICE && strncmp("--lock", word, length) == 0;
    if (is_lock && (value == NULL || !is_lock_file(value)))
        return REFUSED;
    return add_given(reader, option, value, word, second);
}

/* A word of its own for one letter of several, with what belongs to it. */
static const char *word_of(struct reader *reader, char letter, const char *rest)
{
    char *word = reader->text;
    word[0] = '-';
    word[1] = letter;
    reader->text = stpcpy(word + 2, rest) + 1;
    return word;
}

/* The value in the rest of a word with letters, or NULL if that holds more letters, or nothing. */
static const char *joined(const struct reader *reader, const struct launcher_option *option, const char *rest)
{
    bool is_pflag = reader->invocation->profile->is_pflag;
    if (is_pflag && rest[0] == '=' && rest[1] != '\0')
        return rest + 1;
    bool takes_rest = option->arity == ARITY_REQUIRED || (option->arity == ARITY_OPTIONAL && !is_pflag);
    return takes_rest && *rest != '\0' ? rest : NULL;
}

/* -v, -vt, -bVALUE, -b VALUE; with pflag -b=VALUE as well. */
static enum outcome take_short(struct reader *reader, const char *letters)
{
    enum outcome outcome = TAKEN;
    for (; *letters != '\0' && outcome == TAKEN; letters++) {
        const char name[] = {'-', *letters, '\0'};
        const struct launcher_option *option = find_exact(reader, name, 2);
        if (option == NULL)
            return NOT_UNDERSTOOD;
        const char *rest = letters + 1, *value = joined(reader, option, rest);
        if (value != NULL) {
            if (option->arity == ARITY_NONE && !may_be_switch(reader, value))
                return NOT_UNDERSTOOD;
            return add_given(reader, option, value, word_of(reader, *letters, rest), NULL);
        }
        if (option->arity == ARITY_REQUIRED) {
            if (*reader->next == NULL)
                return lacks_value(option);
            value = *reader->next++;
            return add_given(reader, option, value, word_of(reader, *letters, ""), value);
        }
        outcome = add_given(reader, option, NULL, word_of(reader, *letters, ""), NULL);
    }
    return outcome;
}

static enum outcome take_options(struct reader *reader)
{
    enum outcome outcome = TAKEN;
    while (outcome == TAKEN && *reader->next != NULL) {
        reader->word = reader->next;
        reader->before = reader->invocation->count;
        reader->given = reader->invocation->givens;
        const char *word = *reader->next++;
        if (word[0] == '-' && word[1] == '-' && word[2] == '\0') {
            reader->ended = true;
            take_rest(reader);
        } else if (word[0] == '-' && word[1] == '-') {
            outcome = take_long(reader, word);
        } else if (word[0] == '-' && word[1] != '\0') {
            outcome = take_short(reader, word + 1);
        } else {
            reader->invocation->others[reader->others++] = reader->next[-1];
            if (reader->in_order)
                take_rest(reader);
        }
    }
    return outcome;
}

/* The command line -------------------------------------------------------------------------------------------------- */

static bool begins_with(char **words, size_t count, struct run_of_words run)
{
    if (count < run.count)
        return false;
    const char *wanted = run.first;
    for (size_t i = 0; i < run.count; i++, wanted = next_word(wanted))
        if (strcmp(words[i], wanted) != 0)
            return false;
    return true;
}

/* The subcommand that the other words begin with; a `--` before it is beyond us. */
static const struct subcommand *find_subcommand(const struct reader *reader)
{
    const struct profile *profile = reader->invocation->profile;
    size_t taken = (size_t)(reader->next - reader->all);
    if (taken > reader->others && strcmp(reader->all[taken - reader->others - 1], "--") == 0)
        return NULL;
    for (size_t i = 0; i < profile->subcommands; i++)
        if (begins_with(reader->invocation->others, reader->others, profile->subcommand[i].words))
            return &profile->subcommand[i];
    return NULL;
}

static enum outcome take_all(struct reader *reader)
{
    struct invocation *invocation = reader->invocation;
    const struct profile *profile = invocation->profile;
    enum outcome outcome = take_options(reader);
    if (outcome != TAKEN || !profile->is_pflag || profile->subcommands == 0)
        return outcome;
    invocation->subcommand = find_subcommand(reader);
    if (invocation->subcommand == NULL)
        return OTHER;
    reader->option = profile->option + invocation->subcommand->first;
    reader->options = invocation->subcommand->count;
    add_run(reader, invocation->subcommand->words);
    reader->next -= reader->others - invocation->subcommand->words.count;
    reader->others = 0;
    return take_options(reader);
}

/* Each letter of a word may become a word, and each word one more. */
static bool make_room(struct invocation *invocation, char **words)
{
    size_t count = 0, letters = 0;
    for (; words[count] != NULL; count++)
        letters += strlen(words[count]);
    size_t most = count + letters + 1;
    invocation->given = calloc(most, sizeof *invocation->given);
    invocation->words = calloc(2 * most, sizeof *invocation->words);
    invocation->others = calloc(count + 1, sizeof *invocation->others);
    invocation->text = malloc(3 * most + letters);
    return invocation->given != NULL && invocation->words != NULL && invocation->others != NULL &&
           invocation->text != NULL;
}

static enum reading finish(struct reader *reader)
{
    struct invocation *invocation = reader->invocation;
    invocation->others[reader->others] = NULL;
    invocation->image = invocation->others[0];
    invocation->command = invocation->others + 1;
    add_word(reader, invocation->image);
    return READ_LAUNCH;
}

enum reading invocation_read(struct invocation *invocation, const struct profile *profile, char **words, bool in_order,
                             enum wish wish)
{
    invocation->profile = profile;
    if (!make_room(invocation, words))
        return READ_REFUSED;
    struct reader reader = {
        .invocation = invocation,
        .all = words,
        .next = words,
        .option = profile->option,
        .options = profile->common,
        .text = invocation->text,
        .in_order = in_order || profile->is_pflag,
    };
    enum outcome outcome = take_all(&reader);
    bool asked = invocation_asks(invocation);
    switch (outcome) {
    case OTHER:
        return leave(&reader, true);
    case LEFT:
        return leave(&reader, false);
    case HELP:
        return READ_HELP;
    case REFUSED:
        return READ_REFUSED;
    case NOT_UNDERSTOOD:
        return asked || wish == WANTED ? READ_REFUSED : leave(&reader, false);
    case TAKEN:
        break;
    }
    if (reader.others == 0)
        return asked ? READ_REFUSED : leave(&reader, true);
    return asked || wish != NOT_WANTED ? finish(&reader) : leave(&reader, true);
}

void invocation_free(struct invocation *invocation)
{
    free(invocation->given);
    free(invocation->words);
    free(invocation->others);
    free(invocation->text);
}
