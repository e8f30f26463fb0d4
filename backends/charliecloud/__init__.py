"""Charliecloud: ``ch-run``."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from cdi_hpc.backend import Dressing, Invocation, Located, Profile, Ways
from cdi_hpc.backends.charliecloud import dressing, images, options
from cdi_hpc.compiled.cache_key import PATH_VARIABLES
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.host import Host
from cdi_hpc.launch.profile import SCRIPTS_VARIABLE, own_refusal
from cdi_hpc.plan import Plan
from cdi_hpc.witness import Witness

#: Build options that ``--feature`` tells of.
_FEATURES = ("squash", "overlayfs", "seccomp")

#: Options that later releases have.
_OPTIONAL = ("set-env", "write-fake", "cdi")

#: Seconds for a launcher on a slow file system to print its help.
_PATIENCE = 30


class Charliecloud:
    """Unprivileged containers by ``ch-run`` (Charliecloud 0.31 and later)."""

    name = "charliecloud"
    commands: tuple[str, ...] = ("ch-run",)
    ways = Ways(
        variable="--set-env",
        node="seen in the host's /dev, which ch-run binds",
        mount="bind mount over the image, in a mount namespace of ours",
        filesystem="new mount over the image, in a mount namespace of ours",
        link="link in a layer over the image, in a mount namespace of ours",
        file="file in a layer over the image, in a mount namespace of ours",
        loader_cache="ld.so.cache merged in a layer over the image",
    )

    def probe(self, program: str) -> Profile:
        """See :class:`cdi_hpc.backend.Backend`."""
        path = os.path.realpath(program)
        help_text = _said(path, "--help")
        table = options.option_table(help_text)
        if not table:
            what = "--help lists no options"
            raise CdiError(Problem(path, what, "is it Charliecloud's ch-run? Run it with --help"))
        theirs = options.listed_names(help_text)
        has = [(name, _yes(f"--{name}" in theirs)) for name in _OPTIONAL]
        return Profile(
            backend=self.name,
            program=path,
            style="getopt",
            options=table,
            variables=("CH_IMAGE_STORAGE", "HOME", "TMPDIR", "USER"),
            capabilities=(
                ("cdi-dirs-variable", "CH_RUN_CDI_DIRS"),
                (PATH_VARIABLES, "CH_IMAGE_STORAGE,HOME,TMPDIR"),
                *has,
                *((name, _feature(path, name)) for name in _FEATURES),
            ),
            help=options.HELP,
        )

    def locate(self, invocation: Invocation, profile: Profile, environ: Mapping[str, str], image_place: str) -> Located:
        """See :class:`cdi_hpc.backend.Backend`."""
        return images.locate(invocation, profile, environ, image_place)

    def adapt(
        self,
        plan: Plan,
        invocation: Invocation,
        profile: Profile,
        located: Located,
        host: Host,
        environ: Mapping[str, str],
        witness: Witness,
    ) -> Dressing:
        """See :class:`cdi_hpc.backend.Backend`."""
        return dressing.dress(plan, invocation, profile, located, host, environ, witness)


def _run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    # Without the user's ARGP_HELP_FMT and language, which change what is printed; ch-run insists on a USER.
    environ = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "USER": "nobody"}
    if SCRIPTS_VARIABLE in os.environ:
        environ[SCRIPTS_VARIABLE] = os.environ[SCRIPTS_VARIABLE]
    try:
        return subprocess.run(
            [program, *words],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except OSError as error:
        raise CdiError(Problem(program, f"can't be executed: {error.strerror}", "check the PATH")) from None
    except subprocess.TimeoutExpired:
        raise CdiError(Problem(program, f"{words[0]} has not ended in {_PATIENCE} s")) from None


def _said(program: str, word: str) -> str:
    done = _run(program, word)
    if done.returncode != 0:
        ours = own_refusal(done.stderr)
        if ours is not None:
            raise ours
        said = done.stderr.strip().splitlines()
        what = f"{word} failed with exit status {done.returncode}{': ' + said[-1] if said else ''}"
        raise CdiError(Problem(program, what, "run it by hand"))
    return done.stdout


def _feature(program: str, name: str) -> str:
    """Whether it was built with something; ``unknown`` where this release does not tell."""
    done = _run(program, "--feature", name)
    if done.returncode != 0 and "unknown feature" in done.stderr:
        return "unknown"
    return _yes(done.returncode == 0)


def _yes(is_so: bool) -> str:  # noqa: FBT001  # a word for a truth value
    return "yes" if is_so else "no"
