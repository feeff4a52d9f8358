"""Names from strangers as paths below a directory: which are safe, which collide, how to open them.

A collection may hold any text as a name. Here it becomes a tuple of path components, or an error
that lists every offending name before anything is written.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from ..errors import UnsafeName, UnsafeNameError

__all__ = ["check_names", "fold", "name_from_parts", "problem", "split_name"]

MAX_COMPONENT: Final = 255
"""Bytes of UTF-8 in one component that common file systems take."""
MAX_NAME: Final = 4096
"""Bytes of UTF-8 in a whole name."""
MAX_DEPTH: Final = 128
"""Components in a name."""

_DRIVE = re.compile(r"[A-Za-z]:")
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)
_WINDOWS_CHARACTERS = frozenset('<>:"|?*')

Parts = tuple[str, ...]


def problem(name: str, *, windows: bool = os.name == "nt") -> str | None:
    """Why `name` cannot be a file below a directory, or None if it can.

    `windows`: also refuse what only Windows cannot store or would read as something else.
    """
    if not name:
        return "it is empty"
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if size > MAX_NAME:
        return f"it is longer than {MAX_NAME} bytes"
    if name.startswith("/"):
        return "it is an absolute path"
    if _DRIVE.match(name):
        return "it begins with a drive"
    parts = name.split("/")
    if len(parts) > MAX_DEPTH:
        return f"it has more than {MAX_DEPTH} components"
    for part in parts:
        reason = _part_problem(part, windows)
        if reason:
            return reason
    return None


def _part_problem(part: str, windows: bool) -> str | None:
    if not part:
        return "a component is empty"
    if part in (".", ".."):
        return f"it contains the component {part!r}"
    if "\\" in part:
        return "it contains a backslash"
    if any(unicodedata.category(char) == "Cc" for char in part):
        return "it contains a control character"
    if len(part.encode("utf-8")) > MAX_COMPONENT:
        return f"a component is longer than {MAX_COMPONENT} bytes"
    # Windows also reserves a device's name with an extension, but aux.c is a fine name elsewhere.
    device = part.split(".")[0].rstrip(" ") if windows else part
    if _DEVICE.fullmatch(device):
        return f"{device!r} is the name of a device"
    if windows and part[-1] in ". ":
        return "a component ends with a dot or a space"
    if windows and not _WINDOWS_CHARACTERS.isdisjoint(part):
        return "it contains a character that Windows reserves"
    return None


def split_name(name: str, *, windows: bool = os.name == "nt") -> Parts:
    """The components of a safe name. Raises UnsafeNameError."""
    reason = problem(name, windows=windows)
    if reason:
        raise UnsafeNameError([UnsafeName(name, reason)])
    return tuple(name.split("/"))


def name_from_parts(parts: Iterable[str]) -> str:
    """The name of a file to share, from the components of its path.

    UnsafeNameError: a component is not Unicode text or contains a slash or backslash, which no
    receiver takes.
    """
    parts = tuple(parts)
    shown = "/".join(part.encode("utf-8", "replace").decode() for part in parts)
    for part in parts:
        if not part or part in (".", ".."):
            raise UnsafeNameError([UnsafeName(shown, "a component is empty or dots")])
        if "/" in part or "\\" in part:
            raise UnsafeNameError([UnsafeName(shown, "a component contains a slash or backslash")])
        try:
            part.encode("utf-8")
        except UnicodeEncodeError:
            raise UnsafeNameError([UnsafeName(shown, "it is not UTF-8; rename the file")]) from None
    return "/".join(parts)


def fold(part: str) -> str:
    """What is equal for two components that some file system takes for the same name.

    Case (full Unicode folding) and normalisation (canonical and compatibility) are ignored.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", part).casefold()).casefold()


class _Node:
    """One component of the paths seen so far: how it was spelled, what lies below it."""

    __slots__ = ("below", "name", "part")

    def __init__(self, part: str, name: str) -> None:
        self.part = part
        self.name = name
        self.below: dict[str, _Node] = {}


def check_names(
    names: Iterable[str], *, folded: bool = True, windows: bool = os.name == "nt"
) -> list[Parts]:
    """The components of each name. UnsafeNameError lists every name that is unsafe or collides.

    Two names collide if they are the same path, or if one is a directory in the other. With
    `folded`, names that differ only in case or Unicode normalisation are the same; say False
    only for a file system that keeps them apart. Linear in the length of the names.
    """
    bad: list[UnsafeName] = []
    result: list[Parts] = []
    top: dict[str, _Node] = {}
    for name in names:
        reason = problem(name, windows=windows)
        if reason is None:
            parts = tuple(name.split("/"))
            other = _place(top, name, parts, folded)
            reason = None if other is None else f"it collides with {other!r}"
        if reason is None:
            result.append(parts)
        else:
            bad.append(UnsafeName(name, reason))
    if bad:
        raise UnsafeNameError(bad)
    return result


def _place(top: dict[str, _Node], name: str, parts: Parts, folded: bool) -> str | None:
    """Enters a path into the tree; the name it collides with, if any."""
    below = top
    for depth, part in enumerate(parts, 1):
        is_file = depth == len(parts)
        key = fold(part) if folded else part
        node = below.get(key)
        if node is None:
            node = below[key] = _Node(part, name)
        elif is_file or not node.below or node.part != part:
            # The same file, a directory where a file is or the reverse, or two spellings of one
            # directory, which would merge what the sender kept apart.
            return node.name
        below = node.below
    return None
