"""Options that several commands have, and what is typed for them as values."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .relays import RelayChoice

if TYPE_CHECKING:
    from aioiroh.blobs import BlobTicket
    from aioiroh.keys import SecretKey

__all__ = [
    "addresses",
    "as_json",
    "bind",
    "codes",
    "on_conflict",
    "only",
    "relay",
    "secret",
    "ticket",
    "ticket_argument",
    "timeout",
    "verbose",
]

bind = click.option(
    "--bind",
    multiple=True,
    metavar="ADDR:PORT",
    callback=lambda _context, _parameter, value: addresses(value),
    help="Use this local address; can be repeated. Port 0 is any. [default: all addresses]",
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Write events to standard output, a JSON object a line."
)
only = click.option(
    "--only",
    multiple=True,
    metavar="GLOB",
    help="Only files that match, such as '*.jpg' or 'photos/2024'; can be repeated.",
)
ticket_argument = click.argument(
    "ticket", metavar="TICKET", callback=lambda _context, _parameter, value: ticket(value)
)
timeout = click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Give up when the sender does not answer for so long.",
)
verbose = click.option("-v", "--verbose", count=True, help="List the files; -vv: also write a log.")


def on_conflict(command: Callable[..., None]) -> Callable[..., None]:
    """What is to be done about something else that is in the way of a file."""
    for name, help in (
        ("skip", "Leave such files out."),
        ("rename", "Put files beside those, as 'name (1)'."),
        ("overwrite", "Replace files that are in the way."),
    ):
        option = click.option(f"--{name}", "on_conflict", flag_value=name, help=help)
        command = option(command)
    return command


def _certificates(
    _context: click.Context, _parameter: click.Parameter, path: Path | None
) -> Path | None:
    if path is not None:
        from aioiroh import _native

        try:
            _native.RelayTls(roots=path.read_bytes())
        except (OSError, ValueError) as error:
            raise click.BadParameter(f"{path}: {getattr(error, 'strerror', error)}") from None
    return path


def relay(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Relays for peers that cannot be reached directly; `default` says which are used otherwise.

    The command gets them as `relay`, a `RelayChoice`.
    """
    urls = click.option(
        "--relay",
        multiple=True,
        metavar="URL",
        envvar="AIOIROH_RELAY",
        callback=lambda _context, _parameter, value: relays(value),
        help=f"Use this relay where there is no direct way; can be repeated. [default: {default}]",
    )
    ca = click.option(
        "--relay-ca",
        metavar="FILE",
        envvar="AIOIROH_RELAY_CA",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        callback=_certificates,
        help="CA certificates (PEM) by which relays are judged. [default: those of Mozilla]",
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def choose(
            *arguments: Any, relay: tuple[str, ...], relay_ca: Path | None, **others: Any
        ) -> None:
            command(*arguments, relay=RelayChoice(relay, relay_ca), **others)

        return urls(ca(choose))

    return decorate


def codes(wanted: bool) -> bool:
    """Whether QR codes are wanted; they need what is not always installed."""
    from .showing import can_show_codes

    if wanted and not can_show_codes():
        raise click.UsageError("--qr needs the package segno: pip install 'aioiroh[qr]'")
    return wanted


def ticket(text: str) -> BlobTicket:
    """What was typed as a ticket."""
    from aioiroh.blobs import BlobTicket
    from aioiroh.errors import TicketParsingError

    try:
        return BlobTicket.parse(text.strip())
    except TicketParsingError as error:
        raise click.BadParameter(str(error)) from None


def addresses(texts: tuple[str, ...]) -> tuple[str, ...]:
    """What was typed as addresses, in their usual form."""
    from aioiroh.address import IpAddr
    from aioiroh.errors import AddressParsingError

    try:
        return tuple(IpAddr.parse(text).text for text in texts)
    except AddressParsingError as error:
        raise click.BadParameter(str(error)) from None


def relays(texts: tuple[str, ...]) -> tuple[str, ...]:
    """What was typed as URLs of relays, in their usual form."""
    from aioiroh.address import RelayUrl
    from aioiroh.errors import AddressParsingError
    from aioiroh.relay import check_url

    try:
        urls = tuple(RelayUrl(text) for text in texts)
        for url in urls:
            check_url(url)
    except AddressParsingError as error:
        raise click.BadParameter(str(error)) from None
    return urls


def secret() -> SecretKey | None:
    """The key in the environment, if there is one."""
    from aioiroh.errors import KeyParsingError
    from aioiroh.keys import SecretKey

    text = os.environ.get("IROH_SECRET")
    if not text:
        return None
    try:
        return SecretKey.parse(text)
    except KeyParsingError as error:
        raise click.UsageError(f"IROH_SECRET: {error}") from None
