"""Hostile names never become paths outside the target, and links in the target are not followed."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.blobs.errors import UnsafeNameError
from aioiroh.blobs.folders import beneath
from aioiroh.blobs.folders.beneath import Root
from aioiroh.blobs.folders.names import check_names, fold, name_from_parts, problem, split_name

SAFE = [
    "a",
    "a/b",
    "träger/日本語.txt",
    ".hidden",
    "...",
    "..a",
    "a b",
    "aux.c",
    "con.txt",
    "xy:z",
    "🦀",
]
HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "a/../../x",
    "a/./b",
    "a/..",
    "/etc/passwd",
    "//server/share",
    "a//b",
    "a/",
    "/",
    "C:",
    "C:x",
    "c:/x",
    "C:\\x",
    "..\\x",
    "a\\b",
    "\\\\server\\share",
    "a\x00b",
    "a\nb",
    "a\x1b[2Jb",
    "a\x7f",
    "a\x85b",
    "con",
    "NUL",
    "a/aux/b",
    "COM1",
    "lpt9",
    "com¹",
    "CONIN$",
    "x" * 256,
    "ä" * 128,
    "/".join(["d" * 200] * 30),
    "/".join("a" * 129),
    "\ud800",
]
WINDOWS_ONLY = [
    "a.",
    "a ",
    "a /b",
    "aux.c",
    "NUL.tar.gz",
    "con .txt",
    "ab:c",
    "a?",
    "a*",
    "a|b",
    "<",
    '"',
]


@pytest.mark.parametrize("name", SAFE)
def test_safe(name: str) -> None:
    assert problem(name, windows=False) is None
    assert split_name(name, windows=False) == tuple(name.split("/"))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("windows", [False, True])
def test_hostile(name: str, windows: bool) -> None:
    assert problem(name, windows=windows)
    with pytest.raises(UnsafeNameError):
        split_name(name, windows=windows)


@pytest.mark.parametrize("name", WINDOWS_ONLY)
def test_hostile_on_windows(name: str) -> None:
    assert problem(name, windows=True)
    assert problem(name, windows=False) is None


tricky = st.text(st.sampled_from("ab./\\: \x00\n~CN") | st.characters(), max_size=12) | st.lists(
    st.sampled_from(["..", ".", "", "a", "C:", "nul", "b"]), max_size=5
).map("/".join)


@given(tricky)
def test_a_name_that_passes_stays_below(name: str) -> None:
    if problem(name) is not None:
        return
    path = Path("/root/target", *split_name(name))
    assert os.path.normpath(path) == str(path)
    assert path.is_relative_to("/root/target") and path != Path("/root/target")
    assert not any(unicodedata.category(c) == "Cc" for c in name)


@pytest.mark.parametrize(
    ("names", "folded", "fine"),
    [
        (["a", "b", "c/a", "c/b"], True, True),
        (["a", "a"], False, False),
        (["a", "a/b"], False, False),
        (["a/b", "a"], False, False),
        (["a/b/c", "a/b"], False, False),
        (["A", "a"], True, False),
        (["A", "a"], False, True),
        (["dir/x", "DIR/y"], True, False),
        (["dir/x", "DIR/y"], False, True),
        (["straße", "STRASSE"], True, False),
        (["\u00e9", "e\u0301"], True, False),  # composed and decomposed
        (["\u00e9", "e\u0301"], False, True),
        (["ﬁle", "file"], True, False),  # ligature
        (["A", "a/b"], True, False),
    ],
)
def test_collisions(names: list[str], folded: bool, fine: bool) -> None:
    if fine:
        assert check_names(names, folded=folded) == [tuple(n.split("/")) for n in names]
    else:
        with pytest.raises(UnsafeNameError, match="collides"):
            check_names(names, folded=folded)


def test_all_bad_names_are_listed() -> None:
    with pytest.raises(UnsafeNameError) as caught:
        check_names(["fine", "../a", "b/", "fine"])
    assert [bad.name for bad in caught.value.names] == ["../a", "b/", "fine"]


@given(st.lists(st.sampled_from(["a", "A", "b", "a/b", "a/B", "A/b", "b/a", "a/b/c"]), max_size=5))
def test_collisions_against_a_model(names: list[str]) -> None:
    # Accepted exactly if writing all files under folded names works on a file system in memory
    # and no directory is spelled in two ways.
    files: set[str] = set()
    directories: dict[str, str] = {}
    fine = True
    for name in names:
        key = name.lower()
        parents = [name[:i] for i, c in enumerate(name) if c == "/"]
        fine &= key not in files and key not in directories
        for parent in parents:
            fine &= parent.lower() not in files
            fine &= directories.setdefault(parent.lower(), parent) == parent
        files.add(key)
    try:
        check_names(names)
        accepted = True
    except UnsafeNameError:
        accepted = False
    assert accepted == fine


def test_long_lists_are_checked_in_linear_time() -> None:
    deep = "/".join("d" * 1 for _ in range(120))
    names = [f"{deep}/{i}" for i in range(5000)]
    assert len(check_names(names)) == 5000


@given(st.text(max_size=8))
def test_fold_is_stable(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    assert fold(unicodedata.normalize("NFD", text)) == fold(unicodedata.normalize("NFC", text))


def test_names_to_share() -> None:
    assert name_from_parts(["dir", "träger"]) == "dir/träger"
    for bad in (["a", "b\\c"], ["a/b"], ["a", ".."], [""], ["\udcff"]):
        with pytest.raises(UnsafeNameError):
            name_from_parts(bad)


# --- below a directory ----------------------------------------------------------------------------


@pytest.fixture(params=["descriptors", "paths"])
def target(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty target beside a directory `outside`; both ways of reaching files are tried."""
    if request.param == "paths":
        monkeypatch.setattr(beneath, "_RELATIVE", False)
    (tmp_path / "outside").mkdir()
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def source(target: Path, content: bytes = b"new") -> Path:
    path = target.parent / "source"
    path.write_bytes(content)
    return path


