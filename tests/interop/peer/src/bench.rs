//! Loops to measure, and the server they talk to.
//!
//! A stream of the bench protocol starts with one byte: `S` the server reads everything and answers with the
//! number of bytes (u64, little endian); `P` and a number (u64, little endian): the server sends that many
//! bytes; `E`: the server sends back what follows. Unidirectional streams are read and forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use iroh::endpoint::{Connection, RecvStream, SendStream};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::failure::Failure;
use crate::peer::{Conn, Peer};
use crate::request::Request;

const CHUNK: usize = 1 << 20;

pub async fn act(
    peer: &Arc<Peer>,
    action: &str,
    request: &Request,
) -> Option<Result<Value, Failure>> {
    Some(match action {
        "bench_bulk" => bulk(peer, request).await,
        "bench_requests" => requests(peer, request).await,
        "bench_connects" => connects(peer, request).await,
        _ => return None,
    })
}

pub async fn serve(connection: Connection) {
    let uni = async {
        while let Ok(mut recv) = connection.accept_uni().await {
            tokio::spawn(async move { drain(&mut recv).await.ok() });
        }
    };
    let bidi = async {
        while let Ok((send, recv)) = connection.accept_bi().await {
            tokio::spawn(async move { serve_stream(send, recv).await.ok() });
        }
    };
    tokio::join!(uni, bidi);
}

async fn serve_stream(mut send: SendStream, mut recv: RecvStream) -> Result<(), Failure> {
    let mut kind = [0];
    recv.read_exact(&mut kind).await?;
    match kind[0] {
        b'S' => {
            let (total, _) = drain(&mut recv).await?;
            send.write_all(&total.to_le_bytes()).await?;
        }
        b'P' => {
            let mut length = [0; 8];
            recv.read_exact(&mut length).await?;
            pump(&mut send, u64::from_le_bytes(length)).await?;
        }
        _ => {
            let data = recv.read_to_end(1 << 16).await?;
            send.write_all(&data).await?;
        }
    }
    send.finish()?;
    Ok(())
}

/// How many bytes came, and the longest time without any.
async fn drain(recv: &mut RecvStream) -> Result<(u64, Duration), Failure> {
    let (mut total, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
    while let Some(chunk) = recv.read_chunk(CHUNK).await? {
        total += chunk.len() as u64;
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    Ok((total, longest))
}

async fn pump(send: &mut SendStream, length: u64) -> Result<(), Failure> {
    let chunk = Bytes::from(vec![0; CHUNK]);
    let mut left = length;
    while left > 0 {
        let now = left.min(CHUNK as u64);
        send.write_chunk(chunk.slice(..now as usize)).await?;
        left -= now;
    }
    Ok(())
}

/// `bytes` on one stream, to the server or, with `down`, from it; then `stall` is the longest time without any.
async fn bulk(peer: &Peer, request: &Request) -> Result<Value, Failure> {
    let connection = peer.connection(request)?;
    let length = request.number("bytes")?;
    let started = Instant::now();
    let (mut send, mut recv) = connection.open_bi().await?;
    let (moved, stall) = if request.flag("down") {
        send.write_all(b"P").await?;
        send.write_all(&length.to_le_bytes()).await?;
        send.finish()?;
        drain(&mut recv).await?
    } else {
        send.write_all(b"S").await?;
        pump(&mut send, length).await?;
        send.finish()?;
        let mut answer = [0; 8];
        recv.read_exact(&mut answer).await?;
        (u64::from_le_bytes(answer), Duration::ZERO)
    };
    let (seconds, stall) = (started.elapsed().as_secs_f64(), stall.as_secs_f64());
    Ok(json!({"seconds": seconds, "bytes": moved, "stall": stall}))
}

async fn one_request(connection: &Connection, data: &Bytes) -> Result<f64, Failure> {
    let started = Instant::now();
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_chunk(data.clone()).await?;
    send.finish()?;
    let answer = recv.read_to_end(1 << 16).await?;
    if answer.len() + 1 != data.len() {
        return Err(Failure::text("bench", "a wrong answer"));
    }
    Ok(started.elapsed().as_secs_f64() * 1e6)
}

/// `count` requests of `size` bytes, each on a new stream, `in_flight` at a time. Times are in microseconds.
async fn requests(peer: &Peer, request: &Request) -> Result<Value, Failure> {
    let connection = peer.connection(request)?;
    let (count, workers) = (request.number("count")?, request.number_or("in_flight", 1));
    let mut data = vec![b'E'];
    data.resize(request.number_or("size", 64) as usize + 1, 0);
    let data = Bytes::from(data);
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for worker in 0..workers {
        let share = count / workers + u64::from(worker < count % workers);
        let (connection, data) = (connection.clone(), data.clone());
        tasks.spawn(async move {
            let mut times = Vec::with_capacity(share as usize);
            for _ in 0..share {
                times.push(one_request(&connection, &data).await?);
            }
            Ok::<_, Failure>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(json!({"seconds": seconds, "p50": rank(&mut times, 0.5), "p99": rank(&mut times, 0.99)}))
}

fn rank(times: &mut [f64], share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    let last = times.len().saturating_sub(1);
    times
        .get((last as f64 * share) as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

/// `count` new connections, `in_flight` at a time; closed at once, or kept open with `keep`.
async fn connects(peer: &Arc<Peer>, request: &Request) -> Result<Value, Failure> {
    let endpoint = peer.endpoint()?;
    let (address, alpn) = (
        request.address()?,
        request.text("alpn")?.as_bytes().to_vec(),
    );
    let (count, workers) = (request.number("count")?, request.number_or("in_flight", 1));
    let keep = request.flag("keep");
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for worker in 0..workers {
        let share = count / workers + u64::from(worker < count % workers);
        let (endpoint, address, alpn, peer) = (
            endpoint.clone(),
            address.clone(),
            alpn.clone(),
            peer.clone(),
        );
        tasks.spawn(async move {
            let mut kept = Vec::new();
            for _ in 0..share {
                let connection = endpoint.connect(address.clone(), &alpn).await?;
                if keep {
                    kept.push(peer.keep(Conn::Ready(connection))["conn"].clone());
                } else {
                    connection.close(0u32.into(), b"");
                }
            }
            Ok::<_, Failure>(kept)
        });
    }
    let mut kept = Vec::new();
    while let Some(done) = tasks.join_next().await {
        kept.extend(done??);
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(json!({"seconds": seconds, "conns": kept}))
}
