//! The example of the README: word for word, and with a daemon that is killed in the middle.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use backscroll::operations::GetLog;

use crate::support::{Daemon, Stop, program, root, temporary_directory};

const ATTEMPTS: usize = 5;
/// The example waits for five seconds.
const SLOW: Duration = Duration::from_secs(3);
const PRINTED: &str = "ada: Hello! 👋\n";

/// The example, which is built with the tests.
fn example() -> PathBuf {
    let tests = env::current_exe().unwrap();
    tests
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/hello")
}

/// What the example prints with a daemon's directory, or its error.
async fn run(data_dir: &Path) -> Result<String, String> {
    let done = Command::new(example())
        .arg(data_dir)
        .output()
        .await
        .unwrap();
    let [printed, error] = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap());
    if done.status.success() {
        Ok(printed)
    } else {
        Err(error)
    }
}

/// Rule: the README shows the example as it is.
#[test]
fn the_readme_shows_the_example() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = fs::read_to_string(folder.join("examples/hello.rs")).unwrap();
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(readme.contains(&format!("```rust\n{code}```")));
}

/// Rule: the example runs.
#[tokio::test]
async fn the_example_runs() {
    let daemon = Daemon::start(&[]).await;
    assert_eq!(run(daemon.data_dir()).await.as_deref(), Ok(PRINTED));
}

/// Copy a program. Not in this process: what another thread starts meanwhile would have the copy open
/// for writing, and such a file cannot be executed.
async fn install(program: &Path, copy: &Path) {
    let mut command = Command::new("install");
    command.args(["-D", "-m", "755"]).arg(program).arg(copy);
    assert!(command.status().await.unwrap().success());
}

/// Rule: without a `backscroll` on the PATH, the daemon is that of the tar file of the project's
/// version, which was unpacked beside the program.
#[tokio::test]
async fn the_daemon_is_found_beside_the_program() {
    let project = fs::read_to_string(root().join("pyproject.toml")).unwrap();
    let version = project
        .lines()
        .find_map(|line| line.strip_prefix("version = "))
        .unwrap()
        .trim_matches('"');
    let directory = temporary_directory();
    let copy = directory.path().join("hello");
    install(&example(), &copy).await;
    let run = async || {
        let mut command = Command::new(&copy);
        command.arg(directory.path().join("data")).env("PATH", "");
        let done = command.output().await.unwrap();
        let [printed, error] = [done.stdout, done.stderr].map(String::from_utf8);
        (printed.unwrap(), error.unwrap())
    };
    let (printed, error) = run().await;
    assert_eq!(printed, "");
    assert!(
        error.contains("or unpack the daemon's tar file beside this program"),
        "{error}"
    );

    let sidecar = directory
        .path()
        .join(format!("backscroll-{version}-linux-x64-gnu"));
    let path = env::var("PATH").unwrap();
    let script = format!("#!/bin/sh\nPATH='{path}' exec '{}' \"$@\"\n", program());
    let written = directory.path().join("script");
    fs::write(&written, script).unwrap();
    install(&written, &sidecar.join("backscroll")).await;
    let (printed, error) = run().await;
    let _stop = Stop(directory.path().join("data"));
    assert_eq!(printed, PRINTED, "{error}");
}

/// A directory that leads to a daemon through a relay. The relay kills the daemon once, at the
/// first request of a type: either in place of sending it, or when its reply has come, which is
/// then not passed on. Then it starts it again.
struct KillingRelay {
    directory: TempDir,
    daemon: Arc<Mutex<Daemon>>,
    /// How long the daemon was away.
    away: Arc<Mutex<Duration>>,
    accepting: JoinHandle<()>,
}

impl KillingRelay {
    async fn start(name: &'static str, kills_at_reply: bool) -> Self {
        let directory = temporary_directory();
        let path = directory.path().join("relay.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let announced = json!({"endpoints": [format!("ipc://{}", path.display())]}).to_string();
        fs::write(directory.path().join("endpoint.json"), announced).unwrap();
        let daemon = Arc::new(Mutex::new(Daemon::start(&[]).await));
        let away = Arc::<Mutex<Duration>>::default();
        let (relayed, measured) = (daemon.clone(), away.clone());
        let accepting = tokio::spawn(async move {
            let mut has_killed = false;
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let target = relayed.lock().await.endpoint();
                let daemon = UnixStream::connect(target.strip_prefix("ipc://").unwrap())
                    .await
                    .unwrap();
                let name = (!has_killed).then_some(name);
                if relay(client, daemon, name, kills_at_reply).await {
                    has_killed = true;
                    let (mut away, started) = (measured.lock().await, Instant::now());
                    relayed.lock().await.restart().await;
                    *away = started.elapsed();
                }
            }
        });
        Self {
            directory,
            daemon,
            away,
            accepting,
        }
    }
}

/// Pass on what both sides send; true when the moment to kill the daemon has come, false at the end
/// of the connection.
async fn relay(
    mut client: UnixStream,
    mut daemon: UnixStream,
    name: Option<&str>,
    kills_at_reply: bool,
) -> bool {
    let mut is_asked = false;
    let (mut request, mut reply) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(size @ 1..) = read else { return false };
                let has_name = |name: &str| request[..size].windows(name.len()).any(|each| each == name.as_bytes());
                is_asked = name.is_some_and(has_name);
                if is_asked && !kills_at_reply {
                    return true;
                }
                daemon.write_all(&request[..size]).await.unwrap();
            }
            read = daemon.read(&mut reply) => {
                let Ok(size @ 1..) = read else { return false };
                if is_asked {
                    return true;
                }
                client.write_all(&reply[..size]).await.unwrap();
            }
        }
    }
}

/// Rule: when the daemon is killed at a request of the example, or at its reply, nothing is lost
/// and nothing done twice.
#[tokio::test]
async fn the_example_survives_kills() {
    let moments = [
        ("save-message", true),
        ("save-reaction", false),
        ("get-message-page", true),
    ];
    for (name, kills_at_reply) in moments {
        survives_kill(name, kills_at_reply).await;
    }
}

/// On a machine so busy that the daemon is away for nearly as long as the example waits for a
/// reply, its error shows nothing, and it is tried again.
async fn survives_kill(name: &'static str, kills_at_reply: bool) {
    for _ in 0..ATTEMPTS {
        let relay = KillingRelay::start(name, kills_at_reply).await;
        let outcome = run(relay.directory.path()).await;
        if outcome.is_err() && *relay.away.lock().await > SLOW {
            continue;
        }
        assert_eq!(outcome.as_deref(), Ok(PRINTED), "{name}");
        relay.accepting.abort();
        let client = relay.daemon.lock().await.client();
        let log = client.get_log(GetLog::new()).await.unwrap();
        let types: Vec<_> = log
            .entries
            .iter()
            .map(|entry| entry.r#type.as_str())
            .collect();
        assert_eq!(types, ["save-message", "save-reaction"], "{name}");
        return;
    }
    panic!("the daemon never started within {SLOW:?}");
}
