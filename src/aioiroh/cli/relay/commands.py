"""`aioiroh relay` and its options. What it does is loaded when it runs."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .levels import LEVELS, level_from

__all__ = ["relay"]


def _level(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str:
    return value or level_from(os.environ.get("RUST_LOG", "")) or "info"


@click.command(
    epilog="""\b
Examples:
  aioiroh relay --dev                    to try it: plain HTTP on port 3340
  aioiroh relay -c relay.toml            as the file says
  aioiroh relay -c relay.toml --check    only look whether the file is right
  kill -HUP PID                          read the file and the certificate again
  kill PID                               stop, and send the clients away one by one

\b
A file that is enough for most:
  enable_quic_addr_discovery = true
  access.shared_token = ["a long secret"]
  [tls]
  cert_mode = "Reloading"
  manual_cert_path = "/etc/letsencrypt/live/relay.example/fullchain.pem"
  manual_key_path = "/etc/letsencrypt/live/relay.example/privkey.pem"

\b
Then, on other machines:
  aioiroh send photos --relay https://relay.example"""
)
@click.option("--dev", is_flag=True, help="Plain HTTP, on port 3340 unless the file says another.")
@click.option(
    "-c",
    "--config-path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The configuration (TOML), with the keys of upstream's iroh-relay.",
)
@click.option("--check", "only_check", is_flag=True, help="Check the configuration, and end.")
@click.option(
    "--drain",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="When it stops: send all clients away within this time.",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    callback=_level,
    help="What is written to standard error. [default: RUST_LOG, else info]",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="As lines for people, or a JSON object a line.",
)
def relay(
    dev: bool,
    config_path: Path | None,
    only_check: bool,
    drain: float,
    log_level: str,
    log_format: str,
) -> None:
    """Run a relay, as upstream's iroh-relay does.

    Endpoints that cannot reach each other meet there. It takes iroh-relay's configuration as it is, and
    serves its clients.
    """
    from ..display import PlainDisplay
    from ..run import run
    from .logs import write_log
    from .serving import RelayOptions, check, serve_relay

    options = RelayOptions(config_path, dev, drain)
    if only_check:
        run(lambda display, _: check(options, display), PlainDisplay())
    write_log(log_level, as_json=log_format == "json")
    run(
        lambda display, interrupts: serve_relay(options, display, interrupts),
        PlainDisplay(),
    )
