"""Guessing ports: the cores of both sides, alone and against a model of two NATs."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aioiroh import _native
from aioiroh.address import IpAddr
from aioiroh.aio import TokenBucket
from aioiroh.metrics import GuessingMetrics
from aioiroh.net import SystemNetwork, UdpOptions, UdpSlot
from aioiroh.paths.guessing import Guessing
from aioiroh.paths.guessing import spread as spread_rules
from aioiroh.paths.guessing.ports import announced_ports, sweep_order
from aioiroh.paths.guessing.rules import (
    ANNOUNCED,
    ATTEMPTS,
    ENOUGH,
    KEEP,
    LISTEN,
    NAME_STEP,
    NAMES,
    PATIENCE,
    PORTS,
    RESTS,
    SOCKETS,
    SWEEP,
    SWEEPS,
    TARGETS,
    TRY,
    Mapping,
    Sight,
    announced_ip,
    targets,
)
from aioiroh.paths.guessing.shell import SPARED
from aioiroh.paths.guessing.spread import CloseSockets, OpenSockets, Phase, Pin, Spread, Unpin
from aioiroh.paths.guessing.sweep import Sweep
from aioiroh.quic import Driver
from aioiroh.report import NetReport, ObservedAddress

STRICT_IP, MODERATE_IP = "203.0.113.7", "198.51.100.9"
MODERATE = (MODERATE_IP, 4433)
PRIVATE = ("192.168.1.2", 4433)
SCATTERED = Mapping(((STRICT_IP, 40_001), (STRICT_IP, 51_002)), 4433, True)
STEADY = Mapping((MODERATE,), 4433, False)
PEER_IN_SIGHT = Sight((PRIVATE, MODERATE))


def bucket(burst: float = 100) -> TokenBucket:
    return TokenBucket(1 / RESTS[0], burst, now=0.0)


def spread(budget: TokenBucket | None = None, seed: int = 1) -> Spread:
    return Spread(budget or bucket(), Random(seed))


# --- who does what


@pytest.mark.parametrize(
    ("mapping", "is_scattered"),
    [
        (Mapping(), False),
        (Mapping((MODERATE,), 4433, None), False),
        (Mapping((MODERATE,), 9, None), True),
        (Mapping((MODERATE,), 9, False), False),
        (SCATTERED, True),
        (Mapping((), 9, True), False),
    ],
)
def test_whose_ports_nobody_can_know(mapping, is_scattered):
    assert mapping.is_scattered is is_scattered


def test_what_a_report_says_of_a_socket():
    slots = [UdpSlot(4, "::", 4433), UdpSlot(3, "0.0.0.0", 4433), UdpSlot(9, "0.0.0.0", 4434)]
    seen = [(3, ("192.0.2.1", 1)), (4, ("2001:db8::1", 2)), (3, ("192.0.2.1", 3)), (9, MODERATE)]
    report = NetReport(
        mapping_varies_by_dest_ipv4=True,
        observed=tuple(ObservedAddress("r", slot, IpAddr.from_pair(at)) for slot, at in seen),
    )
    assert Mapping.of(report, slots) == Mapping((("192.0.2.1", 1), ("192.0.2.1", 3)), 4433, True)
    assert Mapping.of(report, slots[:1]) == Mapping()
    alone = NetReport(global_v4=IpAddr.from_pair(MODERATE))
    assert Mapping.of(alone, slots) == Mapping((MODERATE,), 4433, None)


def test_where_to_spread_to():
    assert targets(PEER_IN_SIGHT, SCATTERED) == (MODERATE,)
    assert targets(Sight((PRIVATE,)), SCATTERED) == ()
    assert targets(Sight((("2001:db8::1", 1), (STRICT_IP, 5))), SCATTERED) == ()
    # In a lab every address may be a private one.
    lab = Mapping((("10.1.0.7", 1), ("10.1.0.7", 2)), 9, True)
    assert targets(PEER_IN_SIGHT, lab) == (PRIVATE, MODERATE)
    # The peer spreads itself: no port of it can be known.
    many = tuple((MODERATE_IP, port) for port in range(1000, 1000 + ANNOUNCED))
    assert announced_ip(many, STRICT_IP) == MODERATE_IP
    assert targets(Sight(many), SCATTERED) == ()
    assert announced_ip(many, MODERATE_IP) is None
    # One port for each of the five relays of a report, and one of a port mapping, announce nothing.
    assert announced_ip(many[:6], STRICT_IP) is None


# --- ports


@given(st.lists(st.integers(1, 65_535), max_size=40), st.integers())
def test_a_sweep_tries_different_ports(near, seed):
    order = sweep_order(near, Random(seed))
    assert len(order) == len(set(order)) == SWEEP
    assert all(port in PORTS for port in order)


@given(st.integers(1100, 60_000), st.integers(1, 2), st.integers(0, 100), st.integers())
def test_a_nat_that_counts_is_hit_at_once(port, step, others, seed):
    # The sockets got theirs after that port, and after those of other users of the NAT.
    mapped = range(port + step * (others + 1), port + step * (others + SOCKETS + 1), step)
    order = sweep_order([port], Random(seed))
    assert next(n for n, port in enumerate(order) if port in mapped) < 50


@given(st.integers(1100, 60_000), st.integers(0, 255), st.integers())
def test_a_nat_that_gives_blocks_is_hit_soon(start, place, seed):
    # 256 sockets have some of the 1,024 ports of a customer, of which relays have seen one.
    block = range(start, start + 1024)
    mapped = set(Random(seed).sample(block, SOCKETS))
    others = Random(seed).sample(PORTS, ANNOUNCED)
    order = sweep_order([block[4 * place], *others], Random(seed))
    assert next(n for n, port in enumerate(order) if port in mapped) < 1500


def test_ports_to_name():
    counting = Mapping(((STRICT_IP, 40_004), (STRICT_IP, 40_002)), 9, True)
    first, *others = announced_ports(counting, Random(1))
    assert first[0] == 40_005 and len(set(first)) == ANNOUNCED and len(others) == NAMES
    for mapping in (SCATTERED, Mapping(((STRICT_IP, 65_530), (STRICT_IP, 65_531)), 9, True)):
        named = [port for ports in announced_ports(mapping, Random(1)) for port in ports]
        assert len(named) == len(set(named)) == NAMES * ANNOUNCED
        assert all(port in PORTS for port in named)


# --- one side alone


def run_to(core: Spread, until: Phase, now: float, sight: Sight = PEER_IN_SIGHT) -> float:
    """Lets time pass until the core is in a phase; slots are numbered from 0."""
    for _ in range(1000):
        core.decide(now, sight, SCATTERED, may_begin=True)
        if core.phase is until:
            return now
        now = max(now + 1e-6, core.deadline)
    raise AssertionError(f"never {until}")


def test_ordinary_hole_punching_comes_first():
    core = spread()
    assert core.decide(10.0, PEER_IN_SIGHT, SCATTERED, may_begin=True) == []
    assert core.deadline == 10.0 + PATIENCE
    # It helped.
    assert core.decide(11.0, Sight(direct=frozenset({MODERATE})), SCATTERED, may_begin=True) == []
    assert core.decide(13.0, PEER_IN_SIGHT, SCATTERED, may_begin=True) == []
    # Somebody else has the sockets.
    assert core.decide(16.0, PEER_IN_SIGHT, SCATTERED, may_begin=False) == []
    assert core.deadline > 16.0
    actions = core.decide(core.deadline, PEER_IN_SIGHT, SCATTERED, may_begin=True)
    assert actions == [OpenSockets(16, (MODERATE,))]
    assert core.announced == ()


@pytest.mark.parametrize("mapping", [STEADY, Mapping()])
def test_who_can_be_named_needs_no_sockets(mapping):
    core = spread()
    for now in range(100):
        assert core.decide(float(now), PEER_IN_SIGHT, mapping, may_begin=True) == []


def test_from_the_sockets_to_the_path():
    core = spread()
    now = run_to(core, Phase.LISTENING, 0.0)
    assert {ip for ip, _ in core.announced} == {STRICT_IP} and len(core.announced) == ANNOUNCED
    assert announced_ip(core.announced, MODERATE_IP) == STRICT_IP
    assert not core.knock(7, ("192.0.2.66", 1), 5)  # who is that?
    assert core.decide(now, PEER_IN_SIGHT, SCATTERED, may_begin=True) == []
    core.knock(7, MODERATE, 50_123)
    assert core.decide(now, PEER_IN_SIGHT, SCATTERED, may_begin=True) == [Pin(MODERATE, 7)]
    assert core.announced == ((STRICT_IP, 50_123),)
    there = Sight(PEER_IN_SIGHT.theirs, frozenset({MODERATE}))
    assert core.decide(now + 0.1, there, SCATTERED, may_begin=True) == [CloseSockets(but=7)]
    assert core.phase is Phase.KEPT and not core.is_busy
    assert core.decide(now + 1e6, there, SCATTERED, may_begin=True) == []
    # The path breaks. It may come back, for instance when another connection opens it.
    assert core.decide(now + 1e6, PEER_IN_SIGHT, SCATTERED, may_begin=True) == []
    assert core.deadline == now + 1e6 + KEEP
    gone = core.decide(core.deadline, PEER_IN_SIGHT, SCATTERED, may_begin=True)
    assert gone == [Unpin(MODERATE), CloseSockets()]
    assert core.announced == () and core.phase is Phase.IDLE


def test_a_knock_that_leads_nowhere():
    core = spread()
    now = run_to(core, Phase.LISTENING, 0.0)
    assert core.knock(7, MODERATE, None)
    assert not core.knock(9, MODERATE, None)  # one after the other
    assert core.decide(now, PEER_IN_SIGHT, SCATTERED, may_begin=True) == [Pin(MODERATE, 7)]
    assert not core.knock(9, MODERATE, None)
    assert len(core.announced) == ANNOUNCED  # where it got through is not known
    now += TRY
    assert core.decide(now, PEER_IN_SIGHT, SCATTERED, may_begin=True) == [Unpin(MODERATE)]
    assert not core.knock(7, MODERATE, None)
    assert core.decide(now, PEER_IN_SIGHT, SCATTERED, may_begin=True) == []
    assert core.knock(8, MODERATE, None)
    assert core.decide(now, PEER_IN_SIGHT, SCATTERED, may_begin=True) == [Pin(MODERATE, 8)]


def test_failures_make_it_wait():
    core = spread()
    now = 0.0
    for rest in (*RESTS, RESTS[-1]):
        now = run_to(core, Phase.LISTENING, now)
        named = set(core.announced)
        until = now + LISTEN + NAMES * NAME_STEP
        while core.is_busy:
            now = core.deadline
            actions = core.decide(now, PEER_IN_SIGHT, SCATTERED, may_begin=True)
            named.update(core.announced)
        assert actions == [CloseSockets()] and core.announced == ()
        # The peer did not sweep, so its ordinary hole punching was given other ports again and again.
        assert now == pytest.approx(until, abs=0.1)
        assert (NAMES - 2) * ANNOUNCED < len(named) <= NAMES * ANNOUNCED
        # Whatever happens meanwhile: sights without the peer's address do not shorten it.
        core.decide(now + 1, Sight(), SCATTERED, may_begin=True)
        core.decide(now + 2, PEER_IN_SIGHT, SCATTERED, may_begin=True)
        assert core.deadline == pytest.approx(now + rest)


def test_a_peer_that_spreads_as_well_is_left_alone():
    core = spread()
    now = run_to(core, Phase.LISTENING, 0.0)
    theirs = tuple((MODERATE_IP, port) for port in range(1000, 1000 + ANNOUNCED))
    sight = Sight((MODERATE, *theirs))
    assert core.decide(now, sight, SCATTERED, may_begin=True) == [CloseSockets()]
    # Also when the peer has taken that back.
    core.decide(now + 1, PEER_IN_SIGHT, SCATTERED, may_begin=True)
    assert core.deadline == now + RESTS[-1]


def test_attempts_of_an_endpoint_are_bounded():
    budget = bucket(ATTEMPTS)
    for _ in range(ATTEMPTS):
        run_to(spread(budget), Phase.LISTENING, 0.0)
    core = spread(budget)
    core.decide(0.0, PEER_IN_SIGHT, SCATTERED, may_begin=True)
    assert core.decide(PATIENCE, PEER_IN_SIGHT, SCATTERED, may_begin=True) == []
    assert core.deadline > RESTS[0]


def test_stopping_lets_go():
    core = spread()
    assert core.stop() == []
    run_to(core, Phase.LISTENING, 0.0)
    assert core.stop() == [CloseSockets()]


ANNOUNCEMENT = tuple((STRICT_IP, port) for port in range(2000, 2000 + ANNOUNCED))


def sweep_all(core: Sweep, now: float, sight: Sight, mapping: Mapping = STEADY) -> list[int]:
    ports: list[int] = []
    for _ in range(SWEEP):
        for probe in core.decide(now, sight, mapping):
            assert probe.ip == STRICT_IP
            ports += probe.ports
        if not core.is_busy:
            break
        assert core.deadline > now
        now = core.deadline
    return ports


def test_a_sweep_answers_an_announcement_once():
    core = Sweep(bucket(), Random(1))
    assert sweep_all(core, 0.0, Sight(ANNOUNCEMENT[:6])) == []
    ports = sweep_all(core, 1.0, Sight(ANNOUNCEMENT))
    assert len(set(ports)) == len(ports) == SWEEP
    assert sweep_all(core, 1e6, Sight(ANNOUNCEMENT)) == []
    again = tuple((STRICT_IP, port) for port in range(3000, 3000 + ANNOUNCED))
    assert len(sweep_all(core, 1e6, Sight((*ANNOUNCEMENT, *again)))) == SWEEP


@pytest.mark.parametrize(
    ("sight", "mapping"),
    [
        (Sight(ANNOUNCEMENT, frozenset({(STRICT_IP, 5)})), STEADY),
        (Sight(ANNOUNCEMENT), SCATTERED),
        (Sight(ANNOUNCEMENT), Mapping(((STRICT_IP, 9),), 9, False)),
    ],
)
def test_when_nothing_is_swept(sight, mapping):
    assert sweep_all(Sweep(bucket(), Random(1)), 0.0, sight, mapping) == []


@pytest.mark.parametrize(
    "ip",
    ["192.168.1.1", "127.0.0.1", "169.254.169.254", "224.0.0.251", "255.255.255.255", "0.0.0.0"],
)
def test_no_peer_points_at_the_local_network(ip):
    announced = Sight(tuple((ip, port) for port in range(2000, 2000 + ANNOUNCED)))
    for mapping in (STEADY, Mapping()):
        assert sweep_all(Sweep(bucket(), Random(1)), 0.0, announced, mapping) == []
    assert targets(Sight(((ip, 5),)), SCATTERED) == ()


def test_sweeps_of_an_endpoint_are_bounded():
    budget = bucket(SWEEPS)
    swept = [sweep_all(Sweep(budget, Random(1)), 0.0, Sight(ANNOUNCEMENT)) for _ in range(9)]
    assert sum(map(len, swept)) == SWEEPS * SWEEP


def test_a_sweep_pauses_when_a_probe_got_through_and_ends_with_a_path():
    core = Sweep(bucket(), Random(1))
    (first,) = core.decide(0.0, Sight(ANNOUNCEMENT), STEADY)
    found = Sight((*ANNOUNCEMENT, (STRICT_IP, first.ports[3])))
    assert core.decide(0.02, found, STEADY) == []
    assert core.deadline > 1.0
    (later,) = core.decide(core.deadline, found, STEADY)
    assert not set(later.ports) & set(first.ports)
    there = Sight(found.theirs, frozenset({(STRICT_IP, first.ports[3])}))
    assert core.decide(9.0, there, STEADY) == [] and not core.is_busy


# --- both sides, with a NAT each


@dataclass
class Model:
    """Two cores, a relay that takes 50 ms each way, and NATs that lose one datagram of a hundred."""

    seed: int
    counts: bool = False
    loss: float = 0.01
    now: float = 0.0
    sent: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.spread = Spread(bucket(), self.random)
        self.sweep = Sweep(bucket(), self.random)
        self.mapped: dict[int, int] = {}
        self.next = 40_010
        self.direct: frozenset = frozenset()
        self.open = 0

    def port(self) -> int:
        self.next += self.random.choice((1, 1, 2, 3))
        return self.next if self.counts else self.random.choice(PORTS)

    def run(self, limit: float) -> float | None:
        """When there was a path; None: never."""
        seen = ((STRICT_IP, 40_005), (STRICT_IP, 40_009)) if self.counts else SCATTERED.seen
        mapping = Mapping(seen, 9, True)
        slot = 0
        heard: list[tuple[float, tuple]] = []
        told: tuple = ()
        while self.now < limit:
            sight = Sight((PRIVATE, MODERATE), self.direct)
            for action in self.spread.decide(self.now, sight, mapping, may_begin=True):
                match action:
                    case OpenSockets(count):
                        for _ in range(count):
                            self.sent["spread"] += 1
                            self.open += 1
                            self.mapped[self.port()] = slot
                            slot += 1
                    case Pin():
                        # A round trip of QUIC, and another by way of the relay if the peer has to open it.
                        self.direct = frozenset({MODERATE})
                    case CloseSockets(but):
                        self.open = 0 if but is None else 1
            if self.spread.phase is Phase.KEPT:
                return self.now
            if self.spread.announced != told:
                told = self.spread.announced
                heard.append((self.now + 0.05, told))
            while len(heard) > 1 and heard[1][0] <= self.now:
                heard.pop(0)
            known = heard[0][1] if heard and heard[0][0] <= self.now else ()
            for probe in self.sweep.decide(self.now, Sight((*seen, *known)), STEADY):
                for port in probe.ports:
                    self.sent["sweep"] += 1
                    if port in self.mapped and self.random.random() >= self.loss:
                        self.spread.knock(self.mapped[port], MODERATE, port)
            waiting = (at for at, _ in heard if at > self.now)
            due = min(self.spread.deadline, self.sweep.deadline, *waiting)
            self.now = max(due, self.now + 0.001)
        return None


@pytest.mark.parametrize("counts", [False, True])
def test_moderate_and_strict_find_each_other(counts):
    models = [Model(seed, counts) for seed in range(150)]
    times = [model.run(10.0) for model in models]
    assert None not in times
    assert max(model.sent.total() for model in models) < 2_600
    assert all(model.open == 1 for model in models)
    if counts:
        assert max(model.sent.total() for model in models) < 350


@settings(max_examples=20, deadline=None)
@given(st.integers())
def test_what_cannot_succeed_costs_little(seed):
    model = Model(seed, loss=1.0)
    model.run(600.0)
    # Three attempts in ten minutes: at once, after one minute, after another five.
    assert model.sent["spread"] <= 3 * SOCKETS
    assert model.sent["sweep"] <= 3 * SWEEP
    assert model.open in (0, SOCKETS)


class Anything(RuleBasedStateMachine):
    """Whatever happens, in whatever order: sockets are bounded and closed again, and pins undone."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.budget = bucket(ATTEMPTS)
        self.core = Spread(self.budget, Random(1))
        self.sight = PEER_IN_SIGHT
        self.mapping = SCATTERED
        self.sockets: set[int] = set()
        self.pins: dict[tuple[str, int], int] = {}
        self.probes = 0
        self.serial = 0

    def carry_out(self, actions) -> None:
        for action in actions:
            match action:
                case OpenSockets(count, to):
                    assert self.core.is_busy
                    self.sockets.update(range(self.serial, self.serial + count))
                    self.serial += count
                    self.probes += count * len(to)
                case Pin(address, slot):
                    assert slot in self.sockets and not self.pins
                    self.pins[address] = slot
                case Unpin(address):
                    del self.pins[address]
                case CloseSockets(but):
                    self.sockets = {slot for slot in self.sockets if slot == but}

    def decide(self, *, may_begin: bool = True) -> None:
        self.carry_out(self.core.decide(self.now, self.sight, self.mapping, may_begin=may_begin))

    @rule(seconds=st.floats(0, 100), may_begin=st.booleans())
    def wait(self, seconds, may_begin):
        self.now += seconds
        self.decide(may_begin=may_begin)

    @rule(turns=st.integers(1, 60))
    def go_on(self, turns):
        for _ in range(turns):
            if self.core.deadline < self.now + 1000:
                self.now = max(self.now, self.core.deadline)
            self.decide()

    @rule(
        theirs=st.lists(st.sampled_from([PRIVATE, MODERATE, *ANNOUNCEMENT, (MODERATE_IP, 7)])),
        direct=st.sets(st.sampled_from([PRIVATE, MODERATE]), max_size=1),
    )
    def look(self, theirs, direct):
        self.sight = Sight(tuple(theirs), frozenset(direct))
        self.decide()

    @rule(mapping=st.sampled_from([SCATTERED, STEADY, Mapping()]))
    def report(self, mapping):
        self.mapping = mapping
        self.decide()

    @rule(source=st.sampled_from([MODERATE, PRIVATE, (MODERATE_IP, 7)]), data=st.data())
    def knock(self, source, data):
        if self.sockets:
            slot = data.draw(st.sampled_from(sorted(self.sockets)))
            self.core.knock(slot, source, data.draw(st.none() | st.integers(1, 65_535)))
            self.decide()

    @rule()
    def run_out(self):
        self.core.no_more(len(self.sockets))

    @rule()
    def leave(self):
        self.carry_out(self.core.stop())
        assert not self.sockets and not self.pins and not self.core.announced
        self.core = Spread(self.budget, Random(1))

    @invariant()
    def bounded(self):
        assert len(self.sockets) <= SOCKETS
        assert len(self.core.announced) <= ANNOUNCED
        assert self.probes <= (ATTEMPTS + 1 + self.now / RESTS[0]) * SOCKETS * TARGETS
        if self.core.phase is Phase.IDLE:
            assert not self.sockets and not self.pins and not self.core.announced
        if self.core.phase is Phase.KEPT:
            assert self.sockets == set(self.pins.values())


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# --- the shell


