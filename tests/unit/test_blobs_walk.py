"""Which files are shared under which names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aioiroh.blobs.errors import UnsafeNameError
from aioiroh.blobs.folders.importing import find_files


async def names(*paths: str | Path) -> list[str]:
    return [file.name for file in await find_files(paths)]


async def test_a_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "b" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    for name in ("z", "b/x", "b/deep/y", "b.txt", ".hidden", "träger", "B"):
        (root / name).write_bytes(name.encode())
    (root / "link").symlink_to(root / "z")
    (root / "dir-link").symlink_to(root / "b", target_is_directory=True)
    os.mkfifo(root / "pipe")
    files = await find_files([root])
    # Sorted by bytes, so that "b.txt" comes before "b/".
    assert [file.name for file in files] == [
        "root/.hidden",
        "root/B",
        "root/b.txt",
        "root/b/deep/y",
        "root/b/x",
        "root/träger",
        "root/z",
    ]
    assert files[0].path == root / ".hidden" and files[0].size == 7


async def test_a_file_and_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert await names(tmp_path / "file") == ["file"]
    assert await names(tmp_path / "link") == ["file"]


async def test_several_paths(tmp_path: Path) -> None:
    for name in ("one/a", "two/b", "other/one/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert await names(tmp_path / "two", tmp_path / "one") == ["one/a", "two/b"]
    assert await names(tmp_path / "one", tmp_path / "other" / "one") == ["one/a", "one/c"]
    with pytest.raises(ValueError, match="two files"):
        await names(tmp_path / "one", tmp_path / "one")


async def test_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "x").write_bytes(b"")
    monkeypatch.chdir(tmp_path / "here")
    assert await names(".") == ["here/x"]


async def test_an_empty_folder(tmp_path: Path) -> None:
    assert await names(tmp_path) == []


async def test_what_cannot_be_shared(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await names(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no name"):
        await names("/")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="neither"):
        await names(tmp_path / "pipe")
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "back\\slash").write_bytes(b"")
    with pytest.raises(UnsafeNameError):
        await names(bad)
    (bad / "back\\slash").unlink()
    Path(os.fsdecode(bytes(bad) + b"/\xff\xfe")).write_bytes(b"")
    with pytest.raises(UnsafeNameError, match="UTF-8"):
        await names(bad)
