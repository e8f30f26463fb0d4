"""What arrives in bash is byte for byte what the plan says: run for real, many strings to a process."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from render_cases import HOSTILE_ORIGIN, PIECES, as_bytes, hostile_strings

from cdi_hpc.plan import (
    Action,
    Bind,
    CudaCompat,
    MountFilesystem,
    Note,
    Plan,
    SetEnv,
    Symlink,
    Unsupported,
    UpdateLdCache,
    WriteFile,
)
from cdi_hpc.render.bash import quote, script
from cdi_hpc.spec.model import Origin

#: In place of the functions that act: their arguments, each with a NUL after it.
PRINTERS = r"""
environment=()
for name in bind link filesystem ldcache cuda_compat; do
  eval "$name() { printf '%s\\0' $name \"\$@\"; }"
done
file() { printf '%s\0' file "$1" "$2"; printf %b "$3" | tr '\0' '\1'; printf '\0'; }
plan
printf '%s\0' "${environment[@]}"
"""


def bash(text: str, *, locale: str = "C.UTF-8") -> list[bytes]:
    """Run bash on a file with this text; its output, cut at NUL bytes."""
    done = subprocess.run(
        ["bash", "--norc", "/dev/stdin"],
        input=as_bytes(text),
        capture_output=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": locale},
        check=True,
    )
    assert done.stderr == b""
    return done.stdout.split(b"\0")[:-1]


def sourced(text: str, then: str, tmp_path: Path) -> str:
    path = tmp_path / "sourced.bash"
    path.write_bytes(as_bytes(text))
    return f"source {quote(str(path))}\n{then}"


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_5000_hostile_strings_arrive_as_environment(tmp_path, locale):
    values = hostile_strings(5000, seed=1)
    plan = Plan(("v/c=0",), tuple(SetEnv(f"V{i}", value, HOSTILE_ORIGIN) for i, value in enumerate(values)))
    show = "for ((i = 0; i < 5000; i++)); do n=V$i; printf '%s\\0' \"${!n}\"; done"
    assert bash(sourced(script(plan, only="env"), show, tmp_path), locale=locale) == [
        as_bytes(value) for value in values
    ]


def test_5000_hostile_strings_arrive_in_every_field_of_every_step(tmp_path):
    strings = iter(hostile_strings(5000, seed=2))
    actions: list[Action] = []
    expected: list[bytes] = []
    environment: list[bytes] = []

    def wanted(*words: str) -> None:
        expected.extend(as_bytes(word) for word in words)

    while True:
        some = [next(strings, "") for _ in range(16)]
        if not some[-1]:
            break
        a, b, c, d, e, f, g, h, i, j, k, q, m, n, o, p = some
        origin = Origin(o, p, n + o)
        actions += [
            Bind(a, b, "file", origin, recursive=False),
            Symlink(c, d, origin),
            MountFilesystem(e, f, g, origin),
            CudaCompat(h, i, j, origin),
            UpdateLdCache((k, q), origin),
            WriteFile(m, as_bytes(n) + b"\0\xff", 0o640, origin),
            SetEnv("A", o, origin),
            Note(o, p, origin),
            Unsupported(p, n, origin, fatal=True),
        ]
        wanted("bind", "file", a, b, "bind,rprivate", "link", c, d, "filesystem", e, f, g, "")
        wanted("cuda_compat", h, i, j, "ldcache", k, q, "file", m, "640")
        expected.append(as_bytes(n) + b"\x01\xff")
        environment.append(b"A=" + as_bytes(o))
    text = script(Plan((PIECES[0] + "\n",), tuple(actions)), only="mounts")
    assert bash(sourced(text, PRINTERS, tmp_path)) == expected + environment


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), min_size=20))
def test_any_text_is_one_word_of_bash_on_one_printable_line(strings):
    words = [quote(text) for text in strings]
    assert all(word.isprintable() for word in words)
    assert bash("printf '%s\\0' x " + " ".join(words)) == [b"x", *map(as_bytes, strings)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary().filter(lambda data: b"\0" not in data), min_size=20))
def test_any_bytes_are_one_word_of_bash(strings):
    words = [quote(data.decode("utf-8", "surrogateescape")) for data in strings]
    assert bash("printf '%s\\0' x " + " ".join(words)) == [b"x", *strings]
