"""Types of the native module. One section per source file in `rust/py/src`."""

from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextvars import Context
from os import PathLike
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar, final

from typing_extensions import Buffer, disjoint_base

from aioiroh.quic.connection import Connection
from aioiroh.quic.receiving import RecvStream
from aioiroh.quic.sending import SendStream
from aioiroh.quic.state import ConnectionState, Dropped

_T = TypeVar("_T")

# --- identity: Ed25519 as upstream's crate judges it, URLs as upstream's crate parses them --------

def public_key(seed: bytes) -> bytes:
    """Public key (32 bytes) of a 32-byte seed. ValueError: wrong length."""

def sign(seed: bytes, message: Buffer) -> bytes:
    """Signature (64 bytes, RFC 8032) of `message`. ValueError: wrong length of `seed`."""

def verify(public: bytes, message: Buffer, signature: bytes) -> bool:
    """Strict verification; an invalid key gives False. ValueError: a length is wrong."""

def is_public_key(public: bytes) -> bool:
    """Whether these are 32 bytes that decompress to a point of the curve."""

def normalize_url(text: str) -> str:
    """The WHATWG serialisation of a URL. ValueError: not a URL."""

# --- turn: futures whose tasks go on within a turn of their driver --------------------------------

@final
class Turns:
    """Whether a driver's turn is under way, who goes on at its end, and whether something waits to be sent.

    It belongs to the thread that makes it."""

    def __new__(cls, event_loop: AbstractEventLoop, flush: Callable[[], object]) -> Self: ...
    active: bool
    """Set only inside a callback of the loop, never inside a task: two tasks cannot run at once."""
    scheduled: bool
    """Whether something was asked of the engine and not flushed."""
    def at_home(self) -> bool:
        """Whether the caller is inside the turn, or else runs in the loop."""

    def touch(self) -> bool:
        """Something was asked of the engine: the turn flushes at its end; outside of one the loop calls
        `flush`, once. False, without doing so: not at home."""

    @property
    def pending(self) -> bool:
        """Whether somebody is still to go on."""

    def call(self, function: Callable[[], object]) -> None:
        """Calls it at the end of this turn, or else in the next iteration of the loop."""

    def proceed(self, limit: int) -> bool:
        """Lets at most `limit` of those go on who are to; whether there are more.

        What they raise (only what ends a loop) is raised.
        """

