"""The lab's results as a page of the documentation."""

from __future__ import annotations

import platform
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

import upstream
from expected import Nats, Programs, direct
from faults import MEGABITS, SIZE, Transfer
from nat import Nat
from pairs import ALL, Outcome

_HEAD = """# The lab: which pairs reach each other

This page is written by `make lab`. It builds an internet of network namespaces on one Linux machine: hosts
behind NATs of the kernel (nftables), two relays with TLS and QUIC address discovery, real sockets. Two
programs know of each other only the key and the relay; one dials, and what is measured is the time until data had
gone there and back ("connected"), and until they went by a direct path. How to run it is said in CONTRIBUTING.md.

- The kinds of NAT are those of upstream's own lab. *None*: a public address. *Open*: mapping and filtering do not
  depend on the endpoint (full cone). *Moderate*: the mapping does not, but only who was sent something gets
  through (nftables `snat`, the usual router at home). *Strict*: a random port for each destination
  (nftables `masquerade random,fully-random`).
- That is IPv4. IPv6 has no NAT; where hosts have it, routers let in who was sent something, and nobody else.
- "ours" is this package, "upstream" a Rust program over iroh {iroh}; the relays are iroh-relay {relay} and
  `aioiroh relay`.
- All 16 pairs of a table run side by side, on two cores that may have other work; links are as fast as the kernel. So
  times tell a path that comes at once from one that takes a round of guessing, and no more.
- {rounds} Times are medians.
- Made with Linux {kernel}.
"""


_WHY = """Behind a strict NAT a host has another, random port for each peer, which nobody knows beforehand. A peer behind
none or an open NAT answers to wherever the first datagram comes from, so that does no harm. One behind a moderate NAT
lets in only what comes from a port to which it has sent, so ports have to be guessed:

- Ours behind the strict NAT opens many ports, and the peer's datagrams to many ports hit one of them soon. An upstream
  peer sends them too, as part of its ordinary hole punching ([direct paths](direct-paths.md)).
- Upstream's program behind the strict NAT opens no more than one port for a peer, which is not hit within what we allow
  ourselves. These pairs stay on the relay.
- Between two strict NATs there is nothing to aim at. These pairs stay on the relay, too.
"""


class Results:
    """What was seen, by relay and programs."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.pairs: dict[tuple[str, Programs], dict[Nats, list[Outcome]]] = {}
        self.with_ipv6: dict[tuple[str, Programs], list[Outcome]] = defaultdict(list)
        """Where both are behind strict NATs, and have IPv6 as well."""
        self.transfers: dict[Programs, dict[str, Transfer]] = {}

    def add_pairs(
        self, relays: str, programs: Programs, outcomes: dict[Nats, Outcome], ipv6: Outcome
    ) -> None:
        """One more round."""
        self.with_ipv6[relays, programs].append(ipv6)
        known = self.pairs.setdefault((relays, programs), defaultdict(list))
        for nats, outcome in outcomes.items():
            known[nats].append(outcome)

    def add_transfers(self, programs: Programs, transfers: dict[str, Transfer]) -> None:
        self.transfers[programs] = transfers

    @property
    def disappointments(self) -> list[str]:
        """What is worse than `expected.py` says."""
        found = []
        for (relays, programs), grid in self.pairs.items():
            for nats, outcomes in grid.items():
                where = f"{_names(nats)}, {' to '.join(programs)}, relays of {relays}"
                problems = [outcome.problem for outcome in outcomes if outcome.connected is None]
                reached = sum(outcome.direct is not None for outcome in outcomes)
                if problems:
                    found.append(f"{where}: not connected: {problems[0]}")
                elif direct(programs, nats) and reached < len(outcomes):
                    found.append(f"{where}: direct {reached} of {len(outcomes)} times")
        for programs, transfers in self.transfers.items():
            for name, transfer in transfers.items():
                if transfer.seconds is None:
                    found.append(f"{name}, {' to '.join(programs)}: {transfer.problem}")
        return found


def text(results: Results) -> str:
    """The page, in Markdown."""
    rounds = (
        "Each pair met once." if results.rounds == 1 else f"Each pair met {results.rounds} times."
    )
    parts = [
        _HEAD.format(
            iroh="1.4.1",
            relay=upstream.CRATES["iroh-relay"],
            rounds=rounds,
            kernel=platform.release().split("-")[0],
        )
    ]
    parts += ["## In short", _summary(results), "## Who stays on the relay, and why", _WHY]
    for (relays, programs), grid in results.pairs.items():
        parts += [
            f"## {programs[0].capitalize()} dials {programs[1]}, relays: {relays}",
            "Rows: the NAT of who dials. Columns: the NAT of who is dialled.",
            _grid(grid),
        ]
    if results.transfers:
        parts += ["## Transfers whose network changes", _transfers(results)]
    if results.disappointments:
        parts += ["## Not as expected", "\n".join(f"- {line}" for line in results.disappointments)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _names(nats: Nats) -> str:
    return f"{nats[0].value} × {nats[1].value}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _summary(results: Results) -> str:
    rows = []
    for (relays, programs), grid in results.pairs.items():
        every = [outcome for outcomes in grid.values() for outcome in outcomes]
        times = [outcome.direct for outcome in every if outcome.direct is not None]
        connected = sum(all(o.connected is not None for o in grid[nats]) for nats in ALL)
        reached = sum(all(o.direct is not None for o in grid[nats]) for nats in ALL)
        counts = [f"{count} of {len(ALL)}" for count in (connected, reached)]
        slowest = _time(max(times)) if times else "–"
        ipv6 = _cell(results.with_ipv6[relays, programs])
        rows.append([*programs, relays, *counts, slowest, ipv6])
    head = [
        "dials",
        "is dialled",
        "relays",
        "connected",
        "direct, every time",
        "slowest direct path",
        "strict × strict with IPv6",
    ]
    return _table(head, rows)


def _grid(grid: dict[Nats, list[Outcome]]) -> str:
    rows = [[f"**{one.value}**", *(_cell(grid[one, other]) for other in Nat)] for one in Nat]
    return _table(["", *(f"**{other.value}**" for other in Nat)], rows)


def _cell(outcomes: list[Outcome]) -> str:
    connected = [outcome.connected for outcome in outcomes if outcome.connected is not None]
    if not connected:
        return "not connected"
    said = f"connected {_time(statistics.median(connected))}"
    if len(connected) < len(outcomes):
        said += f" ({len(connected)} of {len(outcomes)} times)"
    reached = [outcome.direct for outcome in outcomes if outcome.direct is not None]
    if not reached:
        return f"{said}, relay"
    said += f", **direct** {_time(statistics.median(reached))}"
    if len(reached) < len(outcomes):
        said += f" ({len(reached)} of {len(outcomes)} times)"
    return said


def _transfers(results: Results) -> str:
    groups = list(results.transfers)
    names = list(results.transfers[groups[0]])
    rows = [
        [name, *(_transfer(results.transfers[group][name]) for group in groups)] for name in names
    ]
    table = _table(["", *(f"{one} dials {other}" for one, other in groups)], rows)
    return (
        f"{SIZE / 1e6:.0f} MB from who was dialled to who dialled, on lines of {MEGABITS} Mbit/s; the fault comes "
        "after 1.5 s. In seconds: the whole transfer, and the longest time for which nothing arrived. Losses are "
        f"on both sides. Once each, side by side.\n\n{table}"
    )


def _transfer(transfer: Transfer) -> str:
    if transfer.seconds is None:
        return f"**{transfer.problem}**"
    return f"{transfer.seconds:.1f}, gap {transfer.stall:.2f}"
