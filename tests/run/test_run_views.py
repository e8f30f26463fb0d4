"""Every fact of the reference views, on every image, by overlay and by underlay, however it is launched."""

from __future__ import annotations

import posixpath

import pytest
from launchers import IMAGES, Request, place_of, said, start
from views import view

#: musl's own search path; it has no cache (musl's ldso/dynlink.c).
MUSL_PATH = ("/lib", "/usr/local/lib", "/usr/lib")


@pytest.mark.parametrize("stage", ["overlay", "underlay"])
@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("case", view.CASES, ids=str)
def test_every_fact_of_the_reference_holds(lab, launcher, case, image, stage):
    request = Request((case.device,), (str(case.directory),))
    command = ["sh", "-c", view.INSIDE, "sh", *case.questions()]
    if image == "/":
        # The host has no program to ask its loader with; it can see the lab's.
        command[2] = view.INSIDE.replace("/opt/dlprobe", str(lab.root / "probe" / "dlprobe-glibc"))
    argv = launcher.argv(request, place_of(lab, image), command, stage=stage)
    # The reference image has its libraries where the paths say; in "links" the mounts are where the links lead.
    raw = said(start(argv, env={"RESOLVE_LINKS": "yes"}))
    comparison = view.compare(case.wanted, case.normalise(raw))
    assert [miss for miss in comparison.misses if not is_excused(miss, image, case)] == []


def is_excused(miss: view.Miss, image: str, case: view.Case) -> bool:
    """musl has no cache: what is neither on its own path nor in a folder of an update-ldcache hook, it can't find."""
    if image != "musl":
        return False
    # Whether /lib and /usr/lib are one is the image's affair, and the reference image had them as one.
    folders = {folder.replace("/usr/lib", "/lib") for folder in (*MUSL_PATH, *folders_of(case))}
    found_in = posixpath.dirname(miss.wanted).replace("/usr/lib", "/lib")
    return miss.kind == "cache" or (miss.kind == "dlopen" and found_in not in folders)


def folders_of(case: view.Case) -> list[str]:
    hooks = [hook["args"] for edits in view.all_edits(case.load()) for hook in edits.get("hooks") or []]
    pairs = [pair for args in hooks for pair in zip(args, [*args[1:], ""])]
    return [following if word == "--folder" else word.partition("--folder=")[2] for word, following in pairs]


def test_the_views_ask_of_musl_what_its_loader_can_satisfy():
    excused = [
        miss
        for case in view.CASES
        for miss in view.compare(case.wanted, "").misses
        if miss.kind == "dlopen" and is_excused(miss, "musl", case)
    ]
    assert [miss.thing for miss in excused] == ["libcuda.so.999.88.77"]