@final
class Waiter(Generic[_T]):
    """Something that one task waits for: `await waiter`, then `value`.

    The task goes on within the turn in which it is completed, not in the loop's next iteration.
    """

    def __new__(cls, turns: Turns) -> Self: ...
    def complete(self, value: _T) -> bool:
        """Sets the value. False: there is one, or the task was cancelled."""

    @property
    def value(self) -> _T: ...
    def done(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def __await__(self) -> Generator[Any]: ...
    # What tasks of asyncio ask of a future.
    _asyncio_future_blocking: bool
    def __iter__(self) -> Self: ...
    def __next__(self) -> Self: ...
    def result(self) -> _T: ...
    def get_loop(self) -> AbstractEventLoop: ...
    def add_done_callback(
        self, callback: Callable[[Waiter[_T]], object], *, context: Context
    ) -> None: ...
    def cancel(self, msg: object = None) -> bool: ...
    def _resume(self) -> None: ...

# --- quic: the engine and its connections ---------------------------------------------------------

class NativeError(Exception): ...
class StreamReset(NativeError): ...
class StreamStopped(NativeError): ...
class StreamGone(NativeError): ...
class ConnectionGone(NativeError): ...
class EngineDead(NativeError): ...

_Address: TypeAlias = tuple[str, int]
_Event: TypeAlias = tuple[int, int, int, Any]
"""`(kind, connection id, a, b)`; what `a` and `b` are depends on the kind."""

EV_INCOMING: Final[int]
EV_CONNECTED: Final[int]
EV_CONFIRMED: Final[int]
EV_CLOSED: Final[int]
EV_DRAINED: Final[int]
EV_STREAMS_OPENED: Final[int]
EV_STREAMS_AVAILABLE: Final[int]
EV_DATA: Final[int]
EV_RESET: Final[int]
EV_WRITABLE: Final[int]
EV_FINISHED: Final[int]
EV_STOPPED: Final[int]
EV_TRANSFER: Final[int]
EV_DATAGRAMS: Final[int]
EV_DATAGRAMS_UNBLOCKED: Final[int]
EV_PATH_ESTABLISHED: Final[int]
EV_PATH_ABANDONED: Final[int]
EV_PATH_DISCARDED: Final[int]
EV_PATH_REMOTE_STATUS: Final[int]
EV_PATH_OBSERVED: Final[int]
EV_NAT_ADDRESS: Final[int]
EV_OUTPUT: Final[int]
EV_SOCKET_ERROR: Final[int]
EV_ENGINE_FAILED: Final[int]
EV_NAT_PROBE: Final[int]
EV_KNOCK: Final[int]
EV_PATH_SILENT: Final[int]

CLOSE_APPLICATION: Final[int]
CLOSE_PEER_TRANSPORT: Final[int]
CLOSE_TRANSPORT: Final[int]
CLOSE_TIMEOUT: Final[int]
CLOSE_RESET: Final[int]
CLOSE_VERSION: Final[int]
CLOSE_CIDS: Final[int]
CLOSE_LOCAL: Final[int]
CLOSE_PANIC: Final[int]

@final
class Transport:
    """QUIC transport settings. Times in seconds, sizes in bytes. ValueError: out of range."""

    def __new__(
        cls,
        *,
        max_bidi_streams: int = 100,
        max_uni_streams: int = 100,
        idle_timeout: float | None = ...,
        keep_alive: float | None = ...,
        path_idle_timeout: float | None = ...,
        path_keep_alive: float | None = ...,
        max_paths: int = 8,
        nat_addresses: int = 32,
        stream_receive_window: int = 1_250_000,
        receive_window: int = 16_777_216,
        send_window: int = 10_000_000,
        datagram_receive_buffer: int | None = ...,
        datagram_send_buffer: int = 1_048_576,
        congestion: str = "cubic",
        initial_rtt: float = 0.333,
        initial_mtu: int = 1200,
        min_mtu: int = 1200,
        mtu_discovery: bool = True,
        mtu_upper_bound: int = 1452,
        segmentation_offload: bool = True,
        send_fairness: bool = True,
        packet_threshold: int = 3,
        crypto_buffer: int = 16_384,
        pad_to_mtu: bool = False,
        send_observed_addresses: bool = False,
        receive_observed_addresses: bool = False,
        qlog_dir: str | PathLike[str] | None = None,
    ) -> Transport: ...

@final
class Engine:
    """One QUIC endpoint: sockets, timers, connections. It is stepped; it has no thread."""

    def __new__(
        cls,
        secret: bytes,
        *,
        alpns: Sequence[bytes] = ...,
        transport: Transport | None = None,
        keylog: str | PathLike[str] | None = None,
        clock: Callable[[], float] | None = None,
        seed: bytes | None = None,
        max_incoming: int = 1024,
        retry_above: int | None = None,
        max_tickets: int = 256,
    ) -> Engine: ...
    def public_key(self) -> bytes: ...
    def fileno(self) -> int:
        """Readable when a step is due. OSError: this system needs the portable driver."""

    def sockets(self) -> list[tuple[int, bool]]:
        """Descriptors to watch without `fileno`, and whether also for writing."""

    def deadline(self, now: float | None = None) -> float | None:
        """Seconds until the next timer; 0 when work waits, None without any."""

    def step(self, now: float | None = None) -> Sequence[_Event]:
        """Receives and fires timers. Returns events without having sent, so that answers to them can
        leave at once: call `flush` then. Without events it has sent. `now` counts only with a clock of
        one's own.
        """

    def flush(self, now: float | None = None) -> Sequence[_Event]:
        """Sends what calls have left to send."""

    def add_udp(
        self,
        host: str,
        port: int,
        *,
        recv_buffer: int = 7_340_032,
        send_buffer: int = 7_340_032,
        gso: bool = True,
    ) -> tuple[int, _Address, dict[str, int]]: ...
    def add_virtual(self, host: str, port: int) -> int: ...
    def remove_slot(self, slot: int) -> bool: ...
    def set_aside(self, slot: int) -> None:
        """The slot sends only what is pinned to it, and tells of probes that come through (EV_KNOCK)."""

    def pin(self, address: _Address, slot: int) -> None:
        """What goes to this address leaves through this slot only, as long as it exists."""

    def unpin(self, address: _Address) -> bool: ...
    def probe(self, slots: Sequence[int], ip: str, ports: Sequence[int]) -> None:
        """A small datagram that is not QUIC, from each slot to each port."""

    def rebind(self, slot: int) -> _Address: ...
    def set_reach(self, slot: int, prefix: int | None, outward: bool) -> bool: ...
    def inject(
        self,
        slot: int,
        source: _Address,
        data: Buffer,
        *,
        destination: str | None = None,
        segment_size: int | None = None,
        ecn: int = 0,
    ) -> None: ...
    def take_output(
        self, slot: int, max: int = 64
    ) -> list[tuple[_Address, str | None, int, int | None, bytes]]:
        """`(destination, source ip, ECN bits, segment size, datagrams)` of a virtual slot."""

    def set_route(self, ip: str, targets: Sequence[tuple[int | None, _Address | None]]) -> None: ...
    def drop_route(self, ip: str) -> bool: ...
    def connect(
        self,
        address: _Address,
        peer: bytes,
        alpns: Sequence[bytes],
        *,
        transport: Transport | None = None,
        early_data: bool = False,
    ) -> Conn: ...
    def connect_named(
        self,
        address: _Address,
        name: str,
        alpns: Sequence[bytes],
        tls: RelayTls,
        *,
        transport: Transport | None = None,
    ) -> Conn:
        """To a server that proves this name by a certificate. Neither side has a key: EV_CONNECTED has
        None in its place."""

    def use_certificate(self, chain: bytes, key: bytes) -> None:
        """Show this certificate (PEM) from now on to those who connect, in place of the endpoint's key,
        and ask them for none. ValueError: they are unreadable or do not belong together."""

    def accept(
        self,
        incoming: int,
        *,
        transport: Transport | None = None,
        alpns: Sequence[bytes] | None = None,
    ) -> Conn | tuple[int, tuple[int, int | None, bytes]]:
        """The connection, or cause and details (as of EV_CLOSED) when it failed at once."""

    def refuse(self, incoming: int) -> None: ...
    def retry(self, incoming: int) -> bool: ...
    def ignore(self, incoming: int) -> None: ...
    def set_alpns(self, alpns: Sequence[bytes]) -> None: ...
    def network_changed(self) -> None: ...
    def close(self, code: int, reason: bytes) -> None: ...
    def is_idle(self) -> bool: ...
    def shutdown(self) -> None: ...
    def set_batch(self, datagrams: int) -> None: ...
    def stats(self) -> dict[str, Any]: ...
    def panic(self, place: str) -> None:
        """Test hook: "connection" or "endpoint" panics in its next turn."""

@final
class RelayTls:
    """How the certificates of relays are judged: by `roots` (PEM), or else by Mozilla's list, compiled
    in. `verify=False` takes every certificate. ValueError: no certificate."""

    def __new__(cls, *, roots: bytes | None = None, verify: bool = True) -> RelayTls: ...

@final
class TlsStream:
    """The client's end of TLS inside a TCP connection that somebody else carries."""

    def __new__(cls, tls: RelayTls, name: str) -> TlsStream:
        """To the server of that name. ValueError: it is none."""

    def feed(self, data: Buffer) -> bytes:
        """Bytes from the connection; gives what they carry. ValueError: TLS failed, the text says why."""

    def write(self, data: Buffer) -> None:
        """Bytes for the server; they wait for the handshake."""

    def take(self) -> bytes:
        """Bytes for the connection."""

@final
class Relay:
    """Carries the datagrams of a virtual slot to peers behind one relay. `seed`: 32 secret bytes from
    which the addresses of peers come. `Engine.flush` is due after `feed` has brought datagrams."""

    def __new__(cls, engine: Engine, slot: int, seed: bytes) -> Relay: ...
    def open(
        self,
        *,
        host: str,
        target: str,
        secret_key: bytes,
        entropy: bytes,
        token: str | None = None,
        tls: RelayTls | None = None,
        server_name: str | None = None,
    ) -> None:
        """A TCP connection to the relay is there. `entropy`: 24 random bytes. ValueError."""

    def drop_connection(self) -> None: ...
    def feed(self, data: Buffer) -> tuple[int, list[tuple[Any, ...]]]:
        """Bytes from the relay: how many batches of datagrams came, and ("connected", version),
        ("gone", id), ("pong", data), ("health", text), ("restarting", ms, ms), ("status", code), and at last
        ("over", kind, text)."""

    def take(self) -> bytes:
        """Bytes for the relay."""

    def discard(self) -> int:
        """Throws away the datagrams that wait; gives how many batches they were."""

    def ping(self, data: bytes) -> None:
        """8 bytes that will come back."""

    def close(self) -> None:
        """Says goodbye; `take` has the bytes."""

    def address(self, peer: bytes) -> _Address | None:
        """Where the engine reaches that peer through this relay; None: it has no room."""

    def release(self) -> None: ...
    def peer(self, ip: str) -> bytes | None:
        """The peer with that address."""

    @property
    def counters(self) -> tuple[int, int]:
        """Frames that came on this connection, batches of datagrams that could not go."""

@final
class RelayServerTls:
    """What a relay shows its clients: a certificate with the ones above it, and its key, both PEM.

    ValueError: they cannot be used."""

    def __new__(cls, certificates: bytes, key: bytes) -> RelayServerTls: ...

@final
class RelayHub:
    """Forwards datagrams between the clients of a relay. `seed`: 8 bytes. Times are seconds, `now` is
    any clock that never goes back.

    A list of numbers names connections whose output has begun to wait: each is to be taken, until `take` gives
    None. Events are ("request", method, target, [(name, value)], has_body), ("proved", version, id), ("limited",
    seconds without reading), and at last ("over", kind, text)."""

    def __new__(
        cls,
        *,
        seed: bytes,
        connections: int,
        pending: int,
        queue_bytes: int,
        queue_total: int,
        establish_timeout: float,
        handshake_timeout: float,
    ) -> RelayHub: ...
    def enter(self, tls: RelayServerTls | None, now: float) -> int | None:
        """A TCP connection has come; None: there are too many."""

    def leave(self, number: int) -> list[int]:
        """A TCP connection is gone."""

    def feed(
        self, number: int, data: Buffer, now: float
    ) -> tuple[list[tuple[Any, ...]], list[int]]:
        """Bytes from a client."""

    def take(self, number: int) -> memoryview | None:
        """Some of the bytes for a client."""

    def respond(
        self, number: int, status: int, reason: str, headers: list[tuple[str, str]], body: bytes
    ) -> list[tuple[Any, ...]]:
        """Answers a request; gives events, as the next one may wait already."""

    def upgrade(
        self, number: int, headers: list[tuple[str, str]], challenge: bytes, now: float
    ) -> tuple[str | None, list[tuple[Any, ...]]]:
        """Answers a request by an upgrade: the words of a refusal, after which `respond` is due, or events.
        `challenge`: 16 unpredictable bytes."""

    def confirm(self, number: int, now: float) -> tuple[bool, int | None, list[int]]:
        """Lets in a client that has proved its key; False: it has gone. Gives the number of a connection
        that is to be closed for it."""

    def deny(self, number: int, reason: str) -> list[int]:
        """Sends it away; the connection is to be closed."""

    def tick(self, now: float) -> tuple[list[tuple[int, tuple[Any, ...]]], list[int]]:
        """`deadline` has come: whose time is over, and output."""

    def announce_restart(self, number: int, reconnect_in_ms: int, try_for_ms: int) -> list[int]:
        """Tells it, if it was let in, that the relay will be back."""

    def set_rate(self, bytes_per_second: int, burst: int, now: float) -> None:
        """What each client may send; 0: anything."""

    def connections_of(self, endpoint_id: bytes) -> list[int]:
        """The active connection, and those that it has replaced, the latest first."""

    def counters(self) -> dict[str, int]: ...
    @property
    def deadline(self) -> float | None:
        """When `tick` is due."""

@final
class Conn:
    """One connection. After it is closed only reading what has arrived is possible."""

    @property
    def id(self) -> int: ...
    @property
    def side(self) -> str: ...
    def open(self, dir: int) -> int | None: ...
    def accept(self, dir: int) -> int | None: ...
    def read(self, stream: int, max: int) -> bytes | None: ...
    def read_into(self, stream: int, buffer: Buffer) -> int | None: ...
    def cancel_read(self, stream: int) -> None: ...
    def write(self, stream: int, data: Buffer, offset: int = 0) -> int: ...
    def finish(self, stream: int) -> None: ...
    def reset(self, stream: int, code: int) -> None: ...
    def stop(self, stream: int, code: int) -> None: ...
    def set_priority(self, stream: int, priority: int) -> None: ...
    def priority(self, stream: int) -> int: ...
    def read_to(self, stream: int, receiver: BlobReceiver) -> None: ...
    def write_from(self, stream: int, sender: BlobSender) -> None: ...
    def detach(self, stream: int, side: str) -> bool: ...
    def send_datagram(self, data: Buffer, drop_oldest: bool) -> bool: ...
    def recv_datagrams(self, max: int) -> list[bytes]: ...
    def max_datagram_size(self) -> int | None: ...
    def datagram_space(self) -> int: ...
    def close(self, code: int, reason: bytes) -> None: ...
    def info(self) -> dict[str, Any]: ...
    def stats(self) -> dict[str, int]: ...
    def paths(self) -> list[dict[str, Any]]: ...
    def rtt(self) -> float | None: ...
    def remote(self) -> _Address | None:
        """Where the peer is on the lowest path; after the end, where it was."""

    def export_key(self, label: bytes, context: bytes, length: int) -> bytes: ...
    def open_path(self, remote: _Address, local_ip: str | None, status: str) -> int: ...
    def close_path(self, path: int, code: int) -> None: ...
    def ping_path(self, path: int) -> None: ...
    def wake_paths(self) -> None: ...
    def detour(self, path: int, by: int) -> None: ...
    def set_path_status(self, path: int, status: str) -> None: ...
    def set_path_timeouts(
        self, path: int, idle: float | None, keep_alive: float | None
    ) -> None: ...
    def nat_add(self, address: _Address) -> None: ...
    def nat_remove(self, address: _Address) -> None: ...
    def nat_round(self) -> list[_Address]: ...
    def nat_remote(self) -> list[_Address]: ...
    def set_max_streams(self, dir: int, count: int) -> None: ...
    def set_send_window(self, window: int) -> None: ...
    def set_receive_window(self, window: int) -> None: ...

# --- streams: the fast way through a stream, for what finds nothing in its way ---------------------
#
# Classes in `quic/` extend them. They have everything that is rare, and methods that say why something
# cannot go on; names with an underscore are for them.

@disjoint_base
class Streams:
    """What the streams of a connection share. Who extends it has `driver`, `failure` and `dropped`."""

    def __new__(cls, native: Conn, turns: Turns) -> Self: ...
    @property
    def native(self) -> Conn: ...
    handshaking: bool
    lost: Exception | None
    """Why the connection is over."""
    @property
    def reading(self) -> dict[int, RecvStream]:
        """Streams that somebody waits to read from."""

    @property
    def sending(self) -> dict[int, SendStream | Dropped]:
        """Streams that are finished and not acknowledged, or that somebody watches."""

    @property
    def watching(self) -> dict[int, list[Waiter[None]]]:
        """Who waits for what becomes of a stream's end."""

    @property
    def stop_codes(self) -> dict[int, int]:
        """STOPPED events of streams that nobody waits on; an entry lasts no longer than the sending half's
        use, or a peer could fill this."""

    def acknowledge(self, streams: tuple[int, ...]) -> None:
        """The peer has everything of these streams; calls `settle()` of those that are watched."""

    def deliver(self, count: int, arrived: tuple[tuple[int, bytes, bool], ...]) -> None:
        """Gives those who wait in `reading` what has come: `(stream, bytes, whether it ends with them)`."""

@disjoint_base
class SendHalf:
    """The sending half of a stream. Who extends it has `_write(data, done)` and `_finish()`, coroutines
    that do what cannot be done at once."""

    def __new__(cls, connection: Connection, stream: int) -> Self: ...
    @property
    def id(self) -> int: ...
    @property
    def connection(self) -> Connection: ...
    bytes_written: int
    def writing(self, data: Buffer) -> Operation[None]: ...
    def finishing(self) -> Operation[None]: ...
    def finish_at_once(self) -> bool:
        """Finishes, if nothing stands against it."""

    @property
    def _state(self) -> ConnectionState: ...
    _native: Conn
    _phase: int
    _stop_code: int | None
    _blocked: Waiter[None] | None
    _attached: bool

@disjoint_base
class RecvHalf:
    """The receiving half of a stream. Who extends it has `_refuse`, `_reason`, `_failure(error)`,
    `_incomplete(came, wanted)` and `_too_long(limit)`, which give or raise what a read raises."""

    def __new__(cls, connection: Connection, stream: int) -> Self: ...
    @property
    def id(self) -> int: ...
    @property
    def connection(self) -> Connection: ...
    @property
    def is_early(self) -> bool: ...
    ended: bool
    reset_code: int | None
    def reading(self, n: int) -> Operation[bytes]: ...
    def reading_exactly(self, n: int) -> Operation[bytes]: ...
    def reading_all(self, limit: int) -> Operation[bytes]: ...
    def wake(self, data: bytes | None) -> None:
        """What a waiting read gets; None: it failed, and finds out why."""

    @property
    def _state(self) -> ConnectionState: ...
    _native: Conn
    _stopped: bool
    _attached: bool
    _parked: bytes
    @property
    def _waiter(self) -> Waiter[bytes | None] | None: ...

@final
class Operation(Coroutine[Any, Any, _T]):
    """What a method of a stream gives: a coroutine that is done at once if it can be."""

    def send(self, value: object, /) -> Any: ...
    def throw(self, kind: Any, value: object = None, traceback: object = None, /) -> Any: ...
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, Any, _T]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    @property
    def __qualname__(self) -> str: ...