def test_place(target: Path) -> None:
    with Root(target) as root:
        assert root.kind(("a", "b", "c")) is None
        assert root.place(source(target), ("a", "b", "c")) == target / "a" / "b" / "c"
        assert root.kind(("a", "b", "c")) == "file"
        assert root.kind(("a",)) == "directory"
        assert root.kind(("a", "b", "c", "d")) == "other"
    assert (target / "a/b/c").read_bytes() == b"new"
    assert not (target.parent / "source").exists()


def test_nothing_is_overwritten_unless_asked(target: Path) -> None:
    (target / "x").write_bytes(b"old")
    with Root(target) as root:
        with pytest.raises(FileExistsError):
            root.place(source(target), ("x",))
        assert (target / "x").read_bytes() == b"old"
        root.place(source(target), ("x",), overwrite=True)
        assert (target / "x").read_bytes() == b"new"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_that_is_a_link_is_not_entered(target: Path, overwrite: bool) -> None:
    (target / "link").symlink_to(target.parent / "outside", target_is_directory=True)
    with Root(target) as root:
        with pytest.raises(NotADirectoryError):
            root.place(source(target), ("link", "x"), overwrite=overwrite)
        with pytest.raises(NotADirectoryError):
            root.place(source(target), ("link", "deep", "x"), overwrite=overwrite)
        assert root.kind(("link", "x")) == "other"
        assert root.kind(("link",)) == "other"
    assert list((target.parent / "outside").iterdir()) == []


def test_a_file_that_is_a_link_is_not_written_through(target: Path) -> None:
    victim = target.parent / "outside" / "victim"
    victim.write_bytes(b"precious")
    (target / "x").symlink_to(victim)
    with Root(target) as root:
        with pytest.raises(FileExistsError):
            root.place(source(target), ("x",))
        root.place(source(target), ("x",), overwrite=True)
    assert victim.read_bytes() == b"precious"
    assert not (target / "x").is_symlink() and (target / "x").read_bytes() == b"new"


def test_a_dangling_link_counts_as_something(target: Path) -> None:
    (target / "x").symlink_to(target / "nowhere")
    with Root(target) as root:
        assert root.kind(("x",)) == "other"
        with pytest.raises(FileExistsError):
            root.place(source(target), ("x",))


def test_a_file_in_the_way_of_a_directory(target: Path) -> None:
    (target / "a").write_bytes(b"")
    with Root(target) as root, pytest.raises(NotADirectoryError):
        root.place(source(target), ("a", "b"))


def test_the_root_itself_may_be_a_link(target: Path) -> None:
    (target.parent / "alias").symlink_to(target, target_is_directory=True)
    with Root(target.parent / "alias") as root:
        root.place(source(target), ("d", "x"))
    assert (target / "d/x").read_bytes() == b"new"


def test_file_systems_without_hard_links(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_keywords: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    (target / "old").write_bytes(b"old")
    with Root(target) as root:
        root.place(source(target), ("d", "x"))
        with pytest.raises(FileExistsError):
            root.place(source(target), ("old",))
    assert (target / "d/x").read_bytes() == b"new"
    assert (target / "old").read_bytes() == b"old"


def test_root_must_be_a_directory(target: Path) -> None:
    with pytest.raises(NotADirectoryError):
        Root(source(target))
