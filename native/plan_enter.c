/* Namespaces: a user namespace in which uid and gid are what they were, and a mount namespace.
 *
 * With the mapping of a single id nothing is gained and nothing lost: files keep their owners as the user sees them,
 * and capabilities hold for this process and its mounts alone, until plan_drop_privileges.
 */
#include "closed.h"
#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

/* Settings that forbid user namespaces: file, value that forbids, what to ask for. AppArmor's is the last one. */
static const struct setting {
    const char *path, *forbids, *fix;
} settings[] = {
    {"/proc/sys/user/max_user_namespaces", "0", "ask the administrator for sysctl user.max_user_namespaces=15000"},
    {"/proc/sys/user/max_mnt_namespaces", "0", "ask the administrator for sysctl user.max_mnt_namespaces=15000"},
    {"/proc/sys/kernel/unprivileged_userns_clone", "0", "ask for sysctl kernel.unprivileged_userns_clone=1"},
    {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
     "ask for an AppArmor profile that allows userns, or sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
};

static bool is_forbidden_by(const struct setting *setting)
{
    CLOSED int fd = open(setting->path, O_RDONLY | O_CLOEXEC);
    char value[16] = "";
    ssize_t length = fd < 0 ? 0 : read(fd, value, sizeof value - 1);
    if (length <= 0)
        return false;
    value[strcspn(value, "\n")] = '\0';
    return strcmp(value, setting->forbids) == 0;
}

static void explain_namespace(int error, struct plan_complaint *complaint)
{
    const char *what = "a user and mount namespace can't be made";
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const struct setting *setting = &settings[i];
        if (is_forbidden_by(setting)) {
            plan_complain(complaint, "%s: %s: %s: it is %s (%s)", setting->path, what, strerror(error),
                          setting->forbids, setting->fix);
            return;
        }
    }
    if (error == ENOSPC || error == EUSERS)
        plan_complain(complaint, "%s: %s: %s: the limit is reached (ask for a higher limit)", settings[0].path, what,
                      strerror(error));
    else
        plan_complain(complaint,
                      "kernel: %s: %s (a seccomp filter (container, batch system) or a chroot forbids it; run it "
                      "outside of that)",
                      what, strerror(error));
}

static void explain_mounts(int error, struct plan_complaint *complaint)
{
    const char *what = "mounts are forbidden in the new user namespace";
    const struct setting *apparmor = &settings[sizeof settings / sizeof *settings - 1];
    if (is_forbidden_by(apparmor))
        plan_complain(complaint, "%s: %s: %s (%s)", apparmor->path, what, strerror(error), apparmor->fix);
    else
        plan_complain(complaint,
                      "kernel: %s: %s (a security module (AppArmor, SELinux) forbids it; ask the administrator)", what,
                      strerror(error));
}

static bool write_text(const char *path, const char *text)
{
    CLOSED int fd = open(path, O_WRONLY | O_CLOEXEC);
    size_t length = strlen(text);
    return fd >= 0 && write(fd, text, length) == (ssize_t)length;
}

static bool map_id(const char *path, unsigned id)
{
    char line[64];
    snprintf(line, sizeof line, "%u %u 1", id, id);
    return write_text(path, line);
}

/* An unprivileged process may map its group only after it gave up setgroups(2) (user_namespaces(7)). */
static bool unshare_user(int more, struct plan_complaint *complaint)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (unshare(CLONE_NEWUSER | more) == 0 && write_text("/proc/self/setgroups", "deny") &&
        map_id("/proc/self/uid_map", uid) && map_id("/proc/self/gid_map", gid))
        return true;
    explain_namespace(errno, complaint);
    return false;
}

/* Host mounts still arrive but nothing goes back. */
static bool keep_mounts_here(struct plan_complaint *complaint)
{
    if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) == 0)
        return true;
    explain_mounts(errno, complaint);
    return false;
}

bool plan_enter_user(struct plan_complaint *complaint)
{
    return unshare_user(0, complaint);
}

bool plan_enter_mounts(struct plan_complaint *complaint)
{
    if (unshare(CLONE_NEWNS) == 0)
        return keep_mounts_here(complaint);
    explain_namespace(errno, complaint);
    return false;
}

bool plan_enter(struct plan_complaint *complaint)
{
    return unshare_user(CLONE_NEWNS, complaint) && keep_mounts_here(complaint);
}
