//! What goes around an operation: requests in MessagePack, and what replies have.

use std::io::Cursor;
use std::ops::Range;

use rmp::decode::{read_map_len, read_str_from_slice};
use rmp::encode::{write_map_len, write_sint, write_str};
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned, IgnoredAny};

use crate::Error;
use crate::errors::ReceivedError;
use crate::generated::errors::Code;

/// About what the fields need that differ between attempts.
const OTHER_BYTES: usize = 128;
const IN_MEMORY: &str = "writing to memory succeeds";

/// A value in the envelope of a request.
#[derive(Clone, Copy)]
pub enum Field<'a> {
    Text(&'a str),
    Number(i64),
}

/// A request in MessagePack. The payload is encoded once, so that it has the same bytes whenever it
/// is sent.
pub struct Envelope {
    fields: Vec<u8>,
    count: u32,
    payload: Vec<u8>,
}

impl Envelope {
    /// With what each request has.
    pub fn new(id: &str, name: &str, payload: Vec<u8>) -> Self {
        let mut envelope = Self {
            fields: Vec::new(),
            count: 1,
            payload,
        };
        envelope.add("id", Field::Text(id));
        envelope.add("type", Field::Text(name));
        envelope
    }

    /// Add a field.
    pub fn add(&mut self, name: &str, value: Field<'_>) {
        write_field(&mut self.fields, name, value);
        self.count += 1;
    }

    /// How many bytes a body has, at least.
    pub fn len(&self) -> usize {
        self.fields.len() + self.payload.len()
    }

    /// A body with these fields as well, and with another payload if one is given.
    pub fn body(&self, others: &[(&str, Field<'_>)], payload: Option<&[u8]>) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.len() + OTHER_BYTES);
        let count = self.count + u32::try_from(others.len()).unwrap_or_default();
        write_map_len(&mut body, count).expect(IN_MEMORY);
        body.extend_from_slice(&self.fields);
        for (name, value) in others {
            write_field(&mut body, name, *value);
        }
        write_str(&mut body, "payload").expect(IN_MEMORY);
        body.extend_from_slice(payload.unwrap_or(&self.payload));
        body
    }
}

fn write_field(bytes: &mut Vec<u8>, name: &str, value: Field<'_>) {
    write_str(bytes, name).expect(IN_MEMORY);
    match value {
        Field::Text(text) => write_str(bytes, text).expect(IN_MEMORY),
        Field::Number(number) => {
            write_sint(bytes, number).expect(IN_MEMORY);
        }
    }
}

/// A payload in MessagePack, which must be a map.
pub fn encode(payload: &impl Serialize) -> Result<Vec<u8>, Error> {
    let encoded = rmp_serde::to_vec_named(payload)
        .map_err(|error| Error::invalid(format!("the payload cannot be written: {error}")))?;
    match encoded.first() {
        Some(0x80..=0x8f | 0xde | 0xdf) => Ok(encoded),
        _ => Err(Error::invalid_at(
            "$.payload",
            "expected a map, such as a struct with named fields",
        )),
    }
}

/// A reply, of which the result is not decoded yet.
pub struct Reply<'a> {
    body: &'a [u8],
    /// Missing where the daemon could not read that of the request.
    pub id: Option<&'a str>,
    is_ok: bool,
    result: Option<Range<usize>>,
    seq: i64,
    error: Option<ReceivedError>,
}

impl<'a> Reply<'a> {
    /// Read a body; an error of the code `internal` if it is no reply.
    pub fn read(body: &'a [u8]) -> Result<Self, Error> {
        Self::parse(body)
            .ok_or_else(|| Error::new(Code::Internal, "the daemon sent an invalid reply"))
    }

    fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reply = Self {
            body,
            id: None,
            is_ok: false,
            result: None,
            seq: 0,
            error: None,
        };
        let mut has_ok = false;
        let mut rest = body;
        for _ in 0..read_map_len(&mut rest).ok()? {
            let (name, after) = read_str_from_slice(rest).ok()?;
            let (value, after) = after.split_at_checked(length_of_value(after)?)?;
            rest = after;
            match name {
                "id" => reply.id = decode(value).ok()?,
                "ok" => (reply.is_ok, has_ok) = (decode(value).ok()?, true),
                "result" => {
                    let end = body.len() - rest.len();
                    reply.result = Some(end - value.len()..end);
                }
                "seq" => reply.seq = decode::<Option<i64>>(value).ok()?.unwrap_or_default(),
                "error" => reply.error = decode(value).ok()?,
                _ => {}
            }
        }
        let is_whole = if reply.is_ok {
            reply.result.is_some()
        } else {
            reply.error.is_some()
        };
        (rest.is_empty() && has_ok && is_whole).then_some(reply)
    }

    /// The result, or the error.
    pub fn outcome(self) -> Result<Encoded, Error> {
        match (self.error, self.result) {
            (_, Some(result)) if self.is_ok => Ok(Encoded {
                body: self.body.to_vec(),
                result,
                seq: self.seq,
            }),
            (Some(error), _) => Err(Error::from_reply(error)),
            _ => Err(Error::new(
                Code::Internal,
                "the daemon sent an invalid reply",
            )),
        }
    }
}

/// A result that is not decoded yet.
#[derive(Debug)]
pub struct Encoded {
    body: Vec<u8>,
    result: Range<usize>,
    /// The number of the scope's commit that it reflects.
    pub seq: i64,
}

impl Encoded {
    /// The bytes of the result.
    pub fn bytes(&self) -> &[u8] {
        &self.body[self.result.clone()]
    }

    /// The result as its type; an error of the code `internal` if it is another one.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        rmp_serde::from_slice(self.bytes()).map_err(|error| {
            Error::new(
                Code::Internal,
                format!("the daemon's result does not have the declared type: {error}"),
            )
        })
    }
}

fn decode<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, rmp_serde::decode::Error> {
    rmp_serde::from_slice(value)
}

/// How many bytes the first value has.
fn length_of_value(bytes: &[u8]) -> Option<usize> {
    let mut deserializer = rmp_serde::Deserializer::new(Cursor::new(bytes));
    IgnoredAny::deserialize(&mut deserializer).ok()?;
    usize::try_from(deserializer.position()).ok()
}
