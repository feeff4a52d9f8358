"""Where received files go when something is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.blobs import Fate, OnConflict
from aioiroh.blobs.folders.beneath import Found, Kind
from aioiroh.blobs.folders.names import Demands, Parts
from aioiroh.blobs.folders.placing import Plan, Wanted, plan_places

EXACT = Demands(folded=False)
LINK = object()
Tree = Mapping[str, Any]
"""A directory: names, and what they are: bytes, a link, or a directory again."""


def find(tree: Tree, parts: Parts) -> Found | None:
    at: Any = tree
    for depth, part in enumerate(parts, 1):
        at = at.get(part)
        if at is None:
            return None
        if at is LINK:
            return Found(Kind.OTHER, 7, depth)
        if isinstance(at, bytes):
            return Found(Kind.FILE, len(at), depth)
    return Found(Kind.DIRECTORY, 4096, len(parts))


def plan(files: Mapping[str, bytes], tree: Tree, on_conflict: OnConflict) -> Plan:
    """Plans, with honest answers."""
    names = list(files)
    wanted = [
        Wanted(index, tuple(name.split("/")), len(files[name])) for index, name in enumerate(names)
    ]
    planning = plan_places(wanted, lambda parts: find(tree, parts), on_conflict, EXACT)
    answer: bool | None = None
    while True:
        try:
            question = planning.send(answer)
        except StopIteration as end:
            result: Plan = end.value
            return result
        answer = None
        if question is not None:
            at: Any = tree
            for part in question.parts:
                at = at[part]
            answer = at == files[names[question.index]]


def fates(result: Plan) -> list[tuple[str, str]]:
    return [("/".join(place.parts), place.fate.value) for place in result.places]


THERE: Tree = {
    "new": {},
    "same": b"same",
    "other": b"1234",
    "longer": b"12345",
    "link": LINK,
    "folder": {"x": b"x"},
    "file": b"",
}
FILES = {
    "new/a": b"1",
    "same": b"same",
    "other": b"4321",
    "longer": b"1",
    "link": b"1",
    "folder": b"1",
    "file/b": b"1",
    "file/c": b"2",
}


def test_refusing_lists_everything_that_is_in_the_way() -> None:
    result = plan(FILES, THERE, OnConflict.REFUSE)
    assert fates(result) == [("new/a", "new"), ("same", "same")]
    assert result.conflicts == (("other",), ("longer",), ("link",), ("folder",), ("file",))


def test_overwriting_never_touches_a_directory_or_the_way() -> None:
    result = plan(FILES, THERE, OnConflict.OVERWRITE)
    assert fates(result) == [
        ("new/a", "new"),
        ("same", "same"),
        ("other", "replace"),
        ("longer", "replace"),
        ("link", "replace"),
    ]
    assert result.conflicts == (("folder",), ("file",))


def test_skipping() -> None:
    result = plan(FILES, THERE, OnConflict.SKIP)
    assert fates(result) == [
        ("new/a", "new"),
        ("same", "same"),
        ("other", "skip"),
        ("longer", "skip"),
        ("link", "skip"),
        ("folder", "skip"),
        ("file/b", "skip"),
        ("file/c", "skip"),
    ]
    assert not result.conflicts


def test_renaming() -> None:
    result = plan(FILES, THERE, OnConflict.RENAME)
    assert fates(result) == [
        ("new/a", "new"),
        ("same", "same"),
        ("other (1)", "new"),
        ("longer (1)", "new"),
        ("link (1)", "new"),
        ("folder (1)", "new"),
        ("file (1)/b", "new"),
        ("file (1)/c", "new"),
    ]
    assert not result.conflicts


@pytest.mark.parametrize(
    ("files", "tree", "expected"),
    [
        # A name that is to come is no spare name.
        ({"a": b"1", "a (1)": b"2"}, {"a": b"x"}, ["a (2) new", "a (1) new"]),
        # What an earlier time has put beside it is found again.
        ({"a": b"1"}, {"a": b"x", "a (1)": b"1"}, ["a (1) same"]),
        ({"a": b"1"}, {"a": b"x", "a (1)": b"y", "a (2)": b"1"}, ["a (2) same"]),
        ({"a": b"1"}, {"a": b"x", "a (1)": b"yy", "a (2)": {}}, ["a (3) new"]),
        ({"d/a": b"1"}, {"d": b"", "d (1)": {"a": b"1"}}, ["d (1)/a same"]),
        ({"d/a": b"1"}, {"d": LINK, "d (1)": {"a": b"2"}}, ["d (1)/a (1) new"]),
        ({"d/e/a": b"1"}, {"d": b"", "d (1)": {"e": b""}}, ["d (1)/e (1)/a new"]),
        ({"d/a": b"1", "d (1)/b": b""}, {"d": b""}, ["d (2)/a new", "d (1)/b new"]),
        # Two of one content, and one of them is there beside.
        ({"a": b"1", "b": b"1"}, {"a": b"x", "b": b"1"}, ["a (1) new", "b same"]),
    ],
)
def test_names_beside(files: dict[str, bytes], tree: Tree, expected: Sequence[str]) -> None:
    result = plan(files, tree, OnConflict.RENAME)
    assert [" ".join(fate) for fate in fates(result)] == expected


parts = st.sampled_from(["a", "b", "a (1)", "a (2)"])
contents = st.sampled_from([b"", b"1", b"2", b"11"])
trees = st.recursive(
    contents | st.just(LINK),
    lambda below: st.dictionaries(parts, below, max_size=4),
    max_leaves=10,
).filter(lambda tree: isinstance(tree, dict))


def writable(files: Mapping[str, bytes]) -> bool:
    return not any(name.startswith(f"{other}/") for name in files for other in files)


collections = st.dictionaries(
    st.lists(parts, min_size=1, max_size=3).map("/".join), contents, max_size=6
).filter(writable)


def carried_out(files: Mapping[str, bytes], tree: Tree, result: Plan) -> dict[str, Any]:
    """The tree afterwards; fails where a real one would."""

    def copy(at: Any) -> Any:
        return {name: copy(below) for name, below in at.items()} if isinstance(at, dict) else at

    after: dict[str, Any] = copy(tree)
    data = list(files.values())
    for place in result.places:
        at = after
        if place.fate in (Fate.NEW, Fate.REPLACE):
            for part in place.parts[:-1]:
                at = at.setdefault(part, {})
                assert isinstance(at, dict)
            assert (place.parts[-1] in at) == (place.fate is Fate.REPLACE)
            assert not isinstance(at.get(place.parts[-1]), dict)
            at[place.parts[-1]] = data[place.index]
    return after


@given(collections, trees, st.sampled_from(OnConflict))
def test_a_plan_can_be_carried_out_and_then_nothing_is_left_to_do(
    files: dict[str, bytes], tree: dict[str, Any], on_conflict: OnConflict
) -> None:
    result = plan(files, tree, on_conflict)
    if on_conflict in (OnConflict.SKIP, OnConflict.RENAME):
        assert not result.conflicts
    if result.conflicts:
        return
    assert [place.index for place in result.places] == list(range(len(files)))
    placed = [place.parts for place in result.places if place.fate is not Fate.SKIP]
    assert len(set(placed)) == len(placed)

    after = carried_out(files, tree, result)
    for place, data in zip(result.places, files.values(), strict=True):
        if place.fate is not Fate.SKIP:
            at: Any = after
            for part in place.parts:
                at = at[part]
            assert at == data
    if on_conflict is not OnConflict.OVERWRITE:
        assert_kept(tree, after)

    again = plan(files, after, on_conflict)
    assert not again.conflicts
    assert {place.fate for place in again.places} <= {Fate.SAME, Fate.SKIP}


def assert_kept(before: Any, after: Any) -> None:
    """Everything that was there is there."""
    if isinstance(before, dict):
        for name, below in before.items():
            assert_kept(below, after[name])
    else:
        assert before is after or before == after
