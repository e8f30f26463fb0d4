"""Generated specs as files: written whole, renamed, and only where something changed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.generate.build import Generated, as_yaml
from cdi_hpc.generate.recipe import Recipe

#: How a file of ours begins. Any other is somebody's own and is not written over.
MARK = "# Made by 'cdi-hpc generate'"

Outcome = Literal["written", "unchanged", "removed"]


@dataclass(frozen=True)
class Stored:
    """What became of a file."""

    path: str
    generated: Generated
    outcome: Outcome


def text_of(spec: Mapping[str, Any], recipe: Recipe) -> str:
    """A spec as the text of a file: YAML, the same for the same spec."""
    return f"{MARK} (recipe {recipe.name}); what is changed here is lost.\n{as_yaml(spec)}"


def file_name(recipe: Recipe) -> str:
    """Name of a recipe's spec file: VENDOR-CLASS, as the specification recommends."""
    return recipe.kind.replace("/", "-") + ".yaml"


def store(results: Iterable[Generated], directory: str, *, force: bool = False) -> list[Stored]:
    """Bring the spec files of a directory up to date.

    The file of recipes that found nothing is removed if it is ours. Nothing is written if anything is wrong.

    Args:
        results: what was generated.
        directory: is made if it is not there.
        force: write over files that are not ours.

    Raises:
        CdiError: a file that is not ours is in the way, two recipes have a spec for one file, or a file can't be
            written.

    """
    by_path: dict[str, list[Generated]] = {}
    for result in results:
        by_path.setdefault(os.path.join(directory, file_name(result.recipe)), []).append(result)
    problems = [problem for path, found in by_path.items() for problem in _in_each_others_way(path, found)]
    wanted = [(path, _of_one_file(found)) for path, found in by_path.items()]
    if not force:
        problems += (problem for path, result in wanted for problem in _in_the_way(path, result))
    if problems:
        raise CdiError(problems)
    try:
        _make_directory(directory)
        return [stored for path, result in wanted for stored in _bring_up_to_date(path, result)]
    except OSError as error:
        # Not the file that the error names: that may be one under a name of the moment.
        fix = "become root, or take a directory of your own" if isinstance(error, PermissionError) else ""
        raise CdiError(Problem(directory, f"{error.strerror}", fix)) from None


def _make_directory(path: str) -> None:
    """A directory and those above it, for everybody to look into, whatever the umask."""
    if not path or os.path.isdir(path):
        return
    _make_directory(os.path.dirname(path.rstrip("/")))
    try:
        os.mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):  # else another of us was quicker
            raise
    else:
        os.chmod(path, 0o755)  # noqa: S103 - that is what it is for


def _of_one_file(results: Sequence[Generated]) -> Generated:
    """The result that a file is for: the one with a spec, if there is one."""
    return next((result for result in results if result.spec is not None), results[0])


def _in_each_others_way(path: str, results: Sequence[Generated]) -> Iterable[Problem]:
    recipes = [result.recipe for result in results if result.spec is not None]
    if len(recipes) > 1:
        named = " and ".join(f"{recipe.name!r} ({recipe.path})" for recipe in recipes)
        fix = "name one of them; or give yours the name of the other, whose place it takes then"
        yield Problem(path, f"several recipes have a spec for this file: {named}", fix)


def _in_the_way(path: str, result: Generated) -> Iterable[Problem]:
    if result.spec is not None and _begins(path) not in (None, True):
        yield Problem(path, "was not made by 'cdi-hpc generate'", "--force writes over it")


def _begins(path: str) -> bool | None:
    """Whether a file is ours; None if there is none."""
    try:
        with open(path, "rb") as stream:
            return stream.read(len(MARK)) == MARK.encode()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CdiError(Problem(path, f"{error.strerror}")) from None


def _bring_up_to_date(path: str, result: Generated) -> Iterable[Stored]:
    if result.spec is None:
        if _begins(path):
            os.unlink(path)
            yield Stored(path, result, "removed")
        return
    content = text_of(result.spec, result.recipe).encode()
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as stream:
        if stream.read() == content:
            yield Stored(path, result, "unchanged")
            return
    _write(path, content)
    yield Stored(path, result, "written")


def _write(path: str, content: bytes) -> None:
    """Whoever reads the directory sees the old file or the new one; its readers may be anybody."""
    fd, temporary = tempfile.mkstemp(prefix=".cdi-hpc-", dir=os.path.dirname(path))
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(fd, 0o644)
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
