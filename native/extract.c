#include "extract.h"

#include "key.h"
#include "search.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SITE_DIRECTORY "/etc/cdi-hpc"

static bool is_there(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0;
}

/* As config.user_directory in Python. */
static bool user_has_directory(void)
{
    const char *configured = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    char path[PLAN_MAX_PATH];
    int length = 0;
    if (configured != NULL && configured[0] == '/')
        length = snprintf(path, sizeof path, "%s/cdi-hpc", configured);
    else if (home != NULL && home[0] == '/')
        length = snprintf(path, sizeof path, "%s/.config/cdi-hpc", home);
    return length > 0 && (size_t)length < sizeof path && is_there(path);
}

static bool key_of(const void *of, struct caller caller, char key[PLAN_KEY_DIGITS + 1])
{
    (void)of;
    return compute_extract_key(caller, key);
}

/* The system's is of the site's files alone. */
static enum found find_extract(struct extract *extract, bool users_too)
{
    /* What is wrong with a cache is said by who looks for a plan there. */
    struct search search = {.verbosity = -1, .key = key_of, .suffix = "extract"};
    struct cache system = system_cache();
    char key[PLAN_KEY_DIGITS + 1];
    if (!users_too && find_in(&search, &system, (struct caller){.everybody = true}, &extract->plan, key) == FRESH)
        return FRESH;
    return find_in(&search, &extract->cache, (struct caller){.everybody = false}, &extract->plan, key);
}

/* Where Python says that it is, for this launch alone. */
static void go_elsewhere(struct cache *cache)
{
    const char *told = getenv(EXTRACT_VARIABLE);
    if (told != NULL && told[0] == '/' && getenv("CDI_HPC_COMPILED") != NULL)
        cache_set_path(cache, told);
}

void extract_read(struct extract *extract)
{
    bool users_too = user_has_directory();
    extract->cache = user_cache();
    if (!users_too && !is_there(SITE_DIRECTORY))
        return;
    go_elsewhere(&extract->cache);
    if (find_extract(extract, users_too) != FRESH) {
        extract->state = CONFIGURED_SOMEHOW;
        extract->cache.is_told_by_front = true;
        return;
    }
    extract->state = CONFIGURED;
    const char *directory = extract_value(extract, "cache.", "directory");
    if (directory[0] != '\0' && !cache_is_chosen())
        cache_set_path(&extract->cache, directory);
}

const char *extract_value(const struct extract *extract, const char *name, const char *of)
{
    struct plan_record record;
    size_t first = strlen(name), second = strlen(of);
    for (size_t cursor = 0; extract->state == CONFIGURED && plan_next(&extract->plan, &cursor, &record);) {
        const char *text = record.field[0];
        if (record.kind == PLAN_ENV && strncmp(text, name, first) == 0 && strncmp(text + first, of, second) == 0 &&
            text[first + second] == '=')
            return text + first + second + 1;
    }
    return "";
}
