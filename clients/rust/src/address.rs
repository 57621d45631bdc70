//! Where a daemon is, what it takes to be served there, and whether what answers there is that
//! daemon.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::generated::errors::Code;
use crate::limits::AUTH_BYTES;
use crate::records::{JsonObject, Proof};
use crate::ulid::random_bytes;

const ENDPOINT_FILE: &str = "endpoint.json";
const DATA_DIR_VARIABLE: &str = "BACKSCROLL_DATA_DIR";
const TOKEN_VARIABLE: &str = "BACKSCROLL_TOKEN";
const HELLO_PREFIX: &str = "backscroll-hello";
const LOOPBACK_HOSTS: [&str; 3] = ["127.0.0.1", "[::1]", "localhost"];
/// So much of an error code is quoted: whoever sent it may be anybody.
const CODE_CHARS_MAX: usize = 64;

/// How to find a daemon: by its data directory, or by its endpoint.
#[derive(Clone, Default)]
pub struct Location {
    pub data_dir: Option<PathBuf>,
    pub endpoint: Option<String>,
    pub token: Option<String>,
}

/// An endpoint, and over tcp the token that its daemon asks for.
#[derive(Debug)]
pub struct Address {
    pub endpoint: String,
    pub token: Option<String>,
}

/// What to connect to.
#[derive(Debug)]
pub enum Target {
    Ipc(PathBuf),
    Tcp(String, u16),
}

/// What a ready daemon wrote into its data directory.
#[derive(Default)]
struct Announced {
    endpoints: Vec<String>,
    token: Option<String>,
}

/// Find the daemon. Its files are read anew each time, because a daemon that was started again may
/// have another address and another token.
pub fn find_address(location: &Location) -> Result<Address, Error> {
    let given = location.endpoint.as_deref();
    if let Some(endpoint) = given.filter(|endpoint| endpoint.starts_with("ipc://")) {
        return Ok(Address {
            endpoint: endpoint.to_owned(),
            token: None,
        });
    }
    let directory = location
        .data_dir
        .clone()
        .map_or_else(default_data_dir, Ok)?;
    let announced = Announced::read(&directory);
    let Some(endpoint) = given
        .or_else(|| announced.first_endpoint())
        .map(str::to_owned)
    else {
        let directory = directory.display();
        return Err(Error::unavailable(format!(
            "no daemon is ready in {directory}: start one with `backscroll serve --data-dir \
             {directory}`, or have `open` start it"
        )));
    };
    if endpoint.starts_with("ipc://") {
        return Ok(Address {
            endpoint,
            token: None,
        });
    }
    let of_daemon = announced
        .token
        .clone()
        .filter(|_| announced.lists(&endpoint));
    let of_variable = env::var(TOKEN_VARIABLE).ok();
    let later = if given.is_none() {
        [of_daemon, of_variable]
    } else {
        [of_variable, of_daemon]
    };
    let chosen = location
        .token
        .clone()
        .into_iter()
        .chain(later.into_iter().flatten())
        .find(|token| !token.is_empty());
    let Some(token) = chosen else {
        let message = format!(
            "there is no token for {endpoint}: name the daemon's data directory, or give a token \
             made by `backscroll token create`, as `token` or in the environment variable \
             {TOKEN_VARIABLE}"
        );
        return Err(Error::new(Code::Unauthenticated, message));
    };
    let is_printable =
        !token.contains(|each: char| each.is_control() || matches!(each, '\u{2028}' | '\u{2029}'));
    if !is_printable || token.len() as u64 > AUTH_BYTES {
        return Err(Error::invalid(format!(
            "the token for {endpoint} is none: it must be printable text of at most {AUTH_BYTES} \
             bytes"
        )));
    }
    Ok(Address {
        endpoint,
        token: Some(token),
    })
}

