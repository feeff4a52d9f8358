//! Blobs: a store, what it holds, and every kind of request.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use data_encoding::HEXLOWER;
use futures_lite::StreamExt;
use iroh_blobs::api::Store;
use iroh_blobs::api::blobs::{AddBytesOptions, Bitfield, BlobStatus};
use iroh_blobs::format::collection::Collection;
use iroh_blobs::get::request::{get_hash_seq_and_sizes, get_verified_size};
use iroh_blobs::hashseq::HashSeq;
use iroh_blobs::protocol::{
    ChunkRanges, ChunkRangesExt, ChunkRangesSeq, GetManyRequest, GetRequest, ObserveRequest,
    PushRequest,
};
use iroh_blobs::provider::events::{
    AbortReason, ConnectMode, EventMask, EventSender, ObserveMode, ProviderMessage, RequestMode,
};
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::store::mem::MemStore;
use iroh_blobs::ticket::BlobTicket;
use iroh_blobs::{BlobFormat, BlobsProtocol, Hash};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::peer::Peer;
use crate::request::{Request, hex};

#[derive(Clone)]
pub struct Blobs {
    pub store: Store,
    pub protocol: BlobsProtocol,
}

pub async fn act(
    peer: &Arc<Peer>,
    action: &str,
    request: &Request,
) -> Option<Result<Value, Failure>> {
    if action == "store" {
        return Some(open(peer, request).await);
    }
    let blobs = peer.blobs.lock().unwrap().clone();
    let Some(Blobs { store, .. }) = blobs else {
        return action.starts_with("blob_").then(|| {
            Err(Failure::text(
                "request",
                "the request store must come first",
            ))
        });
    };
    Some(match action {
        "blob_add" => add(&store, request).await,
        "blob_add_hash_seq" => add_hash_seq(&store, request).await,
        "blob_add_collection" => add_collection(&store, request).await,
        "blob_collection" => collection(&store, request).await,
        "blob_state" => state(&store, request).await,
        "blob_sync" => sync(&store).await,
        "blob_read" => read(&store, request).await,
        "blob_export" => export(&store, request).await,
        "blob_ticket" => ticket(peer, request),
        "blob_get" => get(peer, &store, request).await,
        "blob_get_many" => get_many(peer, &store, request).await,
        "blob_push" => push(peer, &store, request).await,
        "blob_observe" => observe(peer, &store, request).await,
        "blob_size" => size(peer, request).await,
        "blob_sizes" => sizes(peer, request).await,
        "blob_fetch" => fetch(peer, &store, request).await,
        _ => return None,
    })
}

/// `path`: a store on disk, else in memory. `push`: take pushes. `deny`: refuse, as "permission" or "limit", what
/// `kinds` names ("get" without it; "connect", "get_many", "push" and "observe" too).
async fn open(peer: &Peer, request: &Request) -> Result<Value, Failure> {
    let store: Store = match request.get("path") {
        Some(path) => FsStore::load(path.as_str().unwrap_or_default())
            .await?
            .into(),
        None => MemStore::new().into(),
    };
    let mut mask = EventMask::DEFAULT;
    if request.flag("push") {
        mask.push = RequestMode::None;
    }
    let deny = match request.text("deny") {
        Ok("permission") => Some(AbortReason::Permission),
        Ok("limit") => Some(AbortReason::RateLimited),
        _ => None,
    };
    if deny.is_some() {
        let kinds = request.list("kinds").unwrap_or_default().iter();
        let kinds: Vec<_> = kinds.filter_map(Value::as_str).collect();
        for kind in if kinds.is_empty() { vec!["get"] } else { kinds } {
            match kind {
                "connect" => mask.connected = ConnectMode::Intercept,
                "get" => mask.get = RequestMode::Intercept,
                "get_many" => mask.get_many = RequestMode::Intercept,
                "push" => mask.push = RequestMode::Intercept,
                "observe" => mask.observe = ObserveMode::Intercept,
                _ => return Err(Failure::text("request", format!("no such kind: {kind}"))),
            }
        }
    }
    let (events, mut messages) = EventSender::channel(64, mask);
    tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            let Some(reason) = deny else { continue };
            let no = Err(reason);
            match message {
                ProviderMessage::ClientConnected(asked) => asked.tx.send(no).await.ok(),
                ProviderMessage::GetRequestReceived(asked) => asked.tx.send(no).await.ok(),
                ProviderMessage::GetManyRequestReceived(asked) => asked.tx.send(no).await.ok(),
                ProviderMessage::PushRequestReceived(asked) => asked.tx.send(no).await.ok(),
                ProviderMessage::ObserveRequestReceived(asked) => asked.tx.send(no).await.ok(),
                _ => None,
            };
        }
    });
    let protocol = BlobsProtocol::new(&store, Some(events));
    *peer.blobs.lock().unwrap() = Some(Blobs { store, protocol });
    Ok(json!({}))
}

