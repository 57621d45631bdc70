//! This client's runner of the conformance vectors: one JSON line for each vector.
//!
//! ```sh
//! vectors DIRECTORY
//! ```

#![allow(
    clippy::wildcard_imports,
    reason = "most operations occur in the vectors"
)]

mod codec;
mod context;
mod exchange;
mod files;
mod refusals;
mod retry;
mod scenarios;
mod zmtp;

use std::error::Error;
use std::path::Path;

use serde_json::{Value, json};

use context::Context;
use files::{check_keys, difference, load};

/// Where vectors stand, and the keys that they may have.
const LISTS: [(&str, &str, &[&str]); 9] = [
    (
        "codec",
        "requests",
        &["type", "json", "msgpack", "canonical", "error"],
    ),
    (
        "codec",
        "replies",
        &[
            "type", "json", "msgpack", "result", "kept", "error", "invalid",
        ],
    ),
    (
        "canonical",
        "vectors",
        &["type", "json", "canonical", "salt", "digest"],
    ),
    (
        "hello",
        "vectors",
        &["token", "nonce", "endpoints", "proof"],
    ),
    (
        "refusals",
        "vectors",
        &["before", "json", "hex", "expand", "id", "error"],
    ),
    ("zmtp", "vectors", &["connections"]),
    ("retry", "table", &["state", "event", "to", "outcome"]),
    ("retry", "sequences", &["events"]),
    ("scenarios", "vectors", &["steps"]),
];

/// What differs, in words; empty if nothing does.
type Difference = String;
/// What went wrong where nothing should.
type Failure = Box<dyn Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let directory = std::env::args_os()
        .nth(1)
        .ok_or("usage: vectors DIRECTORY")?;
    let mut context = Context::new()?;
    for (set, list, keys) in LISTS {
        let file = load(Path::new(&directory), set)?;
        for vector in file[list].as_array().ok_or("a list of vectors")? {
            let checked = check_keys(vector, &[&["name", "needs"], keys].concat());
            let played = match checked {
                Ok(()) => play(set, list, vector, &file, &mut context).await,
                Err(error) => Err(error),
            };
            let why = played.unwrap_or_else(|error| error.to_string());
            println!(
                "{}",
                json!({"set": set, "name": vector["name"], "ok": why.is_empty(), "why": why})
            );
        }
    }
    context.stop().await?;
    Ok(())
}

async fn play(
    set: &str,
    list: &str,
    vector: &Value,
    file: &Value,
    context: &mut Context,
) -> Result<Difference, Failure> {
    match (set, list) {
        ("codec", "requests") => codec::play_request(vector, context).await,
        ("codec", "replies") => codec::play_reply(vector),
        ("canonical", _) => codec::play_canonical(vector, context).await,
        ("hello", _) => play_hello(vector),
        ("refusals", _) => refusals::play(vector, context).await,
        ("zmtp", _) => zmtp::play(vector, context).await,
        ("retry", "table") => retry::play_row(vector, &file["states"]),
        ("retry", _) => retry::play_sequence(vector),
        _ => scenarios::play(vector, context).await,
    }
}

/// `hello.json`: the proof that the daemon must have sent.
fn play_hello(vector: &Value) -> Result<Difference, Failure> {
    let endpoints: Vec<String> = serde_json::from_value(vector["endpoints"].clone())?;
    let [token, nonce] = ["token", "nonce"].map(|name| vector[name].as_str().unwrap_or_default());
    let proof = backscroll::internal::proof_of(token, nonce, &endpoints);
    Ok(difference(
        "proof",
        Some(&vector["proof"]),
        Some(&proof.into()),
    ))
}
