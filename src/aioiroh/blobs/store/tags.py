"""What keeps content alive: tags that have names, and temporary ones that live as long as an object."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from ..errors import NotFoundError
from ..hash import BlobFormat, HashAndFormat

__all__ = ["OnTag", "Tags", "TempTag", "TempTags"]

OnTag = Callable[[dict[bytes, HashAndFormat | None]], None]
"""Gets changes of names (None: taken away) before they hold; what it raises prevents them."""


class Tags:
    """Names (any bytes) for content, in the order of the names.

    A store that outlives the process keeps them, and a change is kept when the call returns.
    """

    def __init__(
        self,
        tags: Iterable[tuple[bytes, HashAndFormat]] = (),
        on_change: OnTag = lambda changes: None,
    ) -> None:
        """Not for direct use; see `Store.tags`."""
        self._tags = dict(tags)
        self._names = sorted(self._tags)
        self._on_change = on_change

    def set(self, name: bytes, content: HashAndFormat) -> None:
        """Gives `content` the name, in place of what had it before."""
        self._change({bytes(name): content})

    def get(self, name: bytes) -> HashAndFormat | None:
        return self._tags.get(bytes(name))

    def delete(self, name: bytes) -> bool:
        """Takes the name away; False if nothing had it."""
        return self._change({bytes(name): None})

    def rename(self, old: bytes, new: bytes) -> None:
        """What had the name `old` has `new` instead, at once. NotFoundError: nothing had it."""
        content = self._tags.get(bytes(old))
        if content is None:
            raise NotFoundError(f"there is no tag {bytes(old)!r}; list them to see what there is")
        self._change({bytes(old): None, bytes(new): content})

    def list(
        self,
        prefix: bytes = b"",
        *,
        start: bytes = b"",
        end: bytes | None = None,
        format: BlobFormat | None = None,
    ) -> Iterator[tuple[bytes, HashAndFormat]]:
        """The names that begin with `prefix`, from `start` up to and without `end`, and what they
        name; with `format` only content of that format.
        """
        names = self._names[bisect_left(self._names, max(prefix, start)) :]
        for name in names:
            if not name.startswith(prefix) or (end is not None and name >= end):
                return
            content = self._tags.get(name)
            if content is not None and format in (None, content.format):
                yield name, content

    def __len__(self) -> int:
        return len(self._tags)

    def _change(self, changes: dict[bytes, HashAndFormat | None]) -> bool:
        """Whether there was anything to change."""
        changes = {name: to for name, to in changes.items() if to != self._tags.get(name)}
        if not changes:
            return False
        self._on_change(changes)
        for name, content in changes.items():
            if content is not None:
                if name not in self._tags:
                    self._names.insert(bisect_left(self._names, name), name)
                self._tags[name] = content
            elif name in self._tags:
                del self._tags[name]
                del self._names[bisect_left(self._names, name)]
        return True


class TempTags:
    """The temporary tags that are alive, counted."""

    def __init__(self) -> None:
        self._counts: Counter[HashAndFormat] = Counter()

    def add(self, content: HashAndFormat) -> TempTag:
        self._counts[content] += 1
        return TempTag(self, content)

    def _remove(self, content: HashAndFormat) -> None:
        self._counts[content] -= 1
        if self._counts[content] <= 0:
            del self._counts[content]

    def __contains__(self, content: HashAndFormat) -> bool:
        return content in self._counts

    def __iter__(self) -> Iterator[HashAndFormat]:
        return iter(tuple(self._counts))

    def __len__(self) -> int:
        return len(self._counts)


class TempTag:
    """Spares `content` from garbage collection until it is released, left or forgotten."""

    __slots__ = ("_owner", "content")

    def __init__(self, owner: TempTags, content: HashAndFormat) -> None:
        self._owner: TempTags | None = owner
        self.content = content

    def release(self) -> None:
        """Ends it; may be called again."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner._remove(self.content)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"TempTag({self.content})"
