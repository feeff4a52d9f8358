"""One HTTP/1.1 request and its answer, without I/O: what UPnP needs of RFC 9112."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aioiroh.errors import DecodeError

__all__ = ["MAX_SIZE", "Answer", "read", "request"]

MAX_SIZE: Final = 1 << 18
"""Bytes of an answer, head and body."""
_MAX_HEAD: Final = 16_384
_MAX_CHUNKS: Final = 1_000
"""Chunks of a body. Each look at an answer that comes in pieces goes through all of them."""
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: |$)")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


def request(method: str, host: str, path: str, fields: Mapping[str, str], body: bytes) -> bytes:
    """The bytes to send; `host` as in the URL, with the port."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + body


def read(data: bytes, *, ended: bool) -> Answer | None:
    """The answer in what has come so far; None: more has to come. `ended`: nothing more will.

    Raises DecodeError.
    """
    if len(data) > MAX_SIZE:
        raise DecodeError("the answer is too long")
    head, blank, rest = data.partition(b"\r\n\r\n")
    if len(head) > _MAX_HEAD:
        raise DecodeError("the head of the answer is too long")
    if not blank:
        if ended:
            raise DecodeError("an answer without an end of its head")
        return None
    first, *lines = head.split(b"\r\n")
    status = _STATUS.match(first)
    if status is None:
        raise DecodeError("not an answer of HTTP/1.1")
    fields = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip().lower()
    if fields.get(b"transfer-encoding", b"identity") != b"identity":
        body = _chunks(rest)
    elif b"content-length" in fields:
        length = fields[b"content-length"]
        if not re.fullmatch(rb"[0-9]{1,9}", length):
            raise DecodeError("a length that is no number")
        body = rest[: int(length)] if len(rest) >= int(length) else None
    else:
        body = rest if ended else None
    if body is None:
        if ended:
            raise DecodeError("the answer breaks off")
        return None
    return Answer(int(status[1]), body)


def _chunks(data: bytes) -> bytes | None:
    """RFC 9112 section 7.1, as far as it has come: None if the last chunk is missing. Raises DecodeError."""
    chunks: list[bytes] = []
    at = 0
    while len(chunks) <= _MAX_CHUNKS:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        size = re.match(rb"[0-9A-Fa-f]{1,6}(?=[ \t;]|$)", data[at:end])
        if size is None:
            raise DecodeError("a chunk whose size is no number")
        length = int(size[0], 16)
        if length == 0:
            return b"".join(chunks)
        start, at = end + 2, end + 2 + length + 2
        if len(data) < at:
            return None
        if data[at - 2 : at] != b"\r\n":
            raise DecodeError("a chunk that is longer than it says")
        chunks.append(data[start : at - 2])
    raise DecodeError("the answer has too many chunks")
