"""Which pairs are expected to reach each other without the relay. All are expected to connect."""

from __future__ import annotations

from nat import Nat

Nats = tuple[Nat, Nat]
"""NAT of who dials, NAT of who is dialled."""
Programs = tuple[str, str]
"""Who dials, who is dialled: "ours" or "upstream"."""

OURS, MIXED, MIXED_BACK, UPSTREAM = (
    ("ours", "ours"),
    ("ours", "upstream"),
    ("upstream", "ours"),
    ("upstream", "upstream"),
)

# A strict NAT lets nobody in at a port that is known beforehand, so ports have to be guessed (docs/direct-paths.md).
# Ours behind it can do that with any peer behind a moderate one; upstream's cannot.
BOTH_STRICT = (Nat.STRICT, Nat.STRICT)

RELAYED: dict[Programs, set[Nats]] = {
    OURS: {BOTH_STRICT},
    MIXED: {(Nat.MODERATE, Nat.STRICT), BOTH_STRICT},
    MIXED_BACK: {(Nat.STRICT, Nat.MODERATE), BOTH_STRICT},
    UPSTREAM: {(Nat.MODERATE, Nat.STRICT), (Nat.STRICT, Nat.MODERATE), BOTH_STRICT},
}
"""The pairs that stay on the relay."""


def direct(programs: Programs, nats: Nats) -> bool:
    """Whether the pair is expected to have a direct path."""
    return nats not in RELAYED[programs]
