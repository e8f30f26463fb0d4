"""A check, a finding, and the table of all checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Callable, Literal

from cdi_hpc.errors import CdiError

#: ``ok``: as it should be. ``note``: worth knowing. ``warning``: something will not work, or not well, for somebody.
#: ``problem``: what was asked about does not work.
Status = Literal["ok", "note", "warning", "problem"]

#: The mildest first.
STATUSES: tuple[Status, ...] = ("ok", "note", "warning", "problem")


@dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes:
        status: how bad it is.
        what: one line.
        fix: what to do, in one line; empty if there is nothing to do.

    """

    status: Status
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Question:
    """What the doctor was asked.

    Attributes:
        devices: of a request; none: every device there is.
        image: of a launch, or None.
        cdi_dirs: spec directories that were named.
        environ: the environment.
        runner: path of the native runner, "" if there is none.

    """

    devices: tuple[str, ...] = ()
    image: str | None = None
    cdi_dirs: tuple[str, ...] = ()
    environ: Mapping[str, str] | None = None
    runner: str = ""

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment, empty if there is none."""
        return self.environ or {}


@dataclass(frozen=True)
class Check:
    """A thing that is looked at.

    Attributes:
        name: for programs; it does not change between releases.
        area: what it is about, for people.
        look: yields findings; none means that there is nothing to say.
        wants: what the question has to have for it.

    """

    name: str
    area: str
    look: Callable[[Question], Iterator[Finding]]
    wants: Literal["nothing", "image", "slurm"] = "nothing"


@dataclass(frozen=True)
class Result:
    """A finding and the check that it is of."""

    check: Check
    finding: Finding


def examine(checks: tuple[Check, ...], question: Question, *, slurm: bool = False) -> Iterator[Result]:
    """Make the checks that a question is about, one after the other."""
    for check in checks:
        if (check.wants == "image" and question.image is None) or (check.wants == "slurm" and not slurm):
            continue
        try:
            for finding in check.look(question):
                yield Result(check, finding)
        except CdiError as error:
            for problem in error.problems:
                where = f"{problem.where}: " if problem.where else ""
                yield Result(check, Finding("problem", f"{where}{problem.what}", problem.fix))
        except OSError as error:
            what = f"{error.filename or 'system'}: {error.strerror or error}"
            yield Result(check, Finding("warning", f"could not be looked at: {what}"))


def all_checks() -> tuple[Check, ...]:
    """Every check, in the order in which a launch would meet what it looks at."""
    from cdi_hpc.doctor import images, kernel, places, programs, slurm, specs

    return (
        Check("user-namespaces", "kernel", kernel.user_namespaces),
        Check("namespace-limits", "kernel", kernel.limits),
        Check("overlay", "kernel", kernel.overlay),
        Check("fuse", "kernel", kernel.fuse),
        Check("native-runner", "programs", programs.native_runner),
        Check("launchers", "programs", programs.launchers),
        Check("drop-ins", "programs", programs.drop_ins),
        Check("squashfs-tools", "programs", programs.squashfs_tools),
        Check("yaml-loader", "programs", programs.yaml_loader),
        Check("plan-cache", "places", places.plan_cache),
        Check("temporary-directory", "places", places.temporary_directory),
        Check("configuration", "places", specs.configuration),
        Check("spec-files", "specs", specs.files),
        Check("spec-modes", "specs", specs.modes),
        Check("conflicts", "specs", specs.conflicts),
        Check("empty-all", "specs", specs.empty_all),
        Check("driver-version", "specs", specs.driver_version),
        Check("nvidia-nodes", "specs", specs.nvidia_nodes),
        Check("request", "request", specs.request),
        Check("image", "image", images.readable, wants="image"),
        Check("image-layers", "image", images.layers, wants="image"),
        Check("image-libraries", "image", images.libraries, wants="image"),
        Check("slurm-release", "slurm", slurm.release, wants="slurm"),
        Check("slurm-plugin", "slurm", slurm.plugin, wants="slurm"),
        Check("slurm-arguments", "slurm", slurm.arguments, wants="slurm"),
        Check("slurm-gres", "slurm", slurm.gres, wants="slurm"),
        Check("slurm-constrained", "slurm", slurm.constrained, wants="slurm"),
        Check("slurm-step", "slurm", slurm.step, wants="slurm"),
    )
