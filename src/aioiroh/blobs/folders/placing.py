"""Which file of a collection goes where below a directory that may hold things already. No I/O.

The planner asks what is at a place, and whether that is the very content that belongs there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from .beneath import Found, Kind
from .names import Demands, Parts, spare_names

__all__ = ["Compare", "Fate", "OnConflict", "Place", "Plan", "Wanted", "plan_places"]

PAUSE: Final = 32
"""Places looked at before the loop gets its turn."""


class OnConflict(Enum):
    """What to do about something else that is where a file belongs."""

    REFUSE = "refuse"
    OVERWRITE = "overwrite"
    """Replace files and links; a directory, or a file where a directory has to be, is still refused."""
    RENAME = "rename"
    """Put the file beside it, under a name such as `a (1).txt`."""
    SKIP = "skip"
    """Leave what is there, and the file out."""


class Fate(Enum):
    """What becomes of a file."""

    NEW = "new"
    """It is put where nothing is."""
    REPLACE = "replace"
    """It replaces what is there."""
    SKIP = "skip"
    """Something else is there and stays."""
    SAME = "same"
    """It is there already, byte for byte."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to be placed: its index in the collection, where it belongs, its size in bytes."""

    index: int
    parts: Parts
    size: int


@dataclass(frozen=True, slots=True)
class Place:
    """What becomes of the file at `index` of the collection, and where it is (to be)."""

    index: int
    parts: Parts
    fate: Fate


@dataclass(frozen=True, slots=True)
class Compare:
    """A question of the planner: is the file at `parts` the content of the file at `index`?"""

    index: int
    parts: Parts


@dataclass(frozen=True, slots=True)
class Plan:
    """Places in the order of what was wanted, and what is in the way and stays there."""

    places: tuple[Place, ...]
    conflicts: tuple[Parts, ...]


Find = Callable[[Parts], Found | None]


def plan_places(
    wanted: Sequence[Wanted], find: Find, on_conflict: OnConflict, demands: Demands
) -> Generator[Compare | None, bool | None, Plan]:
    """Plans where the files go; `find` tells what is at a place or blocks the way to it.

    A generator that yields questions, to be answered by `send(True)` or `send(False)`, and now and
    then None, so that others get their turn. No two files get the same place.
    """
    planner = _Planner(wanted, find, on_conflict, demands)
    # Most of the time nothing is there below the first component.
    occupied = {top for top in {file.parts[0] for file in wanted} if find((top,)) is not None}
    places: list[Place] = []
    conflicts: list[Parts] = []
    for number, file in enumerate(wanted, 1):
        if file.parts[0] not in occupied:
            places.append(Place(file.index, file.parts, Fate.NEW))
            continue
        place = yield from planner.place(file)
        if isinstance(place, Place):
            places.append(place)
        else:
            conflicts.append(place)
        if number % PAUSE == 0:
            yield None
    return Plan(tuple(places), tuple(dict.fromkeys(conflicts)))


class _Planner:
    def __init__(
        self, wanted: Sequence[Wanted], find: Find, on_conflict: OnConflict, demands: Demands
    ) -> None:
        self._find = find
        self._on_conflict = on_conflict
        self._demands = demands
        self._moved: dict[Parts, Parts] = {}
        """Directories that stand beside what is in their way."""
        self._claimed: set[Parts] = set()
        """Where files and directories of the collection belong, folded: no place for others."""
        if on_conflict is OnConflict.RENAME:
            for file in wanted:
                self._claim(file.parts)

    def place(self, file: Wanted) -> Generator[Compare | None, bool | None, Place | Parts]:
        """The place of a file, or what is in its way."""
        parts = self._beside(file.parts)
        while True:
            found = self._find(parts)
            if found is None:
                return Place(file.index, parts, Fate.NEW)
            blocked = found.depth < len(parts)
            if (
                not blocked
                and found.kind is Kind.FILE
                and found.size == file.size
                and (yield Compare(file.index, parts))
            ):
                return Place(file.index, parts, Fate.SAME)
            match self._on_conflict:
                case OnConflict.SKIP:
                    return Place(file.index, parts, Fate.SKIP)
                case OnConflict.OVERWRITE if not blocked and found.kind is not Kind.DIRECTORY:
                    return Place(file.index, parts, Fate.REPLACE)
                case OnConflict.RENAME if blocked:
                    parts = self._move_directory(parts, found.depth)
                case OnConflict.RENAME:
                    return (yield from self._rename(file, parts))
                case _:
                    return parts[: found.depth]

    def _rename(
        self, file: Wanted, parts: Parts
    ) -> Generator[Compare | None, bool | None, Place | Parts]:
        """A place beside the one that is taken; the one of an earlier time, if it has this file."""
        for name in spare_names(parts[-1]):
            candidate = (*parts[:-1], name)
            if self._key(candidate) in self._claimed:
                continue
            found = self._find(candidate)
            fate = Fate.NEW
            if found is not None:
                if found.kind is not Kind.FILE or found.size != file.size:
                    continue
                if not (yield Compare(file.index, candidate)):
                    continue
                fate = Fate.SAME
            self._claim(candidate)
            return Place(file.index, candidate, fate)
        raise AssertionError("there is no end of spare names")

    def _move_directory(self, parts: Parts, depth: int) -> Parts:
        """The way to a file with another name for the directory at `depth`, where something else is."""
        taken = parts[:depth]
        for name in spare_names(taken[-1]):
            candidate = (*taken[:-1], name)
            found = self._find(candidate)
            if self._key(candidate) not in self._claimed and (
                found is None or found.kind is Kind.DIRECTORY
            ):
                self._moved[taken] = candidate
                self._claim(candidate)
                return (*candidate, *parts[depth:])
        raise AssertionError("there is no end of spare names")

    def _beside(self, parts: Parts) -> Parts:
        """The path with the directories moved that were moved before."""
        if self._moved:
            for depth in range(1, len(parts)):
                moved = self._moved.get(parts[:depth])
                if moved is not None:
                    parts = (*moved, *parts[depth:])
        return parts

    def _claim(self, parts: Parts) -> None:
        key = self._key(parts)
        while key and key not in self._claimed:
            self._claimed.add(key)
            key = key[:-1]

    def _key(self, parts: Parts) -> Parts:
        return tuple(map(self._demands.key, parts))
