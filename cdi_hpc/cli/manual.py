"""Manual pages, from the commands' own help and from the schema of configuration files.

``python3 -m cdi_hpc.cli.manual DIRECTORY`` writes ``man1/cdi-hpc.1``, a page for each command, and
``man5/cdi-hpc.config.5``. They are written in the macros of man(7). The date is that of ``SOURCE_DATE_EPOCH``, so that
a package can be built twice and be the same.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from cdi_hpc import __version__
from cdi_hpc.cli.commands import cdi_hpc as program
from cdi_hpc.compiled.cache_place import SYSTEM_DIRECTORY
from cdi_hpc.config import SITE_DIRECTORY, schema
from cdi_hpc.generate.recipe import SITE_DIRECTORY as RECIPES

#: Variables that no option stands for, by command; "" for all of them.
_VARIABLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("CDI_HPC_DIRS", "Directories with specs, separated by colons; a later one wins."),
        ("CDI_HPC_STRICT, CDI_HPC_PREFLIGHT, ...", "Keys of the configuration: cdi-hpc.config(5)."),
        ("NO_COLOR", "Where it is set, nothing is coloured."),
        ("FORCE_COLOR", "Where it is set, tables are coloured that go to a file or a pipe, too."),
    ),
    **dict.fromkeys(
        ("run", "exec", "compile", "cache"),
        (
            ("CDI_HPC_DEVICES", "Devices where no option names any, separated by commas; or none."),
            ("CDI_HPC_VERBOSITY", "For drop-ins and exec: 1 as with -v, -1 as with -q."),
            ("XDG_RUNTIME_DIR, TMPDIR", "Where compiled plans are kept: the first that is of use, or /tmp."),
        ),
    ),
}

#: Command lines by command, "" for the program itself: what one is for, and it.
EXAMPLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("Which devices are there?", "cdi-hpc list"),
        ("A command in an image, with a device:", "cdi-hpc run --device nvidia.com/gpu=0 ./image nvidia-smi"),
        (
            "The same through Charliecloud or Apptainer:",
            "cdi-hpc exec ch-run --device nvidia.com/gpu=0 ./image -- nvidia-smi",
        ),
        ("What would it do, and what not?", "cdi-hpc explain nvidia.com/gpu=0"),
        ("What is wrong with this host?", "cdi-hpc doctor"),
    ),
    "cache": (("What is kept, and to be rid of it:", "cdi-hpc cache list"), ("", "cdi-hpc cache clean --all")),
    "compile": (
        ("For launches to come, of all users:", "cdi-hpc compile --system nvidia.com/gpu=all --image /srv/app.sqfs"),
    ),
    "completion": (("For this shell, and for launchers in it:", "cdi-hpc completion bash ch-run apptainer srun"),),
    "config": (
        ("A file before it is put in place:", "cdi-hpc config check ./config.yaml"),
        ("What holds, and who said so:", "cdi-hpc config show --all"),
    ),
    "doctor": (
        ("For a launch that does not work:", "cdi-hpc doctor --image ./image nvidia.com/gpu=0"),
        ("As a node's health check:", "cdi-hpc doctor --slurm --format json"),
    ),
    "exec": (
        ("", "cdi-hpc exec ch-run --device nvidia.com/gpu=0 ./image -- nvidia-smi"),
        ("", "cdi-hpc exec apptainer exec --device nvidia.com/gpu=0 ./image.sif nvidia-smi"),
        ("What is done, step by step:", "cdi-hpc exec -v ch-run --device nvidia.com/gpu=0 ./image -- true"),
    ),
    "explain": (
        ("In an image, on one launcher:", "cdi-hpc explain nvidia.com/gpu=0 --image ./image --for charliecloud"),
        ("What differs between two:", "cdi-hpc explain nvidia.com/gpu=0 --diff embedded apptainer"),
        ("What a new driver's spec changes:", "cdi-hpc explain --diff old.yaml /etc/cdi/nvidia.yaml"),
    ),
    "generate": (
        ("What would be found:", "cdi-hpc generate --list"),
        ("At boot, and whenever a device comes or goes:", "cdi-hpc generate --output /var/run/cdi --watch"),
    ),
    "list": (("With which file won:", "cdi-hpc list -v"),),
    "lock": (
        ("Keep what a job was made from:", "cdi-hpc lock nvidia.com/gpu=all"),
        ("Is it still the same?", "cdi-hpc lock --check job.lock"),
    ),
    "plan": (("", "cdi-hpc plan --image ./image nvidia.com/gpu=0"),),
    "resolve": (("", "cdi-hpc resolve nvidia.com/gpu=0 --format json"),),
    "run": (
        ("", "cdi-hpc run --device nvidia.com/gpu=0 ./image nvidia-smi"),
        ("On the host itself, with a directory more:", "cdi-hpc run -d nvidia.com/gpu=all --bind /scratch / ./a.out"),
        ("What is done, step by step:", "cdi-hpc run -v -d nvidia.com/gpu=0 ./image true"),
    ),
    "script": (("", "cdi-hpc script nvidia.com/gpu=all"),),
    "shims": (("", "cdi-hpc shims ~/.local/share/cdi-hpc/bin"),),
    "validate": (("", "cdi-hpc validate /etc/cdi"),),
}

#: Exit statuses, by command.
_LAUNCHES = (
    ("the command's", "if it was started"),
    ("125", "cdi-hpc failed, or its options were wrong"),
    ("126", "the command can't be executed"),
    ("127", "the command is not there"),
)
_STATUSES: Mapping[str, tuple[tuple[str, str], ...]] = {"run": _LAUNCHES, "exec": _LAUNCHES}
_OTHERS = (
    ("0", "all is well"),
    ("1", "something is wrong, and was said"),
    ("2", "the command line was not understood"),
)

_SPECS = (("/etc/cdi, /var/run/cdi", "CDI specs; in the later one, a device of the same name wins"),)
_PLANS = (
    ("$XDG_RUNTIME_DIR/cdi-hpc, $TMPDIR/cdi-hpc-UID", "compiled plans of a user"),
    (SYSTEM_DIRECTORY, "compiled plans for everybody"),
)
_CONFIGURATION = (
    (f"{SITE_DIRECTORY}/config.yaml", "the administrator's configuration; files in config.d come after it"),
    ("~/.config/cdi-hpc/config.yaml", "a user's own, for keys that a user may set"),
)


#: A configuration of a site, for its page.
EXAMPLE_CONFIGURATION = """\
aliases:
  gpu: nvidia.com/gpu=all
  mpi: [hpe.com/cxi=all, xpmem.org/xpmem=all]
