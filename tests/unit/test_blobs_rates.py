"""Which limits a request of a peer is under, and for how long they are known."""

from __future__ import annotations

import pytest

from aioiroh.blobs import GetRequest, Hash, IncomingRequest, Limits, rate_limit
from aioiroh.blobs.rangeseq import ChunkRangesSeq
from aioiroh.blobs.serving import rates
from aioiroh.blobs.serving.rates import Rates
from aioiroh.keys import EndpointId, SecretKey

REQUEST = GetRequest(Hash.of(b""), ChunkRangesSeq.all())


def asked_by(peer: EndpointId) -> IncomingRequest:
    return IncomingRequest(peer, 1, 0, REQUEST)


def peers(count: int) -> list[EndpointId]:
    return [SecretKey(number.to_bytes(32, "big")).public for number in range(count)]


def test_limits_are_shared_by_those_they_are_for() -> None:
    one, two = map(asked_by, peers(2))
    own = rate_limit(5, now=0)
    limited = Rates(Limits(rate=100, rate_per_peer=10), lambda request: [own])
    first, again, other = (limited.pace(source, 0).limits for source in (one, one, two))
    assert list(first) == list(again)
    assert [a is b for a, b in zip(first, other, strict=True)] == [True, True, False]
    assert first[0] is own and [limit.rate for limit in first] == [5, 100, 10]
    assert list(Rates(Limits(), None).pace(one, 0).limits) == []


def test_peers_are_forgotten_when_their_limit_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "TIDY", 10)
    limited = Rates(Limits(rate_per_peer=10_000), None)
    owing, *others = peers(60)
    debt = limited.pace(asked_by(owing), 0).limits[0]
    debt.take(0, 200_000)
    for second, peer in enumerate(others):
        limited.pace(asked_by(peer), second).limits[0].take(second, 4096)
        assert len(limited._peers) <= 11
        # Asking little and often does not wipe out what is owed.
        if debt.level(second) < debt.burst:
            assert limited.pace(asked_by(owing), second).limits[0] is debt
