#include "shim.h"

#include "cache.h"
#include "closed.h"
#include "extract.h"
#include "front.h"
#include "key.h"
#include "launch.h"
#include "launcher_options.h"
#include "locate.h"
#include "plan.h"
#include "say.h"
#include "search.h"
#include "sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

extern char **environ;

/* Room for what a profile's file is called: command, 16 digits, suffix. */
enum { FILE_NAME = 256, NAME_DIGITS = 16 };

struct shim {
    int argc;
    char **argv;
    enum wish wish;
    struct wanted wanted;
    struct extract extract;
    int verbosity;
    char cwd[PATH_MAX]; /* "" if it has no path any more */
    struct launcher launcher;
    struct profile profile;
    struct invocation invocation;
    struct plan plan;
    struct cache where; /* the plan is */
};

/* Whether two texts are equal as far as both go. */
static bool agree(const char *word, const char *known)
{
    size_t length = strcspn(word, "=");
    return strncmp(word, known, length < strlen(known) ? length : strlen(known)) == 0;
}

/* Whether a word may be an option of ours, or may ask for help: --cdi, --cdi-dirs, --dev, --lock, -d, -vd0, -?. Rather
 * yes than no, since it only decides whether the launcher's option table is looked at. */
static bool may_be_ours(const char *word)
{
    if (word[0] != '-')
        return false;
    if (word[1] == '-')
        return word[2] != '\0' && (agree(word + 2, "cdi") || agree(word + 2, "device") || agree(word + 2, "lock") ||
                                   agree(word + 2, "help"));
    return strpbrk(word + 1, "dh?") != NULL;
}

static bool may_concern_us(const struct shim *shim)
{
    for (int i = 1; i < shim->argc; i++)
        if (may_be_ours(shim->argv[i]))
            return true;
    return shim->wish != NOT_WANTED;
}

/* The launcher could not be executed. */
static int say_failure(const char *path)
{
    int error = errno;
    if (error == ENOENT)
        say("", "%s: not found", path);
    else
        say("", "%s: can't be executed: %s", path, strerror(error));
    return error == ENOENT ? NOT_FOUND : NOT_EXECUTABLE;
}

/* Become the launcher as if we were not there. */
static int leave(struct shim *shim, char **words)
{
    remove_private_variables();
    words[0] = (char *)(uintptr_t)shim->launcher.argv0;
    execve(shim->launcher.path, words, environ);
    return say_failure(shim->launcher.path);
}

/* The words that were read, NULL at the end, with room for the program's name; NULL if no memory is left. */
static char **words_read(const struct shim *shim)
{
    char **words = calloc(shim->invocation.count + 2, sizeof *words);
    if (words != NULL)
        memcpy(words + 1, shim->invocation.words, shim->invocation.count * sizeof *words);
    return words;
}

/* The same without our options, which it may not know. */
static int leave_without_ours(struct shim *shim)
{
    FREED char **words = words_read(shim);
    return words == NULL ? FAILED : leave(shim, words);
}

/* The launcher's help, and then ours. */
static int help(struct shim *shim)
{
    FREED char **words = words_read(shim);
    if (words == NULL)
        return FAILED;
    words[0] = (char *)(uintptr_t)shim->launcher.argv0;
    remove_private_variables();
    pid_t child = fork();
    if (child == 0) {
        execve(shim->launcher.path, words, environ);
        _exit(say_failure(shim->launcher.path));
    }
    int status;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    if (child < 0 || !WIFEXITED(status))
        return FAILED;
    const char *ours = shim->profile.help;
    if (WEXITSTATUS(status) == 0 && ours != NULL && *ours != '\0' && (printf("\n%s", ours) < 0 || fflush(stdout) != 0))
        return FAILED;
    return WEXITSTATUS(status);
}

/* Profile ----------------------------------------------------------------------------------------------------------- */

/* As file_name() in cdi_hpc/launch/profile.py. */
static bool name_profile(const struct launcher *launcher, char name[FILE_NAME])
{
    struct sha256 hash;
    char digits[PLAN_KEY_DIGITS + 1];
    sha256_begin(&hash);
    sha256_add(&hash, launcher->program, strlen(launcher->program));
    sha256_finish(&hash, digits);
    int length = snprintf(name, FILE_NAME, "%s-%.*s.profile", launcher->command, NAME_DIGITS, digits);
    return length > 0 && length < FILE_NAME;
}

