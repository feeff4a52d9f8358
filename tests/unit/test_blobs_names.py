"""Hostile names never become paths outside the target, and links in the target are not followed."""

from __future__ import annotations

import contextlib
import itertools
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.blobs.errors import UnsafeNameError
from aioiroh.blobs.folders import beneath
from aioiroh.blobs.folders.beneath import Found, Kind, Root
from aioiroh.blobs.folders.names import (
    Demands,
    fitting,
    fold,
    name_from_parts,
    problem,
    safe_paths,
    spare_names,
)

SAFE = [
    "a",
    "a/b",
    "träger/日本語.txt",
    ".hidden",
    "...",
    "..a",
    "a b",
    "aux.c",
    "con",
    "a/NUL/b",
    "xy:z",
    "🦀",
    "x" * 256,
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
    ".aioiroh-receive-0123456789/store",
    "a/.aioiroh-x",
    "/".join(["d" * 200] * 30),
    "/".join("a" * 129),
    "\ud800",
]
EXACT = Demands(folded=False)
WINDOWS = Demands(windows=True)


def path_of(name: str, demands: Demands) -> str:
    [parts] = safe_paths([name], demands)
    return "/".join(parts)


@pytest.mark.parametrize("name", SAFE)
def test_safe(name: str) -> None:
    assert problem(name) is None


@pytest.mark.parametrize("name", SAFE[:-1])
@pytest.mark.parametrize("demands", [EXACT, Demands()])
def test_safe_names_stay_as_they_are(name: str, demands: Demands) -> None:
    assert path_of(name, demands) == name


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("demands", [EXACT, WINDOWS])
def test_hostile(name: str, demands: Demands) -> None:
    assert problem(name)
    with pytest.raises(UnsafeNameError):
        safe_paths(["fine", name], demands)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.", "a_"),
        ("a ", "a_"),
        ("a. . ", "a____"),
        ("a /b", "a_/b"),
        ("aux.c", "aux_.c"),
        ("NUL.tar.gz", "NUL_.tar.gz"),
        ("con .txt", "con_ .txt"),
        ("x/com¹", "x/com¹_"),
        ("CONIN$", "CONIN$_"),
        ("ab:c", "ab_c"),
        ("a?", "a_"),
        ('<"*|>', "_____"),
        ("...", "___"),
        ("cons", "cons"),
    ],
)
def test_what_windows_cannot_hold_is_changed_there_and_only_there(name: str, expected: str) -> None:
    assert path_of(name, WINDOWS) == expected
    assert path_of(name, EXACT) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x" * 256, "x" * 255),
        ("x" * 300 + ".txt", "x" * 251 + ".txt"),
        ("ä" * 128, "ä" * 127),
        ("日" * 100 + ".tar.gz", "日" * 82 + ".tar.gz"),
    ],
)
def test_long_names_are_cut(name: str, expected: str) -> None:
    assert path_of(f"a/{name}", EXACT) == f"a/{expected}"
    assert safe_paths([name, name + "x"], EXACT)[1] != (expected,)


tricky = st.text(
    st.sampled_from("ab./\\: \x00\n~CNéE\u0301") | st.characters(), max_size=12
) | st.lists(
    st.sampled_from(
        ["..", ".", "", "a", "A", "C:", "nul", "b", "b (1)", "B.", "b:", "b_", "é" * 200]
    ),
    max_size=5,
).map("/".join)
all_demands = st.builds(Demands, folded=st.booleans(), windows=st.booleans())


@given(st.lists(tricky, max_size=8), all_demands)
def test_paths_stay_below_and_apart(names: list[str], demands: Demands) -> None:
    try:
        paths = safe_paths(names, demands)
    except UnsafeNameError as error:
        assert error.names
        return
    assert len(paths) == len(names)
    folded = [tuple(map(demands.key, parts)) for parts in paths]
    files = set(folded)
    assert len(files) == len(paths)
    for key in files:
        assert not any(key[:depth] in files for depth in range(1, len(key)))
    for name, parts in zip(names, paths, strict=True):
        path = Path("/some/target", *parts)
        assert os.path.normpath(path) == str(path)
        assert path.is_relative_to("/some/target") and path != Path("/some/target")
        assert len(parts) == name.count("/") + 1
        assert all(0 < len(part.encode()) <= 255 for part in parts)
        assert not any(unicodedata.category(char) == "Cc" for part in parts for char in part)
        if demands.windows:
            assert all(part[-1] not in ". " and not set(part) & set('<>:"|?*') for part in parts)


@given(st.lists(tricky.filter(lambda name: problem(name) is None), max_size=8, unique=True))
def test_a_file_system_that_can_hold_everything_changes_nothing(names: list[str]) -> None:
    short = [name for name in names if all(len(part.encode()) <= 255 for part in name.split("/"))]
    try:
        paths = safe_paths(short, EXACT)
    except UnsafeNameError:
        return
    assert ["/".join(parts) for parts in paths] == short


