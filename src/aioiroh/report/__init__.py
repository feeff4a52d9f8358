"""What this machine's connectivity is: which address relays see, how far they are, what is between."""

from aioiroh.report.outside import Outside
from aioiroh.report.plan import NetReportConfig, Reason
from aioiroh.report.report import NetReport, ObservedAddress, RelayLatencies
from aioiroh.report.reporter import Reporter

__all__ = [
    "NetReport",
    "NetReportConfig",
    "ObservedAddress",
    "Outside",
    "Reason",
    "RelayLatencies",
    "Reporter",
]
