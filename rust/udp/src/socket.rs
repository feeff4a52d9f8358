//! One UDP socket.

use std::{
    io::{self, IoSliceMut},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use aioiroh_core::route::{Outgoing, Sent, SlotId};
use noq_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use crate::UdpStats;

/// How a socket is made.
#[derive(Debug, Clone, Copy)]
pub struct SocketOptions {
    /// Bytes asked for; the kernel may grant less.
    pub recv_buffer: usize,
    pub send_buffer: usize,
    /// Send batches with segmentation offload when the system has it.
    pub gso: bool,
}

/// What the system granted.
#[derive(Debug, Clone, Copy)]
pub struct SocketInfo {
    pub recv_buffer: usize,
    pub send_buffer: usize,
    pub gso_segments: usize,
    pub gro_segments: usize,
    pub may_fragment: bool,
}

pub(crate) struct UdpSlot {
    pub id: SlotId,
    pub watches_writing: bool,
    socket: UdpSocket,
    state: UdpSocketState,
    options: SocketOptions,
}

impl UdpSlot {
    pub fn bind(address: SocketAddr, options: SocketOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // IPv4 has a socket of its own, so that source addresses stay plain.
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        // A smaller buffer than asked for works, it only loses more under load.
        let _ = socket.set_recv_buffer_size(options.recv_buffer);
        let _ = socket.set_send_buffer_size(options.send_buffer);
        socket.bind(&address.into())?;
        let socket: UdpSocket = socket.into();
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self { id: 0, watches_writing: false, socket, state, options })
    }

    pub fn rebind(&mut self) -> io::Result<Self> {
        let local = self.local()?;
        // The port is free only once the old socket is closed: move that to a scrap one first.
        let scrap: SocketAddr = match local {
            SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 0).into(),
        };
        self.socket = UdpSocket::bind(scrap)?;
        Self::bind(local, self.options).or_else(|_| Self::bind(SocketAddr::new(local.ip(), 0), self.options))
    }

    pub fn fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    pub fn local(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub fn info(&self) -> SocketInfo {
        let socket = || UdpSockRef::from(&self.socket);
        SocketInfo {
            recv_buffer: self.state.recv_buffer_size(socket()).unwrap_or(0),
            send_buffer: self.state.send_buffer_size(socket()).unwrap_or(0),
            gso_segments: if self.options.gso { self.state.max_gso_segments().get() } else { 1 },
            gro_segments: self.state.gro_segments().get(),
            may_fragment: self.state.may_fragment(),
        }
    }

    pub fn recv(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        self.state.recv(UdpSockRef::from(&self.socket), buffers, metas)
    }

    pub fn send(&self, outgoing: &Outgoing<'_>, stats: &mut UdpStats) -> Sent {
        let batch = if self.options.gso { self.state.max_gso_segments().get() } else { 1 };
        let whole = outgoing.segment_size.is_none_or(|size| outgoing.contents.len() <= size * batch);
        if whole {
            match self.send_one(outgoing, outgoing.contents, outgoing.segment_size) {
                // The first failed batch may have switched offload off: send it in single datagrams.
                Sent::Lost(errno) if outgoing.segment_size.is_some() && errno != libc::EMSGSIZE => {
                    stats.gso_fallbacks += 1;
                }
                sent => return sent,
            }
        }
        let size = outgoing.segment_size.unwrap_or(outgoing.contents.len()).max(1);
        let mut last = Sent::Ok;
        for (index, datagram) in outgoing.contents.chunks(size).enumerate() {
            match self.send_one(outgoing, datagram, None) {
                // Nothing has left yet, so the whole batch can be kept. Later ones are lost: QUIC repairs.
                Sent::Full if index == 0 => return Sent::Full,
                Sent::Lost(errno) => last = Sent::Lost(errno),
                _ => {}
            }
        }
        last
    }

    fn send_one(&self, outgoing: &Outgoing<'_>, contents: &[u8], segment_size: Option<usize>) -> Sent {
        let transmit = Transmit {
            destination: outgoing.destination,
            ecn: outgoing.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
            contents,
            segment_size,
            src_ip: outgoing.source_ip,
        };
        match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
            Ok(()) => Sent::Ok,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Full,
            // An MTU probe that is too large for the link is lost, as it should be.
            Err(error) if noq_udp::is_msg_size_err(&error) => Sent::Ok,
            Err(error) => Sent::Lost(error.raw_os_error().unwrap_or(0)),
        }
    }
}
