"""Patterns mean what docs/configuration.md says, for any text."""

from __future__ import annotations

import contextlib
import fnmatch
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdi_hpc.site.globs import PatternError, path_pattern, text_pattern

TEXTS = [
    ("gpu", "gpu", True),
    ("gpu", "GPU", False),
    ("gpu", "gpu0", False),
    ("g*", "g", True),
    ("*", "", True),
    ("*", "a/b\nc", True),
    ("*a*b", "ab", True),
    ("*a*b", "ba", False),
    ("a*a", "a", False),
    ("?", "é", True),
    ("?", "", False),
    ("[ab]", "b", True),
    ("[!ab]", "b", False),
    ("[!ab]", "c", True),
    ("[a-c]x", "bx", True),
    ("[]]", "]", True),
    ("[!]]", "]", False),
    ("[*]", "*", True),
    ("[*]", "a", False),
    ("[[]", "[", True),
    ("[a-]", "-", True),
    ("\\*", "\\anything", True),
    (".*", "ab", False),
    ("a.b", "axb", False),
]


@pytest.mark.parametrize("pattern, text, matches", TEXTS)
def test_a_text_pattern_matches_the_whole_text_and_nothing_else(pattern, text, matches):
    assert text_pattern(pattern).matches(text) is matches


PATHS = [
    ("/opt/*", "/opt/a", True),
    ("/opt/*", "/opt/.hidden", True),
    ("/opt/*", "/opt", False),
    ("/opt/*", "/opt/a/b", False),
    ("/opt/**", "/opt", True),
    ("/opt/**", "/opt/a/b/c", True),
    ("/opt/**", "/optional", False),
    ("/**", "/", True),
    ("/**", "/a", True),
    ("/**/lib", "/lib", True),
    ("/**/lib", "/a/b/lib", True),
    ("/**/lib", "/a/lib/b", False),
    ("/a/**/b/**/c", "/a/b/c", True),
    ("/a/**/b/**/c", "/a/c/b", False),
    ("/a//b/", "/a/b", True),
    ("/", "/", True),
    ("/", "/a", False),
    ("nvidia.com/*", "nvidia.com/gpu", True),
    ("nvidia.com/*", "nvidiaxcom/gpu", False),
    ("*/*", "a/b", True),
    ("*/*=*", "a/b=c", True),
]


@pytest.mark.parametrize("pattern, path, matches", PATHS)
def test_a_star_does_not_match_a_slash_and_two_match_any_number_of_parts(pattern, path, matches):
    assert path_pattern(pattern).matches(path) is matches


BELOW = [
    ("/etc/shadow", "/etc", True),
    ("/etc/shadow", "/", True),
    ("/etc/shadow", "/etc/shadow", False),
    ("/etc/shadow", "/etc/passwd", False),
    ("/etc/**", "/etc", True),
    ("/etc/**", "/etc/a", True),
    ("/*/secret", "/home", True),
    ("/*/secret", "/home/me", False),
    ("/**/secret", "/anything/at/all", True),
    ("/opt/*", "/optional", False),
]


@pytest.mark.parametrize("pattern, path, reaches", BELOW)
def test_a_pattern_knows_whether_it_could_match_below_a_path(pattern, path, reaches):
    assert path_pattern(pattern).matches_below(path) is reaches


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("/a/[b", "is not closed"),
        ("/a/[", "is not closed"),
        ("/a/[]", "is not closed"),
        ("/a/[z-a]", "runs backwards"),
        ("/a/../b", "'..'"),
        ("/./a", "'.'"),
        ("/a**", "'**' has to be all"),
        ("/***", "'**' has to be all"),
    ],
)
def test_what_is_no_pattern_is_refused_with_the_reason(pattern, message):
    with pytest.raises(PatternError, match=re.escape(message)):
        path_pattern(pattern)


@given(st.text(alphabet="ab*?[]!-\\\n.^|&~", max_size=8), st.text(alphabet="ab-]\\!\n.^", max_size=8))
@example("a*aa", "aa")
def test_text_patterns_match_what_shell_patterns_match(pattern, text):
    try:
        ours = text_pattern(pattern)
    except PatternError:
        return
    assert ours.matches(text) == (re.compile(fnmatch.translate(pattern)).match(text) is not None)


def parts_match(pattern: list[str], path: list[str]) -> bool:
    """The definition of a path pattern, written as one reads it."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(parts_match(pattern[1:], path[skip:]) for skip in range(len(path) + 1))
    return bool(path) and text_pattern(pattern[0]).matches(path[0]) and parts_match(pattern[1:], path[1:])


PART = st.sampled_from(["a", "b", "ab"])
PATTERN_PART = st.sampled_from(["a", "b", "*", "**", "a*", "?"])


@given(st.lists(PATTERN_PART, max_size=5), st.lists(PART, max_size=5))
def test_path_patterns_match_by_their_definition(pattern, path):
    assert path_pattern("/".join(pattern)).matches("/".join(path)) == parts_match(pattern, path)


@given(st.lists(PATTERN_PART, max_size=4), st.lists(PART, max_size=3), st.lists(PART, min_size=1, max_size=3))
def test_what_matches_below_a_path_was_foreseen_at_the_path(pattern, path, below):
    matcher = path_pattern("/".join(pattern))
    if matcher.matches("/".join([*path, *below])):
        assert matcher.matches_below("/".join(path))


@given(st.text(max_size=30))
def test_any_text_is_a_pattern_or_refused(text):
    for make in (text_pattern, path_pattern):
        with contextlib.suppress(PatternError):
            assert make(text).matches(text) in (True, False)


def test_a_pattern_with_many_stars_is_done_with_a_long_text_at_once():
    # With backtracking this would take longer than anybody waits.
    assert not text_pattern("*a" * 30 + "b").matches("a" * 100_000)
    assert not path_pattern("/**/a" * 30 + "/b").matches("/a" * 2_000)
