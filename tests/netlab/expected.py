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

_HARD = {
    (Nat.MODERATE, Nat.STRICT),
    (Nat.STRICT, Nat.MODERATE),
    (Nat.STRICT, Nat.STRICT),
}
# We do not yet tell peers at which address relays see us.
_UNSEEN = {
    *((one, other) for one in Nat for other in Nat if Nat.NONE not in (one, other)),
}

RELAYED: dict[Programs, set[Nats]] = {
    OURS: _UNSEEN,
    MIXED: _UNSEEN - {(one, Nat.OPEN) for one in Nat},
    MIXED_BACK: _UNSEEN - {(Nat.OPEN, other) for other in Nat},
    UPSTREAM: _HARD,
}
"""The pairs that stay on the relay."""


def direct(programs: Programs, nats: Nats) -> bool:
    """Whether the pair is expected to have a direct path."""
    return nats not in RELAYED[programs]