launchers:
  embedded:
    devices: gpu
policy:
  mount-sources:
    rules:
      - allow: /etc/vulkan/**
      - deny: /etc/**
        because: specs have no business there
slurm:
  gres:
    gpu: {kind: nvidia.com/gpu, by: index}
"""

_FILES: Mapping[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(("run", "exec", "compile", "shims"), (*_SPECS, *_PLANS)),
    "cache": _PLANS,
    "completion": (),
    "config": (),
    "generate": (*_SPECS, (RECIPES, "recipes of the site")),
}


# Text in roff ---------------------------------------------------------------------------------------------------------


#: Of a line, in bytes (mandoc complains of more than 80).
_WIDTH = 78

_CHARACTERS = str.maketrans({"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"})


def escaped(text: str) -> str:
    """Text as troff shows it (groff_char(7)): ``-`` is a hyphen there, a dot at the beginning of a line a request."""
    text = text.translate(_CHARACTERS)
    return f"\\&{text}" if text.startswith(".") else text


def _text(text: str) -> Iterator[str]:
    """Running text, in lines as short as manual pages have them."""
    lines = textwrap.wrap(escaped(text), _WIDTH, break_long_words=False, break_on_hyphens=False)
    return (f"\\&{line}" if line.startswith(".") and number else line for number, line in enumerate(lines))


def _bold(text: str) -> str:
    return f"\\fB{escaped(text)}\\fR"


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of a help text; one that begins with a backspace is shown as it is (click's convention)."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", inspect.cleandoc(text))):
        if number:
            yield ".PP"
        lines = paragraph.split("\n")
        if lines[0].strip() == "\b":
            yield from (".nf", *(escaped(line) for line in lines[1:]), ".fi")
        else:
            yield from _text(" ".join(line.strip() for line in lines))


def _head(name: str, section: int, summary: str) -> Iterator[str]:
    date = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    yield f'.TH {name.upper()} {section} {date} "cdi\\-hpc {__version__}"'
    yield ".SH NAME"
    yield f"{escaped(name)} \\- {escaped(summary)}"


def _tagged(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for tag, text in pairs:
        yield from (".TP", _bold(tag), *_text(text))


def _examples(examples: Iterable[tuple[str, str]]) -> Iterator[str]:
    for number, (what, line) in enumerate(examples):
        if number:
            yield ".PP"
        yield from _text(what)
        yield from (".RS 4", ".nf", _bold(line), ".fi", ".RE")


def _see_also(names: Iterable[tuple[str, int]]) -> Iterator[str]:
    yield ".SH SEE ALSO"
    entries = [f".BR {escaped(name)} ({section})" for name, section in names]
    yield from (f"{entry} ," if entry is not entries[-1] else entry for entry in entries)


# Commands -------------------------------------------------------------------------------------------------------------


def _summary(command: click.Command) -> str:
    text = command.get_short_help_str(limit=1000).rstrip(".")
    return text[:1].lower() + text[1:]


def command_page(name: str, command: click.Command, others: Iterable[str]) -> str:
    """The page of a command; of a group, with its subcommands.

    Args:
        name: after ``cdi-hpc``.
        command: the command.
        others: names of all commands.

    """
    called = f"cdi-hpc {name}"
    context = _context(command)
    lines = [*_head(called.replace(" ", "-"), 1, _summary(command)), ".SH SYNOPSIS"]
    subcommands = [*command.commands.items()] if isinstance(command, click.Group) else []
    for sub, below in subcommands:
        lines += _synopsis(f"{called} {sub}", below, _context(below))
    lines += [] if subcommands else _synopsis(called, command, context)
    lines += [".SH DESCRIPTION", *_paragraphs(command.help or "")]
    for sub, below in subcommands:
        lines += [f".SS {escaped(f'{called} {sub}')}", *_paragraphs(below.help or ""), *_options(_context(below))]
    if not subcommands:
        lines += [".SH OPTIONS", *_options(context)]
    lines += [".SH EXIT STATUS", *_tagged(_STATUSES.get(name, _OTHERS))]
    lines += [".SH ENVIRONMENT", *_tagged((*_VARIABLES[""], *_VARIABLES.get(name, ())))]
    lines += [".SH FILES", *_tagged((*_CONFIGURATION, *_FILES.get(name, _SPECS)))]
    lines += [".SH EXAMPLES", *_examples(EXAMPLES[name])]
    near = (f"cdi-hpc-{other}" for other in others if other != name)
    lines += _see_also([("cdi-hpc", 1), *((other, 1) for other in near), ("cdi-hpc.config", 5)])
    return "\n".join(lines) + "\n"


def _context(command: click.Command) -> click.Context:
    """Below the program, whose settings hold for all."""
    return click.Context(command, parent=program.context_class(program, **program.context_settings))


def _synopsis(called: str, command: click.Command, context: click.Context) -> Iterator[str]:
    pieces = command.collect_usage_pieces(context)
    yield from (".TP", f"{_bold(called)} {escaped(' '.join(pieces))}")


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            yield from (".TP", _bold(record[0]), *_text(record[1]))


def main_page(commands: Mapping[str, click.Command]) -> str:
    """The page of the program."""
    context = click.Context(program, info_name="cdi-hpc")
    lines = [*_head("cdi-hpc", 1, "devices for containers, without root"), ".SH SYNOPSIS"]
    lines += _synopsis("cdi-hpc", program, context)
    lines += [".SH DESCRIPTION", *_paragraphs(program.help or ""), ".SH COMMANDS"]
    for name, command in commands.items():
        lines += [".TP", f"\\fBcdi\\-hpc\\-{escaped(name)}\\fR(1)", *_text(command.get_short_help_str(limit=1000))]
    lines += [".SH OPTIONS", *_options(context)]
    lines += [".SH EXIT STATUS", *_tagged(_OTHERS)]
    lines += [".SH ENVIRONMENT", *_tagged(_VARIABLES[""])]
    lines += [".SH FILES", *_tagged((*_CONFIGURATION, *_SPECS, *_PLANS))]
    lines += [".SH EXAMPLES", *_examples(EXAMPLES[""])]
    lines += _see_also([*((f"cdi-hpc-{name}", 1) for name in commands), ("cdi-hpc.config", 5)])
    return "\n".join(lines) + "\n"


# The configuration ----------------------------------------------------------------------------------------------------


def configuration_page() -> str:
    """The page of configuration files."""
    top = json.loads(schema.text())
    lines = [*_head("cdi-hpc.config", 5, "configuration of a site and of its users"), ".SH DESCRIPTION"]
    lines += [
        *_text(
            "YAML files. Those of the administrator come first, then the user's, then variables and options. A file in "
            "the administrator's directory that others than root could have written is refused."
        ),
        ".PP",
        "Keys below are written with dots for names in names.",
        ".SH FILES",
        *_tagged(_CONFIGURATION),
        ".SH KEYS",
    ]
    for key in schema.all_keys():
        lines += [".TP", _bold(key.shown), *_text(key.description)]
        facts = [*_facts(key)]
        lines += [".IP", *_text(" ".join(facts))] if facts else []
        lines += _below(key.schema, top["definitions"])
    lines += [".SH EXAMPLES", ".nf", *map(escaped, EXAMPLE_CONFIGURATION.splitlines()), ".fi"]
    lines += _see_also([("cdi-hpc", 1), ("cdi-hpc-config", 1)])
    return "\n".join(lines) + "\n"


def _facts(key: schema.Key) -> Iterator[str]:
    values = key.schema.get("enum")
    if values:
        yield f"One of {', '.join(values)}."
    if key.default not in (None, [], ""):
        yield f"Default: {_said(key.default)}."
    if key.variable:
        yield f"Variable: {key.variable}."
    if key.option:
        yield f"Option: {key.option}."
    if key.set_by == "administrator":
        yield "Only the administrator can set it."


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _below(what: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    """Fields of the objects that a key holds."""
    items = what.get("items") or what.get("additionalProperties")
    if not isinstance(items, dict):
        return
    if "$ref" in items:
        items = definitions[items["$ref"].rpartition("/")[2]]
    fields = items.get("properties", {})
    if fields:
        yield ".RS"
        for name, field in fields.items():
            values = f" One of {', '.join(field['enum'])}." if "enum" in field else ""
            yield from (".TP", _bold(name), *_text(f"{field.get('description', '')}{values}"))
        yield ".RE"


# Writing --------------------------------------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """Every page, by its path below a directory of manuals."""
    context = click.Context(program)
    found = ((name, program.get_command(context, name)) for name in program.list_commands(context))
    commands = {name: command for name, command in found if command is not None}
    return {
        "man1/cdi-hpc.1": main_page(commands),
        **{f"man1/cdi-hpc-{name}.1": command_page(name, command, commands) for name, command in commands.items()},
        "man5/cdi-hpc.config.5": configuration_page(),
    }


def write(directory: str) -> None:
    """Write every page."""
    for path, text in pages().items():
        place = os.path.join(directory, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w", encoding="utf-8") as stream:
            stream.write(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004  # the program and a directory
        sys.exit("usage: python3 -m cdi_hpc.cli.manual DIRECTORY")
    write(sys.argv[1])
