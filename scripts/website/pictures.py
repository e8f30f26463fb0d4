"""Terminals as pictures: docs/images/NAME.svg, from what commands show (:mod:`scripts.website.terminal`)."""

from __future__ import annotations

import html
import io
import json
import re
import subprocess
from pathlib import Path

from rich.console import Console
from rich.text import Text

from scripts.website.terminal import COLUMNS, COMMANDS

#: As rich's own, but for its fonts: those come from another host. What stands in braces is rich's to fill in.
_FORMAT = """<svg class="rich-terminal" role="img" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<title>TITLE</title>
<desc>CONTENT</desc>
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px;
  line-height: {line_height}px;
}}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""

_CONTENT = re.compile(r"<desc>(.*?)</desc>", re.DOTALL)


def plain(shown: str) -> str:
    """What a terminal shows, without its escapes, and without blanks at the ends of lines."""
    return "\n".join(line.rstrip() for line in Text.from_ansi(shown).plain.splitlines())


def render(name: str, shown: str) -> str:
    """What a terminal shows as SVG. Who can't see it reads the text, which is its description."""
    title = " ".join(COMMANDS[name])
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(shown), end="", soft_wrap=True)
    drawn = console.export_svg(title=title, code_format=_FORMAT, unique_id=f"cdi-hpc-{name}")
    drawn = drawn.replace("TITLE", html.escape(title), 1)
    return drawn.replace("CONTENT", html.escape(plain(shown), quote=False), 1)


def content(drawn: str) -> str:
    """The text of a picture."""
    found = _CONTENT.search(drawn)
    if found is None:
        raise ValueError("no picture of a terminal")
    return html.unescape(found[1])


def take(project: Path) -> None:
    """Take all pictures, in the lab. Its host and the native runner have to be built (tests/lab/build)."""
    argv = [str(project / "tests/lab/enter"), "--", "python3", "-m", "scripts.website.terminal"]
    taken = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)
    directory = project / "docs/images"
    directory.mkdir(exist_ok=True)
    for name, shown in taken.items():
        (directory / f"{name}.svg").write_text(render(name, shown), "utf-8")
