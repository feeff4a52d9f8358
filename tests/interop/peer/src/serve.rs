//! What happens to connections that come in: each ALPN has a role.

use std::sync::Arc;

use bytes::Bytes;
use iroh::endpoint::{Incoming, RecvStream, SendStream};
use iroh::protocol::ProtocolHandler;

use crate::failure::Failure;
use crate::peer::{Conn, Peer, Role};

/// What to do with the next attempts to connect.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Door {
    #[default]
    Accept,
    /// Hand connections on before their handshake is complete.
    Early,
    Refuse,
    /// Ask each unvalidated client to prove its address first.
    Retry,
    Ignore,
}

pub async fn accept_all(peer: Arc<Peer>) {
    let endpoint = peer.endpoint().expect("bound before");
    while let Some(incoming) = endpoint.accept().await {
        let peer = peer.clone();
        tokio::spawn(async move {
            if let Err(Failure(error)) = admit(&peer, incoming).await {
                peer.failed_handshakes.lock().unwrap().push(error);
            }
        });
    }
}

async fn admit(peer: &Arc<Peer>, incoming: Incoming) -> Result<(), Failure> {
    let door = *peer.door.lock().unwrap();
    match door {
        Door::Refuse => incoming.refuse(),
        Door::Ignore => incoming.ignore(),
        Door::Retry if !incoming.remote_addr_validated() => {
            incoming.retry().ok();
        }
        Door::Early => {
            let mut accepting = incoming.accept()?;
            accepting.alpn().await?;
            let early = accepting.into_0rtt();
            peer.arrivals.0.send(Conn::Incoming(early)).ok();
        }
        Door::Accept | Door::Retry => {
            let connection = incoming.accept()?.await?;
            let role = peer.roles.lock().unwrap().get(connection.alpn()).copied();
            match role.unwrap_or_default() {
                Role::Queue => {
                    peer.arrivals.0.send(Conn::Ready(connection)).ok();
                }
                Role::Echo => echo(connection).await,
                Role::Bench => crate::bench::serve(connection).await,
                Role::Blobs => {
                    let blobs = peer.blobs.lock().unwrap().clone();
                    if let Some(blobs) = blobs {
                        blobs.protocol.accept(connection).await.ok();
                    }
                }
            }
        }
    }
    Ok(())
}

/// Sends everything back: streams of both kinds, and datagrams.
async fn echo(connection: iroh::endpoint::Connection) {
    let bidi = async {
        while let Ok((send, recv)) = connection.accept_bi().await {
            tokio::spawn(copy(recv, send));
        }
    };
    let uni = async {
        while let Ok(recv) = connection.accept_uni().await {
            let connection = connection.clone();
            tokio::spawn(async move {
                if let Ok(send) = connection.open_uni().await {
                    copy(recv, send).await;
                }
            });
        }
    };
    let datagrams = async {
        while let Ok(datagram) = connection.read_datagram().await {
            connection.send_datagram_wait(datagram).await.ok();
        }
    };
    tokio::join!(bidi, uni, datagrams);
}

/// A reset of the one direction resets the other with the same code, and so does a stop.
async fn copy(mut recv: RecvStream, mut send: SendStream) {
    loop {
        match recv.read_chunk(65536).await {
            Ok(Some(chunk)) => {
                if let Err(error) = write(&mut send, chunk).await {
                    recv.stop(error).ok();
                    return;
                }
            }
            Ok(None) => {
                send.finish().ok();
                send.stopped().await.ok();
                return;
            }
            Err(iroh::endpoint::ReadError::Reset(code)) => {
                send.reset(code).ok();
                return;
            }
            Err(_) => return,
        }
    }
}

async fn write(send: &mut SendStream, chunk: Bytes) -> Result<(), iroh::endpoint::VarInt> {
    match send.write_chunk(chunk).await {
        Ok(()) => Ok(()),
        Err(iroh::endpoint::WriteError::Stopped(code)) => Err(code),
        Err(_) => Err(0u32.into()),
    }
}
