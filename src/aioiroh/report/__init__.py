"""What this machine's connectivity is: which address relays see, how far they are, what is between."""

from aioiroh.report.report import NetReport, ObservedAddress, RelayLatencies

__all__ = ["NetReport", "ObservedAddress", "RelayLatencies"]
