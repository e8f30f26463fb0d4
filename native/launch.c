#include "launch.h"

#include "closed.h"
#include "extract.h"
#include "front.h"
#include "say.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

extern char **environ;

/* Variables between us and the Python front; no business of the command's. */
static const char *const private_names[] = {
    "CDI_HPC_COMPILED", EXTRACT_VARIABLE, INSIDE_VARIABLE, "CDI_HPC_NATIVE", "CDI_HPC_PYTHON_FRONT", "CDI_HPC_SAY",
};

static bool has_name(const char *assignment, const char *name, size_t length)
{
    return strncmp(assignment, name, length) == 0 && assignment[length] == '=';
}

static bool is_private(const char *assignment)
{
    for (size_t i = 0; i < sizeof private_names / sizeof *private_names; i++)
        if (has_name(assignment, private_names[i], strlen(private_names[i])))
            return true;
    return false;
}

/* Put an assignment where its name is, or at the end. Of several with one name the first stays: programs differ in
 * which they take. */
static size_t assign(char **environment, size_t count, char *assignment)
{
    size_t length = strcspn(assignment, "="), kept = 0;
    bool placed = false;
    for (size_t i = 0; i < count; i++) {
        bool same = has_name(environment[i], assignment, length);
        if (same && placed)
            continue;
        environment[kept++] = same ? assignment : environment[i];
        placed = placed || same;
    }
    if (!placed)
        environment[kept++] = assignment;
    return kept;
}

static bool is_set(char *const *environment, size_t count, const char *assignment)
{
    size_t length = strcspn(assignment, "=");
    for (size_t i = 0; i < count; i++)
        if (has_name(environment[i], assignment, length))
            return true;
    return false;
}

static char *inherited(const char *name)
{
    size_t length = strlen(name);
    for (char **entry = environ; *entry != NULL; entry++)
        if (has_name(*entry, name, length))
            return *entry;
    return NULL;
}

static size_t count_planned(const struct plan *plan)
{
    struct plan_record record;
    size_t count = 0;
    for (size_t cursor = 0; plan_next(plan, &cursor, &record);)
        count += record.kind == PLAN_ENV || record.kind == PLAN_DEFAULT;
    return count;
}

static size_t count_inherited(void)
{
    size_t count = 0;
    while (environ[count] != NULL)
        count++;
    return count;
}

char **launch_environment(const struct plan *plan, const struct values *given)
{
    size_t most = count_inherited() + count_planned(plan) + given->count + 2; /* PATH, and the final NULL */
    char **environment = calloc(most, sizeof *environment);
    if (environment == NULL)
        return NULL;
    size_t count = 0;
    for (char **entry = environ; *entry != NULL; entry++)
        if (strchr(*entry, '=') != NULL && !is_private(*entry))
            environment[count++] = *entry;
    struct plan_record record;
    for (size_t cursor = 0; plan_next(plan, &cursor, &record);)
        if (record.kind == PLAN_ENV || (record.kind == PLAN_DEFAULT && !is_set(environment, count, record.field[0])))
            count = assign(environment, count, plan->text + (record.field[0] - plan->text));
    for (size_t i = 0; i < given->count; i++) {
        const char *text = given->item[i];
        char *assignment = strchr(text, '=') != NULL ? (char *)(uintptr_t)text : inherited(text);
        if (assignment != NULL)
            count = assign(environment, count, assignment);
    }
    static char default_path[] = "PATH=" DEFAULT_PATH;
    if (plan->program == NULL && !is_set(environment, count, default_path))
        environment[count] = default_path;
    return environment;
}

void tell_environment(const struct plan *plan, int verbosity)
{
    struct plan_record record;
    if (verbosity < 1)
        return;
    for (size_t cursor = 0; plan_next(plan, &cursor, &record);)
        if (record.kind == PLAN_ENV ||
            (record.kind == PLAN_DEFAULT && !is_set(environ, count_inherited(), record.field[0])))
            say("step", "env %s", record.field[0]);
}

