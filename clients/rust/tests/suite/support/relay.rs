//! Between a client and a daemon: the test decides which replies are lost, and when the connection
//! is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinHandle};

use super::fake::{frame, read_frame};
use super::temporary_directory;

const GREETING_BYTES: usize = 64;
const READY_BYTES: usize = 30;

pub struct Relay {
    pub endpoint: String,
    loses_replies: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    accepting: JoinHandle<()>,
    _directory: TempDir,
}

impl Relay {
    /// To an ipc endpoint. Without numbers the daemon sees no `client` and `n`, as from a client
    /// that does not send them.
    pub fn start(target: &str, has_numbers: bool) -> Self {
        let directory = temporary_directory();
        let path = directory.path().join("relay");
        let listener = UnixListener::bind(&path).unwrap();
        let target = target.strip_prefix("ipc://").unwrap().to_owned();
        let (loses_replies, connections) = (
            Arc::<AtomicBool>::default(),
            Arc::<Mutex<Vec<_>>>::default(),
        );
        let (loses, opened) = (loses_replies.clone(), connections.clone());
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let relaying = relay(client, target.clone(), loses.clone(), has_numbers);
                opened
                    .lock()
                    .unwrap()
                    .push(tokio::spawn(relaying).abort_handle());
            }
        });
        let endpoint = format!("ipc://{}", path.display());
        Self {
            endpoint,
            loses_replies,
            connections,
            accepting,
            _directory: directory,
        }
    }

    pub fn lose_replies(&self, loses: bool) {
        self.loses_replies.store(loses, Ordering::SeqCst);
    }

    /// Cut all connections.
    pub fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn relay(
    client: UnixStream,
    target: String,
    loses: Arc<AtomicBool>,
    has_numbers: bool,
) -> std::io::Result<()> {
    let (from_daemon, to_daemon) = UnixStream::connect(target).await?.into_split();
    let (from_client, to_client) = client.into_split();
    tokio::select! {
        ended = requests(from_client, to_daemon, has_numbers) => ended,
        ended = replies(from_daemon, to_client, &loses) => ended,
    }
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    loses: &AtomicBool,
) -> std::io::Result<()> {
    let mut chunk = vec![0; 65_536];
    loop {
        let size = from.read(&mut chunk).await?;
        if size == 0 {
            return Ok(());
        }
        if !loses.load(Ordering::SeqCst) {
            to.write_all(&chunk[..size]).await?;
        }
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    has_numbers: bool,
) -> std::io::Result<()> {
    if has_numbers {
        tokio::io::copy(&mut from, &mut to).await?;
        return Ok(());
    }
    for size in [GREETING_BYTES, READY_BYTES] {
        let mut bytes = vec![0; size];
        from.read_exact(&mut bytes).await?;
        to.write_all(&bytes).await?;
    }
    loop {
        let (_, body) = read_frame(&mut from).await?;
        let mut request: Value = rmp_serde::from_slice(&body).unwrap();
        for name in ["client", "n"] {
            request.as_object_mut().unwrap().remove(name);
        }
        to.write_all(&frame(&rmp_serde::to_vec_named(&request).unwrap()))
            .await?;
    }
}
