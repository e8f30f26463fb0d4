/* srun --cdi: the SPANK plugin. Slurm's callbacks, in the order Slurm makes them, and nothing else.
 *
 * What goes wrong in slurmstepd is kept and said by the tasks. If a callback before them fails, Slurm takes the node out
 * of service (batch jobs) or reports success (22.05); and what a task's callback returns is ignored where
 * plugstack.conf says "optional", so that the task would run without its devices. So callbacks return 0, and a task that
 * can't have its devices exits here.
 */
#include "cache.h"
#include "closed.h"
#include "compiler.h"
#include "job_gpus.h"
#include "plan.h"
#include "program.h"
#include "request.h"
#include "seals.h"
#include "sha256.h"
#include "site.h"
#include "step_tree.h"
#include "task_variables.h"
#include "user_namespace.h"

#include <errno.h>
#include <slurm/slurm.h>
#include <slurm/spank.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

SPANK_PLUGIN(cdi, 1)

#if SLURM_VERSION_NUMBER >= SLURM_VERSION_NUM(25, 5, 0)
/* If this plugin can't be initialized for a job, that is the job's failure and not the node's. */
extern int slurm_spank_init_failure_mode;
int slurm_spank_init_failure_mode = ESPANK_JOB_FAILURE;
#endif

enum { FAILED_STATUS = 125, LONGEST_LIST = 16384 };

/* Of a batch script or an interactive shell. */
#define JOB_GPUS "SLURM_JOB_GPUS"

/* One process serves one step, or one command line. */
static struct {
    struct site site;
    struct request request;
    bool is_misled;    /* an option reached the node that is none, or that there is no room for */
    bool wanted;       /* this step is to have devices, or to say why not */
    bool is_inherited; /* inner steps inherit its environment: a batch script, an interactive shell */
    bool job_has_gpus; /* of a batch script or an interactive shell: whether Slurm has given it any */
    struct job job;
    struct devices devices; /* as they were asked for */
    char plan[PLAN_MAX_PATH];
    struct step_tree tree;
    bool image_is_hidden;          /* where the plan was to be made, there is no such image */
    struct plan_complaint failure; /* what the tasks will say; empty while all is well */
} step;

/* A batch script and an interactive shell stay on the machine: Slurm's commands, which start what runs in the image, are
 * there, and the script itself is a file of slurmd's. */
static const char *image_or_host(void)
{
    return step.request.image != NULL && !step.is_inherited ? step.request.image : "/";
}

static enum mode mode_of_step(void)
{
    enum mode mode = step.site.mode;
    if (step.request.image != NULL)
        return MOUNTS;
    if (step.request.mode != NULL)
        read_mode(step.request.mode, &mode);
    return mode;
}

static bool has_failed(void)
{
    return step.failure.text[0] != '\0';
}

/* Options ----------------------------------------------------------------------------------------------------------- */

enum option_number { OPTION_DEVICES, OPTION_MODE, OPTION_IMAGE, OPTIONS };

static bool is_valid(enum option_number number, const char *value, struct plan_complaint *complaint)
{
    enum mode mode;
    switch (number) {
    case OPTION_DEVICES:
        return request_devices_are_valid(value, complaint);
    case OPTION_MODE:
        if (read_mode(value, &mode))
            return true;
        plan_complain(complaint, "--cdi-mode: '%.64s' is neither handoff nor mounts", value);
        return false;
    case OPTION_IMAGE:
        if (value[0] != '\0' && strlen(value) < PLAN_MAX_PATH)
            return true;
        plan_complain(complaint, "--cdi-image: a path is needed");
        return false;
    case OPTIONS:
        break;
    }
    return false;
}

static const struct {
    const char *name;
    size_t place;         /* in struct request */
    const char *inherited; /* where srun gets the value that its sbatch or salloc was given, or the site's default */
} option_table[OPTIONS] = {
    [OPTION_DEVICES] = {"--cdi", offsetof(struct request, devices), "SLURM_SPANK__SLURM_SPANK_OPTION_cdi_cdi"},
    [OPTION_MODE] = {"--cdi-mode", offsetof(struct request, mode), "SLURM_SPANK__SLURM_SPANK_OPTION_cdi_cdi_mode"},
    [OPTION_IMAGE] = {"--cdi-image", offsetof(struct request, image), "SLURM_SPANK__SLURM_SPANK_OPTION_cdi_cdi_image"},
};

