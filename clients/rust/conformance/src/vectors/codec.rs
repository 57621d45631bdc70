//! `codec.json` and `canonical.json`. The client has no canonical form: a daemon executes what it
//! sends, and the digest in the log tells whether the canonical form of that is the expected one.

use std::time::{Duration, Instant};

use backscroll::internal::{PendingCalls, Request};
use backscroll::operations::*;
use backscroll::records::*;
use backscroll::{Client, Code, Error, Fault, Kind};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::context::{Context, TIMEOUT, request, result_of};
use crate::files::{difference, hex, text, unhex};
use crate::{Difference, Failure};

/// When the commands of the canonical vectors took effect.
const AT: i64 = 1_767_225_600_000;

/// Have the client send a payload, in each form that it has, or refuse it.
pub async fn play_request(vector: &Value, context: &mut Context) -> Result<Difference, Failure> {
    let name = text(vector, "type")?;
    let client = context.client("codec").await?;
    prepare(&client).await?;
    for form in ["json", "msgpack"] {
        let Some(written) = vector[form].as_str() else {
            continue;
        };
        let differs = if vector["error"].is_object() {
            let error = refusal_of(name, form, written, &client, context).await?;
            difference("error", Some(&vector["error"]), Some(&error))
        } else {
            let payload: Value = if form == "json" {
                serde_json::from_str(written)?
            } else {
                payload_in_msgpack(name, written)?
            };
            let seq = request(&client, name, payload, None).await?.seq;
            compare_entry(&client, seq, text(vector, "canonical")?).await?
        };
        if !differs.is_empty() {
            return Ok(format!("{form}: {differs}"));
        }
    }
    Ok(String::new())
}

/// A payload in MessagePack, in which bytes are base64.
fn payload_in_msgpack(name: &str, written: &str) -> Result<Value, Failure> {
    let bytes = unhex(written)?;
    if name != "put-media-part" {
        return Ok(rmp_serde::from_slice(&bytes)?);
    }
    let part: PutMediaPart = rmp_serde::from_slice(&bytes)?;
    Ok(json!({"data": part.data.map(|data| BASE64_STANDARD.encode(data))}))
}

