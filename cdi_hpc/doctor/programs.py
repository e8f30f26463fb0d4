"""Programs: ours, launchers, and tools that they use."""

from __future__ import annotations

import posixpath
import shutil
import subprocess
from collections.abc import Iterator

from cdi_hpc import backends
from cdi_hpc.doctor.checks import Finding, Question
from cdi_hpc.errors import CdiError
from cdi_hpc.launch import profile

#: Seconds that a launcher has to say its version.
_PATIENCE = 20


def native_runner(question: Question) -> Iterator[Finding]:
    """Whether later launches start Python."""
    if question.runner:
        yield Finding("ok", f"native runner: {question.runner}")
    else:
        fix = "make -C native install, or install the package with a C compiler present"
        yield Finding("warning", "the native runner is not installed: every launch starts Python", fix)


def launchers(question: Question) -> Iterator[Finding]:
    """Which launchers are there, and whether their options are understood."""
    missing = []
    for command in backends.commands():
        try:
            found = profile.find_launcher(command, question.variables)
        except profile.NotFoundError:
            missing.append(command)
            continue
        try:
            probed = backends.for_command(command).probe(found.path)
        except CdiError as error:
            for problem in error.problems:
                yield Finding("problem", f"{found.path}: {problem.what}", problem.fix)
            continue
        abilities = ", ".join(f"{name} {value}" for name, value in probed.capabilities)
        yield Finding("ok", f"{found.path}: {_version(found.path)}{f' ({abilities})' if abilities else ''}")
    if missing:
        yield Finding("note", f"not on the PATH: {', '.join(missing)}", "needed only by those who use them")


def _version(program: str) -> str:
    try:
        done = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"its version is not known: {error}"
    said = (done.stdout + done.stderr).decode("utf-8", "replace").strip().splitlines()
    if done.returncode:
        return f"its version is not known: {said[0] if said else f'exit status {done.returncode}'}"
    return said[0] if said else "says nothing of its version"


def drop_ins(question: Question) -> Iterator[Finding]:
    """Whether what the user types is a drop-in of ours."""
    for command in backends.commands():
        typed = shutil.which(command, path=question.variables.get("PATH"))
        if typed is None:
            continue
        if profile.is_drop_in(typed):
            yield Finding("ok", f"{command} is the drop-in {typed}")
        else:
            first = _installed_drop_ins(question.runner, command) or "what 'cdi-hpc shims DIR' makes"
            fix = f"{first}, first on the PATH; or 'cdi-hpc exec {command} ...'"
            yield Finding("note", f"{command} is the launcher itself, {typed}: it takes no --device of ours", fix)


def _installed_drop_ins(runner: str, command: str) -> str:
    """Directory of the drop-ins that a package has put there with the runner (packaging/Makefile), or ""."""
    directory = posixpath.join(posixpath.dirname(posixpath.dirname(runner)), "lib/cdi-hpc/shims")
    return directory if runner and profile.is_drop_in(posixpath.join(directory, command)) else ""


def squashfs_tools(question: Question) -> Iterator[Finding]:
    """Whether SquashFS files can be launched by ourselves."""
    path = question.variables.get("PATH")
    found = [name for name in ("squashfuse_ll", "squashfuse", "unsquashfs") if shutil.which(name, path=path)]
    if found:
        yield Finding("ok", f"for SquashFS files: {', '.join(found)}")
    else:
        fix = "install squashfuse, or squashfs-tools"
        yield Finding("note", "neither squashfuse nor unsquashfs: SquashFS files can't be launched", fix)


def yaml_loader(question: Question) -> Iterator[Finding]:
    """Whether PyYAML has its parser in C."""
    del question
    import yaml

    if getattr(yaml, "__with_libyaml__", False):
        yield Finding("ok", f"PyYAML {yaml.__version__} with libyaml")
    else:
        what = f"PyYAML {yaml.__version__} lacks libyaml: specs are read ten times slower"
        yield Finding("warning", what, "install a wheel of PyYAML, or build it with libyaml's headers present")
