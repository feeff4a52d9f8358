//! An upstream endpoint that a test holds by strings.
//!
//! Each line on stdin is a request, a JSON object `{"id": N, "do": NAME, …}`; each line on stdout is an answer,
//! `{"id": N, "ok": {…}}` or `{"id": N, "error": {…}}`. Requests run side by side and may be answered in any
//! order. The first must be `bind`. The end of stdin ends the program. Nothing here uses an address lookup, a
//! relay or anything but the addresses and the relay it is told.

mod bench;
mod bench_blobs;
mod blobs;
mod failure;
mod peer;
mod request;
mod serve;

use std::sync::Arc;

use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::peer::Peer;
use crate::request::Request;

#[derive(Parser)]
#[command(about = "An upstream endpoint for interop tests, driven by JSON lines")]
struct Options {
    /// The tokio runtime: one thread, or one per core.
    #[arg(long, value_enum, default_value = "current")]
    runtime: Runtime,
}

#[derive(Clone, Copy, ValueEnum)]
enum Runtime {
    Current,
    Multi,
}

fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut builder = match Options::parse().runtime {
        Runtime::Current => tokio::runtime::Builder::new_current_thread(),
        Runtime::Multi => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder
        .enable_all()
        .build()
        .expect("a runtime can be started");
    runtime.block_on(answer_all());
    // Reading stdin blocks a thread of the runtime; it must not keep the program alive.
    runtime.shutdown_background();
}

async fn answer_all() {
    let peer = Arc::new(Peer::default());
    let (answers, mut queue) = mpsc::unbounded_channel::<Value>();
    tokio::spawn(async move {
        while let Some(answer) = queue.recv().await {
            println!("{answer}");
        }
    });
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let request: Value = match serde_json::from_str(&line) {
            Ok(request) => request,
            Err(error) => {
                eprintln!("not a request: {error}");
                continue;
            }
        };
        let (peer, answers) = (peer.clone(), answers.clone());
        tokio::spawn(async move {
            let id = request["id"].clone();
            let answer = match act(peer, Request(request)).await {
                Ok(ok) => json!({"id": id, "ok": ok}),
                Err(Failure(error)) => json!({"id": id, "error": error}),
            };
            answers.send(answer).ok();
        });
    }
    peer.shut_down().await;
}

async fn act(peer: Arc<Peer>, request: Request) -> Result<Value, Failure> {
    let action = request.text("do")?.to_owned();
    if let Some(result) = peer.act(&action, &request).await {
        return result;
    }
    if let Some(result) = blobs::act(&peer, &action, &request).await {
        return result;
    }
    if let Some(result) = bench::act(&peer, &action, &request).await {
        return result;
    }
    if let Some(result) = bench_blobs::act(&peer, &action, &request).await {
        return result;
    }
    Err(Failure::text("request", format!("unknown action {action}")))
}
