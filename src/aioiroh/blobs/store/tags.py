"""What keeps content alive: tags that have names, and temporary ones that live as long as an object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from ..hash import HashAndFormat

__all__ = ["Tags", "TempTag", "TempTags"]


class Tags:
    """Names (any bytes) for content, in the order of the names."""

    def __init__(self) -> None:
        self._tags: dict[bytes, HashAndFormat] = {}

    def set(self, name: bytes, content: HashAndFormat) -> None:
        """Gives `content` the name, in place of what had it before."""
        self._tags[bytes(name)] = content

    def get(self, name: bytes) -> HashAndFormat | None:
        return self._tags.get(bytes(name))

    def delete(self, name: bytes) -> bool:
        """Takes the name away; False if nothing had it."""
        return self._tags.pop(bytes(name), None) is not None

    def list(self, prefix: bytes = b"") -> Iterator[tuple[bytes, HashAndFormat]]:
        """The names that start with `prefix`, and what they name."""
        return ((name, self._tags[name]) for name in sorted(self._tags) if name.startswith(prefix))

    def __len__(self) -> int:
        return len(self._tags)


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