static bool take_profile(struct shim *shim, int fd)
{
    if (fd >= 0 && profile_read(&shim->profile, fd) && strcmp(shim->profile.program, shim->launcher.program) == 0)
        return true;
    profile_free(&shim->profile);
    shim->profile = (struct profile){0};
    return false;
}

/* Beside a drop-in, or in the user's cache. */
static bool find_profile(struct shim *shim)
{
    char name[FILE_NAME], path[2 * PLAN_MAX_PATH];
    if (!name_profile(&shim->launcher, name))
        return false;
    for (size_t i = 0; i < shim->launcher.drop_ins; i++) {
        snprintf(path, sizeof path, "%sprofiles/%s", shim->launcher.drop_in[i], name);
        CLOSED int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (take_profile(shim, fd))
            return true;
    }
    struct plan_complaint complaint;
    CLOSED int fd = cache_open_file(&shim->extract.cache, name, &complaint);
    if (fd < 0 && complaint.text[0] != '\0' && !shim->extract.cache.is_told_by_front)
        say_warning(shim->verbosity, complaint.text);
    return take_profile(shim, fd);
}

/* Launch ------------------------------------------------------------------------------------------------------------ */

/* Nothing is compiled any more: what was refused will be found out by Python, and done without. */
static int without_us(const struct shim *shim)
{
    if (shim->cwd[0] != '\0' && chdir(shim->cwd) < 0 && chdir("/") < 0)
        return FAILED;
    return become_front(FRONT_EXEC, shim->argc, shim->argv);
}

/* No fresh plan, or no profile: have it made, unless that was done a moment ago. */
static int have_compiled(const struct shim *shim)
{
    if (getenv("CDI_HPC_COMPILED") == NULL)
        return become_front(FRONT_EXEC_COMPILE, shim->argc, shim->argv);
    say_warning(shim->verbosity, "the plan that was compiled this moment can't be used; going on without one");
    unsetenv("CDI_HPC_COMPILED");
    return become_front(FRONT_EXEC, shim->argc, shim->argv);
}

/* The namespaces in which the launcher finds its image dressed. PLAN_IMAGE_REFUSED: it has to be done another way. */
static enum plan_applied dress(struct shim *shim, struct plan_complaint *complaint)
{
    struct plan_options options = step_options(shim->verbosity);
    bool first;
    if (!plan_is_first(&shim->plan, &first, complaint))
        return PLAN_FAILED;
    if (!first) /* it is let into a container that is dressed already */
        return PLAN_APPLIED;
    if (!plan_serve(&shim->plan, complaint)) {
        say_note(shim->verbosity, complaint->text);
        return PLAN_IMAGE_REFUSED;
    }
    if (!enter_namespaces(complaint))
        return PLAN_FAILED;
    enum plan_applied applied = plan_apply(&shim->plan, &options, complaint);
    if (applied != PLAN_APPLIED)
        return applied;
    bool done = launch_directory(NULL, shim->cwd, complaint) && plan_drop_privileges(false, complaint) &&
                plan_hold_others(&shim->plan, complaint);
    return done ? PLAN_APPLIED : PLAN_FAILED;
}

/* With a fresh plan: become the launcher. */
static int replay(struct shim *shim)
{
    struct plan_complaint complaint;
    struct invocation *invocation = &shim->invocation;
    static const struct values none = {0};
    plan_complain(&complaint, "no memory is left");
    FREED char **environment = launch_environment(&shim->plan, &none);
    FREED char **words = plan_words(&shim->plan, shim->launcher.argv0, invocation->words, invocation->count,
                                    invocation->command, &complaint);
    enum plan_applied applied = environment == NULL || words == NULL ? PLAN_FAILED : PLAN_APPLIED;
    report(&shim->plan, shim->verbosity);
    tell_environment(&shim->plan, shim->verbosity);
    if (applied == PLAN_APPLIED && shim->plan.has_steps)
        applied = dress(shim, &complaint);
    switch (applied) {
    case PLAN_APPLIED:
        tell_command(shim->plan.program, words + 1, shim->verbosity);
        execve(shim->plan.program, words, environment);
        return say_failure(shim->plan.program);
    case PLAN_OVERLAY_REFUSED:
    case PLAN_IMAGE_REFUSED:
        return without_us(shim);
    case PLAN_STEP_FAILED: /* though nothing that the plan was made from has changed */
        if (getenv("CDI_HPC_COMPILED") != NULL) /* it was made this moment: Python knows no better */
            break;
        give_up_plan(&shim->plan, &shim->where, &shim->extract.cache, shim->verbosity, complaint.text);
        return without_us(shim);
    case PLAN_FAILED:
        break;
    }
    say("error", "%s", complaint.text);
    return FAILED;
}

