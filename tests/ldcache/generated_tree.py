"""Root directories as hypothesis makes them: libraries, links and what only looks like them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, Union

import tiny_elf
from hypothesis import strategies as st

DIRECTORIES = (
    "/usr/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/vdpau",
    "/usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v2",
    "/usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v3",
    "/opt/a",
    "/opt/a/glibc-hwcaps/x86-64-v3",
    "/opt/b",
)
FIXED_LINKS = {"/lib": "usr/lib", "/opt/c": "/opt/b", "/opt/b2": "../usr/../opt/./b"}

NAMES = (
    "liba.so",
    "liba.so.1",
    "liba.so.01",
    "liba.so.1.2",
    "liba.so.1.10",
    "liba.so.2",
    "libb.so",
    "libb.so.1",
    "libb.so.1.0.0",
    "libb-2.so",
    "libB.so.3000000000",
    "libé.so.1",
    "lib\udcff.so.1",
    "ld-x.so.2",
    "ld.so.1",
    "notalib.so.1",
    "liba.so.1.2-gdb.py",
    "liba.so.1.#prelink#",
    "lib.so",
)
SONAMES = (
    None,
    "liba.so",
    "liba.so.1",
    "liba.so.01",
    "liba.so.2",
    "libb.so.1",
    "libb.so.1.0",
    "ld-x.so.2",
    "other.so.1",
    "lib\udcff.so.1",
)
LINES = (
    *("/opt/a", "/opt/b", "/opt/b/", "/opt/c", "/opt/b2", "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu"),
    *("/usr/lib/x86_64-linux-gnu/vdpau", "/opt/../opt/a//", "/nowhere", "opt/a", " \t/opt/a \t", "/opt/b # why"),
    *("# only a comment", "", "/", "hwcap 1 nosegneg", "/opt/a/../b", "/opt/a/glibc-hwcaps/x86-64-v3"),
    *("include /etc/ld.so.conf.d/*.conf", "include  /etc/more.conf\t/etc/none.conf", "include more.conf"),
    *("include /etc/ld.so.conf.d/[a-c]?.conf", "include /etc/../etc/m*", "INCLUDE x"),
)


class Link(NamedTuple):
    points_to: str


Content = Union[bytes, Link]
Files = dict[str, Content]


def _elves() -> st.SearchStrategy[bytes]:
    machines = st.sampled_from(
        [
            (tiny_elf.CLASS64, tiny_elf.EM_X86_64),
            (tiny_elf.CLASS64, tiny_elf.EM_X86_64),
            (tiny_elf.CLASS64, tiny_elf.EM_X86_64),
            (tiny_elf.CLASS32, tiny_elf.EM_386),
            (tiny_elf.CLASS32, tiny_elf.EM_X86_64),
            (tiny_elf.CLASS64, tiny_elf.EM_AARCH64),
        ]
    )
    return st.builds(
        lambda soname, machine, elf_type, isa, base: tiny_elf.shared_object(
            soname, kind=machine[0], machine=machine[1], elf_type=elf_type, isa_needed=isa, base=base
        ),
        st.sampled_from(SONAMES),
        machines,
        st.sampled_from([tiny_elf.ET_DYN] * 9 + [tiny_elf.ET_EXEC]),
        st.sampled_from([0, 0, 1, 2, 4, 5, 8]),
        st.sampled_from([0, 0x1000]),
    )


def _no_elves() -> st.SearchStrategy[bytes]:
    script = b"/* GNU ld script */ GROUP ( /lib/libc.so.6 )\n" + b" " * 64
    return st.sampled_from([b"", b"\x7fELF", script, b"text" * 30])


def _links() -> st.SearchStrategy[Link]:
    same = st.sampled_from(NAMES)
    other = st.tuples(st.sampled_from(DIRECTORIES), st.sampled_from(NAMES)).map("/".join)
    up = st.sampled_from(NAMES).map("../{}".format)
    return st.one_of(same, same, same, other, up, st.just("/nowhere"), st.just(".")).map(Link)


def files(min_size: int) -> st.SearchStrategy[Files]:
    paths = st.tuples(st.sampled_from(DIRECTORIES), st.sampled_from(NAMES)).map("/".join)
    content = st.sampled_from("eeeeeellln").flatmap({"e": _elves(), "l": _links(), "n": _no_elves()}.__getitem__)
    return st.dictionaries(paths, content, min_size=min_size, max_size=2 * min_size)


def configurations() -> st.SearchStrategy[Files]:
    """No file includes itself: ldconfig would go on until it has no file descriptors left."""

    def text(lines: tuple[str, ...]) -> st.SearchStrategy[bytes]:
        chosen = st.lists(st.sampled_from(lines), max_size=4)
        return chosen.map(lambda lines: "\n".join(lines).encode() + b"\n")

    drop_in = text(tuple(line for line in LINES if not line.startswith("include")))
    return st.fixed_dictionaries(
        {},
        optional={
            "/etc/ld.so.conf": text(LINES),
            "/etc/ld.so.conf.d/aa.conf": drop_in,
            "/etc/ld.so.conf.d/zz.conf": drop_in,
            "/etc/more.conf": drop_in,
        },
    )


def make(root: Path, tree: Files) -> None:
    for directory in DIRECTORIES:
        (root / directory[1:]).mkdir(parents=True, exist_ok=True)
    (root / "etc/ld.so.conf.d").mkdir(parents=True, exist_ok=True)
    (root / "etc/debian_version").write_text("12.0\n")
    for path, points_to in FIXED_LINKS.items():
        if not os.path.lexists(root / path[1:]):
            (root / path[1:]).symlink_to(points_to)
    put(root, tree)


def put(root: Path, tree: Files) -> None:
    for path, content in tree.items():
        where = root / path[1:]
        where.unlink(missing_ok=True)
        where.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            where.symlink_to(content.points_to)
        else:
            where.write_bytes(content)
