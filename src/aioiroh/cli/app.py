"""The commands and their options. What they do is loaded when one of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .blob.commands import blob
from .reach.commands import doctor, ping
from .relay.commands import relay

if TYPE_CHECKING:
    from aioiroh.blobs import BlobTicket

    from .relays import RelayChoice

__all__ = ["app"]


def _version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("aioiroh")
        except PackageNotFoundError:  # run from its sources
            number = "(not installed)"
        click.echo(f"aioiroh {number}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version.",
)
def app() -> None:
    """Send files and folders from one machine to another, directly, verified on the way.

    \b
    On the machine that has the files:      aioiroh send photos
    On the other one, with its ticket:      aioiroh receive blob…
    What stands in the way here:            aioiroh doctor
    Does a machine answer, and how:         aioiroh ping …
    A relay for those behind a NAT:         aioiroh relay …

    sendme, iroh's own program, can be at either end.
    """


@app.command(
    epilog="""\b
Examples:
  aioiroh send photos                    a folder
  aioiroh send a.iso notes.txt           several things
  aioiroh send . --once --timeout 600    this folder, to one receiver who comes within ten minutes
  tar c x | aioiroh send - --name x.tar  what comes from standard input
  aioiroh send photos --qr               show the ticket as a QR code, too
  aioiroh send photos | wl-copy          without a terminal, only the ticket is written

\b
Interrupted? The same command gives the same ticket again, and receivers go on where they were.
IROH_SECRET in the environment (64 hex digits or base32) is used as the secret key if it is set."""
)
@click.argument(
    "paths",
    metavar="PATH...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, allow_dash=True, path_type=Path),
)
@click.option("--name", metavar="NAME", help="What standard input (-) is called. [default: stdin]")
@click.option("--once", is_flag=True, help="End when one receiver has got everything.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="End when nobody has been here for so long. [default: never]",
)
@click.option(
    "--new-ticket", is_flag=True, help="Make a new ticket; the earlier one of these paths is void."
)
@click.option(
    "--qr",
    is_flag=True,
    callback=lambda _context, _parameter, wanted: options.codes(wanted),
    help="Show the ticket as a QR code.",
)
@click.option(
    "-c", "--clipboard", is_flag=True, help="Copy the receiver's command into the clipboard."
)
@options.bind
@options.relay("none")
@options.as_json
@options.verbose
def send(
    paths: tuple[Path, ...],
    name: str | None,
    once: bool,
    timeout: float | None,
    new_ticket: bool,
    qr: bool,
    clipboard: bool,
    bind: tuple[str, ...],
    relay: RelayChoice,
    as_json: bool,
    verbose: int,
) -> None:
    """Share files and folders.

    Hashes them where they are, prints a ticket, and serves until Ctrl-C. Whoever has the ticket can
    fetch them meanwhile; do not change them as long. The same paths get the same ticket again.
    """
    from .display import choose_display
    from .run import run
    from .send import SendOptions, send
    from .stdin import STDIN

    if paths.count(STDIN) > 1 or (name is not None and STDIN not in paths):
        raise click.UsageError("--name is for standard input, which is one path, '-'")
    wanted = SendOptions(
        paths,
        "stdin" if name is None else name,
        bind=bind,
        relay=relay,
        secret=options.secret(),
        new_ticket=new_ticket,
        once=once,
        timeout=timeout,
        qr=qr,
        clipboard=clipboard,
        verbose=verbose,
    )
    run(
        lambda display, interrupts: send(wanted, display, interrupts),
        choose_display(as_json=as_json, with_log=verbose >= 2),
        verbose=verbose,
    )


@app.command(
    epilog="""\b
Examples:
  aioiroh receive blob…                    into this folder
  aioiroh receive blob… -o photos          into the folder photos, which is made if need be
  aioiroh receive blob… --only '*.jpg'     only these files
  aioiroh receive blob… --rename           and keep what is there
  aioiroh receive blob… -o - | tar x       one file, to another program

