//! `zmtp.json`: a daemon byte by byte, which a client pings.

use std::time::Duration;

use backscroll::{Client, ClientOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::context::{Context, TIMEOUT};
use crate::files::{check_keys, hex, unhex};
use crate::{Difference, Failure};

const STEP_KEYS: [&str; 7] = [
    "send", "each", "receive", "silent", "reply", "padding", "end",
];
const GREETING_BYTES: usize = 64;
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

pub async fn play(vector: &Value, context: &mut Context) -> Result<Difference, Failure> {
    let name = context.new_name("z");
    let path = context.directory().join(name);
    let listener = UnixListener::bind(&path)?;
    let client = Client::new(
        ClientOptions::new()
            .endpoint(format!("ipc://{}", path.display()))
            .timeout(TIMEOUT),
    )?;
    let connections = vector["connections"]
        .as_array()
        .ok_or("expected connections")?;
    let mut serving = std::pin::pin!(serve(&listener, connections));
    // A daemon that met something wrong plays no further, so the client waits in vain.
    let served = tokio::select! {
        served = &mut serving => served,
        pong = client.ping() => {
            pong?;
            client.close();
            serving.await
        }
    };
    Ok(served
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default())
}

/// Play one connection after the other; fails if something is not as expected.
async fn serve(listener: &UnixListener, connections: &[Value]) -> Result<(), Failure> {
    let count = connections.len();
    let mut last = None;
    for (index, steps) in connections.iter().enumerate() {
        let steps = steps.as_array().ok_or("expected steps")?;
        let (stream, _) = timeout(TIMEOUT, listener.accept())
            .await
            .map_err(|_| "there is no connection")??;
        let mut stream = Stream(stream);
        let is_last = index + 1 == count;
        let played = async {
            play_steps(&mut stream, steps).await?;
            if !is_last && !steps.iter().any(|step| step["end"] == true) {
                stream.await_end().await?;
            }
            Ok::<_, Failure>(())
        };
        played
            .await
            .map_err(|error| format!("connection {} of {count}: {error}", index + 1))?;
        last = is_last.then_some(stream); // another one is closed
    }
    drop(last);
    Ok(())
}

async fn play_steps(stream: &mut Stream, steps: &[Value]) -> Result<(), Failure> {
    let mut id = Value::Null;
    for step in steps {
        check_keys(step, &STEP_KEYS)?;
        if step["end"] == true {
            return Ok(());
        }
        match (
            step["receive"].as_str(),
            step["silent"].as_u64(),
            step["reply"].as_u64(),
        ) {
            (Some("greeting"), ..) => check_greeting(&stream.read(GREETING_BYTES).await?)?,
            (Some("ready"), ..) => check_ready(stream.frame().await?)?,
            (Some("request"), ..) => id = received(stream).await?,
            (Some(other), ..) => return Err(format!("unknown part {other}").into()),
            (_, Some(ms), _) => stream.silence(Duration::from_millis(ms)).await?,
            (_, _, Some(flags)) => {
                stream
                    .0
                    .write_all(&reply_to(&id, flags.try_into()?, step["padding"].as_u64())?)
                    .await?;
            }
            _ => {
                let bytes = unhex(step["send"].as_str().unwrap_or_default())?;
                let size = if step["each"].is_null() {
                    bytes.len().max(1)
                } else {
                    1
                };
                for part in bytes.chunks(size) {
                    stream.0.write_all(part).await?;
                    tokio::task::yield_now().await;
                }
            }
        }
    }
    Ok(())
}

fn check_greeting(greeting: &[u8]) -> Result<(), Failure> {
    let mechanism = String::from_utf8_lossy(&greeting[12..32]);
    if greeting[0] == 0xff
        && greeting[9] == 0x7f
        && greeting[10] == 3
        && mechanism.trim_end_matches('\0') == "NULL"
    {
        return Ok(());
    }
    Err(format!(
        "the client's greeting is not one of ZMTP 3 with the mechanism NULL: {}",
        hex(greeting)
    )
    .into())
}

fn check_ready((flags, body): (u8, Vec<u8>)) -> Result<(), Failure> {
    if flags & COMMAND != 0 && body == b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER" {
        return Ok(());
    }
    Err(format!(
        "expected READY of a DEALER, got flags {flags} and {}",
        hex(&body)
    )
    .into())
}

/// The id of the client's next message, which must be one frame; commands are skipped.
async fn received(stream: &mut Stream) -> Result<Value, Failure> {
    loop {
        let (flags, body) = stream.frame().await?;
        if flags & MORE != 0 {
            return Err("the client's request has more than one frame".into());
        }
        if flags & COMMAND == 0 {
            let request: Value = rmp_serde::from_slice(&body)?;
            return Ok(request["id"].clone());
        }
    }
}

/// A frame with the reply to a `ping`.
fn reply_to(id: &Value, flags: u8, padding: Option<u64>) -> Result<Vec<u8>, Failure> {
    let mut reply = json!({"id": id, "ok": true, "result": {"pong": true}, "seq": 0});
    if let Some(padding) = padding {
        reply["padding"] = "x".repeat(padding.try_into()?).into();
    }
    let body = rmp_serde::to_vec_named(&reply)?;
    let mut frame = vec![flags];
    if flags & LONG == 0 {
        frame.push(body.len().try_into()?);
    } else {
        frame.extend((body.len() as u64).to_be_bytes());
    }
    frame.extend(body);
    Ok(frame)
}

/// The daemon's end of a connection.
struct Stream(UnixStream);

impl Stream {
    async fn read(&mut self, size: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; size];
        match timeout(TIMEOUT, self.0.read_exact(&mut bytes)).await {
            Ok(Ok(_)) => Ok(bytes),
            Ok(Err(_)) => {
                Err(format!("the client closed the connection before {size} bytes").into())
            }
            Err(_) => Err(format!("the client did not send {size} bytes").into()),
        }
    }

    async fn frame(&mut self) -> Result<(u8, Vec<u8>), Failure> {
        let flags = self.read(1).await?[0];
        let size = if flags & LONG == 0 {
            self.read(1).await?[0].into()
        } else {
            u64::from_be_bytes(self.read(8).await?.try_into().map_err(|_| "eight bytes")?)
        };
        Ok((flags, self.read(size.try_into()?).await?))
    }

    /// Fail if something arrives within a time.
    async fn silence(&mut self, time: Duration) -> Result<(), Failure> {
        let mut byte = [0];
        match timeout(time, self.0.read(&mut byte)).await {
            Ok(Ok(1..)) => {
                Err(format!("the client sent {} where nothing may come", hex(&byte)).into())
            }
            _ => Ok(()),
        }
    }

    /// Wait until the client closes the connection.
    async fn await_end(&mut self) -> Result<(), Failure> {
        let mut rest = Vec::new();
        let ended = timeout(TIMEOUT, self.0.read_to_end(&mut rest)).await;
        ended
            .map(|_| ())
            .map_err(|_| "the client did not close the connection".into())
    }
}
