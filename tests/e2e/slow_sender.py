"""The command `aioiroh`, which sends at a rate: then there is a middle of a transfer on any machine."""

from functools import partial

from aioiroh.blobs import Limits, Provider
from aioiroh.cli import desk, main

RATE = 40 << 20
"""Bytes per second, to all receivers together."""

if __name__ == "__main__":
    desk.Provider = partial(Provider, limits=Limits(rate=RATE))  # type: ignore[assignment, misc]
    main()
