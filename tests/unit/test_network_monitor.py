"""Which changes of a machine's network are major: what was found out before need not hold any more."""

from __future__ import annotations

import pytest

from aioiroh.net import LocalAddress, NetworkState


def state(*addresses: str, outward: tuple[str, ...] = ()) -> NetworkState:
    """Addresses as `interface address/prefix`."""
    parsed = []
    for text in addresses:
        interface, _, rest = text.partition(" ")
        ip, _, prefix = rest.partition("/")
        parsed.append(LocalAddress(interface, ip, int(prefix), is_loopback=interface == "lo"))
    return NetworkState(tuple(parsed), outward)


LO = "lo 127.0.0.1/8"
HOME = state(LO, "eth0 192.168.1.5/24", outward=("192.168.1.5",))
V6 = ("eth0 2001:db8::1/64", "eth0 2001:db8::2/64")


@pytest.mark.parametrize(
    ("before", "after", "major"),
    [
        (HOME, HOME, False),
        # One more address, and the old one still carries.
        (
            HOME,
            state(LO, "eth0 192.168.1.5/24", "eth0 192.168.1.6/24", outward=("192.168.1.5",)),
            False,
        ),
        # Another temporary address of IPv6 is preferred now; what left by the old one still can.
        (state(*V6, outward=("2001:db8::1",)), state(*V6, outward=("2001:db8::2",)), False),
        # One that nothing leaves by has gone.
        (state(*V6, outward=("2001:db8::1",)), state(V6[0], outward=("2001:db8::1",)), False),
        # The address itself has gone, though the network is the same.
        (HOME, state(LO, "eth0 192.168.1.6/24", outward=("192.168.1.6",)), True),
        (HOME, state(LO, "eth0 192.168.2.5/24", outward=("192.168.2.5",)), True),
        (HOME, state(LO, "wlan0 192.168.1.5/24", outward=("192.168.1.5",)), True),
        (HOME, state(LO, "eth0 192.168.1.5/24"), True),
        (HOME, state(LO), True),
    ],
)
def test_major(before: NetworkState, after: NetworkState, major: bool) -> None:
    assert after.is_like(before) is not major
