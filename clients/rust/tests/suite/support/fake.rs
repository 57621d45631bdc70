//! A program that speaks ZMTP and answers what a test says.

use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{AbortHandle, JoinHandle};

pub const GREETING: &[u8; 64] = b"\xff\0\0\0\0\0\0\0\0\x7f\x03\0NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
pub const READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06ROUTER";
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// The reply to a request on a connection, of which the first is number 1; `None` cuts the
/// connection.
type Answer = Arc<dyn Fn(&Value, usize) -> Option<Value> + Send + Sync>;

enum Listener {
    Ipc(UnixListener),
    Tcp(TcpListener),
}

pub struct FakeDaemon {
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    accepting: JoinHandle<()>,
    pub endpoint: String,
}

impl FakeDaemon {
    /// Listen on a path.
    pub fn at(
        path: &Path,
        answer: impl Fn(&Value, usize) -> Option<Value> + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        Self::new(
            format!("ipc://{}", path.display()),
            Listener::Ipc(listener),
            Arc::new(answer),
        )
    }

    /// Listen on a tcp port of this machine; 0 for any.
    pub async fn on(
        port: u16,
        answer: impl Fn(&Value, usize) -> Option<Value> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        Self::new(endpoint, Listener::Tcp(listener), Arc::new(answer))
    }

    fn new(endpoint: String, listener: Listener, answer: Answer) -> Self {
        let bodies = Arc::<Mutex<Vec<_>>>::default();
        let connections = Arc::<Mutex<Vec<AbortHandle>>>::default();
        let (kept, opened) = (bodies.clone(), connections.clone());
        let accepting = tokio::spawn(async move {
            for number in 1.. {
                let serving = match &listener {
                    Listener::Ipc(listener) => {
                        let (stream, _) = listener.accept().await.unwrap();
                        tokio::spawn(serve(stream, number, kept.clone(), answer.clone()))
                    }
                    Listener::Tcp(listener) => {
                        let (stream, _) = listener.accept().await.unwrap();
                        tokio::spawn(serve(stream, number, kept.clone(), answer.clone()))
                    }
                };
                opened.lock().unwrap().push(serving.abort_handle());
            }
        });
        Self {
            bodies,
            connections,
            accepting,
            endpoint,
        }
    }

    /// The bodies that arrived, as they were.
    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.bodies.lock().unwrap().clone()
    }

    /// The requests that arrived.
    pub fn requests(&self) -> Vec<Value> {
        self.bodies()
            .iter()
            .map(|body| rmp_serde::from_slice(body).unwrap())
            .collect()
    }

    /// Whether a text occurs in what arrived.
    pub fn has_seen(&self, text: &str) -> bool {
        self.bodies().iter().any(|body| {
            body.windows(text.len())
                .any(|window| window == text.as_bytes())
        })
    }

    /// Cut all connections.
    pub fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    number: usize,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    answer: Answer,
) -> std::io::Result<()> {
    stream.write_all(GREETING).await?;
    stream.read_exact(&mut [0; 64]).await?;
    stream.write_all(READY).await?;
    loop {
        let (flags, body) = read_frame(&mut stream).await?;
        if flags & COMMAND != 0 {
            continue;
        }
        let request = rmp_serde::from_slice(&body).unwrap();
        bodies.lock().unwrap().push(body);
        let Some(reply) = answer(&request, number) else {
            return Ok(());
        };
        stream
            .write_all(&frame(&rmp_serde::to_vec_named(&reply).unwrap()))
            .await?;
    }
}

pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let flags = stream.read_u8().await?;
    let size = if flags & LONG == 0 {
        stream.read_u8().await?.into()
    } else {
        stream.read_u64().await?
    };
    let mut body = vec![0; usize::try_from(size).unwrap()];
    stream.read_exact(&mut body).await?;
    Ok((flags, body))
}

/// A message as a frame.
pub fn frame(body: &[u8]) -> Vec<u8> {
    [&[LONG], &(body.len() as u64).to_be_bytes()[..], body].concat()
}

#[allow(clippy::unnecessary_wraps, reason = "it is an answer")]
pub fn ok(request: &Value, result: Value) -> Option<Value> {
    Some(json!({"id": request["id"], "ok": true, "result": result, "seq": 7}))
}

#[allow(clippy::unnecessary_wraps, reason = "it is an answer")]
pub fn refusal(request: &Value, code: &str, fault: &str) -> Option<Value> {
    let message = format!("refused: {code}");
    let error =
        json!({"code": code, "message": message, "fault": fault, "retryable": fault == "daemon"});
    Some(json!({"id": request["id"], "ok": false, "error": error}))
}
