"""Blobs and collections of other endpoints as a read-only file system of fsspec."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from fsspec.asyn import AbstractAsyncStreamedFile, AsyncFileSystem, sync, sync_wrapper
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractBufferedFile
from fsspec.utils import isfilelike

from aioiroh.blobs import Store
from aioiroh.keys import SecretKey
from aioiroh.lookup import LookupService
from aioiroh.presets import Preset

from .place import Place
from .source import Source
from .tree import File, Tree

__all__ = ["BlobFile", "BlobFileSystem"]

KEPT: Final = 256
"""Collections, and blobs by themselves, whose sizes are kept. Content does not change."""
PIECE: Final = 4 * 1024 * 1024
"""Bytes in one request while a whole file is fetched."""
CLOSE_TIME: Final = 5.0
"""Seconds that closing may take at the end of the program."""


class BlobFileSystem(AsyncFileSystem):  # type: ignore[misc]
    """`aioiroh+blob://TICKET/path`; see `place` for all forms. Only verified bytes come out.

    preset, lookup, secret_key: of the endpoint that dials, as in `Endpoint.bind`.
    store: a folder, or an open store of blobs on the file system's loop, that keeps what is fetched, so
        that nothing is fetched twice. By default nothing is kept but what fsspec's caches keep.
    Other options are those of `fsspec.asyn.AsyncFileSystem`.
    """

    protocol = "aioiroh+blob"
    root_marker = ""

    def __init__(
        self,
        *,
        preset: Preset | None = None,
        lookup: Sequence[LookupService] = (),
        secret_key: SecretKey | None = None,
        store: str | os.PathLike[str] | Store | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        endpoint = {"preset": preset, "lookup": lookup, "secret_key": secret_key}
        self._source = Source(endpoint, store)
        self._known: dict[str, Tree | File] = {}
        if not self.asynchronous:
            weakref.finalize(self, _close_elsewhere, self.loop, self._source)

    @property
    def bytes_received(self) -> int:
        """Payload bytes that came over the network so far."""
        return self._source.received

    async def _close(self) -> None:
        """Closes the endpoint, and the store if it was opened here; the next use opens them again."""
        await self._source.close()

    close = sync_wrapper(_close)

    # --- looking

    async def _content(self, place: Place) -> Tree | File:
        known = self._known.pop(place.root, None)
        if known is None:
            if place.is_collection:
                known = await self._source.tree(place.content, place.provider)
            else:
                hash = place.content.hash
                known = File(hash, await self._source.size(hash, place.provider))
            while len(self._known) >= KEPT:
                del self._known[next(iter(self._known))]
        self._known[place.root] = known  # at the end: it was used last
        return known

    async def _find_entry(self, path: str) -> tuple[Place, File | list[tuple[str, File | None]]]:
        """The file, or the entries of the folder, at a path."""
        place = Place.parse(path)
        content = await self._content(place)
        if isinstance(content, File):
            if not place.path:
                return place, content
        else:
            found = content.file(place.path) or content.folder(place.path)
            if found is not None:
                return place, found
        raise FileNotFoundError(f"there is no {place.path!r} in {place.content}")

    async def _file(self, path: str) -> tuple[Place, File]:
        place, found = await self._find_entry(path)
        if not isinstance(found, File):
            raise IsADirectoryError(f"{place.path or place.content} is a folder")
        return place, found

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        if not path:
            return _folder(path)
        _place, found = await self._find_entry(path)
        return found.info(path) if isinstance(found, File) else _folder(path)

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        if not path:
            return []  # nobody can list all content there is
        _place, found = await self._find_entry(path)
        if isinstance(found, File):
            entries = [found.info(path)]
        else:
            entries = [
                file.info(f"{path}/{name}") if file is not None else _folder(f"{path}/{name}")
                for name, file in found
            ]
        return entries if detail else [entry["name"] for entry in entries]

    def ukey(self, path: str) -> str:
        """What changes when the content does: the hash."""
        return str(self.info(path)["hash"])

    # --- reading

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        place, file = await self._file(self._strip_protocol(path))
        begin, stop, _step = slice(start, end).indices(file.size)
        return await self._source.read(file.hash, file.size, place.provider, begin, stop)

    async def _get_file(
        self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **_: Any
    ) -> None:
        path = self._strip_protocol(rpath)
        _place, found = await self._find_entry(path)
        if not isinstance(found, File):
            Path(lpath).mkdir(parents=True, exist_ok=True)
            return
        callback.set_size(found.size)
        with contextlib.ExitStack() as stack:
            target = lpath if isfilelike(lpath) else stack.enter_context(_appearing(Path(lpath)))
            for start in range(0, found.size, PIECE):
                data = await self._cat_file(path, start, start + PIECE)
                target.write(data)
                callback.relative_update(len(data))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> BlobFile:
        _check_mode(mode)
        _, file = sync(self.loop, self._file, path)
        return BlobFile(self, path, mode, **{**options, "size": file.size})

    async def open_async(self, path: str, mode: str = "rb", **options: Any) -> AsyncBlobFile:
        """A file whose `read` is awaited."""
        _check_mode(mode)
        path = self._strip_protocol(path)
        _, file = await self._file(path)
        return AsyncBlobFile(self, path, mode, **{**options, "size": file.size})


class BlobFile(AbstractBufferedFile):  # type: ignore[misc]
    """A blob, read through one of fsspec's caches."""

    DEFAULT_BLOCK_SIZE = 1024 * 1024

    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start, end)
        return data


class AsyncBlobFile(AbstractAsyncStreamedFile):  # type: ignore[misc]
    """A blob whose reads are awaited."""

    async def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = await self.fs._cat_file(self.path, start, end)
        return data


def _folder(path: str) -> dict[str, Any]:
    return {"name": path, "size": 0, "type": "directory"}


def _check_mode(mode: str) -> None:
    if mode != "rb":
        raise NotImplementedError(f"content by its hash can only be read, not opened as {mode!r}")


@contextlib.contextmanager
def _appearing(path: Path) -> Any:
    """A file to write that appears at `path` at the end of the block, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".aioiroh-", delete=False) as file:
        try:
            yield file
            file.close()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _close_elsewhere(loop: asyncio.AbstractEventLoop, source: Source) -> None:
    """Closes it on its loop; waits unless it is called there."""
    with contextlib.suppress(Exception):  # the program ends, or the garbage is collected
        if asyncio._get_running_loop() is loop:
            loop.create_task(source.close())
        elif loop.is_running():
            sync(loop, source.close, timeout=CLOSE_TIME)
