//! The client: what all handles share, the task that owns the connection, and requests.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use crate::address::{Location, target_of};
use crate::driver::{Driver, OnConnection};
use crate::envelope::{Encoded, encode};
use crate::generated::kind_of;
use crate::language::{Kind, Operation};
use crate::pending_calls::Request;
use crate::records::JsonObject;
use crate::{Error, Fault};

const TIMEOUT: Duration = Duration::from_secs(5);
/// So that no time that is waited for is beyond what the clock can tell.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(60 * 60 * 24 * 24);

type TraceContext = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// How to find the daemon, and what holds for all requests.
#[derive(Clone, Default)]
pub struct ClientOptions {
    pub(crate) location: Location,
    scope: Option<String>,
    timeout: Option<Duration>,
    on_connection: Option<OnConnection>,
    traceparent: Option<TraceContext>,
}

impl ClientOptions {
    /// The daemon of `BACKSCROLL_DATA_DIR`, or else of the platform's directory for data, and the
    /// scope `default`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The data directory of the daemon.
    #[must_use]
    pub fn data_dir(mut self, data_dir: impl Into<PathBuf>) -> Self {
        self.location.data_dir = Some(data_dir.into());
        self
    }

    /// The address of the daemon, such as `ipc:///run/chat/backscroll.sock` or
    /// `tcp://127.0.0.1:5555`.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.location.endpoint = Some(endpoint.into());
        self
    }

    /// The token for tcp; otherwise `BACKSCROLL_TOKEN`, or the one in the data directory.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.location.token = Some(token.into());
        self
    }

    /// The account whose data it is; `default` if left out.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// How long a request waits for its reply: five seconds if left out. The daemon does not start
    /// it later than that.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Called whenever a connection was made, and with a problem whenever it was lost or could not
    /// be made. It must not block: it is called by the task that reads replies.
    #[must_use]
    pub fn on_connection(
        mut self,
        callback: impl Fn(Option<&Error>) + Send + Sync + 'static,
    ) -> Self {
        self.on_connection = Some(Arc::new(callback));
        self
    }

    /// The W3C trace context of a request that has none of its own, such as that of the active
    /// span.
    #[must_use]
    pub fn traceparent(
        mut self,
        current: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.traceparent = Some(Arc::new(current));
        self
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Location {
            data_dir, endpoint, ..
        } = &self.location; // and not the token
        let mut shown = formatter.debug_struct("ClientOptions");
        shown
            .field("data_dir", data_dir)
            .field("endpoint", endpoint)
            .field("scope", &self.scope);
        shown
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// What holds for one request.
#[derive(Clone, Debug, Default)]
pub struct RequestOptions {
    timeout: Option<Duration>,
    request_id: Option<String>,
    traceparent: Option<String>,
}

impl RequestOptions {
    /// What holds for all requests of the client.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long the request waits for its reply.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The id of a command, 1 to 64 bytes, preferably a ULID.
    ///
    /// To be sure of a command even across a restart of the application, store the id before, and
    /// execute the same command with it until a reply comes: it takes effect once.
    #[must_use]
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// W3C trace context, for the daemon's log.
    #[must_use]
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }
}

/// A result, and the number of the scope's commit that it reflects.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer<T> {
    /// The result.
    pub result: T,
    /// For a command its own number, for a query that of the snapshot which it shows.
    pub seq: i64,
}

impl<T> Answer<T> {
    /// With what a function makes of the result.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            result: change(self.result),
            seq: self.seq,
        }
    }
}

/// A client of a backscroll daemon. It connects with the first request, and again whenever the
/// connection was lost.
///
/// A clone is another handle of the same client. One task owns the connection, on the Tokio runtime
/// of the first request; it ends when the last handle is dropped, or with [`close`](Self::close).
///
/// Requests take effect in the order in which their futures are first polled, so to pipeline
/// requests, poll them together, as with `futures::future::join_all`. Those without a reply are
/// sent again on a new connection, in that order and before any other; the daemon recognises
/// commands by their ids, so each takes effect once. At most 1,000 are in flight; more wait here,
/// up to 100,000 with bodies of 256 MiB, and beyond that are [`Busy`](crate::Code::Busy).
///
/// The error of a request is that of the daemon's reply if it had no effect,
/// [`Unavailable`](crate::Code::Unavailable) if nothing was sent, and
/// [`NoReply`](crate::Code::NoReply) if its outcome is unknown. Dropping a future stops waiting: a
/// request that was sent already may still take effect.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// What all handles of a client share, and what the last one drops.
struct Handle {
    driver: Arc<Driver>,
    options: ClientOptions,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.driver.close();
    }
}