static bool key_of(const void *of, struct caller caller, char key[PLAN_KEY_DIGITS + 1])
{
    const struct shim *shim = of;
    return compute_launcher_key(&shim->invocation, shim->wanted, shim->cwd, caller, key);
}

static int launch(struct shim *shim)
{
    struct search search = {.verbosity = shim->verbosity, .launch = shim, .key = key_of};
    char key[PLAN_KEY_DIGITS + 1];
    if (getcwd(shim->cwd, sizeof shim->cwd) == NULL)
        shim->cwd[0] = '\0';
    if (find_plan(&search, &shim->extract.cache, &shim->plan, &shim->where, key) != FRESH)
        return have_compiled(shim);
    if (shim->plan.program != NULL)
        return replay(shim);
    say("error", "compiled plan %s: it is for no launcher (cdi-hpc cache clean --all removes it)", key);
    return FAILED;
}

/* A container is to be begun, with devices or perhaps with some. */
static int launch_with_devices(struct shim *shim)
{
    bool asked = invocation_asks(&shim->invocation);
    if (!asked && shim->wanted.devices[0] == '\0') /* what is configured has to be found out */
        return have_compiled(shim);
    shim->wanted.by_default = shim->wanted.by_default && !asked;
    return launch(shim);
}

static int read_and_launch(struct shim *shim)
{
    if (!find_profile(shim))
        return have_compiled(shim);
    bool in_order = getenv("POSIXLY_CORRECT") != NULL;
    switch (invocation_read(&shim->invocation, &shim->profile, shim->argv + 1, in_order, shim->wish)) {
    case READ_LEAVE:
        return leave_without_ours(shim);
    case READ_HELP:
        return help(shim);
    case READ_LAUNCH:
        return launch_with_devices(shim);
    case READ_REFUSED:
        break;
    }
    return become_front(FRONT_EXEC, shim->argc, shim->argv);
}

/* Devices of the environment, or else of the configuration. */
static void choose_devices(struct shim *shim)
{
    const char *named = getenv("CDI_HPC_DEVICES");
    shim->wanted.devices = named == NULL || strcmp(named, "none") == 0 ? "" : named;
    shim->wish = shim->wanted.devices[0] != '\0' ? WANTED : NOT_WANTED;
    if (named != NULL && *named != '\0')
        return;
    shim->wanted.devices = extract_value(&shim->extract, "devices.", shim->launcher.command);
    shim->wanted.by_default = true;
    if (shim->wanted.devices[0] != '\0' || shim->extract.state == CONFIGURED_SOMEHOW)
        shim->wish = BY_DEFAULT;
}

static int run(struct shim *shim)
{
    if (!find_launcher(&shim->launcher, shim->argv[0])) {
        say("error", "%s: not on the PATH but for drop-ins (install it, or add its directory to the PATH)",
            shim->argv[0]);
        return NOT_FOUND;
    }
    if (!count_scripts(&shim->launcher))
        return FAILED;
    choose_devices(shim);
    return may_concern_us(shim) ? read_and_launch(shim) : leave(shim, shim->argv);
}

/* How much is said: by the options of "cdi-hpc exec", or else by the user's own variable, which the launcher sees. */
static int wanted_verbosity(void)
{
    const char *said = getenv("CDI_HPC_SAY");
    const char *text = said != NULL ? said : getenv("CDI_HPC_VERBOSITY");
    return text == NULL ? 0 : atoi(text);
}

int shim(int argc, char **argv)
{
    struct shim shim = {.argc = argc, .argv = argv, .verbosity = wanted_verbosity()};
    extract_read(&shim.extract);
    int status = run(&shim);
    plan_free(&shim.plan);
    plan_free(&shim.extract.plan);
    invocation_free(&shim.invocation);
    profile_free(&shim.profile);
    return status;
}
