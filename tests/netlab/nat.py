"""The kinds of NAT, as rules of nftables. They are those of upstream's own lab, and of `aioiroh.testing`."""

from __future__ import annotations

from enum import Enum


class Nat(Enum):
    """What is between a host and the internet, in the terms of RFC 4787."""

    NONE = "none"
    """A public address."""
    OPEN = "open"
    """Mapping and filtering do not depend on the endpoint (full cone)."""
    MODERATE = "moderate"
    """The mapping does not depend on the endpoint, the port is kept when it is free; only who was
    sent something gets through. The usual router at home."""
    STRICT = "strict"
    """A random port for each destination; only who was sent something gets through."""


_TRANSLATE = {
    Nat.OPEN: """
        snat to {public}""",
    Nat.MODERATE: """
        snat to {public}""",
    Nat.STRICT: """
        masquerade random,fully-random""",
}
# What a full cone does and nftables does not do by itself: whoever sends to a port from which something
# went out gets through to where it came from.
_CONE = """
    map cone { type inet_service : ipv4_addr; flags dynamic, timeout; timeout 5m; }
    chain prerouting {
        type nat hook prerouting priority dstnat
        iifname "wan" meta l4proto udp dnat to udp dport map @cone
    }"""
_CONE_ENTRY = """
        oifname "wan" meta l4proto udp update @cone { udp sport : ip saddr }"""

# A router answers nothing that comes from outside: were such packets let in, the kernel would keep them as
# connections of its own, and give the port that they came to away to nobody behind it.
_FIREWALL = """
table inet firewall {
    chain input {
        type filter hook input priority filter
        iifname "wan" ct state new drop
    }
    chain forward {
        type filter hook forward priority filter
        iifname "wan" meta nfproto ipv6 ct state new drop
    }
}
"""


def router_rules(kind: Nat, public: str) -> str:
    """What a router of this kind with this public address does; its interfaces are `lan` and `wan`."""
    cone = kind is Nat.OPEN
    translate = _TRANSLATE[kind].format(public=public)
    return f"""
table ip nat {{{_CONE if cone else ""}
    chain postrouting {{
        type nat hook postrouting priority srcnat{_CONE_ENTRY if cone else ""}
        oifname "wan"{translate.replace(chr(10), "").replace("        ", " ")}
    }}
}}
{_FIREWALL}"""


def forget_rules(kind: Nat) -> str:
    """What a router of this kind keeps beside the kernel's table of connections is forgotten."""
    return "flush map ip nat cone\n" if kind is Nat.OPEN else "\n"


def loss_rules(percent: float) -> str:
    """A host that loses this share of the UDP datagrams that arrive; 0 ends it.

    They are lost on arrival: one that is dropped while it leaves is an error to who sends it.
    """
    clear = "table inet loss\ndelete table inet loss\n"
    if percent == 0:
        return clear
    return f"""{clear}
table inet loss {{
    chain input {{
        type filter hook input priority filter
        meta l4proto udp numgen random mod 1000 < {round(percent * 10)} drop
    }}
}}
"""
