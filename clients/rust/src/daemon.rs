//! Starting: a client of the daemon that serves a directory, which is started if there is none.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::forget;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout_at};

use crate::address::Location;
use crate::client::{Client, ClientOptions, RequestOptions, TIMEOUT_MAX};
use crate::generated::LEVEL;
use crate::records::JsonObject;
use crate::transport::connect;
use crate::{Code, Error, Fault};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The exit code of a daemon whose directory another one holds.
const HELD: i32 = 3;
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
const QUOTED_CHARS_MAX: usize = 2_000;
/// What the tar file of the daemon has, where it was unpacked.
const SIDECAR: &str = concat!(
    "backscroll-",
    env!("CARGO_PKG_VERSION"),
    "-linux-x64-gnu/backscroll"
);

/// How to open a data directory.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    client: ClientOptions,
    command: Option<Vec<OsString>>,
    flags: Vec<OsString>,
    exit_with_parent: bool,
    log_file: Option<PathBuf>,
    start_timeout: Option<Duration>,
}

impl OpenOptions {
    /// As [`Client::open`] does it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What holds for the client; its data directory is that which is opened, and its endpoint the
    /// daemon's.
    #[must_use]
    pub fn client(mut self, options: ClientOptions) -> Self {
        self.client = options;
        self
    }

    /// The program that starts a daemon, and its first arguments. If left out, that of the daemon's
    /// tar file if it was unpacked beside this program, or else `backscroll` on the `PATH`.
    #[must_use]
    pub fn command(mut self, command: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.command = Some(command.into_iter().map(Into::into).collect());
        self
    }

    /// Further flags of `backscroll serve`.
    #[must_use]
    pub fn flags(mut self, flags: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.flags = flags.into_iter().map(Into::into).collect();
        self
    }

    /// Let a daemon that is started here end with this process; otherwise it goes on, and others
    /// may use it.
    #[must_use]
    pub fn exit_with_parent(mut self, exit_with_parent: bool) -> Self {
        self.exit_with_parent = exit_with_parent;
        self
    }

    /// The file for the log of a daemon that is started here: `daemon.log` in the directory if left
    /// out.
    #[must_use]
    pub fn log_file(mut self, log_file: impl Into<PathBuf>) -> Self {
        self.log_file = Some(log_file.into());
        self
    }

    /// How long to wait until a daemon serves: 30 seconds if left out.
    #[must_use]
    pub fn start_timeout(mut self, start_timeout: Duration) -> Self {
        self.start_timeout = Some(start_timeout);
        self
    }

    /// A client of the daemon that serves a data directory; starts one if none does. See
    /// [`Client::open`].
    ///
    /// # Errors
    ///
    /// [`Unavailable`](Code::Unavailable) if no daemon starts, as in a directory that cannot be
    /// written, or if it speaks a level of the protocol that does not fit;
    /// [`Invalid`](Code::Invalid) or [`Unauthenticated`](Code::Unauthenticated) if the options
    /// cannot be used.
    pub async fn open(self, path: impl AsRef<Path>) -> Result<Client, Error> {
        // The same for the daemon and the client, whatever the daemon makes of a `~`.
        let data_dir = std::path::absolute(path)
            .map_err(|error| Error::invalid(format!("no data directory: {error}")))?;
        let mut options = self.client.data_dir(&data_dir);
        options.location.endpoint = None;
        let start = Start {
            location: options.location.clone(),
            log: self.log_file.unwrap_or_else(|| data_dir.join("daemon.log")),
            data_dir,
            program: Program::find(self.command),
            flags: self.flags,
            exit_with_parent: self.exit_with_parent,
            timeout: self.start_timeout.unwrap_or(START_TIMEOUT).min(TIMEOUT_MAX),
        };
        let client = Client::new(options)?;
        start.unless_served().await?;
        check_level(&client, &start.data_dir).await?;
        Ok(client)
    }
}

