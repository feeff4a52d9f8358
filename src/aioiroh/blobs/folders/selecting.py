"""Choosing files of a collection by patterns, as a shell would."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Final

__all__ = ["select"]

MAX_PATTERN: Final = 4096
"""Characters in one pattern."""


def select(names: Sequence[str], patterns: Sequence[str]) -> list[int]:
    """Indexes of the names that at least one pattern selects, ascending.

    `*`, `?`, `[abc]` and `[!abc]` stand for characters other than `/`; case matters. A pattern
    without `/` selects files, and all that is in folders, of that name anywhere. One with `/`
    starts at the beginning of the name: a file, or all that is in a folder; a component `**` stands
    for any number of components. A `/` at its end selects only what is in folders.

    ValueError: a pattern is empty or over 4096 characters, or selects nothing.
    """
    chosen: set[int] = set()
    for text in patterns:
        pattern = _Pattern(text)
        found = [index for index, name in enumerate(names) if pattern.matches(name)]
        if not found:
            raise ValueError(f"no file matches {text!r}; a list of the names shows what there is")
        chosen.update(found)
    return sorted(chosen)


class _Pattern:
    def __init__(self, text: str) -> None:
        bare = text.strip("/")
        if not bare or len(text) > MAX_PATTERN:
            raise ValueError(f"{text[:40]!r} is no pattern for names")
        parts = bare.split("/")
        self._folders_only = text.endswith("/")
        self._anywhere = len(parts) == 1 and not text.startswith("/")
        # fnmatch's expressions do not backtrack without end, whatever the name.
        self._parts = [
            None if part == "**" else re.compile(fnmatch.translate(part)) for part in parts
        ]

    def matches(self, name: str) -> bool:
        components = name.split("/")
        # Where in the pattern one may be: a set, so that `**` costs no more than its length.
        begin = self._skip({0}) - {len(self._parts)}
        positions = set(begin)
        for depth, component in enumerate(components, 1):
            is_folder = depth < len(components)
            reached = set()
            for at in positions:
                part = self._parts[at]
                if part is None:
                    reached.add(at)
                elif part.match(component):
                    reached.add(at + 1)
            positions = self._skip(reached)
            if len(self._parts) in positions and (is_folder or not self._folders_only):
                return True
            positions.discard(len(self._parts))
            if self._anywhere:
                positions |= begin
            if not positions:
                return False
        return False

    def _skip(self, positions: set[int]) -> set[int]:
        """With those behind a `**`, which may stand for nothing."""
        result = set(positions)
        for at in sorted(positions):
            while at < len(self._parts) and self._parts[at] is None:
                at += 1
                result.add(at)
        return result
