"""Commands that take turns, and what the clock says of each."""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Row:
    """One thing that is timed.

    Attributes:
        command: argv, or None when it can't run here.
        remark: why it can't, or what is different about it.
        group: what it is compared within; the first row of a group is the one that others are compared with.
        before: run before each timing, not timed.
        seconds: a figure for each run.

    """

    name: str
    command: list[str] | None
    remark: str = ""
    group: str = ""
    before: list[str] | None = None
    env: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Run it once and keep the time; it must succeed."""
        if self.command is None:
            return
        environment = {**os.environ, **self.env}
        if self.before:
            subprocess.run(self.before, check=True, env=environment)
        start = time.perf_counter()
        done = subprocess.run(self.command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        self.seconds.append(time.perf_counter() - start)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            self.command, self.remark = None, f"failed: {said[-1] if said else done.returncode}"

    @property
    def median(self) -> float:
        """Median in milliseconds; not a number where nothing was measured."""
        return statistics.median(self.seconds) * 1e3 if self.seconds and self.command else float("nan")


@dataclass(frozen=True)
class Target:
    """A promise about medians.

    Attributes:
        holds: whether it was kept.

    """

    text: str
    holds: bool


def cached_row(name: str, command: list[str] | None, *, cold: bool, scratch: str, group: str = "") -> Row:
    """A launch with a cache of its own: empty each time, or with the plan of the warm-up."""
    if command is None:
        return Row(name, None, "not installed", group)
    plans = tempfile.mkdtemp(dir=scratch)
    clean = ["rm", "-rf", f"{plans}/cdi-hpc"] if cold else None
    return Row(name, command, group=group, before=clean, env={"XDG_RUNTIME_DIR": plans})


def cdi_hpc_program() -> str:
    """The command that belongs to this Python."""
    beside = os.path.join(os.path.dirname(sys.executable), "cdi-hpc")
    return beside if os.path.exists(beside) else shutil.which("cdi-hpc") or "cdi-hpc"


def keep_bytecode(scratch: str) -> None:
    """What is timed has its modules compiled, as every installation has; a checkout may be read-only."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = f"{scratch}/bytecode"


def take_turns(rows: Sequence[Row], runs: int) -> None:
    """Run all of them so often, after one warm-up: a slow moment of the machine hits all of them.

    Each round has another order, for what runs after a big program finds the processor's caches full of that.
    """
    shuffled = random.Random(0)  # noqa: S311 - an order, not a secret
    for number in range(-1, runs):
        if sys.stderr.isatty():
            sys.stderr.write(f"\rrun {max(number + 1, 0)} of {runs} ")
        for row in shuffled.sample(rows, len(rows)):
            row.run()
            if number < 0:
                row.seconds.clear()
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")


def as_table(rows: Sequence[Row], targets: Sequence[Target] = ()) -> str:
    """The figures for people: each against the first of its group."""
    lines: list[str] = []
    for group in dict.fromkeys(row.group for row in rows):
        members = [row for row in rows if row.group == group]
        lines += [*([""] if lines else []), f"{group:40} {'median ms':>10} {'min ms':>8} {'more ms':>8} {'ratio':>7}"]
        lines += [table_line(row, members[0].median) for row in members]
    lines += [""] * bool(targets)
    lines += [f"{'kept' if target.holds else 'MISSED'}: {target.text}" for target in targets]
    return "\n".join(lines)


def table_line(row: Row, base: float) -> str:
    if row.command is None:
        return f"{row.name:40} {row.remark}"
    figures = f"{row.median:10.1f} {min(row.seconds) * 1e3:8.1f} {row.median - base:8.1f} {row.median / base:7.2f}"
    return f"{row.name:40} {figures}" + (f"  ({row.remark})" if row.remark else "")


def as_json(rows: Sequence[Row], targets: Sequence[Target] = ()) -> str:
    """Every figure, for programs."""
    measured = [{"group": row.group, "name": row.name, "seconds": row.seconds, "remark": row.remark} for row in rows]
    promised = [{"target": target.text, "kept": target.holds} for target in targets]
    return json.dumps({"rows": measured, "targets": promised}, indent=2)
