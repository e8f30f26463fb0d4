#include "handoff.h"

#include "closed.h"

#include <stdlib.h>
#include <string.h>

static bool is_between(char c)
{
    return c == ',' || c == ':';
}

bool handoff_remove(char *value, const char *ours)
{
    char *found = *ours == '\0' ? NULL : strstr(value, ours);
    if (found == NULL)
        return true;
    const char *after = found + strlen(ours);
    if ((found > value && !is_between(found[-1])) || (*after != '\0' && !is_between(*after)))
        return true;
    /* A list's separator was put behind ours; the user may have put one before it. */
    if (*after != '\0')
        memmove(found, after + 1, strlen(after + 1) + 1);
    else
        found[found > value ? -1 : 0] = '\0';
    return *value != '\0';
}

static bool forget_line(char *line)
{
    char *ours = strchr(line, '=');
    if (ours == NULL)
        return true;
    *ours++ = '\0';
    const char *present = getenv(line);
    if (present == NULL)
        return true;
    FREED char *rest = strdup(present);
    if (rest == NULL)
        return false;
    return (handoff_remove(rest, ours) ? setenv(line, rest, 1) : unsetenv(line)) == 0;
}

bool handoff_forget(void)
{
    const char *lines = getenv(HANDOFF_VARIABLE);
    if (lines == NULL)
        return true;
    FREED char *copy = strdup(lines);
    bool good = copy != NULL;
    char *rest = copy;
    for (char *line; good && (line = strsep(&rest, "\n")) != NULL;)
        good = forget_line(line);
    return good && unsetenv(HANDOFF_VARIABLE) == 0;
}
