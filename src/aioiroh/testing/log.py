"""What went over a virtual network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from hashlib import blake2b
from typing import Literal, NamedTuple

from aioiroh.testing.link import Fate

__all__ = ["PacketEvent", "PacketLog", "PacketRecord"]

PacketEvent = (
    Literal["sent", "received", "interface down", "unreachable", "port closed", "filtered"] | Fate
)
"""`sent` and `received`, or why a packet was dropped on the way; `filtered`: a router lets it not pass."""


class PacketRecord(NamedTuple):
    """One event of one packet. `time` in virtual seconds, `size` in bytes of UDP or TCP payload."""

    time: float
    source: tuple[str, int]
    destination: tuple[str, int]
    size: int
    event: PacketEvent
    protocol: Literal["udp", "tcp"] = "udp"

    def __str__(self) -> str:
        source, destination = _join(self.source), _join(self.destination)
        tcp = " tcp" if self.protocol == "tcp" else ""
        return f"{self.time:.9f} {source} > {destination} {self.size}{tcp} {self.event}"


class PacketLog:
    """The latest records, oldest first, and a fingerprint of all there ever were."""

    def __init__(self, limit: int = 100_000) -> None:
        self._records: deque[PacketRecord] = deque(maxlen=limit)
        self._hash = blake2b(digest_size=16)
        self._unhashed: list[str] = []
        self.count = 0
        """Records ever made."""

    def add(self, record: PacketRecord) -> None:
        self._records.append(record)
        self.count += 1
        self._unhashed.append(str(record))
        if len(self._unhashed) >= 1000:
            self._digest()

    def _digest(self) -> None:
        for line in self._unhashed:
            self._hash.update(line.encode() + b"\n")
        self._unhashed.clear()

    def fingerprint(self) -> str:
        """A hash of every record ever made: equal for two runs that did the same."""
        self._digest()
        return self._hash.hexdigest()

    def totals(self) -> dict[str, int]:
        """How many of the records that are kept there are of each event."""
        counts: dict[str, int] = {}
        for record in self._records:
            counts[record.event] = counts.get(record.event, 0) + 1
        return counts

    def text(self) -> str:
        """The records that are kept, one a line: time, from, to, size, event."""
        return "\n".join(str(record) for record in self._records)

    def __iter__(self) -> Iterator[PacketRecord]:
        return iter(tuple(self._records))

    def __len__(self) -> int:
        return len(self._records)


def _join(address: tuple[str, int]) -> str:
    ip, port = address
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
