"""The three protocols by which a router is asked for a mapping, each as the same few questions."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address
from typing import Final, Protocol

from aioiroh.address import IpAddr
from aioiroh.errors import DecodeError
from aioiroh.net import http
from aioiroh.portmap import igd, natpmp, pcp, ssdp
from aioiroh.portmap.asking import Local, ask, fetch
from aioiroh.portmap.mapping import LIFETIME, Mapping, Refused

__all__ = ["NatPmp", "Pcp", "PortProtocol", "Upnp"]

SERVER_PORT: Final = 5351
"""Of PCP and of NAT-PMP."""
DESCRIPTION: Final = "aioiroh"
"""What a router's page shows beside the mapping."""
OTHER_PORTS: Final = 4
"""So many external ports are tried with a router that has given the first one to somebody else."""


class PortProtocol(Protocol):
    """One protocol towards one router."""

    @property
    def name(self) -> str:
        """As people know it."""

    async def probe(self) -> None:
        """Ask whether the router has it. Raises NoAnswer, Refused."""

    async def obtain(self, port: int, wanted: IpAddr | None) -> Mapping:
        """Map a UDP port, or renew that; `wanted`: the external address that it had, or should have.

        Raises NoAnswer, Refused, DecodeError.
        """

    async def release(self, mapping: Mapping) -> None:
        """End it. Raises what `obtain` raises."""


class Pcp:
    """RFC 6887."""

    name = "PCP"

    def __init__(self, local: Local, nonce: bytes) -> None:
        self._local = local
        self._nonce = nonce

    async def _ask(self, question: bytes, opcode: int, port: int = 0) -> pcp.Reply:
        def read(data: bytes) -> pcp.Reply | None:
            reply = pcp.read(data)
            granted = reply.granted
            mine = granted is None or (granted.nonce, granted.port) == (self._nonce, port)
            return reply if mine and reply.opcode == opcode else None

        reply = await ask(self._local, [(question, (self._local.router, SERVER_PORT))], read)
        if reply.result != 0:
            raise Refused(reply.problem)
        return reply

    async def probe(self) -> None:
        await self._ask(pcp.announce(self._local.ip), pcp.ANNOUNCE)

    async def obtain(self, port: int, wanted: IpAddr | None) -> Mapping:
        question = pcp.map_port(self._local.ip, self._nonce, port, LIFETIME, wanted)
        reply = await self._ask(question, pcp.MAP, port)
        if reply.granted is None:
            raise DecodeError("the router grants a mapping, and does not tell which")
        return Mapping(reply.granted.external, port, reply.lifetime)

    async def release(self, mapping: Mapping) -> None:
        question = pcp.map_port(self._local.ip, self._nonce, mapping.port, 0, None)
        await self._ask(question, pcp.MAP, mapping.port)


class NatPmp:
    """RFC 6886."""

    name = "NAT-PMP"

    def __init__(self, local: Local) -> None:
        self._local = local

    async def _address(self) -> IPv4Address:
        def read(data: bytes) -> natpmp.AddressReply | None:
            reply = natpmp.read(data)
            return reply if isinstance(reply, natpmp.AddressReply) else None

        server = (self._local.router, SERVER_PORT)
        reply = await ask(self._local, [(natpmp.ASK_ADDRESS, server)], read)
        if reply.result != 0:
            raise Refused(natpmp.problem(reply.result))
        return reply.ip

    async def _map(self, port: int, external_port: int, lifetime: int) -> natpmp.MapReply:
        def read(data: bytes) -> natpmp.MapReply | None:
            reply = natpmp.read(data)
            mine = isinstance(reply, natpmp.MapReply) and (reply.result or reply.port == port)
            return reply if mine and isinstance(reply, natpmp.MapReply) else None

        question = natpmp.map_port(port, external_port, lifetime)
        reply = await ask(self._local, [(question, (self._local.router, SERVER_PORT))], read)
        if reply.result != 0:
            raise Refused(natpmp.problem(reply.result))
        return reply

    async def probe(self) -> None:
        await self._address()

    async def obtain(self, port: int, wanted: IpAddr | None) -> Mapping:
        ip = await self._address()
        reply = await self._map(port, port if wanted is None else wanted.port, LIFETIME)
        return Mapping(IpAddr(ip, reply.external_port), port, reply.lifetime)

    async def release(self, mapping: Mapping) -> None:
        await self._map(mapping.port, 0, 0)