impl Client {
    /// A client of the daemon that serves a data directory; starts one if none does. When two
    /// programs open a directory at once, both get clients of the same daemon.
    ///
    /// The daemon that it starts goes on when this process ends, except with
    /// [`OpenOptions::exit_with_parent`]. To stop it, send it SIGTERM; [`health`](Self::health)
    /// says its `pid`.
    ///
    /// # Errors
    ///
    /// Those of [`OpenOptions::open`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), backscroll::Error> {
    /// let client = backscroll::Client::open("./data").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        OpenOptions::new().open(path).await
    }
}

/// A program that starts a daemon, its first arguments, and what to do if it cannot be started.
struct Program {
    path: OsString,
    words: Vec<OsString>,
    advice: &'static str,
}

impl Program {
    /// The command if one is given; or else that of the tar file beside this program; or else
    /// `backscroll` on the PATH.
    fn find(command: Option<Vec<OsString>>) -> Self {
        if let Some(command) = command {
            let mut words = command.into_iter();
            let path = words.next().unwrap_or_default();
            return Self {
                path,
                words: words.collect(),
                advice: "check the option `command`",
            };
        }
        let beside = env::current_exe()
            .ok()
            .map(|program| program.with_file_name(SIDECAR));
        if let Some(sidecar) = beside.filter(|path| path.is_file()) {
            let advice = "unpack the daemon's tar file again; it needs a Linux with glibc";
            return Self {
                path: sidecar.into(),
                words: Vec::new(),
                advice,
            };
        }
        Self {
            path: "backscroll".into(),
            words: Vec::new(),
            advice: "install the Python package `backscroll`, or unpack the daemon's tar file \
                     beside this program, or name a program in the option `command`",
        }
    }
}

/// How to start a daemon.
struct Start {
    location: Location,
    data_dir: PathBuf,
    program: Program,
    flags: Vec<OsString>,
    exit_with_parent: bool,
    log: PathBuf,
    timeout: Duration,
}

impl Start {
    /// Start a daemon unless one serves the directory, and wait until one does.
    async fn unless_served(&self) -> Result<(), Error> {
        let deadline = Instant::now() + self.timeout;
        let mut pause = PAUSE;
        // Its address may be that of a daemon that was killed, and another program, or another
        // directory's daemon, may have its port: so over tcp it has to prove who it is.
        while let Err(problem) = connect(&self.location).await {
            if problem.fault() == Fault::Caller {
                return Err(problem);
            }
            if Instant::now() > deadline {
                return Err(Error::unavailable(format!(
                    "no daemon served {} within {} ms: {problem}; the log of one that was started \
                     is {}",
                    self.data_dir.display(),
                    self.timeout.as_millis(),
                    self.log.display()
                )));
            }
            let log = self.open_log()?;
            let log_bytes = log.metadata().map_or(0, |found| found.len());
            let mut daemon = self.spawn(log)?;
            match self.ready_or_ended(&mut daemon, deadline).await? {
                // It ends with its standard input, which stays open until this process ends.
                None => forget(daemon.stdin.take().map(ChildStdin::into_owned_fd)),
                Some(HELD) => {
                    sleep(pause).await; // another one is starting or stopping there
                    pause = (2 * pause).min(PAUSE_MAX);
                }
                Some(code) => return Err(self.ended(code, log_bytes)),
            }
        }
        Ok(())
    }

    /// Open the daemon's log, in a data directory that may not be there yet.
    fn open_log(&self) -> Result<File, Error> {
        let nowhere = format!("no daemon can be started in {}", self.data_dir.display());
        let unusable = |problem: &str, error: io::Error, advice: &str| {
            Error::new(
                Code::Unavailable,
                format!("{nowhere}{problem}: {error}; {advice}"),
            )
        };
        fs::create_dir_all(&self.data_dir)
            .map_err(|error| unusable("", error, "name a directory that this user can write"))?;
        let is_large = fs::metadata(&self.log).is_ok_and(|found| found.len() > LOG_BYTES_MAX);
        let mut options = File::options();
        options.create(true).append(true).mode(0o600);
        let opened = options.open(&self.log).and_then(|log| {
            if is_large {
                log.set_len(0)?;
            }
            Ok(log)
        });
        opened.map_err(|error| {
            unusable(
                ", because its log cannot be written",
                error,
                "name another file in `log_file`",
            )
        })
    }