impl Client {
    /// A client; whether a daemon answers, the first request shows.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::Code::Invalid) if it cannot connect to such an endpoint.
    pub fn new(options: ClientOptions) -> Result<Self, Error> {
        if let Some(endpoint) = &options.location.endpoint {
            target_of(endpoint)?;
        }
        let driver = Driver::new(options.location.clone(), options.on_connection.clone());
        Ok(Self {
            handle: Arc::new(Handle {
                driver: Arc::new(driver),
                options,
            }),
        })
    }

    /// Send any operation and wait for its result.
    ///
    /// # Errors
    ///
    /// Those of the operation, and those that every request may have.
    pub async fn send<O: Operation>(&self, operation: O) -> Result<O::Output, Error> {
        Ok(self.answer(operation, RequestOptions::new()).await?.result)
    }

    /// Send any operation with what holds for this request; its result comes with the number of the
    /// scope's commit that it reflects.
    ///
    /// # Errors
    ///
    /// Those of the operation, and those that every request may have.
    pub async fn answer<O: Operation>(
        &self,
        operation: O,
        options: RequestOptions,
    ) -> Result<Answer<O::Output>, Error> {
        let encoded = self.ask(&operation, &options).await?;
        Ok(Answer {
            result: encoded.decode()?,
            seq: encoded.seq,
        })
    }

    /// Send an operation by its name; it may be of a later level than this client.
    ///
    /// # Errors
    ///
    /// Those of the operation, and those that every request may have.
    pub async fn call<T: DeserializeOwned>(
        &self,
        name: &str,
        payload: &(impl Serialize + Sync),
        options: RequestOptions,
    ) -> Result<Answer<T>, Error> {
        let payload = encode(payload)?;
        // One that cannot be read has bytes, and does not wait.
        let fields: JsonObject = rmp_serde::from_slice(&payload).unwrap_or_default();
        let wait_ms = fields
            .get("waitMs")
            .and_then(serde_json::Value::as_i64)
            .unwrap_or(0);
        let encoded = self
            .request(name, kind_of(name), payload, wait_ms, &options)
            .await?;
        Ok(Answer {
            result: encoded.decode()?,
            seq: encoded.seq,
        })
    }

    /// Close the connection. Requests without a reply end with an error, later ones too, and what
    /// follows the feed ends.
    pub fn close(&self) {
        self.handle.driver.close();
    }

    /// Send an operation and wait for its encoded result.
    pub(crate) async fn ask<O: Operation>(
        &self,
        operation: &O,
        options: &RequestOptions,
    ) -> Result<Encoded, Error> {
        self.request(
            O::NAME,
            O::KIND,
            encode(operation)?,
            operation.wait_ms(),
            options,
        )
        .await
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.handle.driver.is_closed()
    }

    async fn request(
        &self,
        name: &str,
        kind: Kind,
        payload: Vec<u8>,
        wait_ms: i64,
        options: &RequestOptions,
    ) -> Result<Encoded, Error> {
        let of_client = &self.handle.options;
        let current = of_client
            .traceparent
            .as_ref()
            .filter(|_| options.traceparent.is_none());
        let current = current.and_then(|current| current());
        let now = Instant::now();
        let request = Request {
            name,
            kind,
            payload,
            wait_ms,
            timeout: options
                .timeout
                .or(of_client.timeout)
                .unwrap_or(TIMEOUT)
                .min(TIMEOUT_MAX),
            scope: of_client.scope.as_deref(),
            id: options.request_id.as_deref(),
            traceparent: options.traceparent.as_deref().or(current.as_deref()),
            now,
        };
        let outcome = self.handle.driver.execute(request).await;
        report_outcome(name, outcome.as_ref(), now.elapsed());
        outcome
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Client")
            .field("options", &self.handle.options)
            .finish_non_exhaustive()
    }
}

/// Write the outcome of a request to the log. The message of a caller's error may quote what people
/// wrote.
fn report_outcome(operation: &str, outcome: Result<&Encoded, &Error>, elapsed: Duration) {
    let ms = elapsed.as_secs_f64() * 1000.0;
    match outcome {
        Ok(answer) => debug!(operation, ms, seq = answer.seq, "ok"),
        Err(error) if error.fault() == Fault::Caller => {
            debug!(operation, ms, code = %error.code(), path = error.path(), "refused");
        }
        Err(error) => warn!(operation, ms, code = %error.code(), "{error}"),
    }
}
