//! The files of `schema/vectors`, whose README says what they mean.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{Difference, Failure};

pub fn load(directory: &Path, set: &str) -> Result<Value, Failure> {
    Ok(serde_json::from_slice(&fs::read(
        directory.join(format!("{set}.json")),
    )?)?)
}

/// Fail if a vector or a step has a key that this runner does not know.
pub fn check_keys(value: &Value, known: &[&str]) -> Result<(), Failure> {
    let fields = value.as_object().ok_or("expected an object")?;
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("unknown key {key}").into()),
        None => Ok(()),
    }
}

/// What differs, in words; empty if nothing does.
pub fn difference(what: &str, expected: Option<&Value>, actual: Option<&Value>) -> Difference {
    if expected == actual {
        return String::new();
    }
    format!(
        "{what}: expected {}, got {}",
        text_of(expected),
        text_of(actual)
    )
}

fn text_of(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), Value::to_string)
}

pub fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str, Failure> {
    value[name]
        .as_str()
        .ok_or_else(|| format!("{name} is no text").into())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub fn unhex(text: &str) -> Result<Vec<u8>, Failure> {
    let digits = |at| text.get(at..at + 2).ok_or("half a byte");
    (0..text.len())
        .step_by(2)
        .map(|at| Ok(u8::from_str_radix(digits(at)?, 16)?))
        .collect()
}
