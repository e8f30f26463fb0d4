"""Reading a launcher's command line with the table of its options: what was asked of it, and what of us.

``native/launcher_options.c`` reads it in the same way, for launches that start no interpreter.

Two styles are known. ``getopt``: getopt_long(3) as the GNU C library has it, with argp(3) on top: options are found
among the other words until ``--``, unless POSIXLY_CORRECT is set; a long name may be abbreviated. ``pflag``: Go's
github.com/spf13/pflag below a cobra command: nothing is an option after the first word that is none, a switch may be
``--name=false``, and a value that may be left out is joined by ``=``.

What is not understood is left to the launcher, which says it best in its own words, unless it is certain that devices
are wanted: the launcher would only name the wrong word then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Union

from cdi_hpc import variables
from cdi_hpc.backend import Given, Invocation, Option, Profile, Subcommand
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.spec import names

#: Devices to use where no option names any: a comma list, or ``none``.
DEVICES_VARIABLE = variables.DEVICES_VARIABLE

#: Long names of our options, as far as a word has to agree with one to be looked at.
_OUR_NAMES = ("cdi", "device", "lock", "help")

#: The name of an option for devices whose value has to be a lock file.
_LOCK = "--lock"

#: What Go's strconv.ParseBool takes.
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))

#: Uses whose words are not passed on.
_OURS = frozenset(("device", "cdi-dirs", "switch"))

#: What an option of ours that must have a value has one for.
_VALUES = {"device": "device", "cdi-dirs": "directory"}

_BETWEEN_DIRECTORIES = re.compile("[:,]")


@dataclass(frozen=True)
class Leave:
    """The launcher is executed with these words: those that were typed, without ours, which it may not know."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Help:
    """The launcher is asked for its help, with these words; ours follows."""

    words: tuple[str, ...]


Reading = Union[Invocation, Leave, Help]


def may_be_ours(word: str) -> bool:
    """Whether a word may be an option of ours, or may ask for help: rather yes than no.

    ``native/shim.c`` asks the same before it looks for what is known of the launcher.
    """
    if word.startswith("--"):
        name = word[2:].partition("=")[0]
        return len(word) > len("--") and any(name.startswith(own) or own.startswith(name) for own in _OUR_NAMES)
    return word.startswith("-") and not {*"dh?"}.isdisjoint(word[1:])


def read(
    words: Sequence[str], profile: Profile, *, in_order: bool = False, wanted: bool = False, by_default: bool = False
) -> Reading:
    """Understand a command line.

    Args:
        words: after the program's name.
        profile: of the launcher.
        in_order: POSIXLY_CORRECT is set: ``getopt`` stops at the first word that is no option.
        wanted: devices are wanted whatever the words say.
        by_default: nobody has asked for them, so what is not understood is left to the launcher all the same.

    Returns:
        An invocation only if a device is asked for in it, or ``wanted`` is true.

    Raises:
        CdiError: devices are wanted, and the words can't be understood or name no image.

    """
    reader = _Reader(tuple(words), profile)
    try:
        reader.take_all(in_order=in_order)
    except _Stop as stop:
        return stop.reading
    except _NotUnderstood as error:
        if reader.wants_devices or (wanted and not by_default):
            raise CdiError(error.problem) from None
        return reader.leaving_at_word()
    if reader.is_other or not (reader.wants_devices or (wanted and reader.others)):
        return reader.leaving()
    return reader.invocation()


def in_order(profile: Profile, environ: Mapping[str, str]) -> bool:
    """Whether options end at the first word that is none."""
    return profile.style == "pflag" or "POSIXLY_CORRECT" in environ


class _Stop(Exception):  # noqa: N818  # nothing is wrong
    """The rest of the words does not matter."""

    def __init__(self, reading: Leave | Help) -> None:
        super().__init__()
        self.reading = reading


class _NotUnderstood(Exception):  # noqa: N818  # who wants devices gets an error of it
    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem


