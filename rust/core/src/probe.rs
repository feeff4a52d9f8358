//! Small datagrams that are not QUIC. They open the filter of our own NAT towards a port at which the peer
//! may be; nobody answers them, and every QUIC implementation drops them.

/// The first byte has no fixed bit (RFC 9000 section 17.2), and belongs to nothing that shares sockets with
/// QUIC (RFC 9443).
const MARK: [u8; 8] = *b"\x04aioiroh";

/// Bytes of a probe.
pub const LEN: usize = MARK.len() + 2;

/// A probe to this port. If a NAT lets it through, the port is there to tell which one it was.
pub fn probe(port: u16) -> [u8; LEN] {
    let mut probe = [0; LEN];
    probe[..MARK.len()].copy_from_slice(&MARK);
    probe[MARK.len()..].copy_from_slice(&port.to_be_bytes());
    probe
}

/// The port that a probe was sent to; none if it is something else.
pub fn port_of(datagram: &[u8]) -> Option<u16> {
    let port = datagram.strip_prefix(&MARK)?;
    Some(u16::from_be_bytes(port.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_are_probes() {
        for port in [0, 1, 443, 65_535] {
            assert_eq!(port_of(&probe(port)), Some(port));
        }
        let whole = probe(443);
        assert_eq!(port_of(&whole[..LEN - 1]), None);
        assert_eq!(port_of(&[&whole[..], b"x"].concat()), None);
        assert_eq!(port_of(&[0; LEN]), None);
        assert_eq!(whole[0] & 0xc0, 0, "no packet of QUIC");
    }
}