/* False if an option is there twice, and the first was no default. Only the last would reach the nodes, and silently. */
static bool is_said_once(enum option_number number, const char *before, const char *value, struct plan_complaint *complaint)
{
    const char *inherited = getenv(option_table[number].inherited);
    if (before == NULL || strcmp(before, value) == 0 || (inherited != NULL && strcmp(inherited, before) == 0))
        return true;
    plan_complain(complaint, "%s: given twice, as '%.128s' and as '%.128s' (write one, with commas between devices)",
                  option_table[number].name, before, value);
    return false;
}

static bool keep(char **place, const char *value, struct plan_complaint *complaint)
{
    char *copy = strdup(value);
    if (copy == NULL) {
        plan_complain(complaint, "%s", strerror(ENOMEM));
        return false;
    }
    free(*place);
    *place = copy;
    return true;
}

/* What the site gives to those who ask for nothing. */
static bool take_default(struct plan_complaint *complaint)
{
    if (step.request.devices != NULL || step.site.default_devices == NULL)
        return true;
    return keep(&step.request.devices, step.site.default_devices, complaint);
}

/* An image that the job asked for is for its steps with devices: --cdi=none is all that one without them has to say. */
static void forget_inherited_image(void)
{
    const char *inherited = getenv(option_table[OPTION_IMAGE].inherited);
    char **image = &step.request.image;
    if (*image == NULL || inherited == NULL || strcmp(*image, inherited) != 0 || !request_is_off(&step.request))
        return;
    free(*image);
    *image = NULL;
}

