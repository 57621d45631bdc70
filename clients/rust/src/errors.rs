//! The error of all that a client does.

use std::fmt;
use std::io;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::generated::errors::Code;
use crate::records::JsonObject;

/// Why a request has no result. [`code`](Self::code) tells the kinds apart.
///
/// It had no effect, except with [`Code::NoReply`], and with [`Code::Internal`] where a reply cannot
/// be read: then whether it took effect is unknown.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    code: Code,
    message: String,
    fault: Fault,
    is_retryable: bool,
    details: Option<JsonObject>,
    source: Option<io::Error>,
}

/// On whose side the reason for an error lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The request cannot succeed as it is; sending it again does not help.
    Caller,
    /// The daemon could not execute the request, or does not answer.
    Daemon,
}

/// One command of a batch that cannot be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedCommand {
    /// Its place in the batch.
    pub index: usize,
    /// What kind of error it is.
    pub code: Code,
    /// Empty where the list became too long for messages.
    pub message: String,
    /// The path of the field that it is about; empty if there is none.
    pub path: String,
}

impl Error {
    /// What kind of error it is.
    #[must_use]
    pub fn code(&self) -> &Code {
        &self.0.code
    }

    /// What happened, in words, and what to do. It may quote from the request.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// On whose side the reason lies.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.0.fault
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.is_retryable
    }

    /// More about the error, as the daemon tells it.
    #[must_use]
    pub fn details(&self) -> Option<&JsonObject> {
        self.0.details.as_ref()
    }

    /// The path of the field that the error is about, such as `$.payload.message.timestamp`.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.detail("path")?.as_str()
    }

    /// The cursor at which to go on after a [`Code::FeedGap`], when everything was read anew.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        self.detail("cursor")?.as_str()
    }

    /// The commands of a batch that failed, in their order; empty if the error is about something
    /// else.
    #[must_use]
    pub fn failures(&self) -> Vec<FailedCommand> {
        let listed = self.detail("failures").and_then(Value::as_array);
        listed
            .into_iter()
            .flatten()
            .map(FailedCommand::from_details)
            .collect()
    }

    fn detail(&self, name: &str) -> Option<&Value> {
        self.0.details.as_ref()?.get(name)
    }

    /// An error of the client itself.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        let fault = code.fault().unwrap_or(Fault::Daemon);
        let message = message.into();
        Self(Arc::new(Inner {
            code,
            message,
            fault,
            is_retryable: false,
            details: None,
            source: None,
        }))
    }

    /// The same error, after which the same request may succeed.
    fn retryable(self) -> Self {
        self.with(|inner| inner.is_retryable = true)
    }

    pub(crate) fn with_detail(self, name: &str, value: &str) -> Self {
        let details = [(name.to_owned(), Value::from(value))]
            .into_iter()
            .collect();
        self.with(|inner| inner.details = Some(details))
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(inner);
        }
        self
    }

    /// Nothing was sent.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message).retryable()
    }

    /// Nothing was sent, because too much else was.
    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self::new(Code::Busy, message).retryable()
    }

    /// A bad argument.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// A bad field.
    pub(crate) fn invalid_at(path: &str, problem: impl fmt::Display) -> Self {
        Self::invalid(format!("{path}: {problem}")).with_detail("path", path)
    }

    /// What a file is read from or written to failed.
    pub(crate) fn io(message: impl Into<String>, source: io::Error) -> Self {
        Self::new(Code::Io, message).with(|inner| inner.source = Some(source))
    }

    /// That of a reply. A code of a later level keeps its name, and has the fault that the reply
    /// says.
    pub(crate) fn from_reply(received: ReceivedError) -> Self {
        let code = received.code.as_deref().map_or(Code::Internal, Code::from);
        let said = if received.fault.as_deref() == Some("caller") {
            Fault::Caller
        } else {
            Fault::Daemon
        };
        Self(Arc::new(Inner {
            fault: code.fault().unwrap_or(said),
            message: received.message.unwrap_or_else(|| code.to_string()),
            is_retryable: received.retryable.unwrap_or_default(),
            details: received.details,
            source: None,
            code,
        }))
    }
}

/// The error in a reply, of which nothing is taken for granted.
#[derive(Deserialize)]
pub(crate) struct ReceivedError {
    code: Option<String>,
    message: Option<String>,
    fault: Option<String>,
    retryable: Option<bool>,
    details: Option<JsonObject>,
}

impl FailedCommand {
    fn from_details(listed: &Value) -> Self {
        let text = |name: &str| listed[name].as_str().unwrap_or_default();
        Self {
            index: listed["index"]
                .as_u64()
                .and_then(|index| index.try_into().ok())
                .unwrap_or_default(),
            code: Code::from(text("code")),
            message: text("message").to_owned(),
            path: text("path").to_owned(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            code,
            message,
            is_retryable,
            details,
            source,
            ..
        } = &*self.0;
        let mut shown = formatter.debug_struct("Error");
        shown
            .field("code", code)
            .field("message", message)
            .field("is_retryable", is_retryable);
        if let Some(details) = details {
            shown.field("details", details);
        }
        if let Some(source) = source {
            shown.field("source", source);
        }
        shown.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.0.source.as_ref()?)
    }
}