# --- blobs: verified streaming, blobs on disk, transfers, the disk worker --------------------------
#
# A set of chunks (1024 bytes each) is a strictly increasing sequence of boundaries: () is empty, (0,)
# everything, (a, b) is a..b, (a,) is a.. to the end; (2**64 - 1,) asks for the last chunk, whatever
# the size.

_Path: TypeAlias = str | PathLike[str]

class BaoError(ValueError):
    """A response that does not verify. `kind` is parent_mismatch, leaf_mismatch, size_invalid,
    missing_header, missing_item, truncated or trailing."""

    kind: str

def blake3(data: Buffer) -> bytes:
    """BLAKE3 hash (32 bytes)."""

def hash_many(buffers: Sequence[Buffer]) -> list[tuple[bytes, bytes]]:
    """Hash and outboard of each of many blobs in memory."""

@final
class Blake3:
    """BLAKE3 of data that come in pieces."""

    def __new__(cls) -> Self: ...
    def update(self, data: Buffer) -> None: ...
    def digest(self) -> bytes:
        """Hash (32 bytes) of all data so far."""

def encode_blob(data: Buffer, boundaries: Sequence[int]) -> bytes:
    """The response to a query, whole. ValueError: the boundaries do not increase."""

def decode_blob(hash: bytes, boundaries: Sequence[int], encoded: Buffer) -> list[tuple[int, bytes]]:
    """The verified leaves of a whole response: byte offset and data. Raises BaoError."""

