"""Names from strangers as paths below a directory: which are refused, which are changed, and how.

A collection may hold any text as a name. What could lead elsewhere, or is no path at all, is an error
that lists every such name before anything is written. What is only impossible where it is to go
(a colon on Windows, two spellings on a file system that knows one) gets a name that is possible.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from ..errors import UnsafeName, UnsafeNameError

__all__ = [
    "HIDDEN",
    "Demands",
    "Parts",
    "fitting",
    "fold",
    "name_from_parts",
    "problem",
    "safe_paths",
    "spare_names",
]

HIDDEN: Final = ".aioiroh-"
"""What folders with content on its way begin with. They are neither shared nor received."""
MAX_COMPONENT: Final = 255
"""Bytes of UTF-8 in one component that common file systems take."""
MAX_NAME: Final = 4096
"""Bytes of UTF-8 in a whole name."""
MAX_DEPTH: Final = 128
"""Components in a name."""
MAX_EXTENSION: Final = 16
"""Characters of what follows a dot and is kept at the end when a name is changed."""

_DRIVE = re.compile(r"[A-Za-z]:")
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)
_RESERVED = str.maketrans(dict.fromkeys('<>:"|?*', "_"))
_EXTENSION = re.compile(rf"(.+?)((?:\.tar)?\.[^. ]{{1,{MAX_EXTENSION}}})", re.DOTALL)

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Demands:
    """What a file system cannot hold.

    `folded`: two names that differ only in case or Unicode normalisation are one there.
    `windows`: characters, endings and device names that Windows reserves cannot be stored.
    """

    folded: bool = True
    windows: bool = False

    def key(self, part: str) -> str:
        """Equal for two components that are one there."""
        return fold(part) if self.folded else part


def problem(name: str) -> str | None:
    """Why `name` is no path below a directory, on any system; None if it is one."""
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
        if not part:
            return "a component is empty"
        if part in (".", ".."):
            return f"it contains the component {part!r}"
        if "\\" in part:
            return "it contains a backslash"
        if part.startswith(HIDDEN):
            return f"{HIDDEN} is for what is on its way"
        if not part.isprintable() and any(unicodedata.category(char) == "Cc" for char in part):
            return "it contains a control character"
    return None


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
    if part.isascii():
        return part.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", part).casefold()).casefold()


def fitting(part: str, demands: Demands) -> str:
    """A component as it can be stored: as it is if possible, else with the least change."""
    if demands.windows:
        part = part.translate(_RESERVED)
    if len(part) * 4 > MAX_COMPONENT and len(part.encode("utf-8")) > MAX_COMPONENT:
        stem, extension = _split(part)
        part = _cut(stem, MAX_COMPONENT - len(extension.encode("utf-8"))) + extension
    if demands.windows:
        bare = part.rstrip(". ")
        part = bare + "_" * (len(part) - len(bare))
        # Windows reserves a device's name with an extension, too.
        device = part.split(".")[0].rstrip(" ")
        if _DEVICE.fullmatch(device):
            part = f"{device}_{part[len(device) :]}"
    return part


def spare_names(part: str) -> Iterator[str]:
    """Names for what has to stand beside `part`: `a (1).txt`, `a (2).txt` and so on, without end."""
    stem, extension = _split(part)
    number = 0
    while True:
        number += 1
        tail = f" ({number}){extension}"
        yield _cut(stem, MAX_COMPONENT - len(tail.encode("utf-8"))) + tail


def _split(part: str) -> tuple[str, str]:
    """What is before the extension, and the extension with its dot."""
    match = _EXTENSION.fullmatch(part)
    return (match[1], match[2]) if match else (part, "")


def _cut(stem: str, size: int) -> str:
    """The beginning of `stem`, at most `size` bytes of UTF-8."""
    return stem.encode("utf-8")[:size].decode("utf-8", "ignore")


class _Node:
    """One component of the paths: where it is, what lies below it."""

    __slots__ = ("below", "name", "path")

    def __init__(self, name: str) -> None:
        self.name = name
        """The first of the names that lead here."""
        self.below: dict[str, _Node] = {}
        self.path: Parts = ()


def safe_paths(names: Sequence[str], demands: Demands) -> list[Parts]:
    """Where each name goes below a directory: its own components, as far as `demands` allow that.

    UnsafeNameError lists every name that is no path below a directory, is there twice, or is both a
    file and a directory. No two of the paths are one where they go, nor in the way of each other.
    Linear in the length of the names.
    """
    bad: list[UnsafeName] = []
    top = _Node("")
    leaves: list[_Node] = []
    for name in names:
        reason = problem(name)
        if reason is None:
            leaf = _enter(top, name)
            if isinstance(leaf, _Node):
                leaves.append(leaf)
                continue
            reason = f"it collides with {leaf!r}"
        bad.append(UnsafeName(name, reason))
    if bad:
        raise UnsafeNameError(bad)
    _settle(top, demands)
    return [leaf.path for leaf in leaves]


def _enter(top: _Node, name: str) -> _Node | str:
    """A node for a new name; or the name it collides with."""
    node = top
    is_new = True
    for part in name.split("/"):
        if not (is_new or node.below):
            return node.name  # a file, where a directory is needed
        below = node.below.get(part)
        is_new = below is None
        if below is None:
            below = node.below[part] = _Node(name)
        node = below
    return node if is_new else node.name


def _settle(top: _Node, demands: Demands) -> None:
    """Gives every node its path."""
    directories = [top]
    while directories:
        directory = directories.pop()
        used: set[str] = set()
        # Who can have its own name gets it; the others find one beside those.
        others: list[tuple[str, _Node]] = []
        for part, node in directory.below.items():
            fit = fitting(part, demands)
            key = demands.key(fit)
            if fit != part or key in used:
                others.append((fit, node))
            else:
                used.add(key)
                node.path = (*directory.path, part)
        for fit, node in others:
            name = next(
                name for name in chain((fit,), spare_names(fit)) if demands.key(name) not in used
            )
            used.add(demands.key(name))
            node.path = (*directory.path, name)
        directories.extend(node for node in directory.below.values() if node.below)
