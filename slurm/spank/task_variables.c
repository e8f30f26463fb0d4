#include "task_variables.h"

#include "closed.h"
#include "handoff.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_NAMES = 16384 };

/* Names of variables that were set in an environment which inner steps inherit, with = between them. */
#define NAMES_VARIABLE "CDI_HPC_ENV_NAMES"
#define PLAN_VARIABLE "CDI_HPC_PLAN"

/* A variable of the task, remembered for steps that are started in it and inherit it. */
static bool set_variable(spank_t spank, const char *name, const char *value)
{
    char names[LONGEST_NAMES];
    if (spank_setenv(spank, name, value, 1) != ESPANK_SUCCESS)
        return false;
    if (spank_getenv(spank, NAMES_VARIABLE, names, sizeof names) != ESPANK_SUCCESS)
        names[0] = '\0';
    size_t used = strlen(names);
    int more = snprintf(names + used, sizeof names - used, "%s%s", used > 0 ? "=" : "", name);
    return more > 0 && (size_t)more < sizeof names - used && spank_setenv(spank, NAMES_VARIABLE, names, 1) == ESPANK_SUCCESS;
}

/* A variable's value, or NULL. It is the caller's to free. */
static char *read_variable(spank_t spank, const char *name)
{
    for (int size = 1024; size <= 1 << 20; size *= 4) {
        char *value = malloc((size_t)size);
        if (value == NULL)
            return NULL;
        spank_err_t error = spank_getenv(spank, name, value, size);
        if (error == ESPANK_SUCCESS)
            return value;
        free(value);
        if (error != ESPANK_NOSPACE)
            return NULL;
    }
    return NULL;
}

/* Take back what an outer step's launchers were told. */
static void forget_outer_handoff(spank_t spank)
{
    FREED char *lines = read_variable(spank, HANDOFF_VARIABLE);
    char *rest = lines;
    for (char *line; lines != NULL && (line = strsep(&rest, "\n")) != NULL;) {
        char *ours = strchr(line, '=');
        if (ours == NULL)
            continue;
        *ours++ = '\0';
        FREED char *value = read_variable(spank, line);
        if (value != NULL && handoff_remove(value, ours))
            spank_setenv(spank, line, value, 1);
        else if (value != NULL)
            spank_unsetenv(spank, line);
    }
    spank_unsetenv(spank, HANDOFF_VARIABLE);
}

void variables_forget_outer(spank_t spank)
{
    char names[LONGEST_NAMES];
    forget_outer_handoff(spank);
    if (spank_getenv(spank, NAMES_VARIABLE, names, sizeof names) != ESPANK_SUCCESS)
        return;
    char *rest = names;
    for (char *name = strsep(&rest, "="); name != NULL; name = strsep(&rest, "="))
        if (*name != '\0')
            spank_unsetenv(spank, name);
    spank_unsetenv(spank, NAMES_VARIABLE);
}

bool variables_set(spank_t spank, const struct plan *plan)
{
    struct plan_record record;
    for (size_t cursor = 0; plan_next(plan, &cursor, &record);) {
        if (record.kind != PLAN_ENV)
            continue;
        size_t length = strcspn(record.field[0], "=");
        FREED char *name = strndup(record.field[0], length);
        if (name == NULL || !set_variable(spank, name, record.field[0] + length + 1))
            return false;
    }
    return true;
}

/* For other launchers --------------------------------------------------------------------------------------------- */

/* What is between the items of a list that is a variable; NUL for a variable that is no list. */
static char separator_of(const char *name)
{
    static const struct {
        const char *end;
        char separator;
    } lists[] = {{"_BIND", ','}, {"_PATH", ':'}};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (length > strlen(lists[i].end) && strcmp(name + length - strlen(lists[i].end), lists[i].end) == 0)
            return lists[i].separator;
    return '\0';
}

