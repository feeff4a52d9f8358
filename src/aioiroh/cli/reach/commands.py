"""`aioiroh doctor`, `aioiroh ping` and their options. What they do is loaded when they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .. import options

if TYPE_CHECKING:
    from aioiroh import EndpointAddr

    from ..relays import RelayChoice

__all__ = ["doctor", "ping"]


def _target(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> EndpointAddr | None:
    # With the blobs their tickets are known, too.
    from aioiroh import EndpointAddr, blobs  # noqa: F401
    from aioiroh.errors import DecodeError

    if text is None:
        return None
    try:
        return EndpointAddr.coerce(text.strip())
    except DecodeError as error:
        raise click.BadParameter(str(error)) from None


@click.command(
    epilog="""\b
Examples:
  aioiroh ping --listen                  on one machine: answer, and show a ticket for the other
  aioiroh ping endpoint…                 on the other: once a second, until Ctrl-C
  aioiroh ping blob… -c 5                whoever is meant by a ticket of another kind
  aioiroh ping ID --relay https://…      an id, at this relay
  aioiroh ping endpoint… --json          for programs

\b
A peer answers if it runs `aioiroh ping --listen` or another program with iroh's ping protocol.
IROH_SECRET in the environment (64 hex digits or base32) is used as the secret key if it is set."""
)
@click.argument("target", metavar="[ID|TICKET]", required=False, callback=_target)
@click.option("--listen", is_flag=True, help="Answer pings, and show a ticket for who asks.")
@click.option(
    "-c",
    "--count",
    metavar="N",
    type=click.IntRange(min=1),
    help="Ask so many times. [default: until Ctrl-C]",
)
@click.option(
    "-i",
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.001),
    default=1.0,
    show_default=True,
    help="From one question to the next.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="For the connection, and for each answer.",
)
@options.bind
@options.relay("those in the ticket")
@options.as_json
@click.option("-v", "--verbose", count=True, help="-vv: also write a log.")
def ping(
    target: EndpointAddr | None,
    listen: bool,
    count: int | None,
    interval: float,
    timeout: float,
    bind: tuple[str, ...],
    relay: RelayChoice,
    as_json: bool,
    verbose: int,
) -> None:
    """Ask a peer whether it is there, and show which way the answers come.

    A connection often begins through a relay and becomes direct a moment later; that is shown when it
    happens.
    """
    from ..display import choose_display
    from ..run import run
    from .answering import ListenOptions, answer_pings
    from .pinging import PingOptions, ping_peer

    if listen == (target is not None):
        raise click.UsageError("say whom to ask, by its id or a ticket; or --listen to answer")
    if target is not None and not target.addrs and not relay:
        raise click.UsageError(
            "an id does not tell where the peer is; give its ticket, or --relay URL if it is there"
        )
    secret = options.secret()
    display = choose_display(as_json=as_json, with_log=verbose >= 2)
    if target is None:
        answering = ListenOptions(bind, relay, secret)
        run(
            lambda display, interrupts: answer_pings(answering, display, interrupts),
            display,
            verbose=verbose,
        )
    asking = PingOptions(target, count, interval, timeout, bind, relay, secret)
    run(
        lambda display, interrupts: ping_peer(asking, display, interrupts),
        display,
        verbose=verbose,
    )


@click.command(
    epilog="""\b
Examples:
  aioiroh doctor                                       what can be told without a relay
  aioiroh doctor --relay https://relay.example         also UDP, NAT, latency, captive portal
  aioiroh doctor --relay https://a… --relay https://b… two of them tell how a NAT maps
  aioiroh doctor --relay https://… --json              for programs

\b
Ends with 0 if nothing is in the way, 6 if not every peer is reached directly, 4 if hardly any is."""
)
@options.relay("none; then little can be told")
@options.bind
@options.as_json
@click.option("-v", "--verbose", count=True, help="-vv: also write a log.")
def doctor(
    relay: RelayChoice,
    bind: tuple[str, ...],
    as_json: bool,
    verbose: int,
) -> None:
    """Look at this machine's network, and say what stands between it and its peers.

    Asks the given relays and the router of the local network, and nobody else.
    """
    from ..display import choose_display
    from ..run import run
    from .doctor import DoctorOptions, examine

    wanted = DoctorOptions(relay, bind)
    run(
        lambda display, _: examine(wanted, display),
        choose_display(as_json=as_json, with_log=verbose >= 2),
        verbose=verbose,
    )
