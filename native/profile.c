#include "profile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef VERSION
#error "compile with -DVERSION=\"...\", that of cdi_hpc/__init__.py"
#endif

enum { MAX_BYTES = 1 << 20, MAX_FIELDS = 6 };

static const char *const uses[] = {
    [USE_PLAN] = "plan",     [USE_KEEP] = "keep",   [USE_DEVICE] = "device", [USE_DIRECTORIES] = "cdi-dirs",
    [USE_SWITCH] = "switch", [USE_LEAVE] = "leave", [USE_HELP] = "help",
};
static const char *const arities[] = {
    [ARITY_NONE] = "none",
    [ARITY_REQUIRED] = "required",
    [ARITY_OPTIONAL] = "optional",
};
static const char *const styles[] = {"getopt", "pflag"};

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Where the reader is in the file. */
struct reader {
    char *at, *end;
};

static char *take(struct reader *reader)
{
    char *field = reader->at;
    reader->at = field < reader->end ? field + strlen(field) + 1 : NULL;
    return reader->at == NULL ? NULL : field;
}

/* Index of a word among some, or -1. */
static int find(const char *const *words, size_t count, const char *word)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(words[i], word) == 0)
            return (int)i;
    return -1;
}

/* Cut a field into words where `separator` is. */
static struct run_of_words split(char *field, char separator)
{
    struct run_of_words words = {.first = field, .count = 1};
    for (; (field = strchr(field, separator)) != NULL; words.count++)
        *field++ = '\0';
    return words;
}

/* Whether a file is as it was when the launcher was asked; which file system it is on may depend on the node. */
static bool is_same(const char *path, char *const *number)
{
    struct stat status;
    if (path[0] != '/' || stat(path, &status) < 0)
        return false;
    intmax_t mtime = (intmax_t)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec;
    intmax_t ctime = (intmax_t)status.st_ctim.tv_sec * 1000000000 + status.st_ctim.tv_nsec;
    return strtoumax(number[0], NULL, 10) == status.st_ino && strtoimax(number[1], NULL, 10) == status.st_size &&
           strtoimax(number[2], NULL, 10) == mtime && strtoimax(number[3], NULL, 10) == ctime;
}

static bool take_program(struct profile *profile, char **field)
{
    profile->program = field[0];
    return is_same(field[0], field + 1);
}

static bool take_present(struct profile *profile, char **field)
{
    (void)profile;
    return is_same(field[0], field + 1);
}

static bool take_absent(struct profile *profile, char **field)
{
    struct stat status;
    (void)profile;
    return field[0][0] == '/' && stat(field[0], &status) < 0;
}

static bool take_backend(struct profile *profile, char **field)
{
    profile->backend = field[0];
    return true;
}

static bool take_style(struct profile *profile, char **field)
{
    int style = find(styles, COUNT(styles), field[0]);
    profile->is_pflag = style == 1;
    return style >= 0;
}

static bool take_option(struct profile *profile, char **field)
{
    int use = find(uses, COUNT(uses), field[0]), arity = find(arities, COUNT(arities), field[1]);
    if (use < 0 || arity < 0)
        return false;
    profile->option[profile->options++] = (struct launcher_option){
        .use = (enum option_use)use, .arity = (enum option_arity)arity, .names = split(field[2], ',')};
    if (profile->subcommands == 0)
        profile->common = profile->options;
    else
        profile->subcommand[profile->subcommands - 1].count++;
    return true;
}

static bool take_subcommand(struct profile *profile, char **field)
{
    profile->subcommand[profile->subcommands++] =
        (struct subcommand){.words = split(field[0], ' '), .first = profile->options};
    return true;
}

static bool take_variable(struct profile *profile, char **field)
{
    profile->variable[profile->variables++] = field[0];
    return true;
}

static bool take_capability(struct profile *profile, char **field)
{
    if (strcmp(field[0], "cdi-dirs-variable") == 0)
        profile->directories_variable = field[1];
    else if (strcmp(field[0], "path-variables") == 0)
        profile->path_variables = field[1];
    return true;
}

static bool take_help(struct profile *profile, char **field)
{
    profile->help = field[0];
    return true;
}

static const struct record {
    const char *name;
    size_t fields;
    bool (*take)(struct profile *, char **);
} records[] = {
    {"program", 5, take_program},   {"backend", 1, take_backend},       {"style", 1, take_style},
    {"option", 3, take_option},     {"subcommand", 1, take_subcommand}, {"variable", 1, take_variable},
    {"capability", 2, take_capability}, {"help", 1, take_help},         {"present", 5, take_present},
    {"absent", 1, take_absent},
};

static const struct record *find_record(const char *name)
{
    for (size_t i = 0; i < COUNT(records); i++)
        if (strcmp(records[i].name, name) == 0)
            return &records[i];
    return NULL;
}

static bool take_record(struct profile *profile, struct reader *reader, const char *name)
{
    const struct record *record = find_record(name);
    char *field[MAX_FIELDS];
    if (record == NULL)
        return false;
    for (size_t i = 0; i < record->fields; i++)
        if ((field[i] = take(reader)) == NULL)
            return false;
    return record->take(profile, field);
}

static bool take_header(struct reader *reader)
{
    static const char *const header[] = {"cdi-hpc-launcher", "2", VERSION};
    for (size_t i = 0; i < COUNT(header); i++) {
        const char *field = take(reader);
        if (field == NULL || strcmp(field, header[i]) != 0)
            return false;
    }
    return true;
}

/* Room for as many of everything as there can be: a record has two fields at least. */
static bool make_room(struct profile *profile, size_t size)
{
    size_t fields = 0;
    for (size_t i = 0; i < size; i++)
        fields += profile->text[i] == '\0';
    size_t most = fields / 2 + 1;
    profile->option = calloc(most, sizeof *profile->option);
    profile->subcommand = calloc(most, sizeof *profile->subcommand);
    profile->variable = calloc(most, sizeof *profile->variable);
    return profile->option != NULL && profile->subcommand != NULL && profile->variable != NULL;
}

static bool parse(struct profile *profile, size_t size)
{
    struct reader reader = {.at = profile->text, .end = profile->text + size};
    const char *name;
    if (!take_header(&reader))
        return false;
    while ((name = take(&reader)) != NULL && strcmp(name, "end") != 0)
        if (!take_record(profile, &reader, name))
            return false;
    return name != NULL && reader.at == reader.end && profile->program != NULL && profile->backend != NULL;
}

static ssize_t read_all(int fd, char *text, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = read(fd, text + done, size - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

bool profile_read(struct profile *profile, int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size <= 0 || status.st_size > MAX_BYTES)
        return false;
    size_t size = (size_t)status.st_size;
    profile->text = malloc(size);
    if (profile->text == NULL || read_all(fd, profile->text, size) != status.st_size || profile->text[size - 1] != '\0')
        return false;
    return make_room(profile, size) && parse(profile, size);
}

void profile_free(struct profile *profile)
{
    free(profile->text);
    free(profile->option);
    free(profile->subcommand);
    free(profile->variable);
}
