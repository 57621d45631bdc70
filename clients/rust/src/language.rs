//! What all operations have in common.

use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde::ser::Serialize;

use crate::records::Noun;

/// An operation of the language: its payload, and what belongs to it.
///
/// All operations are in [`operations`](crate::operations). [`Client::call`](crate::Client::call)
/// sends one that this client does not know.
pub trait Operation: Serialize + Send + Sync {
    /// The type of its result.
    type Output: DeserializeOwned;
    /// Its name on the wire, such as `save-message`.
    const NAME: &'static str;
    /// Its kind.
    const KIND: Kind;

    /// How long the daemon is asked to wait, in milliseconds.
    #[doc(hidden)]
    fn wait_ms(&self) -> i64 {
        0
    }
}

/// A query about stored items, whose result [`Client::watch`](crate::Client::watch) follows.
pub trait Query: Operation {
    /// Which kinds of items it reads; any if there is none here.
    #[doc(hidden)]
    const READS: &'static [Noun] = &[];

    /// The room that it reads, if it is one.
    #[doc(hidden)]
    fn room_id(&self) -> Option<&str> {
        None
    }
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// It changes what is stored, once for each id.
    Command,
    /// It reads what is stored.
    Query,
    /// It works on a whole scope, or on tokens and keys. The daemon does not remember its id.
    Maintenance,
    /// It is about the daemon itself.
    BuiltIn,
}

/// Whether a value is what stands for one that was left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Decode a field that is given, perhaps as null: one that is left out is `None`, null is
/// `Some(None)`.
pub(crate) fn given<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}
