//! The client of backscroll, a storage daemon for chat applications.
//!
//! ```no_run
//! use backscroll::Client;
//! use backscroll::operations::{GetMessagePage, SaveMessage};
//! use backscroll::records::MessageInput;
//!
//! # async fn example() -> Result<(), backscroll::Error> {
//! let client = Client::open("./data").await?; // starts a daemon if none serves the directory
//! let message = MessageInput::new("m1", "home", "Hello!", 1_767_225_600_000).sender_id("ada");
//! client.save_message(SaveMessage::new(message)).await?;
//! let page = client.get_message_page(GetMessagePage::new("home").limit(50)).await?;
//! assert_eq!(page.messages[0].content, "Hello!");
//! # Ok(())
//! # }
//! ```
//!
//! [`Client`] has a method for each of the [`operations`], whose payloads and results are made of
//! [`records`]. An [`Error`] tells by its [`Code`] what happened. [`Client::watch`] and
//! [`Client::changes`] follow what changes, [`Client::upload`] and [`Client::download`] move files.
//!
//! It needs a Tokio runtime with I/O and time. Outcomes and connections are events of `tracing`,
//! without what people wrote.

#[cfg(not(unix))]
compile_error!("this client reaches its daemon over Unix sockets, so it needs a Unix");

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
