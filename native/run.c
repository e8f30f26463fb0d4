/* cdi-hpc-run: launch a command in an image with devices, from a compiled plan.
 *
 *   cdi-hpc-run [OPTION of `cdi-hpc run`...] IMAGE [--] COMMAND [ARGUMENT...]
 *
 * A launch whose plan is there and fresh starts no interpreter and reads no spec. Anything else (no plan, a stale one,
 * an image that can't be served, a command line that is not understood) is the Python front's: it compiles the plan and
 * executes us again, with CDI_HPC_COMPILED set to the key so that the two don't go round in circles.
 *
 * By any other name it is the shim for a launcher of that name (shim.h).
 *
 * Hidden, for tests and for the curious: `--print-key` or `--print-system-key` as the first argument prints the key of
 * the command line that follows and exits. `--print-plan`, for the SPANK plugin, prints SHA-256 and path of its fresh
 * plan, and exits with 1 where there is none. Right after one of them there may be `--handoff` and `--gres=GRES=NUMBERS`, as
 * `cdi-hpc compile` has them.
 * `--hold-user-namespace`, for the same plugin, makes a user namespace, says so, and waits to be killed.
 */
#include "closed.h"
#include "extract.h"
#include "front.h"
#include "handoff.h"
#include "key.h"
#include "launch.h"
#include "options.h"
#include "plan.h"
#include "say.h"
#include "search.h"
#include "sha256.h"
#include "shim.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A launch, from the command line to the exec. */
struct launch {
    int argc;
    char **argv;
    struct options options;
    char image[PATH_MAX];
    char cwd[PATH_MAX]; /* "" if it has no path any more */
    struct extract extract;
    struct plan plan;
    struct cache where; /* the plan is */
};

/* Exit status of --print-plan where there is none. */
enum { NO_PLAN = 1 };

static bool key_of(const void *of, struct caller caller, char key[PLAN_KEY_DIGITS + 1])
{
    const struct launch *launch = of;
    return compute_key(&launch->options, launch->image, launch->cwd, caller, key);
}

static enum found find(struct launch *launch, char key[PLAN_KEY_DIGITS + 1])
{
    struct search search = {.verbosity = launch->options.verbosity, .launch = launch, .key = key_of};
    extract_read(&launch->extract);
    return find_plan(&search, &launch->extract.cache, &launch->plan, &launch->where, key);
}

/* The kernel has refused the overlay, which it took when the plan was compiled: without one, or not at all if the
 * user insists on it. Nothing is compiled now: from inside our user namespace, other owners look all the same. */
static int without_overlay(const struct launch *launch, const char *reason)
{
    if (launch->options.writable_tmpfs) {
        say("error", "--writable-tmpfs: needs an overlay, and this kernel or file system refuses it");
        return FAILED;
    }
    if (strcmp(launch->options.stage, "overlay") == 0) {
        say("error", "--stage=overlay: the kernel refuses an overlay on this image: %s (use --stage=underlay)", reason);
        return FAILED;
    }
    if (chdir(launch->cwd) < 0 && chdir("/") < 0)
        return FAILED;
    return become_front(FRONT_RUN, launch->argc, launch->argv);
}

/* The image is a file and can't be mounted from here. Python may have other means, or says what is wrong. */
static int without_server(const struct launch *launch, const char *reason)
{
    say_note(launch->options.verbosity, reason);
    if (chdir(launch->cwd) < 0 && chdir("/") < 0)
        return FAILED;
    return become_front(FRONT_RUN, launch->argc, launch->argv);
}

/* A step of the plan can't be done, though nothing that the plan was made from has changed. Python may find another way,
 * or says what is wrong. */
static int without_plan(const struct launch *launch, const char *reason)
{
    give_up_plan(&launch->plan, &launch->where, &launch->extract.cache, launch->options.verbosity, reason);
    if (chdir(launch->cwd) < 0 && chdir("/") < 0)
        return FAILED;
    return become_front(FRONT_RUN, launch->argc, launch->argv);
}

/* With a fresh plan: become the command. */
static int replay(struct launch *launch)
{
    struct plan_options options = step_options(launch->options.verbosity);
    struct plan_complaint complaint;
    enum plan_applied applied = PLAN_FAILED;
    FREED char **environment = launch_environment(&launch->plan, &launch->options.env);
    if (!plan_serve(&launch->plan, &complaint))
        return without_server(launch, complaint.text);
    plan_complain(&complaint, "no memory is left");
    report(&launch->plan, launch->options.verbosity);
    tell_environment(&launch->plan, launch->options.verbosity);
    if (environment != NULL && enter_namespaces(&complaint))
        applied = plan_apply(&launch->plan, &options, &complaint);
    if (applied == PLAN_IMAGE_REFUSED)
        return without_server(launch, complaint.text);
    if (applied == PLAN_OVERLAY_REFUSED)
        return without_overlay(launch, complaint.text);
    if (applied == PLAN_STEP_FAILED && getenv("CDI_HPC_COMPILED") == NULL) /* else it has just been made by Python */
        return without_plan(launch, complaint.text);
    if (applied == PLAN_APPLIED && launch_directory(launch->options.workdir, launch->cwd, &complaint) &&
        plan_drop_privileges(true, &complaint)) {
        char **command = launch->options.command;
        tell_command(command[0], command + 1, launch->options.verbosity);
        return launch_command(command, environment);
    }
    say("error", "%s", complaint.text);
    return FAILED;
}

