"""What `send` remembers of paths: private, for one process at a time, and no obstacle if it is damaged."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from aioiroh import SecretKey
from aioiroh.cli.display import Display
from aioiroh.cli.remembered import Memory, everything, forget, remember, state_folder

SECRET = SecretKey.from_bytes(bytes(range(32)))
Recall = Callable[..., AbstractContextManager[Memory]]


class Notes(Display):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is all kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "aioiroh" / "send"


@pytest.fixture
def recall(tmp_path: Path, root: Path, notes: Notes) -> Recall:
    """`with recall(name, …) as memory`: what is remembered of one path."""

    @contextmanager
    def recall(
        *names: str, secret: SecretKey | None = None, anew: bool = False
    ) -> Iterator[Memory]:
        paths = [tmp_path / name for name in names]
        with remember(paths or None, secret, anew=anew, display=notes) as memory:
            yield memory
            memory.ports = memory.ports or {"127.0.0.1": 40000, "::1": 40001}
            memory.hash = memory.hash or "00" * 32
            memory.save()

    return recall


def test_it_comes_again(recall: Recall, notes: Notes) -> None:
    with recall("a", "b") as memory:
        secret = memory.secret
        assert (memory.ports, memory.hash) == ({}, None)
    with recall("b", "x/../a") as memory:
        assert memory.secret == secret
        assert memory.ports == {"127.0.0.1": 40000, "::1": 40001}
        assert memory.hash == "00" * 32
    with recall("a") as memory:
        assert memory.secret != secret
    with recall("a", "b", anew=True) as memory:
        new = memory.secret
        assert new != secret and memory.ports == {}
    with recall("a", "b") as memory:
        assert memory.secret == new
    assert notes.said == []


def test_a_given_secret_is_used_and_not_written_down(recall: Recall, root: Path) -> None:
    with recall("a") as memory:
        own = memory.secret
    with recall("a", secret=SECRET) as memory:
        assert memory.secret == SECRET
        assert memory.ports["127.0.0.1"] == 40000
    assert not any(SECRET.hex() in path.read_text("latin-1") for path in files(root))
    with recall("a") as memory:
        assert memory.secret == own


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_it_is_private(recall: Recall, root: Path) -> None:
    mask = os.umask(0)
    try:
        with recall("a"):
            pass
    finally:
        os.umask(mask)
    assert sorted(path.name for path in files(root)) == ["key", "lock", "state.json"]
    for path in root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "damage", [b"", b"\xff\xfe", b"[]", b"7", b'{"ports": {"x": 1, "::1": "y"}, "hash": 3}']
)
def test_damage_is_no_obstacle(recall: Recall, root: Path, damage: bytes) -> None:
    with recall("a"):
        pass
    for path in files(root):
        path.write_bytes(damage)
    assert len(everything()) == 1
    with recall("a") as memory:
        assert (memory.ports, memory.hash) == ({}, None)
        secret = memory.secret
    with recall("a") as memory:
        assert memory.secret == secret


def test_one_process_at_a_time(recall: Recall, notes: Notes, root: Path) -> None:
    with recall("a") as first:
        with recall("a") as second:
            assert second.secret != first.secret
            assert second.folder.name.startswith("once-")
            assert len(notes.said) == 1 and "Another process" in notes.said[0]
            [known] = everything()
            assert known.folder == first.folder and not forget(known)
        assert not second.folder.exists()
    [known] = everything()
    assert [Path(path).name for path in known.paths] == ["a"]
    assert forget(known)
    assert everything() == []


def test_what_is_for_once_is_forgotten(recall: Recall, root: Path) -> None:
    left = root / "once-left"
    left.mkdir(parents=True)
    (left / "key").write_text("of a process that was killed")
    with recall() as memory:
        assert memory.folder.parent == root
        assert not left.exists()
        with recall():
            assert memory.folder.exists()  # it is in use
    assert list(root.iterdir()) == []


def test_nowhere_to_keep_it(
    tmp_path: Path, recall: Recall, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with recall("a") as memory:
        assert memory.folder.exists()
    assert not memory.folder.exists()
    assert "Nothing can be remembered" in notes.said[0]


@pytest.mark.parametrize(
    ("wanted", "known"),
    [
        ([], ["127.0.0.1:40000", "[::1]:40001"]),
        (["127.0.0.1:0"], ["127.0.0.1:40000"]),
        (["127.0.0.1:7"], None),
        (["[::1]:0", "127.0.0.1:7"], ["[::1]:40001", "127.0.0.1:7"]),
        (["10.0.0.1:0"], None),
    ],
)
def test_ports_of_last_time(wanted: list[str], known: list[str] | None) -> None:
    memory = Memory(Path(), SECRET, {"127.0.0.1": 40000, "::1": 40001})
    assert memory.addresses(wanted) == known


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/aioiroh"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/aioiroh"),
        ({"HOME": "/h"}, "/h/.local/state/aioiroh"),
    ],
)
def test_where_it_is_kept(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(os, "environ", dict[str, Any](environment))
    assert str(state_folder()) == expected
