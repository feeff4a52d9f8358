"""Patterns select names as a shell would."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.blobs import select

NAMES = [
    "album/a.jpg",
    "album/b.txt",
    "album/raw/a.jpg",
    "album/raw/deep/c.JPG",
    "album/raw.txt",
    "notes.txt",
]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["album/a.jpg", "album/raw/a.jpg"]),
        ("a.*", ["album/a.jpg", "album/raw/a.jpg"]),
        ("raw", ["album/raw/a.jpg", "album/raw/deep/c.JPG"]),
        ("raw/", ["album/raw/a.jpg", "album/raw/deep/c.JPG"]),
        ("/*.txt", ["notes.txt"]),
        ("notes.txt", ["notes.txt"]),
        ("album/*.jpg", ["album/a.jpg"]),
        ("album/raw", ["album/raw/a.jpg", "album/raw/deep/c.JPG"]),
        ("album/raw/*", ["album/raw/a.jpg", "album/raw/deep/c.JPG"]),
        ("album/raw*", ["album/raw/a.jpg", "album/raw/deep/c.JPG", "album/raw.txt"]),
        ("album/**/*.jpg", ["album/a.jpg", "album/raw/a.jpg"]),
        ("**/deep", ["album/raw/deep/c.JPG"]),
        ("album/**", NAMES[:5]),
        ("[ab].*", ["album/a.jpg", "album/b.txt", "album/raw/a.jpg"]),
        ("[!ab].*", ["album/raw/deep/c.JPG"]),
        ("?.txt", ["album/b.txt"]),
        ("*", NAMES),
        ("**", NAMES),
        ("album/", NAMES[:5]),
    ],
)
def test_select(pattern: str, expected: list[str]) -> None:
    assert [NAMES[index] for index in select(NAMES, [pattern])] == expected


@pytest.mark.parametrize("pattern", ["", "/", "*.png", "raw/*", "notes.txt/", "ALBUM", "x" * 5000])
def test_what_selects_nothing(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"no file matches|no pattern"):
        select(NAMES, ["*.jpg", pattern])


def test_several_patterns_add_up() -> None:
    assert select(NAMES, ["notes.txt", "*.jpg", "a.jpg"]) == [0, 2, 5]


def test_a_pattern_of_stars_ends() -> None:
    with pytest.raises(ValueError, match="no file matches"):
        select(["a" * 4000, "a/" * 100 + "a"], ["*a" * 100 + "b", "**/" * 100 + "b"])


names = st.lists(st.sampled_from(["a", "b", "ab", "ba"]), min_size=1, max_size=4).map("/".join)
patterns = st.lists(
    st.sampled_from(["a", "b", "*", "a*", "?", "**", "[ab]b"]), min_size=2, max_size=4
).map("/".join)


def expression(pattern: str) -> re.Pattern[str]:
    """The same as one regular expression."""
    text = "".join(
        "(?:[^/]+/)*" if part == "**" else part.replace("?", "[^/]").replace("*", "[^/]*") + "/"
        for part in pattern.split("/")
    )
    return re.compile(text + "(?:[^/]+/)*")


@given(names, patterns)
def test_a_pattern_against_a_regular_expression(name: str, pattern: str) -> None:
    try:
        selected = select([name], [pattern]) == [0]
    except ValueError:
        selected = False
    # `**` at the end stands for at least the name itself.
    expected = expression(pattern).fullmatch(name + "/") is not None
    assert selected == expected
