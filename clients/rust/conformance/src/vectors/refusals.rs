//! `refusals.json`: bodies that no client makes, sent over one connection.

use regex_lite::RegexBuilder;
use serde_json::Value;

use crate::context::Context;
use crate::files::{difference, text, unhex};
use crate::{Difference, Failure};

pub async fn play(vector: &Value, context: &mut Context) -> Result<Difference, Failure> {
    let exchange = context.exchange().await?;
    for request in vector["before"].as_array().into_iter().flatten() {
        let reply = exchange.reply(request.to_string().as_bytes()).await?;
        if reply["ok"] != true {
            return Ok(format!("before it: {reply}"));
        }
    }
    let reply = exchange.reply(&body_of(vector)?).await?;
    let Some(error) = reply["error"].as_object() else {
        return Ok("the daemon accepts it".into());
    };
    let mut found = error.clone();
    let details = found.remove("details").unwrap_or_default();
    if let Some(path) = details.get("path") {
        found.insert("path".into(), path.clone());
    }
    let message = found.remove("message").unwrap_or_default();
    let mut expected = vector["error"].clone();
    let pattern = expected["message"].take();
    expected
        .as_object_mut()
        .ok_or("no error is expected")?
        .remove("message");
    let differs = difference("id", Some(&vector["id"]), Some(&reply["id"]));
    let differs = differs + &difference("error", Some(&expected), Some(&found.into()));
    let [pattern, message] = [&pattern, &message].map(|each| each.as_str().unwrap_or_default());
    let expression = RegexBuilder::new(&format!("^(?:{pattern})$"))
        .dot_matches_new_line(true)
        .build()?;
    if differs.is_empty() && !expression.is_match(message) {
        return Ok(format!("message: expected {pattern}, got {message}"));
    }
    Ok(differs)
}

/// The body of a vector, with its placeholders replaced by what they stand for.
fn body_of(vector: &Value) -> Result<Vec<u8>, Failure> {
    if vector["hex"].is_string() {
        return unhex(text(vector, "hex")?);
    }
    let mut body = text(vector, "json")?.to_owned();
    for (name, expansion) in vector["expand"].as_object().into_iter().flatten() {
        let part = expansion[0]
            .as_str()
            .ok_or("expected a text to expand to")?;
        let times = expansion[1]
            .as_u64()
            .ok_or("expected how many times")?
            .try_into()?;
        body = body.replace(name, &part.repeat(times));
    }
    Ok(body.into_bytes())
}