fn hash(request: &Request) -> Result<Hash, Failure> {
    parse_hash(request.text("hash")?)
}

fn parse_hash(text: &str) -> Result<Hash, Failure> {
    let bytes: [u8; 32] = hex(text)?.as_slice().try_into()?;
    Ok(Hash::from_bytes(bytes))
}

fn hashes(request: &Request) -> Result<Vec<Hash>, Failure> {
    let texts = request.list("hashes")?.iter();
    texts
        .map(|text| parse_hash(text.as_str().unwrap_or_default()))
        .collect()
}

/// Boundaries of chunk ranges: `[a, b, c]` is a..b and c.. to the end.
fn chunk_ranges(boundaries: &Value) -> ChunkRanges {
    let numbers = boundaries.as_array().into_iter().flatten();
    let numbers: Vec<u64> = numbers.filter_map(Value::as_u64).collect();
    let mut ranges = ChunkRanges::empty();
    for pair in numbers.chunks(2) {
        ranges |= match *pair {
            [start, end] => ChunkRanges::chunks(start..end),
            [start] => ChunkRanges::chunks(start..),
            _ => unreachable!("chunks of two"),
        };
    }
    ranges
}

/// `ranges`: one list of boundaries per blob; with `open` the last one stands for all that follow.
/// Without `ranges`: everything.
fn ranges_seq(request: &Request) -> ChunkRangesSeq {
    let Some(lists) = request.get("ranges").and_then(Value::as_array) else {
        return ChunkRangesSeq::all();
    };
    let lists = lists.iter().map(chunk_ranges);
    if request.flag("open") {
        ChunkRangesSeq::from_ranges_infinite(lists)
    } else {
        ChunkRangesSeq::from_ranges(lists)
    }
}

fn bitfield(bitfield: &Bitfield) -> Value {
    let numbers = serde_json::to_value(bitfield).unwrap_or_default();
    let numbers = numbers.as_array().cloned().unwrap_or_default();
    json!({"size": numbers.first(), "ranges": numbers.get(1..), "complete": bitfield.is_complete()})
}

async fn add(store: &Store, request: &Request) -> Result<Value, Failure> {
    let added = match request.get("path") {
        Some(path) => store.add_path(path.as_str().unwrap_or_default()).await?,
        None => store.add_bytes(request.data()?).await?,
    };
    Ok(json!({"hash": added.hash.to_string()}))
}

async fn add_hash_seq(store: &Store, request: &Request) -> Result<Value, Failure> {
    let options = AddBytesOptions {
        data: hashes(request)?.into_iter().collect::<HashSeq>().into(),
        format: BlobFormat::HashSeq,
    };
    let added = store.add_bytes_with_opts(options).await?;
    Ok(json!({"hash": added.hash.to_string()}))
}

/// `names` and `hashes`, in the same order.
async fn add_collection(store: &Store, request: &Request) -> Result<Value, Failure> {
    let names = request.list("names")?.iter();
    let names = names.map(|name| name.as_str().unwrap_or_default().to_owned());
    let collection: Collection = names.zip(hashes(request)?).collect();
    let tag = collection.store(store).await?;
    store.tags().create(tag.hash_and_format()).await?;
    Ok(json!({"hash": tag.hash().to_string()}))
}

async fn collection(store: &Store, request: &Request) -> Result<Value, Failure> {
    let collection = Collection::load(hash(request)?, store).await?;
    let (names, hashes): (Vec<_>, Vec<_>) = collection
        .iter()
        .map(|(name, hash)| (name.clone(), hash.to_string()))
        .unzip();
    Ok(json!({"names": names, "hashes": hashes}))
}

/// Waits until what the store knows is on the disk.
async fn sync(store: &Store) -> Result<Value, Failure> {
    store.sync_db().await?;
    Ok(json!({}))
}

async fn state(store: &Store, request: &Request) -> Result<Value, Failure> {
    let hash = hash(request)?;
    let status = match store.status(hash).await? {
        BlobStatus::NotFound => "absent",
        BlobStatus::Partial { .. } => "partial",
        BlobStatus::Complete { .. } => "complete",
    };
    let mut known = bitfield(&store.observe(hash).await?);
    known["status"] = status.into();
    Ok(known)
}

