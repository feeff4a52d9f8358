"""`python -m aioiroh`: the command `aioiroh`."""

from aioiroh.cli import main

main()
