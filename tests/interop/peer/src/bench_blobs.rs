//! Loops over small blobs to measure.

use std::sync::Arc;
use std::time::Instant;

use iroh_blobs::api::Store;
use iroh_blobs::api::blobs::AddBytesOptions;
use iroh_blobs::get::request::get_blob;
use iroh_blobs::hashseq::HashSeq;
use iroh_blobs::{BlobFormat, Hash};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::failure::Failure;
use crate::peer::Peer;
use crate::request::Request;

pub async fn act(
    peer: &Arc<Peer>,
    action: &str,
    request: &Request,
) -> Option<Result<Value, Failure>> {
    Some(match action {
        "bench_small_blobs" => small_blobs(peer, request).await,
        "bench_gets" => gets(peer, request).await,
        _ => return None,
    })
}

/// `count` different blobs of `size` bytes in the store, and the hash sequence of all of them.
async fn small_blobs(peer: &Peer, request: &Request) -> Result<Value, Failure> {
    let blobs = peer.blobs.lock().unwrap().clone();
    let store: Store = blobs
        .ok_or_else(|| Failure::text("request", "the request store must come first"))?
        .store;
    let (count, size) = (request.number("count")?, request.number("size")? as usize);
    let mut adding = JoinSet::new();
    for index in 0..count {
        let mut data = index.to_le_bytes().repeat(size / 8 + 1);
        data.truncate(size);
        let store = store.clone();
        adding.spawn(async move { Ok::<_, Failure>((index, store.add_bytes(data).await?.hash)) });
    }
    let mut hashes = vec![Hash::EMPTY; count as usize];
    while let Some(added) = adding.join_next().await {
        let (index, hash) = added??;
        hashes[index as usize] = hash;
    }
    let options = AddBytesOptions {
        data: hashes.into_iter().collect::<HashSeq>().into(),
        format: BlobFormat::HashSeq,
    };
    let added = store.add_bytes_with_opts(options).await?;
    Ok(json!({"hash": added.hash.to_string()}))
}

/// `count` requests for one blob over one connection, `in_flight` at a time; the data are verified and
/// kept in memory, there is no store.
async fn gets(peer: &Peer, request: &Request) -> Result<Value, Failure> {
    let connection = peer.connection(request)?;
    let hash: Hash = request.text("hash")?.parse()?;
    let (count, workers) = (request.number("count")?, request.number_or("in_flight", 1));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for worker in 0..workers {
        let share = count / workers + u64::from(worker < count % workers);
        let connection = connection.clone();
        tasks.spawn(async move {
            let mut bytes = 0;
            for _ in 0..share {
                bytes += get_blob(connection.clone(), hash).bytes().await?.len();
            }
            Ok::<_, Failure>(bytes)
        });
    }
    let mut bytes = 0;
    while let Some(done) = tasks.join_next().await {
        bytes += done??;
    }
    Ok(json!({"seconds": started.elapsed().as_secs_f64(), "bytes": bytes}))
}