async fn read(store: &Store, request: &Request) -> Result<Value, Failure> {
    let data = store.get_bytes(hash(request)?).await?;
    let hex = (data.len() <= 65536).then(|| HEXLOWER.encode(&data));
    Ok(json!({"length": data.len(), "hex": hex}))
}

async fn export(store: &Store, request: &Request) -> Result<Value, Failure> {
    let size = store
        .export(hash(request)?, Path::new(request.text("path")?))
        .await?;
    Ok(json!({"size": size}))
}

/// A ticket with the addresses the endpoint is bound to.
fn ticket(peer: &Peer, request: &Request) -> Result<Value, Failure> {
    let endpoint = peer.endpoint()?;
    let addrs = endpoint.bound_sockets().into_iter();
    let addr = iroh::EndpointAddr::from_parts(endpoint.id(), addrs.map(iroh::TransportAddr::Ip));
    let format = match request.flag("hash_seq") {
        true => BlobFormat::HashSeq,
        false => BlobFormat::Raw,
    };
    let ticket = BlobTicket::new(addr, hash(request)?, format);
    Ok(json!({"ticket": ticket.to_string()}))
}

async fn get(peer: &Peer, store: &Store, request: &Request) -> Result<Value, Failure> {
    let connection = peer.connection(request)?;
    let get = GetRequest::new(hash(request)?, ranges_seq(request));
    finish_get(store.remote().execute_get(connection, get).await)
}

async fn get_many(peer: &Peer, store: &Store, request: &Request) -> Result<Value, Failure> {
    let connection = peer.connection(request)?;
    let get = GetManyRequest::new(hashes(request)?, ranges_seq(request));
    finish_get(store.remote().execute_get_many(connection, get).await)
}

fn finish_get(
    result: Result<iroh_blobs::get::Stats, iroh_blobs::get::GetError>,
) -> Result<Value, Failure> {
    match result {
        Ok(stats) => Ok(json!({
            "payload": stats.payload_bytes_read,
            "other": stats.other_bytes_read,
            "seconds": stats.elapsed.as_secs_f64(),
        })),
        Err(error) => {
            let code = error.iroh_error_code();
            let mut failure = Failure::from(error);
            failure.0["get_code"] = json!(code.map(|code| code.into_inner()));
            Err(failure)
        }
    }
}

async fn push(peer: &Peer, store: &Store, request: &Request) -> Result<Value, Failure> {
    let connection = peer.connection(request)?;
    let push = PushRequest::new(hash(request)?, ranges_seq(request));
    store.remote().execute_push(connection, push).await?;
    Ok(json!({}))
}

/// The first `count` states that the provider tells (default 1).
async fn observe(peer: &Peer, store: &Store, request: &Request) -> Result<Value, Failure> {
    let connection = peer.connection(request)?;
    let count = request.number_or("count", 1) as usize;
    let states = store
        .remote()
        .observe(connection, ObserveRequest::new(hash(request)?));
    let mut states = std::pin::pin!(states.take(count));
    let mut told = Vec::new();
    while let Some(state) = states.next().await {
        told.push(bitfield(&state?));
    }
    Ok(json!({"states": told}))
}

async fn size(peer: &Peer, request: &Request) -> Result<Value, Failure> {
    let connection = peer.connection(request)?;
    let (size, _stats) = get_verified_size(&connection, &hash(request)?).await?;
    Ok(json!({"size": size}))
}

async fn sizes(peer: &Peer, request: &Request) -> Result<Value, Failure> {
    let connection = peer.connection(request)?;
    let (_seq, sizes) =
        get_hash_seq_and_sizes(&connection, &hash(request)?, 32 << 20, None).await?;
    Ok(json!({"sizes": &*sizes}))
}

/// Connects to a ticket's peer and gets what is missing, as a program would; with `export`, to a file too.
async fn fetch(peer: &Peer, store: &Store, request: &Request) -> Result<Value, Failure> {
    let ticket: BlobTicket = request.text("ticket")?.parse()?;
    let started = Instant::now();
    let endpoint = peer.endpoint()?;
    let connection = endpoint
        .connect(ticket.addr().clone(), iroh_blobs::ALPN)
        .await?;
    let result = store
        .remote()
        .fetch(connection.clone(), ticket.hash_and_format())
        .await;
    connection.close(0u32.into(), b"done");
    let mut told = finish_get(result)?;
    if let Some(path) = request.get("export").and_then(Value::as_str) {
        store.export(ticket.hash(), path).await?;
    }
    told["seconds"] = started.elapsed().as_secs_f64().into();
    Ok(told)
}
