#include "compiler.h"

#include "closed.h"
#include "program.h"
#include "seals.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Exit status of `cdi-hpc-run --print-plan` where there is no fresh plan, and of `cdi-hpc compile --seal` where somebody
 * else has written it meanwhile. */
enum { NO_PLAN = 1 };

/* A plan, as the programs name it. */
struct found {
    char seal[SEAL_DIGITS + 1];
    char path[PLAN_MAX_PATH];
};

/* Command lines ----------------------------------------------------------------------------------------------------- */

enum { MOST_WORDS = 4096, OPTION = PLAN_MAX_PATH + 16 };

/* A command line that is put together; `overflow` once there was no room or memory for a word. */
struct line {
    char *word[MOST_WORDS];
    size_t count;
    bool overflow;
};

static void add(struct line *line, const char *prefix, const char *value)
{
    char *word = NULL;
    if (line->count + 1 >= MOST_WORDS || asprintf(&word, "%s%s", prefix, value) < 0)
        line->overflow = true;
    else
        line->word[line->count++] = word;
}

static void free_line(struct line *line)
{
    for (size_t i = 0; i < line->count; i++)
        free(line->word[i]);
}

static void add_site(struct line *line, const struct site *site)
{
    for (size_t i = 0; i < site->cdi_dir_count; i++)
        add(line, "--cdi-dir=", site->cdi_dirs[i]);
}

static void add_grant(struct line *line, const struct wish *wish)
{
    if (wish->gpus != NULL)
        add(line, "--gres=gpu=", wish->gpus);
}

static void find_line(struct line *line, const struct site *site, const struct wish *wish)
{
    add(line, site->runner, "");
    add(line, "--print-plan", "");
    if (wish->is_handoff)
        add(line, "--handoff", "");
    add_grant(line, wish);
    for (size_t i = 0; wish->devices.name[i] != NULL; i++)
        add(line, "--device=", wish->devices.name[i]);
    add_site(line, site);
    add(line, "--", "");
    add(line, wish->image, "");
    add(line, "--", "");
    add(line, "true", ""); /* the command is not part of a plan, but of a command line */
}

static void compile_line(struct line *line, const struct site *site, const struct wish *wish)
{
    add(line, site->compiler, "");
    add(line, "compile", "");
    add(line, "--seal", "");
    if (wish->is_anew)
        add(line, "--anew", "");
    if (wish->is_handoff)
        add(line, "--handoff", "");
    add_grant(line, wish);
    add(line, "--image=", wish->image);
    add_site(line, site);
    add(line, "--", "");
    for (size_t i = 0; wish->devices.name[i] != NULL; i++)
        add(line, wish->devices.name[i], "");
}

