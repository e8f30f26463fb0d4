/* What is known of a launcher: its options, and what each means to us. cdi_hpc/launch/profile.py writes it. */
#ifndef CDI_HPC_PROFILE_H
#define CDI_HPC_PROFILE_H

#include <stdbool.h>
#include <stddef.h>

/* As in cdi_hpc/backend.py. */
enum option_use { USE_PLAN, USE_KEEP, USE_DEVICE, USE_DIRECTORIES, USE_SWITCH, USE_LEAVE, USE_HELP };
enum option_arity { ARITY_NONE, ARITY_REQUIRED, ARITY_OPTIONAL };

/* Words that lie one after the other, each with its NUL. */
struct run_of_words {
    const char *first;
    size_t count;
};

struct launcher_option {
    enum option_use use;
    enum option_arity arity;
    struct run_of_words names;
};

struct subcommand {
    struct run_of_words words;
    size_t first; /* of its options among all */
    size_t count;
};

/* Begin with one that is all zero; profile_free it in any case. */
struct profile {
    char *text; /* the file's bytes; everything here points into them */
    const char *program, *backend, *help;
    const char *directories_variable; /* that names spec directories; NULL: none but ours does */
    const char *path_variables;       /* with commas, those that are paths; NULL: it shows the working directory */
    bool is_pflag;
    struct launcher_option *option; /* of all: before the subcommand, then each subcommand's */
    size_t options, common;         /* how many there are, and how many are before the subcommand */
    struct subcommand *subcommand;
    size_t subcommands;
    const char **variable;
    size_t variables;
};

/* Read a profile. False for anything but a whole one, of this release, for a program that is as it was, and all that was looked at
 * with it: the Python front will ask the launcher again. */
bool profile_read(struct profile *profile, int fd);

void profile_free(struct profile *profile);

/* The word after one of a run. */
static inline const char *next_word(const char *word)
{
    while (*word != '\0')
        word++;
    return word + 1;
}

#endif