    fn spawn(&self, log: File) -> Result<Child, Error> {
        let mut command = std::process::Command::new(&self.program.path);
        command
            .args(&self.program.words)
            .arg("serve")
            .arg("--data-dir")
            .arg(&self.data_dir);
        command.stdout(Stdio::piped()).stderr(log);
        if self.exit_with_parent {
            command.arg("--exit-with-parent").stdin(Stdio::piped());
        } else {
            // What ends this program at a terminal is not for the daemon.
            command.stdin(Stdio::null()).process_group(0);
        }
        command.args(&self.flags);
        Command::from(command).spawn().map_err(|error| {
            Error::unavailable(format!(
                "the daemon ({}) cannot be started: {error}; {}",
                Path::new(&self.program.path).display(),
                self.program.advice
            ))
        })
    }

    /// Wait for the line that a daemon prints when it is ready; its exit code if it ended before.
    async fn ready_or_ended(
        &self,
        daemon: &mut Child,
        deadline: Instant,
    ) -> Result<Option<i32>, Error> {
        let mut first = [0];
        let stdout = daemon.stdout.take();
        let ready_or_ended = async {
            if let Some(mut stdout) = stdout {
                if stdout.read(&mut first).await.unwrap_or(0) > 0 {
                    return Ok(None);
                }
            }
            daemon
                .wait()
                .await
                .map(|status| Some(status.code().unwrap_or(-1)))
        };
        if let Ok(found) = timeout_at(deadline, ready_or_ended).await {
            return found.map_err(|error| {
                Error::unavailable(format!("the daemon cannot be waited for: {error}"))
            });
        }
        let _ = daemon.start_kill();
        let log = self.log.display();
        Err(Error::unavailable(format!(
            "the daemon was not ready in time, and was stopped; its log is {log}"
        )))
    }

    /// The error for a daemon that ended, with what it wrote to its log.
    fn ended(&self, code: i32, log_bytes: u64) -> Error {
        let said = read_from(&self.log, log_bytes).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let skipped = said
            .trim_end()
            .chars()
            .count()
            .saturating_sub(QUOTED_CHARS_MAX);
        let said: String = said.trim_end().chars().skip(skipped).collect();
        let said = if said.is_empty() {
            "it wrote nothing to its log"
        } else {
            &said
        };
        let program = Path::new(&self.program.path).display();
        Error::new(
            Code::Unavailable,
            format!(
                "the daemon ({program}) ended with exit code {code} before it was ready: {said}"
            ),
        )
    }
}

fn read_from(file: &Path, start: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(file)?;
    file.seek(SeekFrom::Start(start))?;
    let mut read = Vec::new();
    file.read_to_end(&mut read)?;
    Ok(read)
}

/// Say in words that a daemon's level of the protocol does not fit.
async fn check_level(client: &Client, data_dir: &Path) -> Result<(), Error> {
    // Not as their types: a daemon of another level may have others.
    let health = ask(client, "health").await?;
    let level = health
        .get("level")
        .and_then(Value::as_i64)
        .unwrap_or_default();
    if level == LEVEL {
        return Ok(());
    }
    if level > LEVEL {
        let described = ask(client, "describe").await?;
        let lowest = described
            .get("lowestCompatibleLevel")
            .and_then(Value::as_i64);
        if lowest.is_none_or(|lowest| lowest <= LEVEL) {
            return Ok(());
        }
    }
    let (older, update) = if level > LEVEL {
        ("this client", "this crate")
    } else {
        ("the daemon", "backscroll, and stop that daemon")
    };
    let data_dir = data_dir.display();
    let version = health
        .get("version")
        .and_then(Value::as_str)
        .unwrap_or("of an unknown version");
    Err(Error::new(
        Code::Unavailable,
        format!(
            "the daemon that serves {data_dir} (backscroll {version}) speaks level {level} of the \
             protocol, and this client was made for level {LEVEL}: {older} is too old; update {update}"
        ),
    ))
}

async fn ask(client: &Client, name: &str) -> Result<JsonObject, Error> {
    Ok(client
        .call(name, &JsonObject::new(), RequestOptions::new())
        .await?
        .result)
}
