//! temporary
mod address;
mod client;
mod daemon;
mod driver;
mod envelope;
mod errors;
mod feed;
mod generated;
mod language;
mod logged_payload;
mod media;
mod pending_calls;
mod transport;
mod ulid;
mod zmtp;

pub use client::{Answer, Client, ClientOptions, RequestOptions};
pub use daemon::OpenOptions;
pub use errors::{Error, FailedCommand, Fault};
pub use feed::{Changes, ChangesOptions, Watch, Watched};
pub use generated::errors::Code;
pub use generated::{limits, payloads as operations, records};
pub use language::{Kind, Operation, Query};
pub use media::UploadOptions;

/// What the conformance vectors play on. It is no part of the API and may change at any time.
#[doc(hidden)]
pub mod internal {
    pub use crate::address::{proof_of, target_of};
    pub use crate::envelope::Encoded;
    pub use crate::pending_calls::{Outcome, PendingCalls, Request};
    pub use crate::transport::stream_to;
    pub use crate::zmtp::Connection;
}