class Few(SystemNetwork):
    """A machine that has only so many sockets."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def bind_udp(self, host, address, options):
        if not self.left:
            raise OSError(errno.EMFILE, "too many open files")
        self.left -= 1
        return super().bind_udp(host, address, options)


@pytest.mark.parametrize("sockets", [ENOUGH - 1, ENOUGH])
async def test_a_machine_with_few_sockets_and_a_driver_that_closes(sockets, monkeypatch):
    monkeypatch.setattr(spread_rules, "PATIENCE", 0.0)
    network = Few(1 + sockets + SPARED)
    driver = Driver(_native.Engine(network.secret(32)))
    slots = [network.bind_udp(driver, ("127.0.0.1", 0), UdpOptions())]
    counts = GuessingMetrics()
    announced = asyncio.Event()
    peer, sight = b"p" * 32, Sight((("127.0.0.1", 9),))
    guessing = Guessing(
        driver,
        network,
        counts,
        sockets=lambda: slots,
        mapping=lambda: Mapping((("10.0.0.1", 1), ("10.0.0.1", 2)), 9, True),
        on_announce=lambda _: announced.set(),
    )

    def count_open() -> int:
        return sum(map(is_open, range(1, 1 + sockets + SPARED)))

    def is_open(slot: int) -> bool:
        try:
            driver.engine.set_aside(slot)
        except ValueError:
            return False
        return True

    try:
        assert guessing.see(peer, sight) == ()
        async with asyncio.timeout(30):
            # Some are closed again, for whoever else needs one; too few are of no use.
            while network.left or count_open() != (sockets if sockets >= ENOUGH else 0):
                await asyncio.sleep(0.01)
            if sockets >= ENOUGH:
                await announced.wait()
        assert counts.spreads == 1 and sockets <= counts.probes <= sockets + SPARED
    finally:
        await driver.aclose()
    guessing.forget(peer)  # closes nothing: the sockets have gone with the engine
