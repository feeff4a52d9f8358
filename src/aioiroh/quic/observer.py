"""What the room above wants to know of connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aioiroh.address import CustomAddr, RelayAddr
    from aioiroh.quic.paths import PathStatus
    from aioiroh.quic.state import ConnectionState

__all__ = ["ConnectionObserver", "Observer"]


class ConnectionObserver:
    """Called by a driver while it dispatches events of a connection; must not raise. Here nothing is made of them."""

    def connected(self, state: ConnectionState) -> None:
        """A handshake is complete; nobody else has been told yet."""

    def lost(self, state: ConnectionState) -> None:
        """A connection is over, or will not come about; `state.lost` says why."""

    def path_opened(self, state: ConnectionState, path: int, remote: tuple[str, int]) -> None:
        """A connection has another path; not called for the path of its handshake, number 0."""

    def path_closed(self, state: ConnectionState, path: int, reason: str) -> None:
        """A path was given up; not called for those that a connection has when it ends."""

    def path_silent(self, state: ConnectionState, path: int, *, silent: bool) -> None:
        """What was sent on a path has not been answered for too long; or now it has."""

    def path_marked(self, state: ConnectionState, path: int, status: PathStatus) -> None:
        """The peer says how it wants a path to be used."""

    def candidate(self, state: ConnectionState, address: tuple[str, int], *, added: bool) -> None:
        """The peer offers an address for hole punching, or takes it back. Of what a peer that has dialled
        offers it is only known where we send, and never that it was taken back.
        """

    def observed_at(self, state: ConnectionState, path: int, address: tuple[str, int]) -> None:
        """The peer says where it sees us; only if the connection's transport asks for that."""

    def stands_for(self, ip: str) -> RelayAddr | CustomAddr | None:
        """What this address of a peer stands for; None: it is a real one."""
        return None


class Observer(ConnectionObserver):
    """Of all connections of a driver that have none of their own, and of its sockets."""

    def socket_error(self, slot: int, errno: int, destination: tuple[str, int]) -> None:
        """A socket could not send to this address; QUIC takes it for a loss."""

    def failed(self) -> None:
        """The engine failed; `lost` was called for every connection."""
