"""What a relay answers to HTTP requests that are no relay connections (relay protocol, sections 1.1 to 1.5).

Pure: a request goes in, an answer comes out, or None for the path where clients upgrade.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final

__all__ = ["SECURITY_HEADERS", "Answer", "Listener", "answer"]

SECURITY_HEADERS: Final = (
    ("Strict-Transport-Security", "max-age=63072000; includeSubDomains"),
    (
        "Content-Security-Policy",
        (
            "default-src 'none'; frame-ancestors 'none'; form-action 'none'; base-uri 'self'; "
            "block-all-mixed-content; plugin-types 'none'"
        ),
    ),
)
"""On every answer of a main listener, the upgrade included."""

CHALLENGE: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")

_PAGE: Final = b"""\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>iroh relay</title></head>
<body>
<h1>Relay</h1>
<p>This is a relay for <a href="https://www.iroh.computer/">iroh</a>. It forwards encrypted datagrams.</p>
</body>
</html>
"""


class Listener(Enum):
    """What a TCP port is there for."""

    MAIN = "main"
    """Everything, without TLS."""
    MAIN_TLS = "main over TLS"
    """Everything but the check for captive portals, which is made without TLS."""
    CAPTIVE = "captive portal check"
    """Nothing but that check."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response. `reason`: the words behind the status."""

    status: int
    reason: str
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = field(default=())


NOT_FOUND: Final = Answer(404, "Not Found", b"Not Found")


def answer(
    listener: Listener, method: str, target: str, headers: Mapping[str, str]
) -> Answer | None:
    """`headers` have lower-case names. None: the request is for a relay connection."""
    found = _answer(listener, method, target.partition("?")[0], headers)
    if found is None or listener is Listener.CAPTIVE:
        return found
    return Answer(found.status, found.reason, found.body, (*found.headers, *SECURITY_HEADERS))


def _answer(
    listener: Listener, method: str, path: str, headers: Mapping[str, str]
) -> Answer | None:
    if method != "GET":
        return NOT_FOUND
    if path == "/generate_204" and listener is not Listener.MAIN_TLS:
        return _captive_check(headers)
    if listener is Listener.CAPTIVE:
        return NOT_FOUND
    match path:
        case "/relay":
            return None
        case "/ping":
            return Answer(200, "OK", headers=(("Access-Control-Allow-Origin", "*"),))
        case "/healthz":
            return Answer(200, "OK", _health(), (("Content-Type", "application/json"),))
        case "/" | "/index.html":
            return Answer(200, "OK", _PAGE, (("Content-Type", "text/html; charset=utf-8"),))
        case "/robots.txt":
            return Answer(200, "OK", b"User-agent: *\nDisallow: /\n")
    return NOT_FOUND


def _captive_check(headers: Mapping[str, str]) -> Answer:
    challenge = headers.get("x-iroh-challenge", "")
    if CHALLENGE.fullmatch(challenge):
        return Answer(204, "No Content", headers=(("X-Iroh-Response", f"response {challenge}"),))
    return Answer(204, "No Content")


# Anybody may ask as often as they like, and the version is looked up in files.
@cache
def _health() -> bytes:
    try:
        number = version("aioiroh")
    except PackageNotFoundError:
        number = "unknown"
    return json.dumps({"status": "ok", "version": number, "git_hash": "unknown"}).encode()
