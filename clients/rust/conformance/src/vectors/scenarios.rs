//! `scenarios.json`: steps that the client does on a real daemon.

use std::collections::HashMap;

use backscroll::Client;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

use crate::context::{Context, request};
use crate::files::{check_keys, difference, text};
use crate::{Difference, Failure};

const STEP_KEYS: [&str; 7] = [
    "type",
    "id",
    "payload",
    "scope",
    "meanwhile",
    "result",
    "error",
];

/// What the placeholders stand for.
type Bound = HashMap<String, Value>;

pub async fn play(vector: &Value, context: &mut Context) -> Result<Difference, Failure> {
    let mut bound = Bound::new();
    let scope = context.new_name("scope-");
    for (index, step) in vector["steps"]
        .as_array()
        .ok_or("expected steps")?
        .iter()
        .enumerate()
    {
        let differs = play_step(step, &scope, context, &mut bound).await?;
        if !differs.is_empty() {
            return Ok(format!("steps[{index}] ({}): {differs}", step["type"]));
        }
    }
    Ok(String::new())
}

async fn play_step(
    step: &Value,
    scope: &str,
    context: &mut Context,
    bound: &mut Bound,
) -> Result<Difference, Failure> {
    check_keys(step, &STEP_KEYS)?;
    let client = client_for(step, scope, context).await?;
    let reply = ask(client, step, bound)?;
    for inner in step["meanwhile"].as_array().into_iter().flatten() {
        let client = client_for(inner, scope, context).await?;
        let differs = compare(inner, &ask(client, inner, bound)?.await?, bound);
        if !differs.is_empty() {
            return Ok(differs);
        }
    }
    Ok(compare(step, &reply.await?, bound))
}

async fn client_for(step: &Value, scope: &str, context: &mut Context) -> Result<Client, Failure> {
    context
        .client(&format!(
            "{scope}{}",
            step["scope"].as_str().unwrap_or_default()
        ))
        .await
}

/// The result or the error of a step, asked for at once.
fn ask(client: Client, step: &Value, bound: &Bound) -> Result<JoinHandle<Value>, Failure> {
    let name = text(step, "type")?.to_owned();
    let payload = step
        .get("payload")
        .map_or_else(|| json!({}), |payload| filled(payload, bound));
    let id = step["id"].as_str().map(str::to_owned);
    Ok(tokio::spawn(async move {
        match request(&client, &name, payload, id.as_deref()).await {
            Ok(answer) => json!({"result": answer.result}),
            Err(error) => {
                let mut details = error.details().cloned().unwrap_or_default();
                let path = details.remove("path");
                json!({"error": {"code": error.code().as_str(), "path": path, "details": details}})
            }
        }
    }))
}

/// A payload with what its placeholders stand for.
fn filled(value: &Value, bound: &Bound) -> Value {
    match value {
        Value::String(text) => match text.strip_prefix('$') {
            Some(rest) if rest.starts_with('$') => rest.into(),
            Some(_) => bound.get(text).cloned().unwrap_or_default(),
            None => value.clone(),
        },
        Value::Array(items) => items.iter().map(|item| filled(item, bound)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, each)| (name.clone(), filled(each, bound)))
            .collect::<Map<_, _>>()
            .into(),
        _ => value.clone(),
    }
}

fn compare(step: &Value, found: &Value, bound: &mut Bound) -> Difference {
    let Some(expected) = step["error"].as_object() else {
        return match found.get("result") {
            Some(result) => differing(&step["result"], result, "result", bound),
            None => format!("expected a result, got {found}"),
        };
    };
    if found.get("error").is_none() {
        return format!("expected the error {}, got {found}", expected["code"]);
    }
    let mut parts = expected.iter().map(|(name, each)| {
        differing(each, &found["error"][name], &format!("error.{name}"), bound)
    });
    parts
        .find(|differs| !differs.is_empty())
        .unwrap_or_default()
}

/// What differs from what is expected, if anything; placeholders take what is there the first time.
fn differing(expected: &Value, actual: &Value, at: &str, bound: &mut Bound) -> Difference {
    match (expected, actual) {
        (Value::String(text), _) if text == "$any" => String::new(),
        (Value::String(text), _) if text.starts_with("$$") => {
            difference(at, Some(&text[1..].into()), Some(actual))
        }
        (Value::String(text), _) if text.starts_with('$') => {
            let bound = bound.entry(text.clone()).or_insert_with(|| actual.clone());
            difference(at, Some(bound), Some(actual))
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            let mut parts = wanted
                .iter()
                .zip(found)
                .enumerate()
                .map(|(index, (wanted, found))| {
                    differing(wanted, found, &format!("{at}[{index}]"), bound)
                });
            parts
                .find(|differs| !differs.is_empty())
                .unwrap_or_default()
        }
        (Value::Object(wanted), Value::Object(found)) if wanted.keys().eq(found.keys()) => {
            let mut parts = wanted
                .iter()
                .map(|(name, each)| differing(each, &found[name], &format!("{at}.{name}"), bound));
            parts
                .find(|differs| !differs.is_empty())
                .unwrap_or_default()
        }
        _ => difference(at, Some(expected), Some(actual)),
    }
}