class Upnp:
    """Internet Gateway Device 1 and 2, found by SSDP."""

    name = "UPnP"

    def __init__(self, local: Local) -> None:
        self._local = local
        self._service: igd.Service | None = None
        self._lifetime = LIFETIME

    async def probe(self) -> None:
        router = self._local.router
        # Some routers answer only what is sent to all, others only what is sent to them.
        questions = [
            (search, (ip, ssdp.PORT)) for search in ssdp.SEARCHES for ip in (ssdp.GROUP, router)
        ]

        def read(data: bytes) -> str:
            url = ssdp.read(data)
            igd.place(url, router)
            return url

        url = await ask(self._local, questions, read, wait=ssdp.MAX_WAIT + 0.5)
        where = igd.place(url, router)
        host = f"{where.host}:{where.port}"
        question = http.request("GET", where.path, host, {"Connection": "close"})
        answer = await fetch(self._local.network, (where.host, where.port), question)
        if answer.status != 200:
            raise Refused(f"its description gives HTTP status {answer.status}")
        found = igd.services(answer.body, url, router)
        if not found:
            raise Refused("it has a description, but nothing in it that maps ports")
        self._service = found[0]

    async def _call(self, action: str, arguments: dict[str, object]) -> dict[str, str]:
        if self._service is None:
            await self.probe()
        service = self._service
        assert service is not None
        where = service.place
        fields = {
            "Connection": "close",
            "Content-Type": 'text/xml; charset="utf-8"',
            "SOAPAction": f'"{service.kind}#{action}"',
        }
        question = http.request(
            "POST",
            where.path,
            f"{where.host}:{where.port}",
            fields,
            igd.body(service, action, arguments),
        )
        answer = await fetch(self._local.network, (where.host, where.port), question)
        return igd.reply(action, answer.status, answer.body)

    async def obtain(self, port: int, wanted: IpAddr | None) -> Mapping:
        try:
            values = await self._call("GetExternalIPAddress", {})
            ip = IPv4Address(values.get("NewExternalIPAddress", ""))
            external_port, lifetime = await self._map(port, port if wanted is None else wanted.port)
        except AddressValueError:
            raise Refused("it has no external address") from None
        except igd.Fault as fault:
            raise Refused(str(fault)) from None
        return Mapping(IpAddr(ip, external_port), port, lifetime)

    async def _map(self, port: int, external_port: int) -> tuple[int, int]:
        """The external port and for how long it is ours. Raises igd.Fault and what `_call` raises."""
        for _ in range(OTHER_PORTS):
            try:
                await self._call("AddPortMapping", self._wish(port, external_port))
                # A mapping without an end is renewed all the same: the router may have started again.
                return external_port, LIFETIME
            except igd.Fault as fault:
                if fault.code == igd.ONLY_PERMANENT and self._lifetime:
                    self._lifetime = 0
                elif fault.code in igd.CONFLICTS:
                    external_port = self._local.network.random.randrange(1024, 65_536)
                else:
                    raise
        raise Refused("it has given every port that was tried to somebody else")

    def _wish(self, port: int, external_port: int) -> dict[str, object]:
        return {
            "NewRemoteHost": "",
            "NewExternalPort": external_port,
            "NewProtocol": "UDP",
            "NewInternalPort": port,
            "NewInternalClient": self._local.ip,
            "NewEnabled": 1,
            "NewPortMappingDescription": DESCRIPTION,
            "NewLeaseDuration": self._lifetime,
        }

    async def release(self, mapping: Mapping) -> None:
        values: dict[str, object] = {
            "NewRemoteHost": "",
            "NewExternalPort": mapping.external.port,
            "NewProtocol": "UDP",
        }
        try:
            await self._call("DeletePortMapping", values)
        except igd.Fault as fault:
            raise Refused(str(fault)) from None
