"""HTTP/1.1 (RFC 9112) without I/O: requests, heads of answers, and answers that are no longer than they may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aioiroh.errors import DecodeError

__all__ = ["MAX_HEAD", "MAX_SIZE", "Answer", "Head", "read", "read_head", "request"]

MAX_SIZE: Final = 1 << 18
"""Bytes of an answer, head and body."""
MAX_HEAD: Final = 16_384
"""Bytes of a head."""
_MAX_CHUNKS: Final = 1_000
"""Chunks of a body. Each look at an answer that comes in pieces goes through all of them."""
_STATUS: Final = re.compile(r"HTTP/1\.[01] ([1-5][0-9]{2})(?: (.*))?")


@dataclass(frozen=True, slots=True)
class Head:
    """The status with its reason, and the fields by their names in lower case."""

    status: int
    reason: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


def request(
    method: str, target: str, host: str, fields: Mapping[str, str] | None = None, body: bytes = b""
) -> bytes:
    """The bytes to send; `host` as in the URL, with the port."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in (fields or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def read_head(data: bytes) -> tuple[Head, bytes] | None:
    """The head in what has come so far, and what came after it; None: more has to come. Raises DecodeError."""
    text, blank, rest = data.partition(b"\r\n\r\n")
    if len(text) > MAX_HEAD:
        raise DecodeError("the head of the answer is too long")
    if not blank:
        return None
    first, *lines = text.decode("latin-1").split("\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise DecodeError("the answer is not HTTP")
    fields = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise DecodeError("the answer has a malformed field")
        fields[name.strip().lower()] = value.strip(" \t")
    return Head(int(status[1]), (status[2] or "").strip(), fields), rest


def read(data: bytes, *, ended: bool) -> Answer | None:
    """The answer in what has come so far; None: more has to come. `ended`: nothing more will.

    Raises DecodeError.
    """
    if len(data) > MAX_SIZE:
        raise DecodeError("the answer is too long")
    found = read_head(data)
    body = None if found is None else _body(*found, ended=ended)
    if found is None or body is None:
        if ended:
            raise DecodeError("the answer breaks off")
        return None
    return Answer(found[0].status, body)


def _body(head: Head, rest: bytes, *, ended: bool) -> bytes | None:
    if head.fields.get("transfer-encoding", "identity").lower() != "identity":
        return _chunks(rest)
    length = head.fields.get("content-length")
    if length is None:
        return rest if ended else None
    if not re.fullmatch("[0-9]{1,9}", length):
        raise DecodeError("a length that is no number")
    return rest[: int(length)] if len(rest) >= int(length) else None


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
