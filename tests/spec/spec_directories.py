"""Hypothesis strategies for spec directories and requests: mostly right, with every kind of mistake now and then."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache

import yaml
from hypothesis import strategies as st

#: Plain YAML scalars whose meaning is not obvious; RAW(...) keeps them unquoted in the text.
SCALARS = [
    *("0", "1", "-1", "+5", "-0", "007", "08", "0o17", "0x1F", "0b101", "1_000", "2147483648", "4294967296"),
    *("9223372036854775808", "18446744073709551615", "18446744073709551616", "1.0", "1.10", "1.5", "1e3", "1e6"),
    *("1234567.5", ".5", ".inf", ".nan", "-.INF", "1e400", "0.00001", "2001-01-01", "1:30", "12e03"),
    *("yes", "No", "on", "OFF", "y", "n", "true", "False", "~", "null", "Null", "abc", "a b", "'0'", '"x=y"'),
    *("!!str 5", "!!int '7'", "!!float 3", "!!bool x", "!custom 5", "!!binary aGk=", "=", "@x", "0x", "_1", "1__0"),
]

BAD_VERSIONS = ["", "0.2.0", "1.0", "v1", "0.9.0", "v0.6.0", "1.2.0", "2.0.0", "0.1.0"]
VERSIONS = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0"]
#: No name of one letter: version 1.0.1 of the reference crashes on it.
KINDS = ["vendor.com/gpu", "vendor.com/gpu", "acme/gpu", "acme/a.b"]
BAD_KINDS = ["", "gpu", "/gpu", "vendor/", "vendor/a/b", "1vendor/gpu", "vendor-/gpu", "v\u00e9ndor/gpu", "a/b="]
NAMES = ["0", "1", "a", "all", "gpu-1", "0000:00:00.1", "x_y"]
BAD_NAMES = ["", "-a", "a-", "a b", "a=b", "\u00e9", "a,b", "a\n"]
FILE_NAMES = ["a.json", "b.yaml", "c.yaml", "d.json", "e.yml", "f.txt", ".json", ".hidden.yaml", "g.JSON"]

PATHS = ["/dev/null", "/a", "/a/b", "/a//b/", "/a/../b", "/usr/lib/x.so", "rel/x", "//a", "/", "/a b/'$(x)"]
VARIABLES = ["A=1", "A=2", "B=", "C=x=y", "A B=c", "D=\u00e9\t", "PATH=/x"]
BAD_VARIABLES = ["=x", "novalue", ""]


def raw(text):
    """A place holder that :func:`_flow` writes without quotes."""
    return f"@@{text}@@"


def rarely(unlikely, usual, *, one_in=25):
    """``usual``, and once in a while ``unlikely``."""
    # Hypothesis likes the ends of a range: the middle is as rare as it should be.
    return st.integers(0, one_in).flatmap(lambda drawn: unlikely if drawn == one_in // 2 else usual)


@dataclass(frozen=True)
class Specs:
    """Strategies for the values of a spec.

    Attributes:
        newest: the reference knows CDI 1.1.0.
        wrong: make mistakes.

    """

    newest: bool
    wrong: bool

    def mistake(self, bad, good, one_in=25):
        """``good``, or where mistakes are made, once in a while ``bad``."""
        return rarely(bad, good, one_in=one_in) if self.wrong else good

    def choice(self, good, bad=()):
        plain = rarely(st.sampled_from(SCALARS).map(raw), st.sampled_from(good), one_in=60)
        return self.mistake(st.sampled_from([*bad, 0, 1.5, True, None, [], {}]), plain)

    def texts(self, good, bad=(), max_size=3):
        listed = st.lists(self.choice(good, bad), max_size=max_size)
        return self.mistake(st.sampled_from([None, "", {}, 3, "x"]), listed)

    def numbers(self, *good):
        bad = [-1, 1 << 32, 1 << 63, -(1 << 63), 1 << 64, 1.0, 1.5, "1", True, [], {}]
        plain = self.mistake(st.sampled_from(SCALARS).map(raw), st.sampled_from(good))
        return self.mistake(st.sampled_from(bad), plain)

    def mapping(self, required, optional):
        """A mapping with each required field (nearly always) and each optional one sometimes."""

        @st.composite
        def mappings(draw):
            made = {}
            for name, values in required.items():
                if draw(self.mistake(st.just(value=False), st.just(value=True))):
                    made[name] = draw(values)
            for name, values in optional.items():
                if draw(st.integers(0, 2)) == 1:
                    made[name] = draw(values)
            if draw(self.mistake(st.just(value=True), st.just(value=False))):
                name = draw(st.sampled_from(["unknown", "hostpath2", "1", "Names", "<<"]))
                made[name] = draw(st.sampled_from([1, "x", None, []]))
            if made and draw(self.mistake(st.just(value=True), st.just(value=False))):
                name = draw(st.sampled_from(sorted(made)))
                made[draw(st.sampled_from([name.upper(), name.capitalize(), name.lower()]))] = made.pop(name)
            return made

        return mappings()

    def listed(self, values, max_size=3):
        return self.mistake(
            st.sampled_from([None, {}, "x", 1, ["x"], [[]], [None]]), st.lists(values, max_size=max_size)
        )

    def annotations(self):
        keys = st.sampled_from(["a", "org.x/y", "inva$$lid", "A_b", "x/"])
        good = st.dictionaries(keys, self.choice(["v", "", "yes"]), max_size=2)
        return self.mistake(st.sampled_from([None, [], "x"]), good)

    def device_nodes(self):
        absent = st.fixed_dictionaries(
            {
                "path": self.choice(["/dev/null", "/dev/absent", "/dev/x"], [""]),
                "type": self.choice(["c", "b", "u", "p"], ["", "d", "cc"]),
                "major": self.numbers(1, 195),
                "minor": self.numbers(0, 3),
            }
        )
        present = self.choice(["/dev/null", "/dev/zero", "/dev/full"], ["", "/dev/absent", "/"])
        extras = self.mapping(
            {},
            {
                "hostPath": self.choice(["/dev/null", "/dev/zero"], ["", "/dev/absent"]),
                "fileMode": self.numbers(0o660, 0, 0o20666),
                "permissions": self.choice(["rwm", "r", "rw", "mr", "rr", *self.new("none")], ["", "x", "none ", "R"]),
                "uid": self.numbers(0, 1000),
                "gid": self.numbers(0, 44),
            },
        )
        base = st.one_of(absent, st.fixed_dictionaries({"path": present}))
        return st.builds(lambda base, more: {**base, **more}, base, extras)

    def new(self, *values):
        return values if self.newest else ()

    def mounts(self):
        types = ["", "bind", "none", "-", "tmpfs"]
        return self.mapping(
            {"hostPath": self.choice(PATHS, [""]), "containerPath": self.choice(PATHS, [""])},
            {"options": self.texts(["ro", "nosuid", "bind", ""]), "type": self.choice(types)},
        )

    def hooks(self):
        stages = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
        return self.mapping(
            {
                "hookName": st.sampled_from(stages) if not self.wrong else self.choice(stages, ["", "Prestart"]),
                "path": self.choice(["/bin/x", "/bin/y"], [""]),
            },
            {
                "args": self.texts(["x", "--y", ""]),
                "env": self.texts(VARIABLES, BAD_VARIABLES, 2),
                "timeout": self.numbers(0, 5),
            },
        )

    def intel_rdts(self):
        fields = {
            "closID": self.choice(["c1", "", "...", *self.new("/")], [".", "..", "a/b", "x\n"]),
            "l3CacheSchema": self.choice(["L3:0=f"]),
            "memBwSchema": self.choice(["MB:0=10"]),
        }
        if self.newest:
            # Not an empty list: see docs/tolerance.md.
            schemata = st.lists(st.sampled_from(["L3:0=f", "MB:0=10"]), min_size=1, max_size=2)
            return self.mapping({}, {**fields, "schemata": schemata, "enableMonitoring": st.booleans()})
        return self.mapping({}, {**fields, "enableCMT": st.booleans(), "enableMBM": st.booleans()})

    def container_edits(self):
        """At least one edit, whatever a mistake makes of the rest."""
        nodes = st.lists(self.device_nodes(), max_size=3)
        gids = st.lists(self.numbers(0, 1, 44), max_size=3)
        optional = {
            "deviceNodes": self.mistake(st.sampled_from([None, {}, "x", 1, ["x"], [[]]]), nodes),
            "mounts": self.listed(self.mounts(), 4),
            "hooks": self.listed(self.hooks()),
            "additionalGids": self.mistake(st.sampled_from([None, {}, "1"]), gids),
            "intelRdt": self.mistake(st.sampled_from([None, [], "x"]), self.intel_rdts()),
        }
        if self.newest:
            interfaces = self.choice(["eth0", "eth1", "ib0"], [""])
            optional["netDevices"] = self.listed(
                self.mapping({"hostInterfaceName": interfaces, "name": interfaces}, {}), 1
            )
        edits = self.mapping({"env": self.texts(VARIABLES, BAD_VARIABLES, 4).map(lambda env: env or ["E=1"])}, optional)
        return self.mistake(st.sampled_from([None, {}, [], "x"]), edits)

    def specs(self):
        """A whole spec. Most have the newest version, since older ones forbid most fields."""
        top = "1.1.0" if self.newest else "1.0.0"
        versions = self.mistake(st.sampled_from([*VERSIONS, *BAD_VERSIONS]), st.sampled_from([top, f"v{top}"]), 6)
        names = self.choice(NAMES, BAD_NAMES) if self.wrong else st.sampled_from(NAMES)
        kinds = self.choice(KINDS, BAD_KINDS) if self.wrong else st.sampled_from(KINDS)
        devices = self.mapping(
            {"name": names, "containerEdits": self.container_edits()}, {"annotations": self.annotations()}
        )
        listed = st.lists(devices, min_size=1, max_size=3)
        if not self.wrong:
            listed = listed.map(_unique_names)
        spec = self.mapping(
            {
                "cdiVersion": versions,
                "kind": kinds,
                "devices": self.mistake(st.sampled_from([None, [], {}, "x"]), listed),
            },
            {"annotations": self.annotations(), "containerEdits": self.container_edits()},
        )
        return self.mistake(st.sampled_from([None, [], {}, "x", 1, [{}]]), spec)


def _unique_names(devices):
    return list({device["name"]: device for device in devices}.values())


@cache
def specs(newest, wrong):
    """Made once: building the strategies takes longer than drawing from them."""
    return Specs(newest=newest, wrong=wrong).specs()


def _flow(value, **options):
    return re.sub(r'"@@(.*?)@@"', lambda found: json.loads(f'"{found.group(1)}"'), json.dumps(value, **options))


def _block(value):
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return re.sub(r"'@@(.*?)@@'", lambda found: found.group(1).replace("''", "'"), text)


@st.composite
def files(draw, *, newest):
    """The text of a spec file; every third has mistakes in its values, and some in the text itself."""
    wrong = draw(st.integers(0, 2)) == 1
    value = draw(specs(newest, wrong))
    write = draw(st.sampled_from([_flow, lambda value: _flow(value, indent="\t"), _block, _block]))
    text = write(value)
    mangle = draw(rarely(st.sampled_from(MANGLERS), st.none(), one_in=12))
    return text if mangle is None else mangle(text)


MANGLERS = [
    lambda _: "",
    lambda text: text[: len(text) // 2],
    lambda text: "# a comment\n---\n" + text,
    lambda text: text.rstrip() + "\n...\n",
    lambda text: text.rstrip() + "\n---\nkind: other/doc\n",
    lambda text: text.rstrip() + "\n...\n]: [",
    lambda text: "%YAML 1.2\n---\n" + text,
    lambda text: text.replace("kind", "cdiVersion", 1),
    lambda text: text.replace(",", ",,", 1),
    lambda text: text.replace("}", ",}", 1),
    lambda text: "\ufeff" + text,
    lambda text: text + "\x01",
    lambda text: text.replace("name", "<<", 1),
]


@dataclass(frozen=True)
class Case:
    """Directories as name -> file name -> text (None: a directory, "->": a dangling link), and a request."""

    directories: tuple[dict[str, str | None], ...]
    order: tuple[int, ...]  # indices into directories; one beyond the last is a directory that doesn't exist
    request: tuple[str, ...]


@st.composite
def cases(draw, *, newest):
    contents = rarely(st.sampled_from([None, "->"]), files(newest=newest), one_in=30)
    directory = st.dictionaries(st.sampled_from(FILE_NAMES), contents, min_size=1, max_size=3)
    directories = tuple(draw(st.lists(directory, min_size=1, max_size=3)))
    straight = tuple(range(len(directories)))
    odd = st.lists(st.integers(0, len(directories)), min_size=1, max_size=4).map(tuple)
    order = draw(rarely(odd, st.just(straight), one_in=8))
    names = st.builds(lambda kind, name: f"{kind}={name}", st.sampled_from(KINDS), st.sampled_from(NAMES))
    malformed = st.sampled_from(["0", "ab/cd=", "=", "gpu=0", "vendor.com/gpu=none", "acme/gpu=-a", "acme//gpu=0"])
    absent = st.lists(st.one_of(names, malformed), max_size=2)
    return Case(directories, order, tuple(draw(rarely(absent, st.just([]), one_in=4))))