/// What to connect to at an endpoint, if this client can.
pub fn target_of(endpoint: &str) -> Result<Target, Error> {
    if let Some(path) = endpoint
        .strip_prefix("ipc://")
        .filter(|path| !path.is_empty())
    {
        return Ok(Target::Ipc(path.into()));
    }
    let tcp = endpoint
        .strip_prefix("tcp://")
        .and_then(|address| address.rsplit_once(':'));
    if let Some((host, Ok(port @ 1..))) = tcp.map(|(host, port)| (host, port.parse())) {
        if !host.is_empty() {
            let plain = host
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            return Ok(Target::Tcp(plain.unwrap_or(host).to_owned(), port));
        }
    }
    let hint = if endpoint.starts_with("curve://") {
        "this client has no CURVE: use ipc, or tcp on the same machine"
    } else {
        "an address is such as tcp://127.0.0.1:5555 or ipc:///PATH"
    };
    Err(Error::invalid(format!(
        "cannot connect to {endpoint:?}: {hint}"
    )))
}

/// The platform's directory for the data of this user, or the one named by `BACKSCROLL_DATA_DIR`.
pub fn default_data_dir() -> Result<PathBuf, Error> {
    if let Some(named) = variable(DATA_DIR_VARIABLE) {
        return match named.strip_prefix("~") {
            Ok(rest) => Ok(home()?.join(rest)),
            Err(_) => Ok(named),
        };
    }
    if cfg!(target_os = "macos") {
        return Ok(home()?.join("Library/Application Support/backscroll"));
    }
    let data = variable("XDG_DATA_HOME").map_or_else(|| Ok(home()?.join(".local/share")), Ok)?;
    Ok(data.join("backscroll"))
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn home() -> Result<PathBuf, Error> {
    env::home_dir()
        .filter(|home| !home.as_os_str().is_empty())
        .ok_or_else(|| {
            Error::invalid(
                "this user has no home directory: name a data directory, as `data_dir` or in \
                 BACKSCROLL_DATA_DIR",
            )
        })
}

impl Announced {
    /// What a ready daemon wrote, which is beside its socket elsewhere if it cannot write into its
    /// data directory.
    fn read(directory: &Path) -> Self {
        let elsewhere = runtime_dir(directory);
        let own = elsewhere
            .parent()
            .filter(|parent| is_own(parent))
            .map(|_| elsewhere.as_path());
        own.into_iter()
            .chain([directory])
            .find_map(Self::read_file)
            .unwrap_or_default()
    }

    /// What a file says; nothing if it is missing, or being replaced.
    fn read_file(directory: &Path) -> Option<Self> {
        let read: JsonObject =
            serde_json::from_slice(&fs::read(directory.join(ENDPOINT_FILE)).ok()?).ok()?;
        let endpoints = read.get("endpoints")?.as_array()?;
        let endpoints = endpoints
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        Some(Self {
            endpoints,
            token: read.get("token").and_then(Value::as_str).map(str::to_owned),
        })
    }

    /// The first endpoint that this client can use, or else one that it cannot.
    fn first_endpoint(&self) -> Option<&str> {
        let usable = self
            .endpoints
            .iter()
            .find(|endpoint| !endpoint.starts_with("curve://"));
        usable.or(self.endpoints.first()).map(String::as_str)
    }

    fn lists(&self, endpoint: &str) -> bool {
        self.endpoints
            .iter()
            .any(|each| with_one_loopback(each) == with_one_loopback(endpoint))
    }
}

/// Where a daemon that cannot write into its data directory has its files.
fn runtime_dir(directory: &Path) -> PathBuf {
    let real = fs::canonicalize(directory).or_else(|_| std::path::absolute(directory));
    let real = real.unwrap_or_else(|_| directory.to_owned());
    let digest = hex(&Sha256::digest(real.as_os_str().as_encoded_bytes()));
    let runtime = variable("XDG_RUNTIME_DIR").unwrap_or_else(env::temp_dir);
    runtime
        .join(format!("backscroll-{}", rustix::process::getuid().as_raw()))
        .join(&digest[..16])
}

/// Whether a directory belongs to this user: others can make one of any name below that for
/// temporary files.
fn is_own(directory: &Path) -> bool {
    let found = fs::symlink_metadata(directory);
    found.is_ok_and(|found| found.is_dir() && found.uid() == rustix::process::getuid().as_raw())
}

/// The endpoint with the same name for all loopback hosts, which differ only in the port.
fn with_one_loopback(endpoint: &str) -> String {
    let parts = endpoint
        .split_once("://")
        .and_then(|(transport, rest)| Some((transport, rest.rsplit_once(':')?)));
    match parts {
        Some((transport, (host, port))) if LOOPBACK_HOSTS.contains(&host) => {
            format!("{transport}://localhost:{port}")
        }
        _ => endpoint.to_owned(),
    }
}

/// The question whose answer proves that the daemon knows a token, before the token is sent:
/// whatever listens on a tcp port may be another program, after a daemon was killed.
pub struct Greeting<'a> {
    nonce: String,
    endpoint: &'a str,
    token: &'a str,
}