/* No fresh plan: have one made, unless that was done a moment ago. */
static int have_compiled(const struct launch *launch)
{
    /* Whatever key it holds: a front of another release computes another one, and would for ever. */
    if (getenv("CDI_HPC_COMPILED") == NULL)
        return become_front(FRONT_COMPILE, launch->argc, launch->argv);
    say_warning(launch->options.verbosity,
                "the plan that was compiled this moment can't be used; going on without one");
    unsetenv("CDI_HPC_COMPILED");
    return become_front(FRONT_RUN, launch->argc, launch->argv);
}

/* The image as a directory or file that can be read; anything else is the front's, and so is saying what is wrong. */
static bool find_image(struct launch *launch)
{
    struct stat status;
    if (realpath(launch->options.image, launch->image) == NULL || stat(launch->image, &status) < 0)
        return false;
    if (S_ISREG(status.st_mode))
        return access(launch->image, R_OK) == 0;
    return S_ISDIR(status.st_mode) && access(launch->image, R_OK | X_OK) == 0;
}

static int launch_or_compile(struct launch *launch)
{
    char key[PLAN_KEY_DIGITS + 1];
    if (getcwd(launch->cwd, sizeof launch->cwd) == NULL)
        launch->cwd[0] = '\0';
    if (!find_image(launch))
        return become_front(FRONT_RUN, launch->argc, launch->argv);
    return find(launch, key) == FRESH ? replay(launch) : have_compiled(launch);
}

/* The command line of a launch that is only asked about, after what is said of it first. */
static bool read_question(struct launch *launch, const char **gres)
{
    static const char gres_is[] = "--gres=";
    size_t count = 0;
    bool is_handoff = false;
    int first = 1; /* what stands before the options takes the place of the program's name */
    for (; first + 1 < launch->argc; first++) {
        const char *word = launch->argv[first + 1];
        if (strcmp(word, "--handoff") == 0)
            is_handoff = true;
        else if (strncmp(word, gres_is, strlen(gres_is)) == 0)
            gres[count++] = word + strlen(gres_is);
        else
            break;
    }
    if (!options_parse(&launch->options, launch->argc - first, launch->argv + first) || launch->options.help)
        return false;
    launch->options.is_handoff = is_handoff;
    launch->options.gres = (struct values){gres, count};
    return getcwd(launch->cwd, sizeof launch->cwd) != NULL && find_image(launch);
}

static int print_key(struct launch *launch, struct caller caller)
{
    char key[PLAN_KEY_DIGITS + 1];
    FREED const char **gres = calloc((size_t)launch->argc, sizeof *gres);
    if (gres == NULL || !read_question(launch, gres) ||
        !compute_key(&launch->options, launch->image, launch->cwd, caller, key)) {
        say("error", "--print-key: the command line that follows has no key");
        return FAILED;
    }
    return puts(key) < 0 ? FAILED : 0;
}

/* The plan that a launch would start from, without starting it; nothing is compiled. As sha256sum(1) has it. */
static int print_plan(struct launch *launch)
{
    char key[PLAN_KEY_DIGITS + 1];
    FREED const char **gres = calloc((size_t)launch->argc, sizeof *gres);
    if (gres == NULL || !read_question(launch, gres))
        return NO_PLAN;
    if (find(launch, key) != FRESH)
        return NO_PLAN;
    char seal[PLAN_KEY_DIGITS + 1];
    struct sha256 hash;
    sha256_begin(&hash);
    sha256_add(&hash, launch->plan.text, launch->plan.size);
    sha256_finish(&hash, seal);
    return printf("%s  %s/%s.plan\n", seal, launch->where.path, key) < 0 || fflush(stdout) != 0 ? FAILED : 0;
}

/* Whoever has started us opens the namespace, and keeps it. */
static int hold_user_namespace(void)
{
    struct plan_complaint complaint;
    if (!plan_enter_user(&complaint)) {
        say("error", "%s", complaint.text);
        return FAILED;
    }
    if (puts("made") < 0 || fflush(stdout) != 0)
        return FAILED;
    for (;;)
        pause();
}

static int run(struct launch *launch)
{
    const char *first = launch->argc > 1 ? launch->argv[1] : "";
    if (strcmp(first, "--version") == 0)
        return become_front(FRONT_VERSION, launch->argc, launch->argv);
    if (strcmp(first, "--print-key") == 0)
        return print_key(launch, (struct caller){.everybody = false});
    if (strcmp(first, "--print-system-key") == 0)
        return print_key(launch, (struct caller){.everybody = true});
    if (strcmp(first, "--print-plan") == 0)
        return print_plan(launch);
    if (strcmp(first, "--hold-user-namespace") == 0)
        return hold_user_namespace();
    if (!options_parse(&launch->options, launch->argc, launch->argv))
        return become_front(FRONT_RUN, launch->argc, launch->argv);
    if (launch->options.help)
        return become_front(FRONT_HELP, launch->argc, launch->argv);
    return launch_or_compile(launch);
}

int main(int argc, char **argv)
{
    /* The environment names programs and caches: with somebody else's rights that would be an invitation. */
    if (getuid() != geteuid() || getgid() != getegid()) {
        say("error", "cdi-hpc-run: must not be set-user-ID or set-group-ID (chmod ug-s it)");
        return FAILED;
    }
    if (!handoff_forget()) {
        say("error", "no memory is left");
        return FAILED;
    }
    if (is_shim(argv[0]))
        return shim(argc, argv);
    struct launch launch = {.argc = argc, .argv = argv};
    int status = run(&launch);
    plan_free(&launch.plan);
    plan_free(&launch.extract.plan);
    options_free(&launch.options);
    return status;
}