@dataclass
class _Reader:
    """Takes one word after the other."""

    words: tuple[str, ...]
    profile: Profile
    at: int = 0
    canonical: list[str] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    subcommand: Subcommand | None = None
    subcommand_index: int = 0
    is_other: bool = False
    is_ended: bool = False
    options: tuple[Option, ...] = ()
    word_at: int = 0
    word_begins: int = 0

    def __post_init__(self) -> None:
        self.options = self.profile.options

    @property
    def is_pflag(self) -> bool:
        return self.profile.style == "pflag"

    @property
    def wants_devices(self) -> bool:
        return any(given.option.use == "device" for given in self.given)

    def take_all(self, *, in_order: bool) -> None:
        """Take words until the end, or until there can be no option any more."""
        self._take_options(in_order=in_order or self.is_pflag)
        if not self.is_pflag or not self.profile.subcommands:
            return
        self.subcommand = self._subcommand()
        if self.subcommand is None:
            self.is_other = True
            return
        self.options = self.subcommand.options
        self.subcommand_index = len(self.canonical)
        self.canonical += self.subcommand.words
        self.at -= len(self.others) - len(self.subcommand.words)
        self.others = []
        self._take_options(in_order=True)

    def _subcommand(self) -> Subcommand | None:
        """The subcommand that the other words begin with; a ``--`` before it is beyond us."""
        if self.at > len(self.others) and self.words[self.at - len(self.others) - 1] == "--":
            return None
        fitting = (each for each in self.profile.subcommands if tuple(self.others[: len(each.words)]) == each.words)
        return next(fitting, None)

    def _take_options(self, *, in_order: bool) -> None:
        while self.at < len(self.words):
            word = self.words[self.at]
            self.word_at, self.word_begins = self.at, len(self.canonical)
            self.at += 1
            if word == "--":
                self.is_ended = True
                self._take_rest()
            elif word.startswith("--"):
                self._take_long(word)
            elif word.startswith("-") and word != "-":
                self._take_short(word)
            else:
                self.others.append(word)
                if in_order:
                    self._take_rest()

    def _take_rest(self) -> None:
        self.others += self.words[self.at :]
        self.at = len(self.words)

    def _take_long(self, word: str) -> None:
        name, equals, text = word.partition("=")
        option = self._named(name)
        if option is None:
            raise self._unknown(name)
        value = text if equals else None
        if value is not None and option.arity == "none":
            self._check_switch(name, text)
        words: tuple[str, ...] = (word,)
        if value is None and option.arity == "required":
            value = self._next_word(option, name)
            words = (word, value)
        if option.use == "device" and _LOCK.startswith(name):
            _require_lock_file(value)
        self._add(option, value, words)

    def _take_short(self, word: str) -> None:
        position = 1
        while position < len(word):
            name = f"-{word[position]}"
            option = next((option for option in self.options if name in option.names), None)
            if option is None:
                raise self._unknown(name)
            rest = word[position + 1 :]
            joined = self._joined(option, rest)
            if joined is not None:
                if option.arity == "none":
                    self._check_switch(name, joined)
                self._add(option, joined, (f"{name}{rest}",))
                return
            if option.arity == "required":
                value = self._next_word(option, name)
                self._add(option, value, (name, value))
                return
            self._add(option, None, (name,))
            position += 1

    def _joined(self, option: Option, rest: str) -> str | None:
        """The value in the rest of a word with letters, or None if that holds more letters, or nothing."""
        if self.is_pflag and rest.startswith("=") and len(rest) > 1:
            return rest[1:]
        takes_rest = option.arity == "required" or (option.arity == "optional" and not self.is_pflag)
        return rest if rest and takes_rest else None

    def _named(self, name: str) -> Option | None:
        """The option of this long name; ``getopt`` takes the beginning of one if it is the beginning of no other.

        What is the beginning of a name that the launcher has means that one, whatever ours begin with.
        """
        exact = next((option for option in self.options if name in option.names), None)
        if exact is not None or self.is_pflag:
            return exact
        like = [option for option in self.options if any(known.startswith(name) for known in option.names)]
        theirs = [option for option in like if option.use not in _OURS]
        chosen = theirs or like
        return chosen[0] if len(chosen) == 1 else None

    def _next_word(self, option: Option, name: str) -> str:
        if self.at == len(self.words):
            problem = Problem(f"option {name}", "needs a value")
            # The launcher would say that it does not know the option.
            raise CdiError(problem) if option.use in _OURS else _NotUnderstood(problem)
        self.at += 1
        return self.words[self.at - 1]

    def _check_switch(self, name: str, value: str) -> None:
        if not self.is_pflag or value not in _TRUE | _FALSE:
            raise _NotUnderstood(Problem(f"option {name}", f"takes no value, but has {value!r}"))

    def _add(self, option: Option, value: str | None, words: tuple[str, ...]) -> None:
        if option.use in ("leave", "help") and not (option.arity == "none" and value in _FALSE):
            self._stop(option, words)
        if option.use in ("device", "cdi-dirs") and value == "":
            name = words[0].partition("=")[0]
            fix = f"name a {_VALUES[option.use]}, or leave it out"
            raise CdiError(Problem(f"option {name}", "has an empty value", fix))
        if option.use in _OURS:
            words = (option.names[0],)
        self.given.append(Given(option, value, len(self.canonical), len(words)))
        self.canonical += words

    def _stop(self, option: Option, words: tuple[str, ...]) -> NoReturn:
        if option.use == "leave":
            raise _Stop(self.leaving_at_word())
        if any(given.option.use in _OURS for given in self.given):
            before = self.subcommand.words if self.subcommand else ()
            raise _Stop(Help((*before, *words)))
        raise _Stop(Help(self.words))

    def leaving(self) -> Leave:
        """Everything was read, and nothing is asked of us."""
        return self._left(len(self.canonical), (("--",) if self.is_ended else ()) + tuple(self.others))

    def leaving_at_word(self) -> Leave:
        """What the last word says is the launcher's business, and what comes after it."""
        return self._left(self.word_begins, (*self.others, *self.words[self.word_at :]))

    def _left(self, count: int, rest: tuple[str, ...]) -> Leave:
        given = [each for each in self.given if each.index < count and each.option.use in _OURS]
        ours = {index for each in given for index in range(each.index, each.index + each.count)}
        kept = (word for index, word in enumerate(self.canonical[:count]) if index not in ours)
        return Leave((*kept, *rest) if ours else self.words)

    def _unknown(self, name: str) -> _NotUnderstood:
        known = [known for option in self.options for known in option.names]
        abbreviated = [each for each in known if each.startswith(name) and name.startswith("--")]
        near = abbreviated[:3] if len(abbreviated) > 1 else names.near_misses(name, known)
        what = "may be one of several" if len(abbreviated) > 1 and not self.is_pflag else "is unknown"
        fix = f"did you mean {' or '.join(near)}?" if near else "--help lists the options"
        return _NotUnderstood(Problem(f"option {name}", f"{what} to {self.profile.program}", fix))

    def invocation(self) -> Invocation:
        """Everything, in order."""
        if not self.others:
            fix = "name an image, then the command"
            raise CdiError(Problem(self.profile.program, "devices were asked for, but no image was named", fix))
        image, *command = self.others
        return Invocation(
            words=(*self.canonical, image, *command),
            subcommand=self.subcommand.words if self.subcommand else (),
            given=tuple(self.given),
            image=image,
            image_index=len(self.canonical),
            command=tuple(command),
            devices=tuple(given.value or "" for given in self.given if given.option.use == "device"),
            cdi_dirs=split_directories(given.value or "" for given in self.given if given.option.use == "cdi-dirs"),
            subcommand_index=self.subcommand_index,
        )


def _require_lock_file(value: str | None) -> None:
    """Refuse what could only be taken for a device: what stands for a lock file is known by its name everywhere."""
    complaint = names.lock_complaint(value or "")
    if complaint:
        raise CdiError(Problem(f"option {_LOCK}", complaint, "rename the file"))


def split_directories(values: Iterable[str]) -> tuple[str, ...]:
    """Spec directories from lists with colons or commas between them."""
    return tuple(path for value in values for path in _BETWEEN_DIRECTORIES.split(value) if path)
