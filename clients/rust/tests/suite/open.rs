//! Opening a directory: a client of the daemon that serves it, started if there is none.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use backscroll::operations::{GetMessageById, SaveMessage};
use backscroll::{Client, ClientOptions, Code, OpenOptions};
use futures_util::future::try_join;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    Daemon, FakeDaemon, Stop, TCP, message, ok, program, ready_in, temporary_directory, wait_until,
};

/// Where a test's child process opens a directory.
const CHILD_DIRECTORY: &str = "CHILD_DIRECTORY";

fn options() -> OpenOptions {
    OpenOptions::new().command([program()])
}

/// Whether a process is there and is no zombie.
fn is_running(pid: u64) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .any(|line| line.starts_with("State:") && !line.contains('Z'))
}

/// Rule: two that open a directory at once get clients of one daemon, which outlives them.
#[tokio::test]
async fn two_at_once() {
    let directory = temporary_directory();
    let data_dir = directory.path().join("new/data");
    let (one, two) = try_join(options().open(&data_dir), options().open(&data_dir))
        .await
        .unwrap();
    let _stop = Stop(data_dir.clone());
    let (pid, other) = (
        one.health().await.unwrap().pid,
        two.health().await.unwrap().pid,
    );
    assert_eq!(pid, other);
    one.save_message(SaveMessage::new(message(1)))
        .await
        .unwrap();
    drop((one, two));
    let again = options().open(&data_dir).await.unwrap();
    assert_eq!(again.health().await.unwrap().pid, pid);
    assert!(
        again
            .get_message_by_id(GetMessageById::new("m1"))
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        fs::read_to_string(data_dir.join("daemon.log"))
            .unwrap()
            .contains("\"event\":\"ready\"")
    );
}

/// Rule: a daemon that serves the directory is found, and what the options say of the client holds.
#[tokio::test]
async fn a_daemon_that_serves_is_found() {
    let daemon = Daemon::start(&TCP).await;
    let of_client = ClientOptions::new().scope("ada");
    let client = OpenOptions::new()
        .client(of_client)
        .command(["false"])
        .start_timeout(Duration::MAX)
        .open(daemon.data_dir())
        .await
        .unwrap();
    client
        .save_message(SaveMessage::new(message(1)))
        .await
        .unwrap();
    assert_eq!(
        daemon
            .client()
            .get_message_by_id(GetMessageById::new("m1"))
            .await
            .unwrap(),
        None
    );
}

/// Rule: after a kill the next one that opens starts a daemon, although the killed one's address is
/// still there.
#[tokio::test]
async fn after_a_kill() {
    let mut daemon = Daemon::start(&[]).await;
    daemon.kill().await;
    let client = options().open(daemon.data_dir()).await.unwrap();
    let _stop = Stop(daemon.data_dir().to_owned());
    assert!(client.ping().await.unwrap().pong);
}

/// Rule: whoever has a killed daemon's port is not taken for it.
#[tokio::test]
async fn another_program_on_the_port() {
    let directory = temporary_directory();
    let other = FakeDaemon::on(0, |request, _| {
        ok(request, json!({"proof": "0".repeat(64), "endpoints": []}))
    })
    .await;
    announce(directory.path(), &other.endpoint);
    let client = options().flags(TCP).open(directory.path()).await.unwrap();
    let _stop = Stop(directory.path().to_owned());
    assert!(client.ping().await.unwrap().pong);
    assert!(
        other
            .requests()
            .iter()
            .all(|request| request["type"] == "hello")
    );
}

fn announce(data_dir: &Path, endpoint: &str) {
    let announced = json!({"endpoints": [endpoint], "token": "a secret"}).to_string();
    fs::write(data_dir.join("endpoint.json"), announced).unwrap();
}

/// Rule: with `exit_with_parent` the daemon ends with the process that opened the directory.
#[tokio::test]
async fn exit_with_parent() {
    let directory = temporary_directory();
    let mut child = Command::new(env::current_exe().unwrap());
    child
        .args(["--exact", "open::child_that_opens", "--ignored"])
        .env(CHILD_DIRECTORY, directory.path());
    let mut child = child
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait_until("the child has opened", async || {
        directory.path().join("opened").exists()
    })
    .await;
    let pid = ready_in(directory.path())["pid"].as_u64().unwrap();
    assert!(is_running(pid));
    child.kill().await.unwrap();
    wait_until("the daemon has ended", async || !is_running(pid)).await;
    assert!(
        fs::metadata(directory.path().join("own.log"))
            .unwrap()
            .len()
            > 0
    );
}

/// Rule: a daemon that is not ready yet ends with `exit_with_parent` when nobody waits for it any
/// more: its standard input is not kept open.
#[tokio::test]
async fn a_start_that_is_given_up() {
    let directory = temporary_directory();
    let pid = directory.path().join("pid");
    let script = format!("echo $$ >{0}.new; mv {0}.new {0}; exec cat", pid.display());
    let options = OpenOptions::new()
        .command(["sh", "-c", &script])
        .exit_with_parent(true);
    let opening = tokio::spawn(options.open(directory.path().join("data")));
    wait_until("it has started", async || pid.exists()).await;
    opening.abort();
    let pid = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    wait_until("it has ended", async || !is_running(pid)).await;
}