@final
class Blob:
    """Data, outboard and present chunks of one blob. Files are opened when they are needed, so
    OSError comes from the call or transfer that uses them."""

    @staticmethod
    def from_bytes(data: Buffer) -> Blob:
        """Complete, in memory; hashes the data."""

    @staticmethod
    def memory(hash: bytes, max_size: int) -> Blob:
        """Empty, in memory, to be received into."""

    @staticmethod
    def discard(hash: bytes, max_size: int) -> Blob:
        """To receive what nobody wants to keep: verified, and thrown away."""

    @staticmethod
    def create(
        hash: bytes, data_path: _Path, outboard_path: _Path | None, *, max_size: int
    ) -> Blob:
        """Empty, to be received into. Files are created, or emptied, at the first write. The outboard is
        kept in memory as long as it has no more than 4 KiB, and always without a path."""

    @staticmethod
    def open(
        hash: bytes,
        data_path: _Path,
        size: int,
        outboard: bytes | _Path,
        present: Sequence[int] | None = None,
    ) -> Blob:
        """To be read and sent; all of it is there without `present`."""

    @staticmethod
    def inline(hash: bytes, data: Buffer, outboard: Buffer | None = None) -> Blob:
        """Complete, in memory; not hashed again, but verified when it is sent, as everything. Up to 16
        KiB have no outboard. ValueError: the outboard has not the length that it must have."""

    @staticmethod
    def resume(
        hash: bytes,
        data_path: _Path,
        outboard_path: _Path,
        *,
        size: int | None,
        present: Sequence[int],
        max_size: int,
    ) -> Blob:
        """To be received into further: the files hold the chunks `present`, which are trusted, and are
        never emptied. `size`: what was verified or claimed, None without chunks. Files are made only
        if they need not be there; OSError if the data file is missing or shorter than the chunks."""

    @property
    def hash(self) -> bytes: ...
    @property
    def size(self) -> int | None:
        """Bytes: what the last chunk proved, or else what a peer claimed last."""

    @property
    def size_verified(self) -> bool: ...
    @property
    def present(self) -> tuple[int, ...]:
        """The chunks whose data were verified and written."""

    @property
    def is_complete(self) -> bool: ...
    def read(self, offset: int, n: int) -> bytes:
        """Up to `n` bytes, fewer at the end. ValueError: not all of them are present. OSError."""

    def response(self, boundaries: Sequence[int]) -> bytes | None:
        """The verified response to a query, whole; None unless the blob is small (64 KiB), in memory
        and has all that belongs to it. ValueError."""

    def outboard(self) -> bytes:
        """The outboard (64 bytes per pair, pre-order), zeros where a pair is missing; empty if the
        size is not verified. OSError."""

    @property
    def loose_outboard(self) -> bytes | None:
        """The outboard, as far as it is here, while it is kept in memory though it has a path."""

    def spill(self) -> None:
        """Writes a loose outboard to its file. OSError."""

    def sync(self) -> None:
        """Makes what was written durable; blocks, see `Worker.sync_files`. OSError."""

    def close(self) -> None:
        """Closes files that `read` and `outboard` opened; a transfer keeps its own."""

