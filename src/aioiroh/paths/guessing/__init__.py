"""Direct paths where ordinary hole punching finds none: many sockets on one side, many ports on the other."""

from aioiroh.paths.guessing.rules import Mapping, Sight
from aioiroh.paths.guessing.shell import Guessing

__all__ = ["Guessing", "Mapping", "Sight"]
