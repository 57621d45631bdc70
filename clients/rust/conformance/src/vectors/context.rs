//! What the sets share: a daemon that is started when it is first needed, and clients of it.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use backscroll::operations::*;
use backscroll::{Answer, Client, ClientOptions, Error, Operation, RequestOptions};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::Failure;
use crate::exchange::Exchange;

pub const TIMEOUT: Duration = Duration::from_secs(10);

pub struct Context {
    directory: TempDir,
    daemon: Option<(Child, String)>,
    clients: HashMap<String, Client>,
    exchange: Option<Exchange>,
    names: usize,
}

impl Context {
    pub fn new() -> Result<Self, Failure> {
        let directory = tempfile::Builder::new().prefix("backscroll-").tempdir()?;
        Ok(Self {
            directory,
            daemon: None,
            clients: HashMap::new(),
            exchange: None,
            names: 0,
        })
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A name that was not used yet.
    pub fn new_name(&mut self, start: &str) -> String {
        self.names += 1;
        format!("{start}{}", self.names)
    }

    /// A client of a scope, which lives as long as this.
    pub async fn client(&mut self, scope: &str) -> Result<Client, Failure> {
        if !self.clients.contains_key(scope) {
            let options = ClientOptions::new()
                .endpoint(self.endpoint().await?)
                .scope(scope)
                .timeout(TIMEOUT);
            self.clients.insert(scope.to_owned(), Client::new(options)?);
        }
        Ok(self.clients[scope].clone())
    }

    /// A connection for bodies that no client makes.
    pub async fn exchange(&mut self) -> Result<&mut Exchange, Failure> {
        if self.exchange.is_none() {
            self.exchange = Some(Exchange::open(&self.endpoint().await?).await?);
        }
        self.exchange.as_mut().ok_or_else(|| "no connection".into())
    }

    pub async fn stop(mut self) -> Result<(), Failure> {
        self.clients.clear();
        self.exchange = None;
        if let Some((mut daemon, _)) = self.daemon.take() {
            drop(daemon.stdin.take());
            daemon.wait().await?;
        }
        Ok(())
    }

    async fn endpoint(&mut self) -> Result<String, Failure> {
        if self.daemon.is_none() {
            self.daemon = Some(self.start().await?);
        }
        Ok(self
            .daemon
            .as_ref()
            .map(|(_, endpoint)| endpoint.clone())
            .unwrap_or_default())
    }

    async fn start(&self) -> Result<(Child, String), Failure> {
        let serve =
            std::env::var("CONFORMANCE_SERVE").unwrap_or_else(|_| "backscroll serve".into());
        let data_dir = self.directory.path().join("data");
        let mut command = Command::new("sh"); // `serve` is words of a shell
        command
            .arg("-c")
            .arg(format!("exec {serve} --data-dir \"$0\" --exit-with-parent"))
            .arg(&data_dir);
        let mut daemon = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = daemon.stdout.as_mut().ok_or("no standard output")?;
        if stdout.read(&mut [0]).await? == 0 {
            return Err(format!("the daemon ({serve}) ended with {}", daemon.wait().await?).into());
        }
        let ready: Value = serde_json::from_slice(&std::fs::read(data_dir.join("endpoint.json"))?)?;
        Ok((
            daemon,
            ready["endpoints"][0]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        ))
    }
}

/// The operations that vectors name, each as its type.
macro_rules! operations {
    ($($name:ident)*) => {
        /// Send an operation as its type if it is one, otherwise as it is. Bytes are base64 in the
        /// payload and the result.
        pub async fn request(client: &Client, name: &str, payload: Value, id: Option<&str>) -> Result<Answer<Value>, Error> {
            let options = id.map_or_else(RequestOptions::new, |id| RequestOptions::new().request_id(id));
            match name {
                PutMediaPart::NAME => put_media_part(client, payload, options).await,
                GetMediaPart::NAME => get_media_part(client, payload, options).await,
                $($name::NAME => match serde_json::from_value::<$name>(payload.clone()) {
                    Ok(operation) => typed(client, operation, options).await,
                    Err(_) => client.call(name, &payload, options).await,
                },)*
                _ => client.call(name, &payload, options).await,
            }
        }

        /// A result in MessagePack as that of its operation, written as JSON.
        pub fn result_of(name: &str, encoded: &backscroll::internal::Encoded) -> Result<Value, Error> {
            match name {
                $($name::NAME => encoded.decode::<<$name as Operation>::Output>().map(plain),)*
                Ping::NAME => encoded.decode::<<Ping as Operation>::Output>().map(plain),
                _ => encoded.decode(),
            }
        }
    };
}

operations! {
    SaveMessage UpdateMessage DeleteMessage GetMessageById GetMessagePage GetMessages GetMessagesByIds ListMessages
    CreateMessage SaveReaction RemoveReaction GetReactionsForMessage SaveUser UpdateUser GetUser ListUsers CreateUser
    GetCurrentUser SetCurrentUserId SaveRoom UpdateRoom GetRoom SaveMember GetMembers CreateChannel UpdateChannel
    GetChannel ListChannels CreateCategory ListCategories SaveBan GetBansForRoom IsUserBanned SaveAttachment
    GetAttachmentsForMessage CreateSession GetSession DeleteExpiredSessions PutMedia GetMedia GetChanges GetLog GetRows
    GetScopeInfo DeleteScope
}

async fn typed<O: Operation<Output: Serialize>>(
    client: &Client,
    operation: O,
    options: RequestOptions,
) -> Result<Answer<Value>, Error> {
    client
        .answer(operation, options)
        .await
        .map(|answer| answer.map(plain))
}

async fn put_media_part(
    client: &Client,
    payload: Value,
    options: RequestOptions,
) -> Result<Answer<Value>, Error> {
    let bytes = payload["data"]
        .as_str()
        .and_then(|data| BASE64_STANDARD.decode(data).ok());
    match bytes {
        Some(bytes) => typed(client, PutMediaPart::new().data(bytes), options).await,
        None => client.call(PutMediaPart::NAME, &payload, options).await,
    }
}

async fn get_media_part(
    client: &Client,
    payload: Value,
    options: RequestOptions,
) -> Result<Answer<Value>, Error> {
    let query =
        serde_json::from_value::<GetMediaPart>(payload).expect("the payload of get-media-part");
    client
        .answer(query, options)
        .await
        .map(|answer| answer.map(|part| BASE64_STANDARD.encode(part).into()))
}

fn plain(result: impl Serialize) -> Value {
    serde_json::to_value(result).expect("results have string keys")
}