@final
class Worker:
    """The disk thread, and another that syncs as soon as there is something to sync. With `inline`
    there are none, and each call does the work it causes."""

    def __new__(cls, *, inline: bool = False, journal: bool = False) -> Worker: ...
    def journal(self) -> list[tuple[str, str, int, bytes]]:
        """With `journal` (and `inline`): what native code did to files on this thread since the last
        call, in order: (operation, path, offset, data); "create" (it was not there), "truncate" (it
        was emptied), "write", "sync". For tests; it keeps all that is written. One for each thread."""

    def fileno(self) -> int:
        """Readable while `poll` has something."""

    def poll(self) -> list[tuple[int, str, Any]]:
        """(job, kind, value): "progress" bytes; "file" (index, hash, size, outboard); "file_error"
        (index, errno, text); then once "done" (see the jobs) or "error" (errno, text, path or None).
        For a receiver or sender that the engine has let go: (its id, "transfer", None); poll it."""

    def hash_file(self, path: _Path, outboard_path: _Path | None = None) -> int:
        """Job; done: (hash, size, outboard or None if it went to a file)."""

    def hash_files(self, paths: Sequence[_Path]) -> int:
        """Job for many small files: "file" or "file_error" for each in order; done: None."""

    def import_file(self, source: _Path, target: _Path, outboard_path: _Path | None = None) -> int:
        """Job; makes or overwrites the target with the same content, by reference where the system can,
        and hashes it in the same pass; done as `hash_file`. Error EBUSY: the source was changed."""

    def validate(
        self,
        hash: bytes,
        data_path: _Path,
        outboard: bytes | _Path,
        size: int,
        trusted: Sequence[int],
    ) -> int:
        """Job; reads the files of a blob; done: the chunks that verify, in whole groups of 16. Whole
        groups of `trusted` are not read, and chunks of it in other groups are kept, too, but the
        pairs above them must verify and the file must reach that far."""

    def write_blobs(self, blobs: Sequence[tuple[Blob, _Path]]) -> int:
        """Job; writes complete blobs to files that it creates or overwrites; done: bytes in all.

        A blob in a file is copied in the kernel, or by sharing blocks where the file system can."""

    def sync_files(self, paths: Sequence[_Path]) -> int:
        """Job; makes files or directories durable; done: None."""

    def cancel(self, job: int) -> None:
        """Lets a job end early, with error ECANCELED; files it began stay."""

    def close(self) -> None:
        """Ends the thread; what is not done fails with ECANCELED."""

