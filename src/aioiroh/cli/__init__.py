"""The command `aioiroh`: parse, call the library, show progress.

`app` holds the commands and their options, one module for each what it does, `run` signals and exit
codes, `failures` errors in words, `display` what is shown where.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Runs the command line of this process and exits."""
    from .app import app

    app(prog_name="aioiroh")