impl<'a> Greeting<'a> {
    pub fn new(endpoint: &'a str, token: &'a str) -> Self {
        Self {
            nonce: hex(&random_bytes::<16>()),
            endpoint,
            token,
        }
    }

    /// Random text in hex, 32 digits.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// The name in a token such as `bot.q8Jx…`; the start token has none.
    pub fn token_name(&self) -> Option<&str> {
        self.token
            .rsplit_once('.')
            .map(|(name, _)| name)
            .filter(|name| !name.is_empty())
    }

    /// Whether this is a proof about this token, this connection's nonce, and a daemon that is
    /// bound to this port.
    pub fn is_proven(&self, proof: &Proof) -> bool {
        let port = port_of(self.endpoint);
        let mac = mac_of(self.token, &self.nonce, &proof.endpoints);
        let given = unhex(&proof.proof);
        given.is_some_and(|given| mac.verify_slice(&given).is_ok())
            && proof
                .endpoints
                .iter()
                .any(|endpoint| port_of(endpoint) == port)
    }

    /// The error for an answer that proves nothing.
    pub fn problem(&self, code: Option<&Code>) -> Error {
        let endpoint = self.endpoint;
        if code == Some(&Code::Unauthenticated) {
            let name = self.token_name().unwrap_or_default();
            return Error::new(
                Code::Unauthenticated,
                format!(
                    "the daemon at {endpoint} does not know the token {name:?}: it was revoked, has \
                     expired, or is for another daemon; nothing was sent"
                ),
            );
        }
        let code = code.map(|code| {
            code.as_str()
                .chars()
                .take(CODE_CHARS_MAX)
                .collect::<String>()
        });
        let answer = code
            .map(|code| format!(" and answered {code:?}"))
            .unwrap_or_default();
        Error::unavailable(format!(
            "whatever answers at {endpoint} did not prove that it knows the token{answer}: it is \
             another program, or the token is wrong or for another daemon; nothing was sent"
        ))
    }
}

/// What a daemon that knows a token answers to `hello`, in hex.
pub fn proof_of(token: &str, nonce: &str, endpoints: &[String]) -> String {
    hex(&mac_of(token, nonce, endpoints).finalize().into_bytes())
}

fn mac_of(token: &str, nonce: &str, endpoints: &[String]) -> Hmac<Sha256> {
    let key = Sha256::digest(token.as_bytes());
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
    mac.update(HELLO_PREFIX.as_bytes());
    for line in [nonce]
        .into_iter()
        .chain(endpoints.iter().map(String::as_str))
    {
        mac.update(b"\n");
        mac.update(line.as_bytes());
    }
    mac
}

fn port_of(endpoint: &str) -> &str {
    endpoint.rsplit_once(':').map_or(endpoint, |(_, port)| port)
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