/* Nothing that is said can control a terminal. */
static void make_printable(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

/* To whoever types the command. */
static void say_here(struct plan_complaint *complaint)
{
    make_printable(complaint->text);
    slurm_error("cdi: %s", complaint->text);
}

/* Slurm calls this where the command is typed, and again on the nodes: there it may be twice for the same value, users
 * can have anything brought there by a variable, and what is returned is ignored. */
static int take_option(int number, const char *value, int remote)
{
    enum option_number option = (enum option_number)number;
    char **place = (char **)(void *)((char *)&step.request + option_table[option].place);
    struct plan_complaint complaint = {""};
    const char *given = value == NULL ? "" : value;
    if (is_valid(option, given, &complaint) && (remote != 0 || is_said_once(option, *place, given, &complaint)) &&
        keep(place, given, &complaint))
        return 0;
    if (remote != 0) {
        step.is_misled = true;
        step.failure = complaint;
    } else {
        say_here(&complaint);
    }
    return -1;
}

/* Slurm's types are not const, and it keeps the addresses. */
static struct spank_option options[] = {
    {(char *)"cdi", (char *)"DEVICE[,...]|none",
     (char *)"give the tasks CDI devices: VENDOR/CLASS=NAME, or VENDOR/CLASS for what was allocated", 1, OPTION_DEVICES,
     take_option},
    {(char *)"cdi-mode", (char *)"handoff|mounts",
     (char *)"leave --cdi to container launchers in the step, or give the devices to the tasks themselves", 1, OPTION_MODE,
     take_option},
    {(char *)"cdi-image", (char *)"DIRECTORY", (char *)"run the tasks in this image, with the devices of --cdi", 1,
     OPTION_IMAGE, take_option},
};

int slurm_spank_init(spank_t spank, int count, char **arguments)
{
    spank_context_t context = spank_context();
    if (context != S_CTX_LOCAL && context != S_CTX_ALLOCATOR && context != S_CTX_REMOTE)
        return 0;
    struct plan_complaint complaint = {""};
    if (!site_read(&step.site, count, arguments, &complaint)) {
        step.failure = complaint;
        if (context != S_CTX_REMOTE)
            say_here(&complaint);
    }
    for (size_t i = 0; i < OPTIONS; i++)
        if (spank_option_register(spank, &options[i]) != ESPANK_SUCCESS)
            slurm_error("cdi: --%s can't be registered", options[i].name);
    return 0;
}

/* Before the tasks -------------------------------------------------------------------------------------------------- */

static bool read_ids(spank_t spank, uint32_t *step_id)
{
    return spank_get_item(spank, S_JOB_UID, &step.job.uid) == ESPANK_SUCCESS &&
           spank_get_item(spank, S_JOB_GID, &step.job.gid) == ESPANK_SUCCESS &&
           spank_get_item(spank, S_JOB_NODEID, &step.job.node) == ESPANK_SUCCESS &&
           spank_get_item(spank, S_JOB_STEPID, step_id) == ESPANK_SUCCESS;
}

/* Not in user_init: Slurm 26.05 holds a lock there that talking to the controller takes, and slurmstepd ends. Nobody has
 * to be asked where there is not even the variable. */
static bool ask_for_gpus(spank_t spank)
{
    uint32_t number = 0;
    bool has = false;
    char list[LONGEST_LIST];
    if (spank_getenv(spank, JOB_GPUS, list, sizeof list) != ESPANK_SUCCESS)
        return false;
    if (spank_get_item(spank, S_JOB_ID, &number) != ESPANK_SUCCESS)
        plan_complain(&step.failure, "Slurm does not say which job this is");
    else
        job_gpus_ask(number, step.job.node, &has, &step.failure);
    return has;
}

/* The GPUs of this step on this node, "" for none. A batch script has all of its job's, and Slurm gives it no other name
 * for them; in other steps that variable is the batch script's, which ran on another node. Where the job has none, both
 * are whatever the user has set, in a batch script at least. */
static const char *allocated_gpus(spank_t spank, char *list, int size)
{
    const char *name = step.is_inherited ? JOB_GPUS : "SLURM_STEP_GPUS";
    if (spank_getenv(spank, name, list, size) != ESPANK_SUCCESS || (step.is_inherited && !step.job_has_gpus))
        return "";
    return list;
}

static bool is_asked_for(void)
{
    return step.is_misled || request_is_made(&step.request) ||
           (step.request.image != NULL && !request_is_off(&step.request));
}

/* Whether this is a step that has what the site's default gives, for which nobody has said anything else. */
static bool is_default_for(spank_t spank)
{
    char list[LONGEST_LIST];
    return step.request.devices == NULL && step.job.uid != 0 &&
           (!step.site.gpus_are_allocated || allocated_gpus(spank, list, sizeof list)[0] != '\0');
}

/* In slurmstepd, as root: nothing is looked at that the user could have put there. */
static void prepare_step(spank_t spank)
{
    uint32_t step_id = 0;
    bool is_asked = is_asked_for();
    if (!is_asked && (step.site.default_devices == NULL || has_failed()))
        return;
    if (!read_ids(spank, &step_id)) {
        plan_complain(&step.failure, "Slurm does not say whose step this is");
    } else if (step_id == SLURM_EXTERN_CONT) {
        return; /* it has no tasks */
    }
    step.is_inherited = step_id == SLURM_BATCH_SCRIPT || step_id == SLURM_INTERACTIVE_STEP;
    if (step.is_inherited && step.site.gpus_are_allocated && !has_failed())
        step.job_has_gpus = ask_for_gpus(spank);
    if (!is_asked && !has_failed() && !is_default_for(spank))
        return;
    step.wanted = true;
    step.job.is_sealed = geteuid() == 0 && step.site.cache != NULL;
    if (has_failed() || !take_default(&step.failure) || !request_is_consistent(&step.request, &step.failure))
        return;
    if (step.job.uid == 0)
        plan_complain(&step.failure, "--cdi: not for jobs of root, whose rights end in a user namespace (submit it as an "
                                     "ordinary user)");
    else if (make_user_cache(&step.site, step.job, &step.failure) && mode_of_step() == MOUNTS)
        step_tree_prepare(&step.tree, &step.failure);
}

static int check_command_line(void)
{
    struct plan_complaint complaint = {""};
    forget_inherited_image();
    if ((step.request.image == NULL || take_default(&complaint)) && request_is_consistent(&step.request, &complaint))
        return 0;
    say_here(&complaint);
    return -1;
}

int slurm_spank_init_post_opt(spank_t spank, int count, char **arguments)
{
    (void)count;
    (void)arguments;
    spank_context_t context = spank_context();
    if (context == S_CTX_REMOTE)
        prepare_step(spank);
    else if (context == S_CTX_LOCAL || context == S_CTX_ALLOCATOR)
        return check_command_line();
    return 0;
}

/* Both at the same time. */
static void find_plan_and_namespace(const struct wish *wish)
{
    struct program holder = {.streams = {-1, -1}};
    if (!wish->is_handoff && !user_namespace_begin(&holder, &step.site, step.job, &step.failure))
        return;
    bool found = find_plan(&step.site, step.job, wish, step.plan, &step.failure);
    CLOSED int user = found && !wish->is_handoff ? user_namespace_take(&holder, &step.failure) : -1;
    if (user >= 0)
        step_tree_give_user(&step.tree, user, &step.failure);
    program_kill(&holder);
}

static bool is_there(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0;
}

int slurm_spank_user_init(spank_t spank, int count, char **arguments)
{
    (void)count;
    (void)arguments;
    char list[LONGEST_LIST];
    if (!step.wanted || has_failed())
        return 0;
    if (!devices_split(step.request.devices, &step.devices)) {
        plan_complain(&step.failure, "%s", strerror(ENOMEM));
        return 0;
    }
    struct wish wish = {
        .devices = step.devices,
        .gpus = step.site.gpus_are_allocated ? allocated_gpus(spank, list, sizeof list) : NULL,
        .image = image_or_host(),
        .is_handoff = mode_of_step() == HANDOFF,
    };
    find_plan_and_namespace(&wish);
    if (has_failed())
        step.image_is_hidden = !is_there(wish.image);
    return 0;
}

/* In the tasks ------------------------------------------------------------------------------------------------------ */

/* Lines for the user, each with the node's name: Slurm 26.05 does not add it. */
static void say_lines(spank_t spank, const char *level, char *text)
{
    char node[256] = "";
    if (spank_getenv(spank, "SLURMD_NODENAME", node, sizeof node) != ESPANK_SUCCESS)
        gethostname(node, sizeof node - 1);
    for (char *line = strsep(&text, "\n"); line != NULL; line = strsep(&text, "\n")) {
        make_printable(line);
        slurm_spank_log("cdi: %s: %s%s", node, level, line);
    }
}

/* What a task says travels by slurmstepd to srun, and is lost if srun hears of the task's end first and has
 * --kill-on-bad-exit (seen on 22.05, every second time). So every task that fails waits, also one with nothing to say:
 * another one of its node is saying it. */
static const struct timespec time_to_be_heard = {.tv_nsec = 250 * 1000 * 1000};

static _Noreturn void fail(spank_t spank, struct plan_complaint *complaint)
{
    if (complaint->text[0] != '\0')
        say_lines(spank, "error: ", complaint->text);
    nanosleep(&time_to_be_heard, NULL);
    _exit(FAILED_STATUS);
}

/* It may be another one than was found, of a step that has compiled it anew since. */
static bool is_sealed(const struct plan *plan)
{
    char seal[SEAL_DIGITS + 1];
    struct sha256 hash;
    sha256_begin(&hash);
    sha256_add(&hash, plan->text, plan->size);
    sha256_finish(&hash, seal);
    return seal_becomes_known(&step.site, step.job.uid, seal);
}

/* The plan of the step, read by the user's own process: as cdi-hpc-run, it trusts a file of the user's or of root's in
 * a directory to which nobody else has access. */
static bool open_plan(struct plan *plan, struct plan_complaint *complaint)
{
    struct cache system = system_cache(), own = {.owner = geteuid(), .others = S_IRWXG | S_IRWXO};
    const char *slash = strrchr(step.plan, '/');
    size_t length = (size_t)(slash - step.plan), name = strlen(slash + 1);
    char key[PLAN_KEY_DIGITS + 1];
    if (name != PLAN_KEY_DIGITS + strlen(".plan")) {
        plan_complain(complaint, "%s: that is no plan's name", step.plan);
        return false;
    }
    snprintf(own.path, sizeof own.path, "%.*s", (int)length, step.plan);
    snprintf(key, sizeof key, "%.*s", PLAN_KEY_DIGITS, slash + 1);
    bool everybody = strcmp(own.path, system.path) == 0;
    CLOSED int fd = cache_open(everybody ? &system : &own, key, complaint);
    if (fd < 0) {
        if (complaint->text[0] == '\0')
            plan_complain(complaint, "%s: the plan is gone (is it in a /tmp that tasks have not got? cache= in "
                          "plugstack.conf)", step.plan);
        return false;
    }
    struct plan_complaint reason;
    if (!plan_read(plan, fd, &reason)) {
        plan_complain(complaint, "%s: %s", step.plan, reason.text);
        return false;
    }
    if (strcmp(plan->key, key) != 0 || plan->uid != (everybody ? 0 : geteuid())) {
        plan_complain(complaint, "%s: it is not the plan that was asked for", step.plan);
        return false;
    }
    if (!step.job.is_sealed || everybody || is_sealed(plan))
        return true;
    plan_complain(complaint, "%s: it is not a plan that was compiled for a step: somebody has changed it", step.plan);
    return false;
}

static void report_warnings(spank_t spank, const struct plan *plan)
{
    struct plan_record record;
    for (size_t cursor = 0; plan_next(plan, &cursor, &record);) {
        if (record.kind != PLAN_WARN)
            continue;
        FREED char *text = strdup(record.field[0]);
        if (text != NULL)
            say_lines(spank, "warning: ", text);
    }
}

static bool enter_tree(spank_t spank, struct plan_complaint *complaint)
{
    struct plan plan = {0};
    struct turn turn;
    if (!step_tree_begin(&step.tree, step.site.timeout, &turn, complaint))
        return false;
    bool good = open_plan(&plan, complaint);
    if (!good)
        step_tree_give_up(&step.tree, &turn);
    good = good && step_tree_enter(&step.tree, &turn, &plan, complaint);
    if (good && turn.is_first)
        report_warnings(spank, &plan);
    if (good && !variables_set(spank, &plan)) {
        plan_complain(complaint, "the devices' variables can't be set");
        good = false;
    }
    plan_free(&plan);
    return good;
}

static bool hand_over(spank_t spank, struct plan_complaint *complaint)
{
    struct plan plan = {0};
    int task = 0;
    bool good = open_plan(&plan, complaint);
    spank_get_item(spank, S_TASK_ID, &task);
    if (good && task == 0)
        report_warnings(spank, &plan);
    if (good && !variables_hand_over(spank, &plan, step.plan)) {
        plan_complain(complaint, "the step's variables can't be set");
        good = false;
    }
    plan_free(&plan);
    return good;
}

int slurm_spank_task_init(spank_t spank, int count, char **arguments)
{
    (void)count;
    (void)arguments;
    struct plan_complaint complaint = {""};
    int task = 0;
    variables_forget_outer(spank);
    if (!step.wanted)
        return 0;
    if (has_failed()) {
        if (step.image_is_hidden && is_there(image_or_host()))
            plan_complain(&step.failure, "image %.1024s: it is in a directory of this job's own, such as a private /tmp, and "
                          "plans are made outside of it (copy it to where all jobs see it; with Slurm 24.05 and later the "
                          "site can set SlurmdParameters=contain_spank)", image_or_host());
        /* Once for each node. */
        spank_get_item(spank, S_TASK_ID, &task);
        fail(spank, task == 0 ? &step.failure : &complaint);
    }
    if (!(mode_of_step() == MOUNTS ? enter_tree(spank, &complaint) : hand_over(spank, &complaint)))
        fail(spank, &complaint);
    return 0;
}

int slurm_spank_exit(spank_t spank, int count, char **arguments)
{
    (void)spank;
    (void)count;
    (void)arguments;
    devices_free(&step.devices);
    free(step.request.devices);
    free(step.request.mode);
    free(step.request.image);
    step.request = (struct request){0};
    return 0;
}