/// The error for a payload: that of the client, or where it cannot be given such a payload, that of
/// the daemon for the bytes as they are.
async fn refusal_of(
    name: &str,
    form: &str,
    written: &str,
    client: &Client,
    context: &mut Context,
) -> Result<Value, Failure> {
    let payload = serde_json::from_str(written)
        .ok()
        .filter(|_| form == "json");
    if let Some(payload) = payload {
        let outcome = request(client, name, payload, None).await;
        return Ok(match outcome {
            Ok(_) => "the client sends it, and the daemon accepts it".into(),
            Err(error) => json!({"code": error.code().as_str(), "path": error.path()}),
        });
    }
    let body = if form == "json" {
        format!(r#"{{"id":"1","type":"{name}","scope":"codec","payload":{written}}}"#).into_bytes()
    } else {
        let mut body = rmp_serde::to_vec_named(
            &json!({"id": "1", "type": name, "scope": "codec", "payload": null}),
        )?;
        body.splice(payload_place(&body)?, unhex(written)?);
        body
    };
    let reply = context.exchange().await?.reply(&body).await?;
    Ok(json!({"code": reply["error"]["code"], "path": reply["error"]["details"]["path"]}))
}

/// Where the payload, which is nil, is in a body.
fn payload_place(body: &[u8]) -> Result<std::ops::Range<usize>, Failure> {
    let name = b"\xa7payload";
    let at = body
        .windows(name.len())
        .position(|window| window == name)
        .ok_or("there is no payload")?;
    Ok(at + name.len()..at + name.len() + 1)
}

/// Save what the requests refer to.
async fn prepare(client: &Client) -> Result<(), Error> {
    if client.get_room(GetRoom::new("default")).await?.is_some() {
        return Ok(());
    }
    client
        .save_room(SaveRoom::new(RoomInput::new("default", "d")))
        .await?;
    client
        .save_message(SaveMessage::new(
            MessageInput::new("m1", "r1", "", 1).sender_id("ada"),
        ))
        .await
}

async fn compare_entry(client: &Client, seq: i64, canonical: &str) -> Result<Difference, Failure> {
    let entry = entry_of(client, seq).await?;
    if entry.digest
        == Some(digest_of(
            entry.salt.as_deref().unwrap_or_default(),
            canonical,
        )?)
    {
        return Ok(String::new());
    }
    let sent = entry.payload.unwrap_or_default();
    Ok(format!(
        "the canonical form of what was sent is another one than {canonical}: {sent}"
    ))
}

async fn entry_of(client: &Client, seq: i64) -> Result<LogEntry, Failure> {
    let page = client.get_log(GetLog::new().from_seq(seq).limit(1)).await?;
    page.entries
        .into_iter()
        .next()
        .ok_or_else(|| format!("the log has no entry {seq}").into())
}

fn digest_of(salt: &str, canonical: &str) -> Result<String, Failure> {
    Ok(hex(&Sha256::new()
        .chain_update(unhex(salt)?)
        .chain_update(unhex(canonical)?)
        .finalize()))
}

/// Have the client read a reply.
pub fn play_reply(vector: &Value) -> Result<Difference, Failure> {
    let body = match vector["msgpack"].as_str() {
        Some(written) => unhex(written)?,
        None => text(vector, "json")?.as_bytes().to_vec(), // which is no reply in any encoding
    };
    let outcome = outcome_of(text(vector, "type")?, &body);
    if vector["invalid"] == true {
        let is_refused = outcome.is_err_and(|error| *error.code() == Code::Internal);
        return Ok(if is_refused {
            String::new()
        } else {
            "it is taken for a reply".into()
        });
    }
    match outcome {
        Ok(result) => {
            let differs = difference("result", Some(&vector["result"]), Some(&result));
            let is_kept = !differs.is_empty() && vector.get("kept") == Some(&result);
            Ok(if is_kept { String::new() } else { differs })
        }
        Err(error) => Ok(difference(
            "error",
            vector.get("error"),
            Some(&described(&error)),
        )),
    }
}

fn outcome_of(name: &str, body: &[u8]) -> Result<Value, Error> {
    let mut calls = PendingCalls::default();
    let (settle, mut outcome) = oneshot::channel();
    let now = Instant::now();
    let request = Request {
        name,
        kind: Kind::Command,
        payload: vec![0x80],
        wait_ms: 0,
        timeout: TIMEOUT,
        scope: None,
        id: Some("1"),
        traceparent: None,
        now,
    };
    calls.add(request, settle)?;
    calls.next_body(now, None);
    calls.handle_reply(body, now + Duration::from_millis(1))?;
    result_of(name, &outcome.try_recv().expect("the call is settled")?)
}

fn described(error: &Error) -> Value {
    let fault = if error.fault() == Fault::Caller {
        "caller"
    } else {
        "daemon"
    };
    let mut found = json!({
        "code": error.code().as_str(), "fault": fault, "retryable": error.is_retryable(), "message": error.message(),
    });
    if let Some(details) = error.details() {
        found["details"] = details.clone().into();
    }
    found
}

/// Append the first payload to a log, where it has a digest; the others are the same command, so
/// the same id is a retry.
pub async fn play_canonical(vector: &Value, context: &mut Context) -> Result<Difference, Failure> {
    let [name, salt, canonical] = ["type", "salt", "canonical"].map(|key| text(vector, key));
    let (name, salt, canonical) = (name?, salt?, canonical?);
    let client = context.client("canonical").await?;
    let seq = client.get_log(GetLog::new().limit(1)).await?.last_seq + 1;
    let id = format!("c{seq}");
    let texts = vector["json"]
        .as_array()
        .ok_or("expected payloads")?
        .iter()
        .filter_map(Value::as_str);
    let mut payloads = texts
        .map(serde_json::from_str::<Value>)
        .collect::<Result<Vec<_>, _>>()?
        .into_iter();
    let mut entry = LogEntryInput::new(seq, AT, &id, name).salt(salt);
    entry.payload = payloads.next();
    client.append_log(AppendLog::new([entry])).await?;
    let found = entry_of(&client, seq).await?.digest.map(Value::from);
    let computed = Value::from(digest_of(salt, canonical)?);
    let differs = difference(
        "the digest in the log",
        vector.get("digest"),
        found.as_ref(),
    ) + &difference(
        "SHA-256(salt · canonical)",
        vector.get("digest"),
        Some(&computed),
    );
    if !differs.is_empty() {
        return Ok(differs);
    }
    for payload in payloads {
        match request(&client, name, payload.clone(), Some(&id)).await {
            Ok(answer) if answer.seq == seq => {}
            Ok(_) => return Ok(format!("{payload} was executed again")),
            Err(error) => return Ok(format!("{payload} is not the same command: {error}")),
        }
    }
    Ok(String::new())
}
