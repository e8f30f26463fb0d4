"""Manual pages as pages of the site: from the very text that man(1) shows (:mod:`cdi_hpc.cli.manual`).

Known are the requests and characters that this one writer of ours uses (man(7), groff_char(7)). Others are an error,
so that none is shown as it was not meant.
"""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Iterator, Mapping

from cdi_hpc.cli import manual

_CHARACTERS: Mapping[str, str] = {
    "\\-": "-",
    "\\e": "\\",
    "\\&": "",
    "\\(aq": "'",
    "\\(ga": "`",
    "\\(ha": "^",
    "\\(ti": "~",
    "\\fB": "<strong>",
    "\\fR": "</strong>",
}
_ESCAPE = re.compile(r"\\(?:\(..|f.|.)")


def pages() -> dict[str, str]:
    """Every manual page in Markdown, by its name without the section's number.

    Raises:
        ValueError: a page has something that is not known here.

    """
    written = manual.pages()
    names = [posixpath.basename(path).rpartition(".")[0] for path in written]
    return {name: "\n".join(_Page(names).translated(text)) + "\n" for name, text in zip(names, written.values())}


def _inline(text: str) -> str:
    def character(escape: re.Match[str]) -> str:
        if escape[0] not in _CHARACTERS:
            raise ValueError(f"unknown escape {escape[0]!r} in {text!r}")
        return _CHARACTERS[escape[0]]

    return _ESCAPE.sub(character, html.escape(text, quote=False))


class _Page:
    """One page, from top to bottom. A part under a heading is one block of HTML: it has no empty line in it."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._open: list[str] = []

    def translated(self, text: str) -> Iterator[str]:
        lines = iter(text.splitlines())
        for line in lines:
            if not line.startswith("."):
                yield from self._text(line)
                continue
            request, _, rest = line.partition(" ")
            if request == ".TP":
                yield from self._term(next(lines))
            else:
                yield from self._request(request, rest)
        yield from self._closed(0)

    def _text(self, line: str) -> Iterator[str]:
        if self._open[-1:] == ["pre"]:
            yield _inline(line)
        else:
            yield f"<p>{_inline(line)}</p>" if not self._open else _inline(line)

    def _term(self, line: str) -> Iterator[str]:
        if self._open[-1:] == ["dd"]:
            yield from self._closed(len(self._open) - 1)
        else:
            yield from self._opened("dl")
        yield f"<dt>{_inline(line)}</dt>"
        yield from self._opened("dd")

    def _request(self, request: str, rest: str) -> Iterator[str]:
        if request == ".TH":
            name, section = rest.split(" ")[:2]
            yield f"# {_inline(name.lower())}({section})"
        elif request in (".SH", ".SS"):
            yield from self._closed(0)
            yield f"\n## {_inline(rest.capitalize())}\n" if request == ".SH" else f"\n### {_inline(rest)}\n"
        elif request == ".PP":
            yield from self._closed(0)
        elif request == ".IP":
            yield "<br>"
        elif request == ".nf":
            yield from self._opened("pre")
        elif request == ".fi":
            yield from self._closed(len(self._open) - 1)
        elif request == ".RS":
            yield from self._opened("div")
        elif request == ".RE":
            yield from self._closed(len(self._open) - 1 - self._open[::-1].index("div"))
        elif request == ".BR":
            yield self._reference(rest)
        else:
            raise ValueError(f"unknown request {request!r}")

    def _opened(self, element: str) -> Iterator[str]:
        self._open.append(element)
        yield f"<{element}>"

    def _closed(self, depth: int) -> Iterator[str]:
        """Close elements until so many are open."""
        while len(self._open) > depth:
            yield f"</{self._open.pop()}>"

    def _reference(self, rest: str) -> str:
        name, section, *comma = rest.split(" ")
        name = _inline(name)
        if name not in self._names:
            raise ValueError(f"no page {name}{section}")
        return f"[{name}{section}]({name}.md){''.join(comma)}"
