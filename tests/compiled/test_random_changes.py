"""Whatever is edited in whatever order, a launch from the cache sees what a launch from scratch sees."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from compiled_launch import Site, copy_image, driver_library, make_site
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

#: Places in the image that the spec, the loader or the accounts are about, and some that nobody is.
PLACES = (
    "opt",
    "opt/lab",
    "opt/lab/file",
    "opt/lab/link",
    "opt/lab/directory",
    "usr/lib/lab",
    "usr/lib/lab/libthing.so",
    "usr/lib/lab/libthing.so.1.5",
    "usr/local/lib/libother.so.1",
    "etc/ld.so.conf.d/new.conf",
    "etc/passwd",
    "etc/group",
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/resolv.conf",
    "tmp",
    "var/unrelated",
)

CONTENTS = (b"", b"/opt/lab\n", b"me:x:59999:59999::/:/bin/sh\n", b"include ld.so.conf.d/*.conf\n")

LINKS = ("/usr/local", "../var", "file", "/opt/lab", "nowhere", "../../../../etc", "opt")

SOURCES = ("file", "directory", "libthing.so.1.5", "current")

SPECS = ("a.yaml", "b.json", "ignored.txt")

DIRECTORIES = ("low", "high")


class Edits(RuleBasedStateMachine):
    """One user's machine, edited at random; after each edit both runners launch."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp())
        self.clock = 0

    @initialize()
    def install(self) -> None:
        self.site = make_site(self.top / "site", self.template)
        (self.site.driver / "current").symlink_to("directory")
        for name in DIRECTORIES:
            (self.site.top / name).mkdir()
        self.site.more = tuple(word for name in DIRECTORIES for word in ("--cdi-dir", f"{self.site.top}/{name}"))
        self.spec = self.site.specs / "lab.yaml"
        shutil.copy(self.spec, self.site.top / "low" / "a.yaml")

    def teardown(self) -> None:
        shutil.rmtree(self.top, ignore_errors=True)

    @rule(place=st.sampled_from(PLACES), content=st.sampled_from(CONTENTS), in_place=st.booleans())
    def write_in_image(self, place: str, content: bytes, in_place: bool) -> None:  # noqa: FBT001  # hypothesis passes it by name
        self.put(self.site.image / place, content, in_place=in_place)

    @rule(place=st.sampled_from(PLACES), text=st.sampled_from(LINKS))
    def link_in_image(self, place: str, text: str) -> None:
        path = self.site.image / place
        if self.make_way(path):
            path.symlink_to(text)

    @rule(place=st.sampled_from(PLACES), mode=st.sampled_from([0o755, 0o555, 0o700, 0o1777]))
    def make_directory_in_image(self, place: str, mode: int) -> None:
        path = self.site.image / place
        if path.is_dir() and not path.is_symlink():
            path.chmod(mode)
        elif self.make_way(path):
            path.mkdir()
            path.chmod(mode)

    @rule(place=st.sampled_from(PLACES))
    def remove_from_image(self, place: str) -> None:
        self.make_way(self.site.image / place)

    @rule(name=st.sampled_from(SOURCES), library=st.sampled_from(["libcuda", "libnvidia-ml"]), in_place=st.booleans())
    def replace_source(self, name: str, library: str, in_place: bool) -> None:  # noqa: FBT001  # hypothesis passes it by name
        self.put(self.site.driver / name, driver_library(library).read_bytes(), in_place=in_place)

    @rule(name=st.sampled_from(SOURCES))
    def make_source_a_directory(self, name: str) -> None:
        path = self.site.driver / name
        if self.make_way(path):
            path.mkdir()
            (path / "entry").write_text("entry\n")

    @rule(name=st.sampled_from(SOURCES), points_to=st.sampled_from(SOURCES))
    def make_source_a_link(self, name: str, points_to: str) -> None:
        path = self.site.driver / name
        if self.make_way(path):
            path.symlink_to(points_to)

    @rule(
        directory=st.sampled_from(DIRECTORIES),
        name=st.sampled_from(SPECS),
        value=st.sampled_from(["from the spec", "FROM THE SPEC", "from another"]),
        source=st.sampled_from(SOURCES),
        in_place=st.booleans(),
    )
    def write_spec(self, directory: str, name: str, value: str, source: str, in_place: bool) -> None:  # noqa: FBT001  # as above
        text = self.spec.read_text().replace("from the spec", value).replace("driver/file", f"driver/{source}")
        self.put(self.site.top / directory / name, text.encode(), in_place=in_place)

    @rule(directory=st.sampled_from(DIRECTORIES), name=st.sampled_from(SPECS))
    def remove_spec(self, directory: str, name: str) -> None:
        (self.site.top / directory / name).unlink(missing_ok=True)

    @rule()
    def put_everything_right(self) -> None:
        """Else most runs would end among refusals."""
        shutil.rmtree(self.site.image)
        copy_image(self.template, self.site.image)
        shutil.rmtree(self.site.driver)
        (self.site.driver / "directory").mkdir(parents=True)
        (self.site.driver / "file").write_text("from the host\n")
        (self.site.driver / "current").symlink_to("directory")
        shutil.copy(driver_library("libnvidia-ml"), self.site.driver / "libthing.so.1.5")
        for name in SPECS:
            (self.site.top / "low" / name).unlink(missing_ok=True)
            (self.site.top / "high" / name).unlink(missing_ok=True)
        shutil.copy(self.spec, self.site.top / "low" / "a.yaml")

    @invariant()
    def the_cache_is_right(self) -> None:
        if hasattr(self, "spec"):
            assert seen(self.site) == seen(self.site, python=True)

    # ------------------------------------------------------------------------------------------------------------

    def put(self, path: Path, content: bytes, *, in_place: bool) -> None:
        """Write a file whose times are not newer than the old one's: only the inode's own time tells."""
        if (in_place and path.is_file() and not path.is_symlink()) or self.make_way(path):
            path.write_bytes(content)
            os.utime(path, ns=(0, 0))

    @staticmethod
    def make_way(path: Path) -> bool:
        """Whether something can be made at a path now."""
        if not path.parent.is_dir() or path.parent.is_symlink() or not os.access(path.parent, os.W_OK):
            return False
        if path.is_dir() and not path.is_symlink():
            for directory in (path, *(found for found in path.rglob("*") if found.is_dir() and not found.is_symlink())):
                directory.chmod(0o755)
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return True


def seen(site: Site, *, python: bool = False) -> list[str]:
    """What the container sees, or what is said in its place."""
    done = site.launch("sh", "-c", "true", python=python)
    if done.returncode:
        return done.stderr.decode("utf-8", "backslashreplace").splitlines()
    return [*site.content(python=python), *done.stderr.decode("utf-8", "backslashreplace").splitlines()]


LONG = "CDI_HPC_LONG" in os.environ


def test_a_launch_from_the_cache_sees_what_one_from_scratch_sees(template):
    machine = type("Machine", (Edits,), {"template": template})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100 if LONG else 3,
            stateful_step_count=12 if LONG else 5,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
