"""What this machine's connectivity is: which address relays see, how far they are, what is between."""

from aioiroh.report.report import ObservedAddress, RelayLatencies, Report

__all__ = ["ObservedAddress", "RelayLatencies", "Report"]