\b
Interrupted? The same command goes on where it stopped."""
)
@options.ticket_argument
@click.option(
    "-o",
    "--output",
    "directory",
    metavar="DIR",
    default=Path(),
    type=click.Path(file_okay=False, allow_dash=True, path_type=Path),
    help="Put the files into this folder; '-': write one file to standard output. "
    "[default: the current one]",
)
@options.only
@options.on_conflict
@options.timeout
@options.bind
@options.relay("those in the ticket")
@options.as_json
@options.verbose
def receive(
    ticket: BlobTicket,
    directory: Path,
    only: tuple[str, ...],
    on_conflict: str | None,
    timeout: float,
    bind: tuple[str, ...],
    relay: RelayChoice,
    as_json: bool,
    verbose: int,
) -> None:
    """Fetch what a ticket names.

    Nothing is written over what is there already: if something else is in the way, that is said before
    the download begins. Files that are there and right are not fetched again. A file appears in its
    place when all of it has arrived and was verified.
    """
    from aioiroh.blobs import OnConflict

    from .contents import Sender
    from .display import choose_display
    from .piping import receive_to_stdout
    from .receive import ReceiveOptions, receive
    from .run import run
    from .stdin import STDIN

    sender = Sender(ticket, bind, relay, timeout)
    if directory == STDIN:
        if as_json or on_conflict:
            raise click.UsageError("-o - writes the file to standard output, and nothing else")
        run(
            lambda display, _interrupts: receive_to_stdout(sender, only, display),
            choose_display(as_json=False, with_log=verbose >= 2),
            verbose=verbose,
        )
    wanted = ReceiveOptions(
        sender,
        directory,
        on_conflict=OnConflict(on_conflict or "refuse"),
        only=only,
        verbose=verbose,
    )
    run(
        lambda display, _interrupts: receive(wanted, display),
        choose_display(as_json=as_json, with_log=verbose >= 2),
        verbose=verbose,
    )


@app.command(
    "list",
    epilog="""\b
Examples:
  aioiroh list blob…                       everything
  aioiroh list blob… --only 'photos/2024'  what --only would fetch""",
)
@options.ticket_argument
@options.only
@options.timeout
@options.bind
@options.relay("those in the ticket")
@options.as_json
@options.verbose
def list_(
    ticket: BlobTicket,
    only: tuple[str, ...],
    timeout: float,
    bind: tuple[str, ...],
    relay: RelayChoice,
    as_json: bool,
    verbose: int,
) -> None:
    """List the files that a ticket names, without fetching them."""
    from .contents import Sender
    from .display import choose_display
    from .listing import list_content
    from .run import run

    run(
        lambda display, _: list_content(
            Sender(ticket, bind, relay, timeout), only, verbose, display
        ),
        choose_display(as_json=as_json, with_log=verbose >= 2),
        verbose=verbose,
    )


@app.command(
    epilog="""\b
Examples:
  aioiroh clean                 list what was left in this folder, and ask before it is removed
  aioiroh clean ~/Downloads -y  do not ask
  aioiroh clean --sent -n       only list the tickets that send would make again"""
)
@click.argument(
    "directories",
    metavar="[DIR]...",
    nargs=-1,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option("--sent", is_flag=True, help="Also what send remembers; its tickets are void then.")
@click.option("-n", "--dry-run", is_flag=True, help="Only list it.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@options.as_json
def clean(
    directories: tuple[Path, ...], sent: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Remove what interrupted receives have left in folders.

    It is listed first, with the command that goes on with it. Without a terminal to ask at, and without
    --yes, nothing is removed.
    """
    import sys

    from . import cleaning
    from .display import choose_display
    from .failures import explain
    from .run import run

    display = choose_display(as_json=as_json)
    try:
        finds = cleaning.find(directories or [Path()], sent=sent)
    except OSError as error:
        failure = explain(error)
        display.failed(str(failure), failure.code)
        sys.exit(failure.code)
    cleaning.show(finds, display)
    if not finds or dry_run:
        return
    if not yes and not sys.stdin.isatty():
        display.note("Nothing is removed without --yes.")
        return
    if yes or click.confirm("Remove it?", err=True):
        run(lambda display, _: cleaning.clean(finds, display), display)


@app.command(
    epilog="""\b
Examples:
  source <(aioiroh completion bash)                       in ~/.bashrc
  source <(aioiroh completion zsh)                        in ~/.zshrc
  aioiroh completion fish > ~/.config/fish/completions/aioiroh.fish"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Write what makes a shell complete this command."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(app, {}, "aioiroh", "_AIOIROH_COMPLETE").source())


app.add_command(blob)
app.add_command(doctor)
app.add_command(ping)
app.add_command(relay)
