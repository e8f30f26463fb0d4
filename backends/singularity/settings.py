"""What the command line, the environment and the administrator's configuration say together about one launch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from cdi_hpc.backend import Invocation, Profile
from cdi_hpc.errors import Problem
from cdi_hpc.images.image_files import open_regular
from cdi_hpc.witness import Witness

Dev = Literal["yes", "minimal", "no"]

#: Names of variables that stand for an option, without their prefix, where they are not the option's own in capitals.
_KEYS = {
    "bind": ("BIND", "BINDPATH"),
    "config": ("CONFIG_FILE",),
    "overlay": ("OVERLAY", "OVERLAYIMAGE"),
    "passphrase": ("ENCRYPTION_PASSPHRASE",),
    "pem-path": ("ENCRYPTION_PEM_PATH",),
    "scratch": ("SCRATCH", "SCRATCHDIR"),
    "userns": ("USERNS", "UNSHARE_USERNS"),
}

#: Options whose variables may change a plan.
_ASKED = (
    "bind",
    "compat",
    "config",
    "contain",
    "containall",
    "fakeroot",
    "home",
    "mount",
    "no-eval",
    "no-home",
    "no-mount",
    "oci",
    "overlay",
    "passphrase",
    "pem-path",
    "scratch",
    "sharens",
    "underlay",
    "unsquash",
    "userns",
    "writable",
    "writable-tmpfs",
)

#: Truths as Go's strconv.ParseBool reads them.
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})


def variable_patterns(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """Environment variables that may change a plan."""
    keys = [key for option in _ASKED for key in _keys(option)]
    names = [f"{prefix}_{key}" for prefix in prefixes for key in keys]
    # The shell's name of the working directory, which the launcher mounts by it.
    names.append("PWD")
    # Which of two variables for the container counts is Apptainer's to say, if both are the user's. What ours are added
    # to is in the first one's name as well.
    names += (f"{prefix}ENV_LD_LIBRARY_PATH" for prefix in prefixes)
    return (*names, *(f"{prefix}ENV_*" for prefix in prefixes[1:]))


def _keys(option: str) -> tuple[str, ...]:
    return _KEYS.get(option, (option.upper().replace("-", "_"),))


@dataclass(frozen=True)
class Configuration:
    """``apptainer.conf``: directives in its words; one that may be repeated has several values.

    Attributes:
        path: the file that they are from.

    """

    directives: Mapping[str, tuple[str, ...]]
    path: str = ""

    def says(self, directive: str, default: str = "yes") -> str:
        """The directive's (last) value."""
        return self.directives.get(directive, (default,))[-1]

    def all(self, directive: str) -> tuple[str, ...]:
        """Every value of a directive."""
        return self.directives.get(directive, ())


def read_configuration(path: str, witness: Witness) -> Configuration:
    """The administrator's configuration; where it can't be read, its defaults (the launcher will complain)."""
    witness.saw(path, "content")
    try:
        with open_regular(os.path.realpath(path)) as stream:
            text = stream.read().decode("utf-8", "surrogateescape")
    except OSError:
        return Configuration({}, path)
    return parse_configuration(text, path)


def parse_configuration(text: str, path: str = "") -> Configuration:
    """``name = value`` lines; ``#`` begins a comment."""
    directives: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.lstrip().startswith("#"):
            key = name.strip()
            directives[key] = (*directives.get(key, ()), value.strip())
    return Configuration(directives, path)


@dataclass(frozen=True)
class Settings:
    """One launch's settings: the command line counts before a variable, and a variable before the configuration."""

    invocation: Invocation
    profile: Profile
    environ: Mapping[str, str]
    configuration: Configuration

    @property
    def name(self) -> str:
        """What the launcher is called."""
        return "apptainer" if self.prefixes[0] == "APPTAINER" else "singularity"

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Prefixes of the launcher's variables, the preferred one first."""
        return tuple(self.capability("prefixes").split(","))

    def capability(self, name: str) -> str:
        """What was found out of the launcher, or ""."""
        return dict(self.profile.capabilities).get(name, "")

    def given(self, option: str) -> list[str]:
        """Values of an option on the command line; of a switch, "true" for each."""
        name = f"--{option}"
        found = (given for given in self.invocation.given if name in given.option.names)
        return [given.value if given.value is not None else "true" for given in found]

    def from_environment(self, option: str) -> Iterator[str]:
        """Values of the variables that stand for an option, the preferred ones first."""
        return (value for _, value in self.variables(option))

    def variables(self, option: str) -> Iterator[tuple[str, str]]:
        """The same with the variables' names."""
        names = (f"{prefix}_{key}" for prefix in self.prefixes for key in _keys(option))
        return ((name, self.environ[name]) for name in names if self.environ.get(name, "").strip())

    def is_given(self, option: str) -> bool:
        """Whether an option or a variable for it is there, whatever its value."""
        return bool(self.given(option)) or any(self.from_environment(option))

    def is_on(self, option: str) -> bool:
        """Whether a switch is on."""
        given = self.given(option) or list(self.from_environment(option))[:1]
        return bool(given) and given[-1].strip() in _TRUE

    def values(self, option: str) -> list[str]:
        """Values of an option; a variable counts only where the command line has none."""
        return self.given(option) or list(self.from_environment(option))[:1]

    def all_values(self, option: str) -> list[tuple[str, str]]:
        """Values of an option whose variables are added to the command line's, each after what it was given by."""
        given = ((f"--{option} ", value) for value in self.given(option))
        return [*given, *((f"{name}=", value) for name, value in self.variables(option))]

    @property
    def is_compatible(self) -> bool:
        """``--compat``, which stands for several others."""
        return self.is_on("compat")

    @property
    def is_contained(self) -> bool:
        """Home, /dev and directories for temporary files are not the host's."""
        return self.is_on("contain") or self.is_on("containall") or self.is_compatible

    @property
    def evaluates(self) -> bool:
        """Whether values of variables are evaluated by a shell."""
        return not (self.is_on("no-eval") or self.is_compatible)

    @property
    def without(self) -> frozenset[str]:
        """What ``--no-mount`` leaves out."""
        return frozenset(name.strip() for value in self.values("no-mount") for name in value.split(","))

    def left_out(self, name: str, meaning: str) -> Problem:
        """What it means that a mount of the launcher's own is not made, by whoever says so."""
        if name not in self.without:
            return Problem(self.configuration.path, f"'mount {name} = no': {meaning}", "ask the administrator")
        if self.given("no-mount"):
            return Problem(f"--no-mount {name}", meaning, "leave it out")
        variable, value = next(self.variables("no-mount"))
        return Problem(f"{variable}={value}", meaning, f"leave {name!r} out")

    @property
    def dev(self) -> Dev:
        """How the container's /dev is made."""
        if "dev" in self.without or self.configuration.says("mount dev") == "no":
            return "no"
        return "minimal" if self.is_contained or self.configuration.says("mount dev") == "minimal" else "yes"

    @property
    def is_setuid(self) -> bool:
        """The launcher mounts as root, not in a user namespace."""
        if os.geteuid() == 0:
            return True
        return (
            self.capability("setuid") == "yes"
            and self.configuration.says("allow setuid") == "yes"
            and not (self.is_on("userns") or self.is_on("fakeroot"))
        )
