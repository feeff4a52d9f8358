"""What only upstream's Rust crates show: keys, limits, paths, and packets that belong to no connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aioiroh import Endpoint, PathClosed, PathOpened, TransportConfig
from aioiroh.paths import PathView, Route
from meeting import ALPN, LOOPBACK, Link, Meet, address, join, meeting, pattern, read_pattern, where

MIB = 1 << 20
QUEUE = {ALPN.decode(): "queue"}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "context", "length"),
    [(b"label", b"", 32), (b"EXPORTER-a/b", b"some context", 1), (b"", b"\0" * 300, 1000)],
)
async def test_both_derive_the_same_keys(
    iroh_peer: Callable[..., Any], meet: Meet, label: bytes, context: bytes, length: int
) -> None:
    async with meet(iroh_peer) as link:
        theirs = await link.theirs(
            "export_key", label=label.hex(), context=context.hex(), length=length
        )
        ours = link.ours.export_keying_material(label, context, length)
        assert ours.hex() == theirs["hex"] and len(ours) == length
        assert ours != link.ours.export_keying_material(label, context + b"x", length) or length < 4


def secrets(log: Path) -> dict[str, set[tuple[str, str]]]:
    """From the labels in a key log to client randoms and secrets."""
    found: dict[str, set[tuple[str, str]]] = {}
    for line in log.read_text().splitlines():
        label, random, secret = line.split(" ")
        assert len(random) == 64 and len(secret) in (64, 96)
        found.setdefault(label, set()).add((random, secret))
    return found


@pytest.mark.parametrize("we_dial", [True, False], ids=["we dial", "they dial"])
async def test_both_log_the_same_secrets(
    iroh_peer: Callable[..., Any],
    we_dial: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With ours alone a capture of the traffic could be read."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    monkeypatch.setenv("SSLKEYLOGFILE", str(theirs))
    async with (
        Endpoint.bind(bind=LOOPBACK, alpns=[ALPN], keylog=ours) as endpoint,
        iroh_peer(alpns=QUEUE, keylog=True) as peer,
    ):
        link = await join(we_dial, endpoint, peer)
        link.ours.close()
        await link.theirs("closed")
    assert secrets(ours) == secrets(theirs)
    assert secrets(ours).keys() == {
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
        "EXPORTER_SECRET",
    }


# --- limits of one side, kept by the other --------------------------------------------------------


async def test_their_limit_of_streams(iroh_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(iroh_peer, transport_of_peer={"max_bidi_streams": 2}) as link:
        streams = [await link.ours.open_bi() for _ in range(2)]
        opening = asyncio.ensure_future(link.ours.open_bi())
        await asyncio.sleep(0.1)
        assert not opening.done()
        await streams[0].write(b"x")
        await streams[0].finish()
        number = await link.they_accept()
        await link.peer("read_all", stream=number)
        await link.peer("finish", stream=number)
        assert await streams[0].read() == b""
        third = await opening
        await third.write(b"y")


async def test_our_limit_of_streams(iroh_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(iroh_peer, transport=TransportConfig(max_uni_streams=2)) as link:
        numbers = [await link.they_open(uni=True) for _ in range(2)]
        opening = asyncio.create_task(link.they_open(uni=True))
        await asyncio.sleep(0.1)
        assert not opening.done()
        await link.peer("write", stream=numbers[0], text="x", finish=True)
        stream = await link.ours.accept_uni()
        assert await stream.read_all(limit=10) == b"x"
        await opening
        # And while the connection lives.
        opening = asyncio.create_task(link.they_open(uni=True))
        await asyncio.sleep(0.1)
        assert not opening.done()
        link.ours.set_max_concurrent_uni_streams(5)
        await opening


async def test_their_stream_window_holds_us_back(iroh_peer: Callable[..., Any], meet: Meet) -> None:
    window = 100_000
    async with meet(iroh_peer, transport_of_peer={"stream_receive_window": window}) as link:
        stream = await link.ours.open_uni()
        writing = asyncio.create_task(stream.write(pattern(MIB)))
        number = await link.they_accept(uni=True)
        await until(lambda: stream.bytes_written >= window)
        await asyncio.sleep(0.1)
        assert not writing.done() and stream.bytes_written == window
        reading = asyncio.create_task(link.peer("read_all", stream=number))
        await writing
        await stream.finish()
        assert (await reading)["pattern"]


async def test_their_connection_window_holds_us_back(
    iroh_peer: Callable[..., Any], meet: Meet
) -> None:
    window = 100_000
    async with meet(iroh_peer, transport_of_peer={"receive_window": window}) as link:
        streams = [await link.ours.open_uni() for _ in range(4)]

        async def write(index: int) -> None:
            await streams[index].write(pattern(MIB))
            await streams[index].finish()

        writing = asyncio.gather(*map(write, range(4)))

        def written() -> int:
            return sum(stream.bytes_written for stream in streams)

        await until(lambda: written() >= window)
        await asyncio.sleep(0.1)
        assert not writing.done() and written() == window
        reading = []
        for _ in range(4):
            number = await link.they_accept(uni=True)
            reading.append(asyncio.create_task(link.peer("read_all", stream=number)))
        await writing
        for heard in await asyncio.gather(*reading):
            assert (heard["length"], heard["pattern"]) == (MIB, True)


async def test_our_windows_hold_them_back(iroh_peer: Callable[..., Any], meet: Meet) -> None:
    windows = TransportConfig(stream_receive_window=50_000, receive_window=120_000)
    async with meet(iroh_peer, transport=windows) as link:
        writing = []
        for _ in range(4):
            number = await link.they_open(uni=True)
            request = link.peer("write", stream=number, pattern=MIB, finish=True)
            writing.append(asyncio.create_task(request))
        await until(lambda: link.ours.stats()["udp_rx_bytes"] > 120_000)
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in writing)
        assert link.ours.stats()["udp_rx_bytes"] < 200_000

        async def hear() -> int:
            return await read_pattern(await link.ours.accept_uni())

        assert await asyncio.gather(*(hear() for _ in range(4))) == [MIB] * 4
        await asyncio.gather(*writing)


@pytest.mark.parametrize("congestion", ["cubic", "newreno", "bbr3"])
async def test_every_congestion_controller(iroh_peer: Callable[..., Any], congestion: Any) -> None:
    transport = TransportConfig(congestion=congestion)
    alpns = {ALPN.decode(): "bench"}
    async with meeting(True)(iroh_peer, transport=transport, alpns=alpns) as link:
        async with link.ours.open_bi() as stream:
            await stream.write(b"S")
            for start in range(0, 20 * MIB, MIB):
                await stream.write(pattern(MIB, start))
            await stream.finish()
            answer = await stream.read_exactly(8)
        assert int.from_bytes(answer, "little") == 20 * MIB


# --- extensions -----------------------------------------------------------------------------------


async def test_multipath_is_agreed_on(iroh_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(iroh_peer) as link:
        info = link.ours.state.native.info()
        assert info["multipath"] is True, info


async def test_their_candidates_arrive(iroh_peer: Callable[..., Any]) -> None:
    """The accepting side tells where else it may be reached, for hole punching."""
    async with meeting(True)(iroh_peer) as link:
        host, _, port = link.peer.addrs[0].rpartition(":")
        async with asyncio.timeout(5):
            while (host, int(port)) not in link.ours.state.native.nat_remote():
                await asyncio.sleep(0.02)


async def test_a_second_path_and_the_end_of_the_first(iroh_peer: Callable[..., Any]) -> None:
    def higher(paths: Sequence[PathView], _: Route | None) -> Route | None:
        return max((path.route for path in paths), default=None)

    async with (
        Endpoint.bind(bind="0.0.0.0:0", alpns=[ALPN], path_selector=higher) as endpoint,
        iroh_peer(alpns=QUEUE, addr="0.0.0.0:0") as peer,
    ):
        peer.addrs = [f"127.0.0.1:{peer.addrs[0].rpartition(':')[2]}"]
        link = await join(True, endpoint, peer)
        async with link.ours:
            events: list[Any] = []

            async def collect() -> None:
                async for event in link.ours.path_events():
                    events.append(event)

            collecting = asyncio.create_task(collect())
            state, port = link.ours.state, link.ours.paths.value[0].remote[1]
            async with asyncio.timeout(10):
                path = None
                while path is None:
                    # Until the peer has sent connection ids for it.
                    with contextlib.suppress(ValueError):
                        path = state.native.open_path(("127.0.0.2", port), None, "available")
                        state.driver.touched()
                    await asyncio.sleep(0.01)
                while not (opened := [e for e in events if isinstance(e, PathOpened)]):
                    await asyncio.sleep(0.01)
                assert (opened[0].id, opened[0].remote) == (path, ("127.0.0.2", port))
                # The new one is chosen, and so the first is not needed any more.
                while not (closed := [e for e in events if isinstance(e, PathClosed)]):
                    await asyncio.sleep(0.01)
            assert closed[0].id == 0
            assert [info.id for info in link.ours.paths.value] == [path]
            stream = await link.ours.open_bi()
            await stream.write(pattern(300_000))
            await stream.finish()
            number = await link.they_accept()
            assert (await link.peer("read_all", stream=number))["pattern"]
            await link.peer("write", stream=number, pattern=300_000, finish=True)
            assert await read_pattern(stream.recv) == 300_000
        await collecting


# --- packets that belong to no connection ---------------------------------------------------------


def long_header(version: int, dcid: bytes, scid: bytes, size: int) -> bytes:
    head = b"\xc0" + version.to_bytes(4, "big") + bytes([len(dcid)]) + dcid + bytes([len(scid)])
    return (head + scid).ljust(size, b"\x5a")


DCID, SCID = bytes(range(8)), bytes(range(100, 108))
FENCE = long_header(0xBABABABA, b"\xfe" * 8, SCID, 1200)
"""Its answer, which every endpoint gives, comes after that to what was sent before."""
STRAYS = {
    "nothing": b"",
    "a few bytes": b"hello",
    "zeros": bytes(1200),
    "a STUN request": bytes.fromhex("000100002112a442") + bytes(range(12)),
    "an unknown version": long_header(0xBABABABA, DCID, SCID, 1200),
    "an unknown version in a small packet": long_header(0xBABABABA, DCID, SCID, 300),
    "a draft version": long_header(0xFF00001D, DCID, SCID, 1200),
    "version negotiation": long_header(0, DCID, SCID, 40),
    "a damaged handshake": long_header(1, DCID, SCID, 1200),
    "a short destination": long_header(1, DCID[:4], SCID, 1200),
    "a connection that is not": b"\x40" + bytes(range(8)) + bytes(1000),
    "a small packet of none": b"\x40" + bytes(range(8)) + bytes(30),
}


async def replies(port: int, stray: bytes) -> list[tuple[object, ...]]:
    """What comes back, without what is random."""
    loop = asyncio.get_running_loop()
    found: list[tuple[object, ...]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        async with asyncio.timeout(20):
            for packet in (stray, FENCE):
                await loop.sock_sendto(sock, packet, ("127.0.0.1", port))
            while FENCE[6:14] not in (data := await loop.sock_recv(sock, 2048)):
                found.append(shape(data))
    return found


def shape(data: bytes) -> tuple[object, ...]:
    if not data[0] & 0x80:
        return "short header", len(data) > 40
    version, rest = data[1:5], data[5:]
    ids = rest[1 : 1 + rest[0]], rest[2 + rest[0] : 2 + rest[0] + rest[1 + rest[0]]]
    if version == bytes(4):
        versions = rest[2 + len(ids[0]) + len(ids[1]) :]
        known = {versions[i : i + 4].hex() for i in range(0, len(versions), 4)}
        return "version negotiation", ids, frozenset(known - {"0a1a2a3a"})
    return "long header", version.hex(), ids[0], len(ids[1]), len(data)


async def test_strays_are_answered_alike(iroh_peer: Callable[..., Any]) -> None:
    async with (
        Endpoint.bind(bind=LOOPBACK, alpns=[ALPN]) as endpoint,
        iroh_peer(alpns=QUEUE) as peer,
    ):
        our_port, their_port = endpoint.bound_sockets[0].port, address(peer).ip_addrs[0].port
        ours = await asyncio.gather(*(replies(our_port, stray) for stray in STRAYS.values()))
        theirs = await asyncio.gather(*(replies(their_port, stray) for stray in STRAYS.values()))
        assert dict(zip(STRAYS, ours, strict=True)) == dict(zip(STRAYS, theirs, strict=True))
        answered = {name for name, answers in zip(STRAYS, ours, strict=True) if answers}
        assert answered == {"an unknown version", "an unknown version in a small packet"}
        # And both live.
        async with endpoint.connect(address(peer), alpn=ALPN):
            await peer("accept")


async def test_address_tokens_are_kept_and_shown(iroh_peer: Callable[..., Any]) -> None:
    """A peer that has been here proves its address with its first packet (RFC 9000 section 8.1.3)."""
    async with Endpoint.bind(bind=LOOPBACK, alpns=[ALPN]) as endpoint, iroh_peer() as peer:
        seen = []
        for _ in range(2):
            dialling = asyncio.create_task(peer("connect", alpn=ALPN.decode(), **where(endpoint)))
            incoming = await endpoint.accept()
            seen.append(incoming.validated)
            async with await incoming as ours:
                known = await dialling
                link = Link(endpoint, ours, peer, known["conn"])
                # The token comes after the handshake.
                number = await link.they_open()
                await peer("write", stream=number, text="x", finish=True)
                stream = await ours.accept_bi()
                assert await stream.read_all(limit=10) == b"x"
                await asyncio.sleep(0.05)
        assert seen == [False, True]
