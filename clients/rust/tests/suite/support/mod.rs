//! What tests share: daemons of this repository, a small fake one, and what is put between a client
//! and a daemon.

mod fake;
mod relay;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use backscroll::records::MessageInput;
use backscroll::{Client, ClientOptions};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

pub use fake::{FakeDaemon, GREETING, READY, frame, ok, refusal};
pub use relay::Relay;

/// Enough for whatever a test waits for.
pub const LONG: Duration = Duration::from_secs(20);
pub const TCP: [&str; 2] = ["--endpoint", "tcp://127.0.0.1:*"];

/// Whether the long forms of tests run.
pub fn is_long() -> bool {
    env::var_os("LONG").is_some()
}

/// The command that starts daemons.
pub fn program() -> String {
    env::var("BACKSCROLL").unwrap_or_else(|_| "backscroll".into())
}

/// A directory that is removed with the test. Its path is short, for sockets.
pub fn temporary_directory() -> TempDir {
    tempfile::Builder::new()
        .prefix("bs-rust-")
        .tempdir()
        .unwrap()
}

/// A daemon that serves a directory; it is killed and started again as a test says, and ends with
/// it.
pub struct Daemon {
    process: Child,
    flags: Vec<&'static str>,
    directory: TempDir,
}

impl Daemon {
    pub async fn start(flags: &[&'static str]) -> Self {
        let directory = temporary_directory();
        let process = serve(directory.path(), flags).await;
        Self {
            process,
            flags: flags.to_vec(),
            directory,
        }
    }

    pub fn data_dir(&self) -> &Path {
        self.directory.path()
    }

    /// What the daemon wrote into its `endpoint.json`.
    pub fn ready(&self) -> Value {
        ready_in(self.data_dir())
    }

    pub fn endpoint(&self) -> String {
        self.ready()["endpoints"][0].as_str().unwrap().to_owned()
    }

    pub fn options(&self) -> ClientOptions {
        ClientOptions::new().data_dir(self.data_dir()).timeout(LONG)
    }

    /// A client that waits for long.
    pub fn client(&self) -> Client {
        Client::new(self.options()).unwrap()
    }

    pub async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    pub async fn restart(&mut self) {
        self.kill().await;
        self.process = serve(self.directory.path(), &self.flags).await;
    }
}

async fn serve(data_dir: &Path, flags: &[&str]) -> Child {
    let mut command = Command::new(program());
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(data_dir)
        .arg("--exit-with-parent")
        .args(flags);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut process = command.spawn().expect("the command `backscroll`");
    let stdout = process.stdout.as_mut().unwrap();
    assert_eq!(
        stdout.read(&mut [0]).await.unwrap(),
        1,
        "the daemon ended before it was ready"
    );
    process
}

pub fn ready_in(data_dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(data_dir.join("endpoint.json")).unwrap()).unwrap()
}

/// Ends whatever serves a directory, with the test.
pub struct Stop(pub PathBuf);

impl Drop for Stop {
    fn drop(&mut self) {
        let ready = fs::read(self.0.join("endpoint.json")).unwrap_or_default();
        let ready: Value = serde_json::from_slice(&ready).unwrap_or_default();
        if let Some(pid) = ready["pid"].as_u64() {
            let _ = std::process::Command::new("kill")
                .args(["-9", &pid.to_string()])
                .status();
        }
    }
}

/// What a command of `backscroll` prints.
pub async fn backscroll(words: &[&str], data_dir: &Path) -> String {
    let mut command = Command::new(program());
    command
        .args(words)
        .arg("--data-dir")
        .arg(data_dir)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let done = command.output().await.unwrap();
    assert!(done.status.success(), "{words:?}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// The project's proxy: it cuts connections at any byte, delays, and swallows what is sent for a
/// while.
pub struct Proxy {
    process: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    pub endpoint: String,
    _directory: TempDir,
}

impl Proxy {
    pub async fn start(target: &str, seed: u64) -> Self {
        let directory = temporary_directory();
        let listen = format!("ipc://{}", directory.path().join("proxy").display());
        let python = env::var("PYTHON").unwrap_or_else(|_| "python3".into());
        let mut command = Command::new(python);
        command.args([
            "-m",
            "tests.support.proxy",
            &listen,
            target,
            "--seed",
            &seed.to_string(),
        ]);
        command
            .current_dir(root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        let endpoint = line["endpoint"].as_str().unwrap().to_owned();
        Self {
            process,
            lines,
            endpoint,
            _directory: directory,
        }
    }

    /// Stop it; returns how many faults there were.
    pub async fn stop(mut self) -> u64 {
        drop(self.process.stdin.take());
        let line: Value =
            serde_json::from_str(&self.lines.next_line().await.unwrap().unwrap()).unwrap();
        line["faults"]
            .as_object()
            .unwrap()
            .values()
            .filter_map(Value::as_u64)
            .sum()
    }
}

/// The folder of the whole project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Wait until a condition holds.
pub async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn message(number: usize) -> MessageInput {
    message_with(number, &number.to_string())
}

pub fn message_with(number: usize, content: &str) -> MessageInput {
    let timestamp = 1_767_225_600_000 + i64::try_from(number).unwrap();
    MessageInput::new(format!("m{number}"), "r1", content, timestamp).sender_id("ada")
}
