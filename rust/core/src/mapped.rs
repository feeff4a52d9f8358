//! Addresses as the QUIC state machine sees them, and as everybody else does.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The reserved prefix fd15:70a:510b::/48 of mapped addresses.
pub fn is_mapped(ip: &Ipv6Addr) -> bool {
    ip.octets()[..6] == [0xfd, 0x15, 0x07, 0x0a, 0x51, 0x0b]
}

/// Whether a mapped address stands for all ways to a peer at once, which only handshakes use.
pub(crate) fn is_spread(ip: &Ipv6Addr) -> bool {
    is_mapped(ip) && ip.octets()[6..8] == [0, 0]
}

/// As the QUIC state machine sees it.
pub fn to_inner(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// As everybody else sees it.
pub fn to_outer(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(ip.into(), v6.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}
