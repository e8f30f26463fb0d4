"""What slurmstepd does with root's ids: nothing that a path of the job's user could lead astray. Seen by strace."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from slurm_site import Site, wait_until

pytestmark = pytest.mark.root

CAP_WAKE_ALARM = 35

CALLS = "%file,setresuid,setreuid,setuid,clone,clone3,fork,vfork"


#: Takes descriptors out of every slurmstepd that it can, and says which.
TAKER = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FIRST = 3, LAST = 40 };

static int is_slurmstepd(int pid)
{
    char path[64], name[64] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, name, sizeof name - 1) < 0)
        name[0] = 0;
    close(fd);
    return strncmp(name, "slurmstepd", strlen("slurmstepd")) == 0;
}

static void take(int pid)
{
    int process = (int)syscall(SYS_pidfd_open, pid, 0);
    for (int number = FIRST; process >= 0 && number < LAST; number++) {
        char path[64], target[256] = "";
        int fd = (int)syscall(SYS_pidfd_getfd, process, number, 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (fd >= 0 && readlink(path, target, sizeof target - 1) > 0)
            printf("%d of %d: %s\n", number, pid, target);
        close(fd);
    }
    close(process);
}

int main(void)
{
    setlinebuf(stdout);
    for (;;) {
        DIR *processes = opendir("/proc");
        for (struct dirent *entry; (entry = readdir(processes)) != NULL;)
            if (atoi(entry->d_name) > 0 && is_slurmstepd(atoi(entry->d_name)))
                take(atoi(entry->d_name));
        closedir(processes);
    }
}
"""


def slurmd_of(site: Site) -> int:
    lines = (site.lab / "daemons").read_text().splitlines()
    return next(int(line.split()[0]) for line in lines if line.split()[1] == "slurmd-n1")


def traced(site: Site, *words: str, options: Sequence[str] = ()) -> list[str]:
    """Lines of strace for everything below the first node's slurmd, while a step runs there."""
    trace, daemon = site.top / "trace", slurmd_of(site)
    argv = ["strace", "-f", "-qq", "-s", "500", "-e", f"trace={CALLS}", *options, "-o", str(trace), "-p", str(daemon)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as tracer:
        try:
            status = Path(f"/proc/{daemon}/status")
            assert wait_until(lambda: f"TracerPid:\t{tracer.pid}\n" in status.read_text())
            done = site.srun("-w", "n1", "-n2", "--gres=gpu:2", "--cdi=nvidia.com/gpu", *words, "true")
            assert done.returncode == 0, done.stderr
        finally:
            end(tracer)
    return trace.read_text(errors="replace").splitlines()


def end(tracer: subprocess.Popen) -> None:
    """Let it detach; it may wait for a thread of a process that is gone, for ever."""
    tracer.send_signal(signal.SIGINT)
    try:
        tracer.wait(timeout=10)
    except subprocess.TimeoutExpired:
        tracer.kill()


def with_effective_user(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Each line with the effective user of the thread that made the call; who is not known is taken for root."""
    users: dict[str, int] = {}
    for line in lines:
        thread, _, call = line.partition(" ")
        user = users.get(thread, 0)
        yield user, call
        changed = re.match(r"\s*setre(?:s?)uid\(-?\d+, (-?\d+)", call) or re.match(r"\s*setuid\((\d+)\) += 0", call)
        if changed and changed[1] != "-1":
            users[thread] = int(changed[1])
        born = re.match(r"\s*(?:<\.\.\. )?(?:clone3?|v?fork)\b.* = (\d+)$", call)
        if born:
            users.setdefault(born[1], user)


@pytest.mark.parametrize("mode", ["handoff", "mounts"])
@pytest.mark.parametrize("plan", ["to be found", "to be made"])
def test_root_names_no_path_in_a_directory_of_the_users(site, mode, plan):
    words = ("--gres=gpu:2", "--cdi=nvidia.com/gpu", f"--cdi-mode={mode}", "true")
    assert site.srun(*words).returncode == 0
    if plan == "to be made":
        for path in site.cache.glob("*.plan"):
            path.unlink()
    own = f'"{site.cache.parent}/'
    calls = [(user, call) for user, call in with_effective_user(traced(site, f"--cdi-mode={mode}")) if own in call]
    assert {user for user, _ in calls} == {site.user.pw_uid}, [call for user, call in calls if user == 0]


def test_a_program_that_is_executed_for_the_user_can_not_become_root_again(site):
    report = site.top / "home/ids"
    report.unlink(missing_ok=True)
    looks = (f"cp /proc/self/status {report}", f"ls -l /proc/self/fd > {report}.fds", f"env > {report}.env")
    text = "\n".join(("#!/bin/sh", "umask 0", *looks, "exit 9\n"))
    site.configure(cdi_hpc_run=site.program(text))
    assert (
        site.srun("--gres=gpu:1", "--cdi=nvidia.com/gpu", "true", env={"LD_PRELOAD": "", "FORGED": "1"}).returncode
        == 125
    )
    status = report.read_text()
    for name, number in (("Uid", site.user.pw_uid), ("Gid", site.user.pw_gid)):
        assert re.search(rf"^{name}:((?:\t{number}){{4}})$", status, re.MULTILINE)
    # One that does nothing keeps the user's debuggers away.
    rights = re.findall(r"^Cap(?:Inh|Prm|Eff|Amb):\t([0-9a-f]+)$", status, re.MULTILINE)
    assert {int(right, 16) for right in rights} == {1 << CAP_WAKE_ALARM}
    assert re.search(r"^SigBlk:\t0+$", status, re.MULTILINE)
    variables = {line.partition("=")[0] for line in Path(f"{report}.env").read_text().splitlines()}
    assert variables <= {
        "PATH",
        "LC_ALL",
        "PYTHONNOUSERSITE",
        "SLURM_NODEID",
        "XDG_RUNTIME_DIR",
        "PWD",
        "_",
        "SHLVL",
        "OLDPWD",
    }
    # Its own three, the directory that ls reads, and the script that the shell reads.
    assert len(Path(f"{report}.fds").read_text().splitlines()) <= 1 + 3 + 2


@pytest.fixture
def taker(site) -> Iterator[Path]:
    """A process of the job's user that takes descriptors; what it says it has taken."""
    (site.top / "taker.c").write_text(TAKER)
    program = site.top / "taker"
    subprocess.run(["cc", "-o", program, f"{program}.c"], check=True)
    program.chmod(0o755)
    with (
        open(site.top / "taken", "w+") as taken,
        subprocess.Popen(
            [program], stdout=taken, user=site.user.pw_uid, group=site.user.pw_gid, extra_groups=()
        ) as process,
    ):
        yield site.top / "taken"
        process.kill()


@pytest.mark.parametrize("mode", ["handoff", "mounts"])
def test_nothing_of_slurmstepd_can_be_taken_by_its_users_other_processes(site, taker, mode):
    # Where a task would be within reach, it is so while it enters namespaces.
    slowly = [f"--inject={call}:delay_enter=50000" for call in ("unshare", "setns", "execve")]
    traced(site, f"--cdi-mode={mode}", options=["-e", f"trace={CALLS},unshare,setns", *slowly])
    # Its log is always among what it has. Other clusters of the machine may be the user's own.
    assert [line for line in taker.read_text().splitlines() if f"{site.lab}/log/" in line] == []