/// What another test starts as a process: it opens a directory, and waits to be killed.
#[tokio::test]
#[ignore = "another test starts it"]
async fn child_that_opens() {
    let directory = PathBuf::from(env::var_os(CHILD_DIRECTORY).unwrap());
    let options = options()
        .exit_with_parent(true)
        .log_file(directory.join("own.log"));
    let client = options.open(&directory).await.unwrap();
    fs::write(
        directory.join("opened"),
        client.health().await.unwrap().pid.to_string(),
    )
    .unwrap();
    let _ = tokio::io::AsyncReadExt::read(&mut tokio::io::stdin(), &mut [0]).await;
}

/// Rule: what keeps a daemon from starting is said, with the directory and what to do.
#[tokio::test]
async fn what_keeps_a_daemon_from_starting() {
    let directory = temporary_directory();
    let data_dir = directory.path().join("data");
    let refused = async |options: OpenOptions, path: &Path| {
        let error = options.open(path).await.unwrap_err();
        assert_eq!(*error.code(), Code::Unavailable, "{error}");
        error.to_string()
    };
    let error = refused(OpenOptions::new().command(["no-such-program"]), &data_dir).await;
    assert!(
        error.starts_with("the daemon (no-such-program) cannot be started: "),
        "{error}"
    );
    assert!(error.ends_with("; check the option `command`"), "{error}");
    let error = refused(options().flags(["--no-such-flag"]), &data_dir).await;
    assert!(
        error.contains("ended with exit code 2 before it was ready: ")
            && error.contains("no-such-flag"),
        "{error}"
    );
    // Nothing of what the daemon before it wrote into the same log.
    let error = refused(OpenOptions::new().command(["true"]), &data_dir).await;
    assert!(
        error.ends_with("exit code 0 before it was ready: it wrote nothing to its log"),
        "{error}"
    );
    let error = refused(options().log_file(data_dir.join("none/log")), &data_dir).await;
    assert!(
        error.contains("because its log cannot be written: "),
        "{error}"
    );
    assert!(
        error.ends_with("; name another file in `log_file`"),
        "{error}"
    );
    let file = data_dir.join("daemon.log");
    for path in [file.clone(), file.join("data")] {
        let error = refused(options(), &path).await;
        assert!(
            error.starts_with(&format!("no daemon can be started in {}: ", path.display())),
            "{error}"
        );
    }
    let hung = OpenOptions::new()
        .command(["sh", "-c", "exec sleep 60"])
        .start_timeout(Duration::from_millis(200));
    let error = refused(hung, &data_dir).await;
    assert!(
        error.starts_with("the daemon was not ready in time, and was stopped; its log is "),
        "{error}"
    );
    let held = OpenOptions::new()
        .command(["sh", "-c", "exit 3"])
        .start_timeout(Duration::from_millis(200));
    let error = refused(held, &data_dir).await;
    assert!(
        error.starts_with(&format!(
            "no daemon served {} within 200 ms: ",
            data_dir.display()
        )),
        "{error}"
    );
}

/// Rule: a daemon of another level is told in words, unless it serves clients of this one.
#[tokio::test]
async fn daemons_of_other_levels() {
    let problems = [
        (
            0,
            0,
            Some(
                "speaks level 0 of the protocol, and this client was made for level 1: the daemon is too old; update backscroll",
            ),
        ),
        (
            9,
            8,
            Some(
                "speaks level 9 of the protocol, and this client was made for level 1: this client is too old; update this crate",
            ),
        ),
        (9, 1, None),
    ];
    for (level, lowest, problem) in problems {
        let directory = temporary_directory();
        let fake = FakeDaemon::at(&directory.path().join("socket"), move |request, _| {
            let is_health = request["type"] == "health";
            let health = json!({"level": level, "version": "0.0.9"});
            ok(
                request,
                if is_health {
                    health
                } else {
                    json!({"lowestCompatibleLevel": lowest})
                },
            )
        });
        announce(directory.path(), &fake.endpoint);
        let opened: Result<Client, _> = options().open(directory.path()).await;
        let found = opened.err().map(|error| error.to_string());
        match problem {
            Some(problem) => assert!(found.as_ref().unwrap().contains(problem), "{found:?}"),
            None => assert_eq!(found, None),
        }
    }
}

/// Rule: a path with `~` is a relative one, for the daemon and for the client.
#[tokio::test]
async fn a_path_is_taken_as_it_is() {
    let directory = temporary_directory();
    let client = options()
        .exit_with_parent(true)
        .open(directory.path().join("~/data"))
        .await
        .unwrap();
    let _stop = Stop(directory.path().join("~/data"));
    client
        .save_message(SaveMessage::new(message(1)))
        .await
        .unwrap();
    assert!(directory.path().join("~/data/default.db").exists());
    let described: Value = client.describe().await.unwrap().into();
    assert_eq!(described["level"], 1);
}