/* Nothing of slurmstepd's environment or of the job's. The node's number is for a program of the site's in their place. */
static void environment_lines(struct line *line, const struct site *site, struct job job)
{
    char directory[PLAN_MAX_PATH + 16], number[16];
    add(line, "PATH=", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    add(line, "LC_ALL=", "C.UTF-8");
    add(line, "PYTHONNOUSERSITE=", "1"); /* without HOME, Python finds ~/.local by the number of the user */
    snprintf(number, sizeof number, "%u", job.node);
    add(line, "SLURM_NODEID=", number);
    if (site->cache == NULL)
        return;
    snprintf(directory, sizeof directory, "%s/%u", site->cache, job.uid);
    add(line, "XDG_RUNTIME_DIR=", directory);
}

/* What it says ------------------------------------------------------------------------------------------------------ */

/* SHA-256, two spaces, one absolute path and a newline. What the path leads to is the tasks' to find out, who are the
 * user's. */
static bool take_plan(const char *program, const char *said, struct found *found, struct plan_complaint *complaint)
{
    const char *path = said + SEAL_DIGITS + 2;
    bool good = strspn(said, "0123456789abcdef") == SEAL_DIGITS && strncmp(said + SEAL_DIGITS, "  /", 3) == 0;
    size_t length = good ? strcspn(path, "\n") : 0;
    if (!good || path[length] != '\n' || path[length + 1] != '\0' || length >= sizeof found->path) {
        plan_complain(complaint, "%s: it has not answered with the path of a plan", program);
        return false;
    }
    snprintf(found->seal, sizeof found->seal, "%.*s", SEAL_DIGITS, said);
    snprintf(found->path, sizeof found->path, "%.*s", (int)length, path);
    return true;
}

typedef void line_maker(struct line *, const struct site *, const struct wish *);

static bool ask(line_maker *make, const struct site *site, struct job job, const struct wish *wish,
                struct answer *answer, struct plan_complaint *complaint)
{
    struct line words = {.count = 0}, environment = {.count = 0};
    make(&words, site, wish);
    environment_lines(&environment, site, job);
    bool good = !words.overflow && !environment.overflow;
    if (good)
        good = program_run(site, job, words.word, environment.word, answer, complaint);
    else
        plan_complain(complaint, "--cdi: too many devices");
    free_line(&words);
    free_line(&environment);
    return good;
}

enum outcome { FOUND, NONE, FAILED };

/* Ask one of the two programs for a plan. */
static enum outcome seek(line_maker *make, const struct site *site, struct job job, const struct wish *wish,
                         struct found *found, struct plan_complaint *complaint)
{
    struct answer answer;
    const char *program = make == find_line ? site->runner : site->compiler;
    if (!ask(make, site, job, wish, &answer, complaint))
        return FAILED;
    if (WEXITSTATUS(answer.status) == 0)
        return take_plan(program, answer.text[STDOUT], found, complaint) ? FOUND : FAILED;
    if (WEXITSTATUS(answer.status) == NO_PLAN && (make == find_line || answer.text[STDERR][0] == '\0'))
        return NONE;
    program_errors(program, answer.text[STDERR], complaint);
    return FAILED;
}

static bool is_believed(const struct site *site, struct job job, const struct found *found)
{
    return !job.is_sealed || is_of_system(found->path) || seal_is_known(site, job.uid, found->seal);
}

/* A plan is compiled now; what comes of it is sealed. */
static enum outcome compile(const struct site *site, struct job job, const struct wish *wish, struct found *found,
                            struct plan_complaint *complaint)
{
    enum outcome outcome = seek(compile_line, site, job, wish, found, complaint);
    if (outcome == FOUND && job.is_sealed && !seal_add(site, job.uid, found->seal, complaint))
        return FAILED;
    return outcome;
}

/* Another step, or the user, has written the plan at the same time. A step's is sealed in a moment. */
static bool is_anothers(const struct site *site, struct job job, const struct wish *wish, struct found *found,
                        struct plan_complaint *complaint)
{
    return seek(find_line, site, job, wish, found, complaint) == FOUND &&
           (is_believed(site, job, found) || seal_becomes_known(site, job.uid, found->seal));
}

bool find_plan(const struct site *site, struct job job, const struct wish *wish, char path[PLAN_MAX_PATH],
               struct plan_complaint *complaint)
{
    struct found found;
    struct wish insisting = *wish;
    insisting.is_anew = true;
    enum outcome outcome = seek(find_line, site, job, wish, &found, complaint);
    if (outcome == FOUND && !is_believed(site, job, &found))
        outcome = NONE;
    if (outcome == NONE)
        outcome = compile(site, job, wish, &found, complaint);
    if (outcome == NONE && is_anothers(site, job, wish, &found, complaint))
        outcome = FOUND;
    if (outcome == NONE)
        outcome = compile(site, job, &insisting, &found, complaint);
    if (outcome == NONE)
        plan_complain(complaint, "%s: it has not answered with the path of a plan", site->compiler);
    if (outcome != FOUND)
        return false;
    memcpy(path, found.path, sizeof found.path);
    return true;
}

/* Directories -------------------------------------------------------------------------------------------------------- */

/* Make the user's directory in one that only we can change, or see that it is there; EEXIST if something else is. Another
 * step may be making it at this moment, or was killed while it did: then it is ours, and still closed to everybody. */
static bool give_user_directory(int top, const char *name, struct job job, struct stat *status)
{
    if (mkdirat(top, name, 0700) < 0 && errno != EEXIST)
        return false;
    if (fstatat(top, name, status, AT_SYMLINK_NOFOLLOW) < 0)
        return false;
    if (S_ISDIR(status->st_mode) && status->st_uid == job.uid)
        return true;
    if (S_ISDIR(status->st_mode) && status->st_uid == geteuid() && (status->st_mode & (S_IRWXG | S_IRWXO)) == 0)
        return fchownat(top, name, job.uid, job.gid, AT_SYMLINK_NOFOLLOW) == 0;
    errno = EEXIST;
    return false;
}

bool make_user_cache(const struct site *site, struct job job, struct plan_complaint *complaint)
{
    if (site->cache == NULL)
        return true;
    if (mkdir(site->cache, 0755) == 0)
        chmod(site->cache, 0755); /* whatever the umask; if it fails, the user will say what he can't do */
    CLOSED int top = open(site->cache, O_DIRECTORY | O_NOFOLLOW | O_RDONLY | O_CLOEXEC);
    struct stat status;
    char name[16];
    snprintf(name, sizeof name, "%u", job.uid);
    if (top < 0 || fstat(top, &status) < 0) {
        plan_complain(complaint, "%s: no directory for plans: %s (cache= in plugstack.conf)", site->cache, strerror(errno));
        return false;
    }
    if (status.st_uid != geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        plan_complain(complaint, "%s: not used for plans: others may write to it (cache= in plugstack.conf)", site->cache);
        return false;
    }
    if (give_user_directory(top, name, job, &status))
        return true;
    if (errno == EEXIST)
        plan_complain(complaint, "%s/%s: no directory for the user's plans: %s (ask the administrator to remove it)",
                      site->cache, name, S_ISDIR(status.st_mode) ? "it belongs to somebody else" : "it is a link, or no directory");
    else
        plan_complain(complaint, "%s/%s: no directory for the user's plans: %s (ask the administrator: cache= in plugstack.conf)",
                      site->cache, name, strerror(errno));
    return false;
}
