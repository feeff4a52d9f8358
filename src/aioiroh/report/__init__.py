"""What this machine's connectivity is: which address relays see, how far they are, what is between."""

from aioiroh.report.outside import outside_addresses
from aioiroh.report.plan import Reason
from aioiroh.report.report import NetReport, ObservedAddress, RelayLatencies
from aioiroh.report.reporter import Reporter

__all__ = [
    "NetReport",
    "ObservedAddress",
    "Reason",
    "RelayLatencies",
    "Reporter",
    "outside_addresses",
]