/* The other name of a launcher's variable. NULL if it has none; the caller's to free. */
static char *twin_of(const char *name)
{
    static const char *const prefixes[][2] = {{"APPTAINER_", "SINGULARITY_"}, {"APPTAINERENV_", "SINGULARITYENV_"}};
    char *twin;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        for (size_t j = 0; j < 2; j++)
            if (strncmp(name, prefixes[i][j], strlen(prefixes[i][j])) == 0)
                return asprintf(&twin, "%s%s", prefixes[i][1 - j], name + strlen(prefixes[i][j])) < 0 ? NULL : twin;
    return NULL;
}

/* What the user has said by the other name, by which ours may have been said already. NULL for nothing, and for what has
 * more than a line, which could not be taken back. */
static char *read_twin(spank_t spank, const char *name, const char *ours)
{
    FREED char *twin = twin_of(name);
    char *value = twin != NULL ? read_variable(spank, twin) : NULL;
    if (value != NULL && strchr(value, '\n') == NULL && handoff_remove(value, ours))
        return value;
    free(value);
    return NULL;
}

/* Ours and the user's, who has said his by the variable's other name: the launcher looks at both names, and warns if they
 * say different things. NULL where there is no memory. */
static char *with_twins(spank_t spank, const char *name, const char *ours, bool is_default)
{
    FREED char *theirs = read_twin(spank, name, ours);
    char separator = separator_of(name), *both = NULL;
    if (theirs == NULL || *theirs == '\0' || (separator == '\0' && !is_default))
        return strdup(ours);
    if (separator == '\0')
        return strdup(theirs);
    return asprintf(&both, "%s%c%s", ours, separator, theirs) < 0 ? NULL : both;
}

/* Set a launcher's variable; a list of ours goes before the user's. */
static bool tell_launcher(spank_t spank, const char *name, const char *ours, bool is_default, FILE *lines)
{
    FREED char *present = read_variable(spank, name), *joined = NULL;
    FREED char *told = present == NULL ? with_twins(spank, name, ours, is_default) : strdup(ours);
    char separator = separator_of(name);
    if (told == NULL || (present != NULL && separator != '\0' && asprintf(&joined, "%s%c%s", told, separator, present) < 0))
        return false;
    return fprintf(lines, "%s=%s\n", name, told) > 0 &&
           spank_setenv(spank, name, joined != NULL ? joined : told, 1) == ESPANK_SUCCESS;
}

static bool tell_launchers(spank_t spank, const struct plan *plan, FILE *lines)
{
    struct plan_record record;
    for (size_t cursor = 0; plan_next(plan, &cursor, &record);) {
        if (record.kind != PLAN_ENV && record.kind != PLAN_DEFAULT)
            continue;
        size_t length = strcspn(record.field[0], "=");
        const char *value = record.field[0] + length + 1;
        FREED char *name = strndup(record.field[0], length);
        if (name == NULL)
            return false;
        bool is_default = record.kind == PLAN_DEFAULT;
        FREED char *present = is_default ? read_variable(spank, name) : NULL;
        if (present != NULL)
            continue;
        /* Those that begin with our name are for our own launchers, who don't take them back. */
        bool own = strncmp(name, "CDI_HPC_", strlen("CDI_HPC_")) == 0;
        if (!(own ? set_variable(spank, name, value) : tell_launcher(spank, name, value, is_default, lines)))
            return false;
    }
    return true;
}

static bool set_handoff(spank_t spank, const struct plan *plan)
{
    FREED char *lines = NULL;
    size_t size;
    FILE *stream = open_memstream(&lines, &size);
    if (stream == NULL)
        return false;
    bool good = tell_launchers(spank, plan, stream);
    if (fclose(stream) != 0 || !good)
        return false;
    return size == 0 || spank_setenv(spank, HANDOFF_VARIABLE, lines, 1) == ESPANK_SUCCESS;
}

bool variables_hand_over(spank_t spank, const struct plan *plan, const char *path)
{
    return set_handoff(spank, plan) && set_variable(spank, PLAN_VARIABLE, path);
}
