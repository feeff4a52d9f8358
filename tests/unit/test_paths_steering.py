"""Which paths are opened, used and closed: the core without an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aioiroh.paths import PathView, select_by_rtt
from aioiroh.paths.remote import (
    CLOSE_RETRY,
    COMPARE_INTERVAL,
    DETOUR_TIME,
    MAX_PUNCHES,
    MAX_RETRIES,
    OPEN_RETRY,
    PUNCH_INTERVAL,
    PUNCH_RETRY,
    UPGRADE_INTERVAL,
    Action,
    ClosePath,
    Detour,
    MarkPath,
    OfferAddress,
    OpenPath,
    Punch,
    Remote,
    WithdrawAddress,
)

RELAY = "https://relay.test/"
BEHIND = ("fd15:70a:510b:1::1", 12345)
OURS = ("192.0.2.1", 1)
OURS_TOO = ("192.0.2.1", 2)
THEIRS = ("192.0.2.9", 9)
THEIRS_TOO = ("2001:db8::9", 9)


def direct(
    id: int, rtt: float = 0.02, remote=THEIRS, *, available=False, open=True, **answers: float
) -> PathView:
    return PathView(id, remote, "192.0.2.1", None, rtt, open, available, **answers)


def relayed(id: int, rtt: float = 0.05, *, available=True, open=True, **answers: float) -> PathView:
    return PathView(id, BEHIND, None, RELAY, rtt, open, available, **answers)


def remote(*, is_client: bool = True, paths: Sequence[PathView] = (), own=(OURS,), relays=()):
    peer = Remote(select_by_rtt, 0.0)
    peer.added(1, is_client=is_client)
    peer.own(own, relays)
    peer.see(1, paths)
    return peer


def kinds(actions: list[Action]) -> list[type]:
    return [type(action) for action in actions]


class TestSelection:
    def test_direct_before_relayed(self):
        slow, fast = direct(1, 0.5), relayed(0, 0.01)
        assert select_by_rtt([fast, slow], fast.route) == slow.route
        assert select_by_rtt([fast], None) == fast.route
        assert select_by_rtt([], fast.route) is None

    def test_a_change_must_be_worth_it(self):
        first, second = direct(0, 0.020), direct(1, 0.016, ("192.0.2.8", 8))
        assert select_by_rtt([first, second], first.route) == first.route
        better = direct(1, 0.015, ("192.0.2.8", 8))
        assert select_by_rtt([first, better], first.route) == better.route
        # What is gone is not kept.
        assert select_by_rtt([second], first.route) == second.route

    def test_ipv6_is_preferred_a_little(self):
        four, six = direct(0, 0.020), direct(1, 0.022, THEIRS_TOO)
        assert select_by_rtt([four, six], None) == six.route
        assert select_by_rtt([four, six], four.route) == four.route

    def test_a_silent_path_is_no_path_as_long_as_there_is_another(self):
        silent, heard = direct(1, unanswered=1.0), relayed(0, 0.5, unanswered=0.9)
        assert select_by_rtt([heard, silent], silent.route) == heard.route
        # Another connection has an answer on the same route.
        assert select_by_rtt([heard, silent, direct(1)], silent.route) == silent.route
        # Maybe it is the whole network, maybe answers take the direct path: the relay is tried.
        dead = relayed(0, unanswered=2.0)
        assert select_by_rtt([dead, silent], silent.route) == dead.route
        assert select_by_rtt([dead, silent], dead.route) == dead.route
        assert select_by_rtt([dead, silent], None) == dead.route
        other = direct(2, 0.5, THEIRS_TOO, unanswered=1.0)
        assert select_by_rtt([other, silent], other.route) == other.route


@pytest.mark.parametrize("is_client", [True, False])
def test_a_direct_path_falls_silent(is_client: bool):
    peer = remote(
        is_client=is_client, paths=[relayed(0, available=False), direct(1, available=True)]
    )
    peer.decide(0.0)
    silent = direct(1, available=True, unanswered=1.0)
    peer.see(1, [relayed(0, available=False), silent])
    assert peer.decide(1.0) == [MarkPath(1, 0, True), MarkPath(1, 1, False)]
    # It is heard again.
    peer.see(1, [relayed(0), direct(1)])
    assert peer.decide(1.5) == [MarkPath(1, 0, False), MarkPath(1, 1, True)]
    # It is not; as long as nothing is stuck on it, it may take its time.
    silent = direct(1, unanswered=2.0, outstanding=100)
    peer.see(1, [relayed(0, quiet=0.1), silent])
    assert peer.decide(2.0) == []
    assert peer.deadline == 2.0 + COMPARE_INTERVAL
    # Something is: the peer is asked by the relay what has arrived, once.
    stuck = replace(silent, outstanding=100_000, quiet=2.5)
    peer.see(1, [relayed(0, quiet=4.0), stuck])
    assert peer.decide(2.5) == [Detour(1, 1, 0)]
    assert peer.decide(2.6) == []
    assert peer.deadline == 2.5 + DETOUR_TIME
    # It says so; but the answers came by the relay.
    freed = direct(1, unanswered=0.0, quiet=3.5)
    peer.see(1, [relayed(0, quiet=4.0), freed])
    assert peer.decide(3.5) == []
    # Nothing has been heard at the relay.
    assert peer.deadline == 3.5 + CLOSE_RETRY
    # But then there is.
    peer.see(1, [relayed(0, quiet=0.1), freed])
    assert peer.decide(4.0) == [ClosePath(1, 1)]
    # Who dialled looks for it again, in longer and longer intervals.
    peer.see(1, [relayed(0)])
    now, attempts = 4.0, []
    while now <= 4.0 + UPGRADE_INTERVAL:
        attempts += [now] * (Punch(1) in peer.decide(now))
        now = max(peer.deadline, now)
    assert attempts == ([4.0, 9.0, 19.0, 39.0] if is_client else [])


@pytest.mark.parametrize("is_client", [True, False])
def test_a_path_that_is_taken_for_dead_is_heard_again(is_client: bool):
    peer = remote(
        is_client=is_client, paths=[relayed(0, available=False), direct(1, available=True)]
    )
    peer.decide(0.0)
    stuck = direct(1, available=True, unanswered=1.0, outstanding=100_000, quiet=1.0)
    peer.see(1, [relayed(0, available=False), stuck])
    assert peer.decide(1.0) == [MarkPath(1, 0, True), MarkPath(1, 1, False), Detour(1, 1, 0)]
    peer.see(1, [relayed(0), direct(1, quiet=0.1)])
    assert peer.decide(1.5) == [MarkPath(1, 0, False), MarkPath(1, 1, True)]
    peer.see(1, [relayed(0, available=False), direct(1, available=True, quiet=0.6)])
    assert peer.decide(1.0 + DETOUR_TIME) == []


@pytest.mark.parametrize("is_client", [True, False])
def test_what_is_stuck_at_a_relay_is_asked_for_directly(is_client: bool):
    peer = remote(
        is_client=is_client, paths=[relayed(0, available=False), direct(1, available=True)]
    )
    peer.decide(0.0)
    stuck = relayed(0, available=False, unanswered=2.0, outstanding=20_000, quiet=3.0)
    peer.see(1, [stuck, direct(1, available=True)])
    # Who was dialled would follow the path to the other address.
    assert peer.decide(1.0) == ([] if is_client else [Detour(1, 0, 1)])
    # The path through the relay stays.
    peer.see(1, [replace(stuck, unanswered=0.0, outstanding=0), direct(1, available=True)])
    assert peer.decide(1.0 + DETOUR_TIME) == []


@pytest.mark.parametrize("is_client", [True, False])
def test_a_path_whose_address_is_gone_is_dead_until_it_is_heard(is_client: bool):
    paths = [relayed(0, available=False), direct(1, available=True, quiet=0.1, outstanding=1)]
    peer = remote(is_client=is_client, paths=paths)
    peer.decide(0.0)
    peer.network_changed(1.0, ["192.0.2.7"], major=True)
    actions = peer.decide(1.0)
    assert [each for each in actions if not isinstance(each, Punch)] == [
        MarkPath(1, 0, True),
        MarkPath(1, 1, False),
        Detour(1, 1, 0),
    ]
    # The peer has followed it to another address.
    peer.see(1, [relayed(0), direct(1, quiet=0.1)])
    assert peer.decide(1.4) == [MarkPath(1, 0, False), MarkPath(1, 1, True)]
    # Or not: it is closed, though nothing is stuck on it any more.
    peer.network_changed(2.0, ["192.0.2.7"], major=False)
    peer.see(1, [relayed(0, available=False), direct(1, available=True, quiet=0.2)])
    assert peer.decide(2.0) == [MarkPath(1, 0, True), MarkPath(1, 1, False)]
    peer.see(1, [relayed(0, quiet=0.2), direct(1, quiet=1.2)])
    assert peer.decide(2.0 + DETOUR_TIME) == [ClosePath(1, 1)]


def test_of_two_direct_paths_the_side_that_was_dialled_closes_none():
    silent = direct(1, available=True, unanswered=9.0, outstanding=100_000)
    peer = remote(is_client=False, paths=[direct(0, 0.3, THEIRS_TOO), silent])
    actions = peer.decide(0.0)
    assert MarkPath(1, 0, True) in actions and MarkPath(1, 1, False) in actions
    assert ClosePath not in kinds(actions)


def test_another_network():
    peer = remote(paths=[direct(0, 0.001, available=True)])
    assert peer.decide(0.0) == []
    peer.network_changed(1.0, ["192.0.2.1"], major=False)
    assert peer.decide(1.0) == []
    # As good as the path was, it may be gone.
    peer.network_changed(2.0, ["192.0.2.1"], major=True)
    assert peer.decide(2.0) == [OfferAddress(1, OURS), Punch(1)]
    assert peer.selected is not None
    peer.network_changed(3.0, ["192.0.2.7"], major=True)
    assert peer.selected is None


def test_from_the_relay_to_the_direct_path():
    peer = remote(paths=[relayed(0)])
    assert peer.decide(0.0) == [OfferAddress(1, OURS), Punch(1)]
    assert peer.decide(0.1) == []
    # The engine has found a way and opened a path in reserve, which is not known to work yet.
    peer.see(1, [relayed(0), direct(1, open=False)])
    assert peer.decide(0.2) == []
    peer.see(1, [relayed(0), direct(1)])
    assert peer.decide(0.3) == [MarkPath(1, 0, False), MarkPath(1, 1, True)]
    # It breaks: the relay is still there.
    peer.see(1, [relayed(0, available=False)])
    assert peer.decide(0.4) == [MarkPath(1, 0, True)]


def test_the_side_that_was_dialled_only_marks():
    peer = remote(is_client=False, paths=[relayed(0)], relays=[BEHIND])
    assert kinds(peer.decide(0.0)) == [OfferAddress]
    peer.offers(1, THEIRS, added=True)
    peer.see(1, [relayed(0), direct(1), direct(2, 0.3, THEIRS_TOO)])
    assert peer.decide(1.0) == [MarkPath(1, 0, False), MarkPath(1, 1, True)]


def test_paths_that_are_not_needed_are_closed():
    peer = remote(paths=[direct(0, available=True), direct(1, 0.3, THEIRS_TOO), relayed(2)])
    actions = peer.decide(0.0)
    assert ClosePath(1, 1) in actions and MarkPath(1, 2, False) in actions


def test_a_good_path_needs_no_other():
    peer = remote(paths=[direct(0, 0.001, available=True)])
    assert peer.decide(0.0) == []
    # When it gets worse, others are looked for where the peer says that it is.
    peer.see(1, [direct(0, 0.2, available=True)])
    assert peer.deadline == UPGRADE_INTERVAL
    assert peer.decide(UPGRADE_INTERVAL) == [OfferAddress(1, OURS)]
    peer.offers(1, THEIRS, added=True)
    assert peer.decide(UPGRADE_INTERVAL) == []
    peer.offers(1, THEIRS_TOO, added=True)
    assert peer.decide(UPGRADE_INTERVAL) == [Punch(1)]
    # Once is enough: nothing that is new, nothing to be tried.
    assert peer.decide(2 * UPGRADE_INTERVAL) == []


def test_the_relay_in_reserve():
    peer = remote(paths=[direct(0, 0.001, available=True)], relays=[BEHIND])
    assert peer.decide(0.0) == [OpenPath(1, (BEHIND, None))]
    peer.could_not_open(0.0)
    assert peer.decide(0.1) == []
    assert peer.deadline == OPEN_RETRY
    assert peer.decide(OPEN_RETRY) == [OpenPath(1, (BEHIND, None))]
    peer.see(1, [direct(0, 0.001, available=True), relayed(1, available=False, open=False)])
    assert peer.decide(1.0) == []


def test_addresses_are_kept_true():
    peer = remote(paths=[relayed(0)], own=[OURS])
    peer.decide(0.0)
    peer.own([OURS_TOO], [])
    assert peer.decide(1.0) == [WithdrawAddress(1, OURS), OfferAddress(1, OURS_TOO), Punch(1)]


def test_when_holes_are_punched():
    peer = remote(paths=[relayed(0)])
    assert Punch(1) in peer.decide(0.0)
    peer.offers(1, THEIRS, added=True)
    assert peer.decide(1.0) == [Punch(1)]
    # Nothing new: not before five seconds have passed.
    peer.offers(1, THEIRS, added=True)
    assert peer.decide(2.0) == []
    assert peer.deadline == 1.0 + PUNCH_INTERVAL
    assert peer.decide(1.0 + PUNCH_INTERVAL) == [Punch(1)]
    assert peer.decide(7.0) == []
    assert peer.decide(UPGRADE_INTERVAL) == [Punch(1)]
    peer.offers(1, THEIRS, added=False)
    assert peer.decide(UPGRADE_INTERVAL + 10) == [Punch(1)]


def test_what_cannot_be_done_yet_is_tried_again_and_not_for_ever():
    peer = remote(paths=[relayed(0)])
    now, attempts = 0.0, 0
    while now < UPGRADE_INTERVAL:
        attempts += Punch(1) in peer.decide(now)
        peer.could_not_punch(now)
        now = max(peer.deadline, now + PUNCH_RETRY)
    assert attempts == MAX_RETRIES + 1


def test_a_peer_that_names_ever_new_addresses_is_not_followed_for_ever():
    peer = remote(paths=[relayed(0)])
    punches = 0
    for number in range(1000):
        peer.offers(1, ("192.0.2.9", number + 1), added=True)
        punches += Punch(1) in peer.decide(number / 100)
        peer.offers(1, ("192.0.2.9", number + 1), added=False)
    assert MAX_PUNCHES <= punches <= MAX_PUNCHES + 10 / PUNCH_INTERVAL + 1


def test_another_connection_follows():
    peer = remote(paths=[direct(0, 0.001, available=True)])
    peer.decide(0.0)
    peer.added(2, is_client=True)
    peer.see(2, [relayed(0)])
    assert OpenPath(2, direct(0).route) in peer.decide(1.0)
    peer.removed(1)
    assert len(peer) == 1 and peer.selected is not None
    peer.removed(2)
    assert peer.selected is None


@pytest.mark.parametrize("gone", [True, False])
def test_an_own_policy(gone: bool):
    peer = Remote(lambda paths, selected: paths[-1].route if paths else None, 0.0)
    peer.added(1, is_client=False)
    peer.see(1, [direct(0, available=True), relayed(1, available=False)])
    assert peer.decide(0.0) == [MarkPath(1, 0, False), MarkPath(1, 1, True)]
    peer.see(1, [direct(0, available=False)] if gone else [])
    assert peer.decide(1.0) == ([MarkPath(1, 0, True)] if gone else [])


class Steered(RuleBasedStateMachine):
    """Whatever happens: it comes to rest, and data have a way whenever there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.remote = Remote(select_by_rtt, 0.0)
        self.paths: dict[int, dict[int, PathView]] = {}
        self.clients: dict[int, bool] = {}
        self.detoured: set[tuple[int, int]] = set()
        self.numbers = 0

    @rule(is_client=st.booleans(), through_relay=st.booleans())
    def connect(self, is_client: bool, through_relay: bool) -> None:
        if len(self.paths) < 4:
            self.numbers += 1
            self.remote.added(self.numbers, is_client=is_client)
            first = relayed(0) if through_relay else direct(0, available=True)
            self.paths[self.numbers] = {0: first}
            self.clients[self.numbers] = is_client
            self.act()

    @precondition(lambda self: self.paths)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.paths)))
        del self.paths[number]
        self.remote.removed(number)
        self.act()

    @precondition(lambda self: self.paths)
    @rule(data=st.data(), rtt=st.floats(0.0001, 1.0), six=st.booleans())
    def a_path_works(self, data: st.DataObject, rtt: float, six: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.paths)))
        id = max(self.paths[number], default=0) + 1
        where = THEIRS_TOO if six else THEIRS
        if all(path.remote != where for path in self.paths[number].values()):
            self.paths[number][id] = direct(id, rtt, where)
        self.act()

    @precondition(lambda self: self.paths)
    @rule(data=st.data())
    def a_path_breaks(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.paths)))
        if len(self.paths[number]) > 1:
            del self.paths[number][data.draw(st.sampled_from(sorted(self.paths[number])))]
        self.act()

    @precondition(lambda self: self.paths)
    @rule(
        data=st.data(),
        unanswered=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
        quiet=st.floats(0, 5),
        outstanding=st.sampled_from([0, 100_000]),
    )
    def a_path_answers_or_not(
        self, data: st.DataObject, unanswered: float, quiet: float, outstanding: int
    ) -> None:
        number = data.draw(st.sampled_from(sorted(self.paths)))
        id = data.draw(st.sampled_from(sorted(self.paths[number])))
        path = self.paths[number][id]
        self.paths[number][id] = replace(
            path, unanswered=unanswered, quiet=quiet, outstanding=outstanding
        )
        self.act()

    @rule(own=st.lists(st.sampled_from([OURS, OURS_TOO]), unique=True), behind=st.booleans())
    def addresses(self, own: list[tuple[str, int]], behind: bool) -> None:
        self.remote.own(own, [BEHIND] if behind else [])
        self.act()

    @precondition(lambda self: self.paths)
    @rule(data=st.data(), added=st.booleans())
    def candidate(self, data: st.DataObject, added: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.paths)))
        self.remote.offers(number, THEIRS, added=added)
        self.act()

    @rule(seconds=st.floats(0.001, 100))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(1000):
            if self.remote.deadline > until:
                break
            assert self.remote.deadline > self.now or self.now == 0.0
            self.now = max(self.remote.deadline, self.now)
            self.act()
        else:
            raise AssertionError("it never rests")
        self.now = until

    def act(self) -> None:
        for _ in range(10):
            for number, paths in self.paths.items():
                self.remote.see(number, list(paths.values()))
            changed = False
            for action in self.remote.decide(self.now):
                changed |= self.carry_out(action)
            if not changed:
                return
        raise AssertionError("it changes its mind for ever")

    def carry_out(self, action: Action) -> bool:
        match action:
            case OpenPath(number, (where, local)):
                assert self.clients[number]
                id = max(self.paths[number], default=0) + 1
                relay = RELAY if where == BEHIND else None
                self.paths[number][id] = PathView(id, where, local, relay, 0.05, True, False)
            case ClosePath(number, id):
                path = self.paths[number].pop(id)
                assert path.is_direct and self.paths[number]
                if not self.clients[number]:
                    others = self.paths[number].values()
                    assert path.is_silent or (number, id) in self.detoured
                    assert any(other.relay and not other.is_silent for other in others)
            case MarkPath(number, id, available):
                path = self.paths[number][id]
                assert path.is_available != available
                self.paths[number][id] = replace(path, is_available=available)
            case Punch(number):
                assert self.clients[number]
                return False
            case Detour(number, id, by):
                assert self.paths[number][id].is_silent and not self.paths[number][by].is_silent
                self.detoured.add((number, id))
                return False
            case _:
                return False
        return True

    @invariant()
    def data_have_a_way(self) -> None:
        for paths in self.paths.values():
            used = [path for path in paths.values() if path.is_available]
            assert used or not paths or all(not path.is_available for path in paths.values())
            routes = {path.route for path in paths.values()}
            # What answers nobody is used only if nothing does.
            answering = [
                path for each in self.paths.values() for path in each.values() if not path.is_silent
            ]
            if answering:
                assert self.remote.selected in {path.route for path in answering}
            if self.remote.selected in routes:
                assert [path.route for path in used] == [self.remote.selected]


TestSteered = Steered.TestCase
TestSteered.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 2)), min_size=1, max_size=6))
def test_the_choice_is_stable(found: list[tuple[bool, float]]):
    paths = [
        relayed(id, rtt) if through_relay else direct(id, rtt, ("192.0.2.9", id))
        for id, (through_relay, rtt) in enumerate(found)
    ]
    chosen = select_by_rtt(paths, None)
    assert select_by_rtt(paths, chosen) == chosen
    assert any(path.is_direct for path in paths) == all(
        path.is_direct for path in paths if path.route == chosen
    )