@final
class BlobReceiver:
    """Native end of a receive stream (`Conn.read_to`): verifies responses and writes them. On an
    error it stops the stream with `stop_code`. One is the size of a blob over `max_size`, or one with
    which all responses together carry over `max_total` bytes of content."""

    def __new__(
        cls, worker: Worker, *, max_size: int, max_total: int | None = None, stop_code: int = 0
    ) -> BlobReceiver: ...
    @property
    def id(self) -> int:
        """Number under which `Worker.poll` tells of reports that come after the stream ended."""

    def expect(self, items: Sequence[tuple[bytes, Sequence[int], Blob]]) -> None:
        """Appends responses: hash, query, blob. ValueError."""

    def expect_whole(self, hashes: Sequence[bytes]) -> None:
        """Appends responses with all of a blob. Of up to 16 KiB the data are reported, while at most a
        MiB of them is not polled; others are "wanted". ValueError."""

    def provide(self, blob: Blob) -> None:
        """Somewhere to write the blob that is wanted. ValueError."""

    def finish(self) -> None:
        """No more will be expected: the end of the stream should follow."""

    def allow(self, bytes: int) -> int:
        """Lets it take so many bytes more; gives how many are left. From the first call on it takes
        no more than were allowed, and flow control holds the peer."""

    @property
    def received(self) -> int:
        """Bytes that have come on the stream so far."""

    def poll(self) -> list[tuple[Any, ...]]:
        """("size", i, claimed), ("progress", i, verified bytes), ("done", i), ("whole", i, data of
        items i, i + 1, ..., which are done), ("wanted", i, claimed size), ("error", i, kind,
        detail), ("end", trailing bytes); i counts the expected items. Kinds and details:
        parent_mismatch, leaf_mismatch (first chunk, end chunk); size_limit (claimed, limit);
        size_conflict (claimed, verified); size_invalid, missing_header, missing_item, truncated,
        lost: None; reset: code; io: (errno, text, path or None). Nothing follows an error or the end."""

