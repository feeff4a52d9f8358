"""The messages of port mapping: PCP, NAT-PMP, SSDP, descriptions and SOAP."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.address import IpAddr
from aioiroh.errors import DecodeError
from aioiroh.portmap import igd, natpmp, pcp, ssdp, xml

NONCE = bytes(range(12))
CLIENT = "192.168.1.5"
MAPPED_CLIENT = "00000000000000000000ffffc0a80105"
EXTERNAL = IpAddr.parse("203.0.113.7:40000")


def total(read: Callable[[bytes], object], data: bytes) -> object | None:
    """What `read` makes of the bytes; a DecodeError is fine, and nothing else is."""
    try:
        return read(data)
    except DecodeError:
        return None


# --- PCP


def test_pcp_requests() -> None:
    assert pcp.announce(CLIENT).hex() == "02000000" + "00000000" + MAPPED_CLIENT
    asked = pcp.map_port(CLIENT, NONCE, 4444, 7200, EXTERNAL)
    assert asked.hex() == (
        "02010000" + "00001c20" + MAPPED_CLIENT + NONCE.hex() + "11000000" + "115c" + "9c40"
        "00000000000000000000ffffcb007107"
    )
    ended = pcp.map_port(CLIENT, NONCE, 4444, 0, None)
    assert ended.hex().endswith("11000000" + "115c" + "0000" + "00000000000000000000ffff00000000")


def pcp_reply(result: int = 0, version: int = 2, opcode: int = 0x81) -> bytes:
    head = bytes([version, opcode, 0, result]) + bytes.fromhex("00000e10" + "000004d2") + bytes(12)
    mapping = NONCE + bytes.fromhex("11000000" + "115c" + "9c40") + bytes(10)
    return head + mapping + bytes.fromhex("ffffcb007107")


def test_pcp_replies() -> None:
    granted = pcp.Granted(NONCE, 17, 4444, EXTERNAL)
    assert pcp.read(pcp_reply()) == pcp.Reply(pcp.MAP, 0, 3600, granted)
    refused = pcp.read(pcp_reply(result=8))
    assert (refused.problem, refused.granted) == ("no resources", None)
    assert pcp.read(pcp_reply(result=200)).problem == "error 200"
    assert pcp.read(pcp_reply()[:24].replace(b"\x81", b"\x80", 1)).opcode == pcp.ANNOUNCE


def test_a_server_without_pcp_is_told_apart() -> None:
    for data in (bytes.fromhex("0080000100000000"), bytes.fromhex("00810001") + bytes(12)):
        assert pcp.read(data).result == pcp.UNSUPPORTED_VERSION
    assert pcp.read(pcp_reply(version=1)).result == pcp.UNSUPPORTED_VERSION


@pytest.mark.parametrize(
    "data", [b"", pcp_reply()[:59], pcp_reply(opcode=1), pcp_reply() + bytes(1100)]
)
def test_no_reply_of_pcp(data: bytes) -> None:
    with pytest.raises(DecodeError):
        pcp.read(data)


@given(st.binary(max_size=1200))
def test_pcp_is_total(data: bytes) -> None:
    total(pcp.read, data)


@given(st.binary(min_size=60, max_size=60))
def test_pcp_is_total_where_it_says_success(data: bytes) -> None:
    total(pcp.read, b"\x02\x81\x00\x00" + data[4:])


# --- NAT-PMP


def test_natpmp() -> None:
    assert natpmp.ASK_ADDRESS.hex() == "0000"
    assert natpmp.map_port(4444, 40000, 7200).hex() == "00010000115c9c4000001c20"
    address = bytes.fromhex("00800000000004d2cb007107")
    assert natpmp.read(address) == natpmp.AddressReply(0, IPv4Address("203.0.113.7"))
    mapped = bytes.fromhex("00810000000004d2115c9c4000000e10")
    assert natpmp.read(mapped) == natpmp.MapReply(0, 4444, 40000, 3600)
    # An error may come without what a success has.
    assert natpmp.read(bytes.fromhex("00810002000004d2")) == natpmp.MapReply(2, 0, 0, 0)
    assert natpmp.problem(2) == "refused"


@pytest.mark.parametrize(
    "data", ["", "0080", "01800000000004d2cb007107", "00000000000004d2cb007107", "00800000000004d2"]
)
def test_no_reply_of_natpmp(data: str) -> None:
    with pytest.raises(DecodeError):
        natpmp.read(bytes.fromhex(data))


@given(st.binary(max_size=40), st.booleans())
def test_natpmp_is_total(data: bytes, close: bool) -> None:
    total(natpmp.read, b"\x00\x81\x00\x00" + data if close else data)


# --- SSDP

FOUND = (
    b"HTTP/1.1 200 OK\r\ncache-control: max-age=120\r\n"
    b"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
    b"Location: http://192.168.1.1:5000/rootDesc.xml\r\n\r\n"
)


def test_ssdp() -> None:
    assert ssdp.read(FOUND) == "http://192.168.1.1:5000/rootDesc.xml"
    for search in ssdp.SEARCHES:
        assert search.startswith(b"M-SEARCH * HTTP/1.1\r\n") and search.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        FOUND.removesuffix(b"\r\n\r\n"),
        FOUND.replace(b"\r\nLocation", b"\r\n\r\nLOCATION"),
        FOUND.replace(b"\r\nLocation", b"\r\nEXT\r\nlocation"),
    ],
    ids=["no blank line", "a blank line too many", "a line that is no field"],
)
def test_routers_that_take_it_easy(data: bytes) -> None:
    assert ssdp.read(data) == "http://192.168.1.1:5000/rootDesc.xml"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        FOUND.replace(b"200", b"404"),
        FOUND.replace(b"InternetGatewayDevice", b"MediaServer"),
        FOUND.replace(b"Location", b"Elsewhere"),
        FOUND.replace(b"HTTP/1.1 200 OK", b"NOTIFY * HTTP/1.1"),
        FOUND + bytes(5000),
    ],
)
def test_no_answer_of_a_router(data: bytes) -> None:
    with pytest.raises(DecodeError):
        ssdp.read(data)


@given(st.binary(max_size=200), st.integers(0, len(FOUND)))
def test_ssdp_is_total(data: bytes, at: int) -> None:
    total(ssdp.read, data)
    total(ssdp.read, FOUND[:at] + data + FOUND[at:])


# --- XML

LAUGHS = b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "haha"><!ENTITY b "&a;&a;&a;">]><root>&b;</root>'


def test_xml() -> None:
    document = xml.read(
        b'<?xml version="1.0"?><r xmlns:u="x"><u:a> 1 </u:a><b><a>2</a></b><!-- c --></r>'
    )
    [root] = document.children
    assert (root.name, root.child("a"), root.child("c")) == ("r", "1", "")
    assert [element.text for element in document.all("a")] == [" 1 ", "2"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<a>",
        b"<a/><b/>",
        b"<a>&unknown;</a>",
        LAUGHS,
        b'<!DOCTYPE a SYSTEM "http://192.0.2.1/"><a/>',
        b"<a>" * 40 + b"</a>" * 40,
        b"<a>" + b"<b/>" * 20_000 + b"</a>",
        b"<a>" + b" " * (1 << 18) + b"</a>",
        b'<?xml version="1.0" encoding="no such"?><a/>',
        b'<?xml version="1.0" encoding="utf-7"?><a/>',
    ],
)
def test_no_xml_that_is_taken(data: bytes) -> None:
    with pytest.raises(DecodeError):
        xml.read(data)


@given(st.binary(max_size=100), st.integers(0, 400))
def test_xml_is_total(data: bytes, at: int) -> None:
    total(xml.read, data)
    total(xml.read, DESCRIPTION[:at] + data + DESCRIPTION[at:])


# --- descriptions and SOAP

ROUTER = "192.168.1.1"
URL = f"http://{ROUTER}:5000/rootDesc.xml"
DESCRIPTION = b"""<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceList><device><serviceList>
<service><serviceType>urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1</serviceType>
<controlURL>/ctl/CmnIfCfg</controlURL></service>
<service><serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType>
<controlURL>ctl/PPP</controlURL></service>
<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
<controlURL>/ctl/IPConn</controlURL></service>
</serviceList></device></deviceList></device></root>"""


def test_services() -> None:
    found = igd.services(DESCRIPTION, URL, ROUTER)
    assert [(each.kind.split(":")[3], each.place.path) for each in found] == [
        ("WANIPConnection", "/ctl/IPConn"),
        ("WANPPPConnection", "/ctl/PPP"),
    ]
    assert {(each.place.host, each.place.port) for each in found} == {(ROUTER, 5000)}


def test_a_description_leads_nowhere_else() -> None:
    elsewhere = DESCRIPTION.replace(b"/ctl/IPConn", b"http://192.0.2.1/ctl/IPConn")
    assert [each.place.path for each in igd.services(elsewhere, URL, ROUTER)] == ["/ctl/PPP"]
    base = DESCRIPTION.replace(b"<device>", b"<URLBase>http://192.0.2.1:80/</URLBase><device>", 1)
    assert igd.services(base, URL, ROUTER) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1/",
        f"https://{ROUTER}/",
        f"http://{ROUTER}:99999/",
        f"http://{ROUTER}@192.0.2.1/",
        f"http://{ROUTER}.example/",
        f"http://{ROUTER}/a b",
        f"http://{ROUTER}/\u2028",
        f"http://{ROUTER}/a\x7f",
        f"http://[{ROUTER}",
        "file:///etc/passwd",
        "",
    ],
)
def test_no_place_at_the_router(url: str) -> None:
    with pytest.raises(DecodeError):
        igd.place(url, ROUTER)


@given(st.text(max_size=60), st.sampled_from(["", "http://", f"http://{ROUTER}"]))
def test_a_place_is_at_the_router(rest: str, start: str) -> None:
    try:
        place = igd.place(start + rest, ROUTER)
    except DecodeError:
        return
    assert place.host == ROUTER
    assert not any(mark in place.path for mark in " \r\n")


def test_soap() -> None:
    [service, _] = igd.services(DESCRIPTION, URL, ROUTER)
    asked = igd.body(service, "DeletePortMapping", {"NewExternalPort": 4444, "NewRemoteHost": ""})
    [call] = xml.read(asked).all("DeletePortMapping")
    assert call.child("NewExternalPort") == "4444"
    answer = asked.replace(b"u:DeletePortMapping", b"u:DeletePortMappingResponse")
    assert igd.reply("DeletePortMapping", 200, answer)["NewExternalPort"] == "4444"


FAULT = (
    b'<s:Envelope xmlns:s="x"><s:Body><s:Fault><detail><UPnPError xmlns="y">'
    b"<errorCode>718</errorCode><errorDescription>ConflictInMappingEntry</errorDescription>"
    b"</UPnPError></detail></s:Fault></s:Body></s:Envelope>"
)


def test_a_fault() -> None:
    with pytest.raises(igd.Fault, match=r"ConflictInMappingEntry \(718\)") as fault:
        igd.reply("AddPortMapping", 500, FAULT)
    assert fault.value.code in igd.CONFLICTS
    with pytest.raises(DecodeError):
        igd.reply("AddPortMapping", 500, FAULT.replace(b"718", b"-\xd9\xa1"))
    with pytest.raises(DecodeError):
        igd.reply("AddPortMapping", 200, b"<a/>")
