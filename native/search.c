#include "search.h"

#include "closed.h"
#include "say.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void say_warning(int verbosity, const char *text)
{
    if (verbosity >= 0)
        say("warning", "%s", text);
}

void say_note(int verbosity, const char *text)
{
    if (verbosity >= 1)
        say("note", "%s", text);
}

/* Read a plan and see whether it is the one that is wanted and still right. */
static enum found examine(struct plan *plan, int verbosity, int fd, const char *key, uid_t uid, gid_t gid)
{
    struct plan_complaint complaint;
    if (!plan_read(plan, fd, &complaint)) {
        say("warning", "compiled plan %s: not used: %s", key, complaint.text);
        return MISSING;
    }
    if (strcmp(plan->key, key) != 0 || plan->uid != uid || plan->gid != gid) {
        say("warning", "compiled plan %s: not used: it was made for key %s, user %u and group %u", key, plan->key,
            plan->uid, plan->gid);
        return MISSING;
    }
    if (!plan_fresh(plan, &complaint)) {
        say_note(verbosity, complaint.text);
        return STALE;
    }
    return FRESH;
}

enum found find_in(const struct search *search, const struct cache *cache, struct caller caller, struct plan *plan,
                   char key[PLAN_KEY_DIGITS + 1])
{
    if (!search->key(search->launch, caller, key))
        return MISSING;
    struct plan_complaint complaint;
    char name[PLAN_KEY_DIGITS + 16];
    snprintf(name, sizeof name, "%s.%s", key, search->suffix == NULL ? "plan" : search->suffix);
    CLOSED int fd = cache_open_file(cache, name, &complaint);
    if (fd < 0) {
        if (complaint.text[0] != '\0' && !cache->is_told_by_front)
            say_warning(search->verbosity, complaint.text);
        return MISSING;
    }
    gid_t gid = caller.everybody ? 0 : getegid();
    enum found found = examine(plan, search->verbosity, fd, key, cache->owner, gid);
    if (found != FRESH)
        plan_free(plan);
    return found;
}

enum found find_plan(const struct search *search, const struct cache *own, struct plan *plan, struct cache *where,
                     char key[PLAN_KEY_DIGITS + 1])
{
    *where = system_cache();
    if (find_in(search, where, (struct caller){.everybody = true}, plan, key) == FRESH) {
        if (!cache_is_passed_over(own, where, key))
            return FRESH;
        plan_free(plan);
        *plan = (struct plan){0};
    }
    *where = *own;
    return find_in(search, where, (struct caller){.everybody = false}, plan, key);
}

void give_up_plan(const struct plan *plan, const struct cache *where, const struct cache *own, int verbosity,
                  const char *reason)
{
    struct plan_complaint complaint;
    if (!where->is_systems) {
        say_warning(verbosity, reason);
        cache_discard(where, plan->key);
        return;
    }
    plan_complain(&complaint, "%s/%s.plan: not used: %s (ask the administrator to compile it again: cdi-hpc compile --system)",
                  where->path, plan->key, reason);
    say_warning(verbosity, complaint.text);
    cache_pass_over(own, plan->key);
}

void report(const struct plan *plan, int verbosity)
{
    struct plan_record record;
    for (size_t cursor = 0; plan_next(plan, &cursor, &record);) {
        if (record.kind == PLAN_WARN)
            say_warning(verbosity, record.field[0]);
        else if (record.kind == PLAN_NOTE)
            say_note(verbosity, record.field[0]);
    }
}

static void tell_step(const char *line)
{
    say("step", "%s", line);
}

struct plan_options step_options(int verbosity)
{
    const char *api = getenv("CDI_HPC_MOUNT_API");
    return (struct plan_options){
        .old_mount_api = api != NULL && strcmp(api, "old") == 0,
        .tell = verbosity >= 1 ? tell_step : NULL,
    };
}
