"""A backend that somebody else wrote, for the launcher lab-run. It is found by its entry point, and nowhere named."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cdi_hpc.backend import Dressing, Invocation, Keep, Located, Option, Profile, StagePath, Text, Variable
from cdi_hpc.container.compose import Composition, compose
from cdi_hpc.container.stage import assemble
from cdi_hpc.container.steps import MakeDirectory, MakeFile
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.host import Host
from cdi_hpc.images.image_files import HostFiles
from cdi_hpc.mountinfo import mount_points
from cdi_hpc.plan import Plan, SetEnv, Unsupported
from cdi_hpc.witness import Witness

#: Of the devices that launches in these tests ask for.
KIND = "lab.example/thing"

OPTIONS = (
    Option(("-b", "--bind"), "required", "plan"),
    Option(("-v", "--verbose"), "none", "keep"),
    Option(("--color",), "optional", "keep"),
    Option(("--dressed",), "none", "plan"),
    Option(("--environment",), "none", "keep"),
    Option(("--exit",), "required", "keep"),
    Option(("--kill",), "required", "keep"),
    Option(("--look",), "required", "keep"),
    Option(("--stage",), "required", "keep"),
    Option(("--stdin",), "none", "keep"),
    Option(("--help",), "none", "help"),
    Option(("--version",), "none", "leave"),
    Option(("-d", "--cdi"), "optional", "device"),
    Option(("--device",), "required", "device"),
    Option(("--cdi-dirs",), "required", "cdi-dirs"),
    Option(("--lacking",), "required", "switch"),
)


class LabBackend:
    name = "lab"
    commands = ("lab-run",)

    def probe(self, program: str) -> Profile:
        asked = os.environ.get("LAB_PROBES")
        if asked:
            with open(asked, "a", encoding="utf-8") as stream:
                stream.write(f"{program}\n")
        help_text = "Also:\n  --device=DEVICE\n"
        return Profile("lab", os.path.realpath(program), "getopt", OPTIONS, variables=("LAB_SETTING",), help=help_text)

    def locate(self, invocation: Invocation, profile: Profile, environ: Mapping[str, str], image_place: str) -> Located:
        path = os.path.realpath(invocation.image)
        if not os.path.isdir(path):
            raise CdiError(Problem(f"image {invocation.image}", "is no directory", "name one"))
        return Located(path, "directory", HostFiles(path), path)

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
        names = {name for given in invocation.given for name in given.option.names}
        words = [
            Keep(given.index + n)
            for given in invocation.given
            if given.option.use in ("plan", "keep")
            for n in range(given.count)
        ]
        lacking = [given.value or "" for given in invocation.given if "--lacking" in given.option.names]
        settings = [action for action in plan.actions if isinstance(action, SetEnv)]
        assembly = assemble(plan.actions, located.place, witness)
        steps = compose(assembly, Composition("overlay", mount_points())) if "--dressed" in names else ()
        return Dressing(
            words=(StagePath("--stage=", "own/file", ":x"), *words, Text("--"), Keep(invocation.image_index)),
            variables=(
                *(Variable(action.name, action.value) for action in settings),
                Variable("LAB_DEFAULT", "the backend's", default=True),
            ),
            steps=tuple(steps),
            place=located.place,
            stage=(MakeDirectory("own"), MakeFile("own/file", b"staged\n")),
            lacks=tuple(
                Unsupported(f"edit {text}", "lab-run can't", plan.actions[0].origin, fatal=text == "fatal")
                for text in lacking
            ),
            messages=("lab-run was told",),
        )
