//! Payloads in the command log, which may have bytes: in a [`Value`] they are base64, as in JSON.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteBuf;
use serde_json::Value;

/// The field that is bytes, that of `put-media-part`.
const BYTES_FIELD: &str = "data";

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Field {
    Value(Value),
    Bytes(ByteBuf),
}

type Fields = BTreeMap<String, Field>;

/// Write base64 as bytes, except in JSON.
#[allow(clippy::ref_option, reason = "serde calls it so")]
pub fn serialize<S: Serializer>(payload: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    match payload {
        Some(Value::Object(fields))
            if !serializer.is_human_readable() && fields.contains_key(BYTES_FIELD) =>
        {
            let fields = fields
                .iter()
                .map(|(name, value)| (name.clone(), with_bytes(name, value)));
            fields.collect::<Fields>().serialize(serializer)
        }
        payload => payload.serialize(serializer),
    }
}

/// Read bytes as base64.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    let fields = Option::<Fields>::deserialize(deserializer)?;
    Ok(fields.map(|fields| {
        fields
            .into_iter()
            .map(|(name, field)| (name, without_bytes(field)))
            .collect()
    }))
}

fn with_bytes(name: &str, value: &Value) -> Field {
    let text = value.as_str().filter(|_| name == BYTES_FIELD);
    match text.and_then(|text| BASE64_STANDARD.decode(text).ok()) {
        Some(bytes) => Field::Bytes(ByteBuf::from(bytes)),
        None => Field::Value(value.clone()),
    }
}

fn without_bytes(field: Field) -> Value {
    match field {
        Field::Value(value) => value,
        Field::Bytes(bytes) => BASE64_STANDARD.encode(bytes).into(),
    }
}