@pytest.mark.parametrize(
    "names", [["a", "a"], ["a", "a/b"], ["a/b", "a"], ["a/b/c", "a/b"], ["b", "x/a", "x/a"]]
)
@pytest.mark.parametrize("demands", [EXACT, Demands()])
def test_collisions(names: list[str], demands: Demands) -> None:
    with pytest.raises(UnsafeNameError, match="collides"):
        safe_paths(names, demands)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b", "c/a", "c/b"], ["a", "b", "c/a", "c/b"]),
        (["A.txt", "a.txt", "a (1).txt"], ["A.txt", "a (2).txt", "a (1).txt"]),
        (["dir/x", "DIR/y", "DIR/x"], ["dir/x", "DIR (1)/y", "DIR (1)/x"]),
        (["straße", "STRASSE"], ["straße", "STRASSE (1)"]),
        (["\u00e9", "e\u0301"], ["\u00e9", "e\u0301 (1)"]),  # composed and decomposed
        (["ﬁle", "file"], ["ﬁle", "file (1)"]),  # ligature
        (["A", "a/b"], ["A", "a (1)/b"]),
    ],
)
def test_spellings_of_one_name(names: list[str], expected: list[str]) -> None:
    assert ["/".join(parts) for parts in safe_paths(names, Demands())] == expected
    assert ["/".join(parts) for parts in safe_paths(names, EXACT)] == names


def test_what_is_changed_makes_room_for_what_is_not() -> None:
    assert safe_paths(["ab:", "ab_"], WINDOWS) == [("ab_ (1)",), ("ab_",)]


def test_all_bad_names_are_listed() -> None:
    with pytest.raises(UnsafeNameError) as caught:
        safe_paths(["fine", "../a", "b/", "fine"], EXACT)
    assert [bad.name for bad in caught.value.names] == ["../a", "b/", "fine"]


@given(st.lists(st.sampled_from(["a", "A", "b", "a/b", "a/B", "A/b", "b/a", "a/b/c"]), max_size=5))
def test_collisions_against_a_model(names: list[str]) -> None:
    # Accepted exactly if all of them can be written to a file system that keeps names apart.
    files: set[str] = set()
    directories: set[str] = set()
    fine = True
    for name in names:
        parents = {name[:i] for i, c in enumerate(name) if c == "/"}
        fine &= name not in files and name not in directories and not parents & files
        files.add(name)
        directories |= parents
    try:
        safe_paths(names, Demands())
        accepted = True
    except UnsafeNameError:
        accepted = False
    assert accepted == fine


def test_long_lists_are_checked_in_linear_time() -> None:
    deep = "/".join("d" * 1 for _ in range(120))
    names = [f"{deep}/{i}" for i in range(5000)]
    assert len(safe_paths(names, Demands())) == 5000


@given(st.text(max_size=8))
def test_fold_is_stable(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    assert fold(unicodedata.normalize("NFD", text)) == fold(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("a", ["a (1)", "a (2)"]),
        ("a.txt", ["a (1).txt", "a (2).txt"]),
        ("a.tar.gz", ["a (1).tar.gz", "a (2).tar.gz"]),
        (".bashrc", [".bashrc (1)", ".bashrc (2)"]),
        ("v1. And so on", ["v1. And so on (1)", "v1. And so on (2)"]),
        ("x" * 255, ["x" * 251 + " (1)", "x" * 251 + " (2)"]),
    ],
)
def test_spare_names(part: str, expected: list[str]) -> None:
    assert list(itertools.islice(spare_names(part), 2)) == expected


@given(tricky.filter(lambda name: problem(name) is None and "/" not in name))
def test_spare_names_can_be_stored(part: str) -> None:
    for name in itertools.islice(spare_names(fitting(part, WINDOWS)), 3):
        assert problem(name) is None
        assert fitting(name, WINDOWS) == name != part


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


def kind(root: Root, *parts: str) -> Kind:
    found = root.find(parts)
    assert found is not None
    return found.kind


def test_place(target: Path) -> None:
    with Root(target) as root:
        assert root.find(("a", "b", "c")) is None
        assert root.place(source(target), ("a", "b", "c")) == target / "a" / "b" / "c"
        assert root.find(("a", "b", "c")) == Found(Kind.FILE, 3, 3)
        assert kind(root, "a") is Kind.DIRECTORY
        assert root.find(("a", "b", "c", "d")) == Found(Kind.FILE, 3, 3)
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
        assert kind(root, "link", "x") is kind(root, "link") is Kind.OTHER
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
        assert kind(root, "x") is Kind.OTHER
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


def test_a_directory_that_is_replaced_meanwhile(target: Path) -> None:
    outside = target.parent / "outside"
    with Root(target) as root:
        root.place(source(target), ("d", "e", "x"))
        (target / "d" / "e" / "x").unlink()
        (target / "d" / "e").rmdir()
        assert root.find(("d", "e", "x")) is None
        root.place(source(target), ("d", "e", "y"))
        assert (target / "d/e/y").read_bytes() == b"new"
        (target / "d").rename(target / "moved")
        (target / "d").symlink_to(outside, target_is_directory=True)
        with contextlib.suppress(NotADirectoryError):
            root.place(source(target), ("d", "e", "z"))
    assert list(outside.iterdir()) == []


def test_open_directories_are_few(target: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Root(target) as root:
        for number in range(50):
            root.place(source(target), (f"{number}", "deep", "deeper", "x"))
            assert root.find(("0", "deep", "deeper", "x", "y")) is not None
            assert len(os.listdir("/proc/self/fd")) <= before + 5
    assert len(os.listdir("/proc/self/fd")) == before


def test_root_must_be_a_directory(target: Path) -> None:
    with pytest.raises(NotADirectoryError):
        Root(source(target))
