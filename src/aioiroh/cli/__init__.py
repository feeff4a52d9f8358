"""The command `aioiroh`: parse, call the library, show progress.

`app` holds the commands and their options, one module for each what it does, `run` signals and exit
codes, `failures` errors in words, `display` what is shown where.
"""

from __future__ import annotations

import signal

__all__ = ["main"]


def main() -> None:
    """Runs the command line of this process and exits."""
    # As long as nothing is begun, Ctrl-C has nothing to clean up, and a traceback says nothing.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .app import app

    app(prog_name="aioiroh")