@final
class BlobSender:
    """Native end of a send stream (`Conn.write_from`): reads blobs and sends responses. All data are
    verified again; on an error it resets the stream with code 3."""

    def __new__(cls, worker: Worker) -> BlobSender: ...
    @property
    def id(self) -> int:
        """Number under which `Worker.poll` tells of reports that come after the stream ended."""

    def push(self, items: Sequence[tuple[Blob, Sequence[int]]]) -> None:
        """Appends responses: blob, query. ValueError."""

    def raw(self, data: Buffer) -> None:
        """Appends bytes as they are: an item of its own, of which only the end is reported."""

    def finish(self) -> None:
        """Nothing more will be appended: the stream is finished after the last response."""

    def reset(self, code: int) -> None:
        """Resets the stream at once."""

    def allow(self, bytes: int) -> int:
        """Lets it send so many bytes more; gives how many are left. From the first call on it sends
        no more than were allowed."""

    @property
    def sent(self) -> int:
        """Bytes handed to the stream so far."""

    def poll(self) -> list[tuple[Any, ...]]:
        """("started", i, size), ("progress", i, end offset), ("done", i), ("error", i, kind,
        detail), ("end", 0); i counts the pushed responses. Kinds and details: changed (first chunk,
        end chunk) or None; missing, lost: None; io: (errno, text, path or None); stopped: code."""