/* A word as a shell takes it, behind what is there: as shlex.quote() of Python. False where there is no room. */
static bool add_word(struct plan_complaint *line, size_t *used, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%_+=:,./-";
    bool quoted = word[strspn(word, plain)] != '\0' || *word == '\0';
    size_t room = sizeof line->text - *used, length = 0;
    for (const char *at = word; *at != '\0'; at++)
        length += quoted && *at == '\'' ? strlen("'\"'\"'") : 1;
    if (room < length + sizeof " ''")
        return false;
    char *end = line->text + *used;
    *end++ = ' ';
    if (quoted)
        *end++ = '\'';
    for (; *word != '\0'; word++) {
        if (quoted && *word == '\'')
            end = stpcpy(end, "'\"'\"'");
        else
            *end++ = *word;
    }
    if (quoted)
        *end++ = '\'';
    *end = '\0';
    *used = (size_t)(end - line->text);
    return true;
}

void tell_command(const char *program, char *const *arguments, int verbosity)
{
    struct plan_complaint line = {.text = "exec"};
    size_t used = strlen(line.text);
    if (verbosity < 1)
        return;
    bool whole = add_word(&line, &used, program);
    for (; whole && *arguments != NULL; arguments++)
        whole = add_word(&line, &used, *arguments);
    say("step", "%s%s", line.text, whole ? "" : " ...");
}

void remove_private_variables(void)
{
    char **kept = environ;
    for (char **entry = environ; *entry != NULL; entry++)
        if (!is_private(*entry))
            *kept++ = *entry;
    *kept = NULL;
}

bool enter_namespaces(struct plan_complaint *complaint)
{
    if (!plan_enter(complaint))
        return false;
    if (setenv(INSIDE_VARIABLE, "1", 1) == 0)
        return true;
    plan_complain(complaint, "no memory is left");
    return false;
}

bool launch_directory(const char *wanted, const char *current, struct plan_complaint *complaint)
{
    if (wanted == NULL)
        return chdir(current) == 0 || chdir("/") == 0;
    if (chdir(wanted) == 0)
        return true;
    plan_complain(complaint, "--workdir %s: can't be entered: %s", wanted, strerror(errno));
    return false;
}

/* A script without an interpreter line: what execvp(3) and every shell do. */
static void execute_script(char *path, char **command, char **environment)
{
    size_t count = 1;
    while (command[count] != NULL)
        count++;
    FREED char **words = calloc(count + 2, sizeof *words);
    if (words == NULL)
        return;
    static char shell[] = "sh";
    words[0] = shell;
    words[1] = path;
    memcpy(words + 2, command + 1, (count - 1) * sizeof *words);
    execve("/bin/sh", words, environment);
}

/* Try one file. Returns why it can't be executed, or NULL where there is no such file. */
static const char *try_to_execute(char *path, char **command, char **environment)
{
    execve(path, command, environment);
    if (errno == ENOEXEC)
        execute_script(path, command, environment);
    if (errno != ENOENT && errno != ENOTDIR)
        return strerror(errno);
    struct stat status;
    return stat(path, &status) == 0 ? "its interpreter is not in the image" : NULL;
}

static const char *path_of(char **environment)
{
    for (; *environment != NULL; environment++)
        if (has_name(*environment, "PATH", strlen("PATH")))
            return *environment + strlen("PATH=");
    return "";
}

/* Try the command in every directory of the PATH. Returns why the last one that is there can't be executed. */
static const char *search_path(char **command, char **environment)
{
    const char *path = path_of(environment), *denied = NULL;
    FREED char *candidate = malloc(strlen(path) + strlen(command[0]) + sizeof "./");
    if (candidate == NULL)
        return strerror(ENOMEM);
    for (;;) {
        size_t length = strcspn(path, ":");
        memcpy(candidate, path, length);
        if (length == 0)
            candidate[length++] = '.';
        const char *end = path + strcspn(path, ":");
        if (candidate[length - 1] != '/')
            candidate[length++] = '/';
        strcpy(candidate + length, command[0]);
        const char *reason = try_to_execute(candidate, command, environment);
        denied = reason != NULL ? reason : denied;
        if (*end == '\0')
            return denied;
        path = end + 1;
    }
}

int launch_command(char **command, char **environment)
{
    if (command[0][0] == '\0') {
        say("", "the command's name is empty");
        return NOT_FOUND;
    }
    bool is_path = strchr(command[0], '/') != NULL;
    const char *denied = is_path ? try_to_execute(command[0], command, environment)
                                 : search_path(command, environment);
    if (denied != NULL) {
        say("", "%s: can't be executed: %s", command[0], denied);
        return NOT_EXECUTABLE;
    }
    say("", "%s: not found in the container", command[0]);
    return NOT_FOUND;
}
