//! `retry.json`: the events are played on the client's own `PendingCalls`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use backscroll::internal::{Outcome, PendingCalls, Request};
use backscroll::operations::*;
use backscroll::{Code, Kind, Operation};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::files::difference;
use crate::{Difference, Failure};

const TIMEOUT_MS: u64 = 5_000;

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Event {
    at: u64,
    r#do: String,
    #[serde(default)]
    call: String,
    #[serde(default)]
    kind: String,
    wait_ms: Option<u64>,
    timeout_ms: Option<u64>,
    kilobytes: Option<usize>,
    #[serde(default)]
    with: String,
    sends: Option<Value>,
    outcomes: Option<Value>,
    #[serde(default)]
    gives_up: bool,
}

/// A row of the table: the state and the outcome that its event leads to.
pub fn play_row(vector: &Value, states: &Value) -> Result<Difference, Failure> {
    let named = vector["state"].as_str().ok_or("expected a state")?;
    let before: Vec<Event> = serde_json::from_value(states[named].clone())?;
    let mut machine = Machine::new();
    for event in before {
        machine.play(&event)?;
    }
    let state = named.split(',').next().map(Value::from);
    let begins = difference(
        "the state before",
        state.as_ref(),
        Some(&machine.state("a")),
    );
    machine.play(&serde_json::from_value(vector["event"].clone())?)?;
    let outcome = machine
        .outcomes
        .get("a")
        .filter(|_| named != "settled")
        .cloned()
        .map(Value::from);
    Ok(begins
        + &difference("to", Some(&vector["to"]), Some(&machine.state("a")))
        + &difference("outcome", vector.get("outcome"), outcome.as_ref()))
}

pub fn play_sequence(vector: &Value) -> Result<Difference, Failure> {
    let events: Vec<Event> = serde_json::from_value(vector["events"].clone())?;
    let mut machine = Machine::new();
    for (index, event) in events.iter().enumerate() {
        let differs = machine.play(event)?;
        if !differs.is_empty() {
            return Ok(format!("events[{index}] ({}): {differs}", event.r#do));
        }
    }
    Ok(String::new())
}

struct Machine {
    start: Instant,
    calls: PendingCalls,
    /// Those that were added and have no outcome yet, in their order.
    waiting: Vec<(String, oneshot::Receiver<Outcome>)>,
    numbers: HashMap<String, (u64, String)>,
    outcomes: BTreeMap<String, String>,
    clients: BTreeSet<String>,
    /// When the latest reply arrived; before anything was sent, if none did on this connection.
    received_at: Instant,
    gives_up: bool,
}

impl Machine {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            start: now + Duration::from_secs(1),
            calls: PendingCalls::default(),
            waiting: Vec::new(),
            numbers: HashMap::new(),
            outcomes: BTreeMap::new(),
            clients: BTreeSet::new(),
            received_at: now,
            gives_up: false,
        }
    }

    /// The state of a call, in the words of the table.
    fn state(&self, name: &str) -> Value {
        self.calls.state_of(name).into()
    }

    /// Do an event; returns what it led to and should not have.
    fn play(&mut self, event: &Event) -> Result<Difference, Failure> {
        self.gives_up = false;
        let mut settled: Vec<Value> = Vec::new();
        let sends = in_ranges(self.act(event, &mut settled)?);
        self.settled(&mut settled);
        let outcomes: serde_json::Map<_, _> = in_ranges(settled)
            .into_iter()
            .map(|each| {
                (
                    each["call"].as_str().unwrap_or_default().to_owned(),
                    each["outcome"].clone(),
                )
            })
            .collect();
        let expected = if event.r#do == "send" {
            event.sends.clone()
        } else {
            Some(json!([]))
        };
        let sends = Value::from(sends);
        let mut differs = difference(
            "sends",
            Some(&expected.unwrap_or_else(|| sends.clone())),
            Some(&sends),
        );
        let expected = event.outcomes.clone().unwrap_or_else(|| json!({}));
        differs += &difference("outcomes", Some(&expected), Some(&outcomes.into()));
        differs += &difference(
            "givesUp",
            Some(&event.gives_up.into()),
            Some(&self.gives_up.into()),
        );
        if self.clients.len() > 1 {
            differs += "the commands have not all the same `client`";
        }
        Ok(differs)
    }

    /// Do an event; returns what is sent. What is settled at once is in `settled`.
    fn act(&mut self, event: &Event, settled: &mut Vec<Value>) -> Result<Vec<Value>, Failure> {
        let now = self.start + Duration::from_millis(event.at);
        match event.r#do.as_str() {
            "add" => {
                for name in calls_in(&event.call)? {
                    self.add(event, now, name, settled)?;
                }
            }
            "send" => return self.send(now),
            "reply" => {
                self.received_at = now;
                for name in calls_in(&event.call)? {
                    let reply = rmp_serde::to_vec_named(&self.reply(&name, &event.with))?;
                    self.calls.handle_reply(&reply, now)?;
                }
            }
            "connected" => {
                self.received_at = now
                    .checked_sub(Duration::from_millis(1))
                    .ok_or("no time before it")?;
                self.calls.reconnected();
            }
            "wait" => self.calls.queue_retry(Some(now)),
            "deadline" => {
                for name in calls_in(&event.call)? {
                    let (number, _) = self.numbers.get(&name).ok_or("no such call")?;
                    self.gives_up |= self.calls.time_out(*number, None, Some(self.received_at));
                }
            }
            "close" => self.calls.close(),
            other => return Err(format!("unknown event {other}").into()),
        }
        Ok(Vec::new())
    }

    fn add(
        &mut self,
        event: &Event,
        now: Instant,
        name: String,
        settled: &mut Vec<Value>,
    ) -> Result<(), Failure> {
        let (operation, kind, mut payload) = match event.kind.as_str() {
            "command" => (Initialize::NAME, Kind::Command, json!({})),
            "query" => (GetUser::NAME, Kind::Query, json!({"userId": "ada"})),
            "waiting" => (GetChanges::NAME, Kind::Query, json!({})),
            "maintenance" => (DeleteScope::NAME, Kind::Maintenance, json!({})),
            "large" => (
                SaveUser::NAME,
                Kind::Command,
                json!({"user": {"oderId": "ada", "id": "ada"}}),
            ),
            other => return Err(format!("unknown kind {other}").into()),
        };
        if let Some(wait_ms) = event.wait_ms {
            payload["waitMs"] = wait_ms.into();
        }
        if let Some(kilobytes) = event.kilobytes {
            payload["padding"] = "x".repeat(1_000 * kilobytes).into();
        }
        let request = Request {
            name: operation,
            kind,
            payload: rmp_serde::to_vec_named(&payload)?,
            wait_ms: event.wait_ms.unwrap_or(0).try_into()?,
            timeout: Duration::from_millis(event.timeout_ms.unwrap_or(TIMEOUT_MS)),
            scope: None,
            id: Some(&name),
            traceparent: None,
            now,
        };
        let (settle, outcome) = oneshot::channel();
        match self.calls.add(request, settle) {
            Ok(number) => {
                self.numbers
                    .insert(name.clone(), (number, event.kind.clone()));
                self.waiting.push((name, outcome));
            }
            Err(error) => {
                settled.push(json!({"call": name, "outcome": error.code().as_str()}));
                self.outcomes.insert(name, error.code().to_string());
            }
        }
        Ok(())
    }

    fn settled(&mut self, settled: &mut Vec<Value>) {
        self.waiting.retain_mut(|(name, outcome)| {
            let Ok(outcome) = outcome.try_recv() else {
                return true;
            };
            let outcome =
                outcome.map_or_else(|error| error.code().to_string(), |_| "ok".to_owned());
            settled.push(json!({"call": name, "outcome": outcome}));
            self.outcomes.insert(name.clone(), outcome);
            false
        });
    }

    fn reply(&self, id: &str, with: &str) -> Value {
        let is_waiting = self
            .numbers
            .get(id)
            .is_some_and(|(_, kind)| kind == "waiting");
        if with == "ok" && is_waiting {
            return json!({"id": id, "ok": true, "result": {"changes": [], "cursor": "c", "more": false}, "seq": 1});
        }
        if with == "ok" {
            return json!({"id": id, "ok": true, "result": null, "seq": 1});
        }
        let is_of_caller = !matches!(
            Code::from(with),
            Code::Busy
                | Code::Unavailable
                | Code::Storage
                | Code::Internal
                | Code::DeadlineExceeded
        );
        let fault = if is_of_caller { "caller" } else { "daemon" };
        let error = json!({"code": with, "message": "refused", "fault": fault, "retryable": true});
        json!({"id": id, "ok": false, "error": error})
    }

    fn send(&mut self, now: Instant) -> Result<Vec<Value>, Failure> {
        let mut sends = Vec::new();
        while let Some(body) = self.calls.next_body(now, None) {
            let body: Value = rmp_serde::from_slice(&body)?;
            if let Some(client) = body["client"].as_str() {
                self.clients.insert(client.to_owned());
            }
            if body["client"].is_null() != body["n"].is_null() {
                return Err("`client` and `n` go together".into());
            }
            let mut sent = json!({"call": body["id"], "deadlineMs": body["deadlineMs"]});
            for (name, value) in [("n", &body["n"]), ("waitMs", &body["payload"]["waitMs"])] {
                if !value.is_null() {
                    sent[name] = value.clone();
                }
            }
            sends.push(sent);
        }
        Ok(sends)
    }
}

/// The names of the calls in `a`, or in `a-1 to a-1000`.
fn calls_in(names: &str) -> Result<Vec<String>, Failure> {
    let Some((first, last)) = names.split_once(" to ") else {
        return Ok(vec![names.to_owned()]);
    };
    let ((group, low), (_, high)) = (
        split(first).ok_or("no range")?,
        split(last).ok_or("no range")?,
    );
    Ok((low..=high)
        .map(|number| format!("{group}-{number}"))
        .collect())
}

/// Entries of calls with successive numbers, such as `a-1` and `a-2`, as one, if nothing but `n`
/// differs, which has to rise with them.
fn in_ranges(entries: Vec<Value>) -> Vec<Value> {
    let mut ranges: Vec<(Value, u64)> = Vec::new();
    for entry in entries {
        match ranges.last_mut() {
            Some((first, count)) if is_next(first, *count, &entry) => *count += 1,
            _ => ranges.push((entry, 1)),
        }
    }
    let written = |(mut first, count): (Value, u64)| {
        if let Some((group, low)) =
            split(first["call"].as_str().unwrap_or_default()).filter(|_| count > 1)
        {
            first["call"] = format!("{group}-{low} to {group}-{}", low + count - 1).into();
        }
        first
    };
    ranges.into_iter().map(written).collect()
}

/// Whether an entry comes so many calls after the first one of a range.
fn is_next(first: &Value, after: u64, entry: &Value) -> bool {
    let Some((group, number)) = split(first["call"].as_str().unwrap_or_default()) else {
        return false;
    };
    let mut expected = first.clone();
    expected["call"] = format!("{group}-{}", number + after).into();
    if let Some(n) = first["n"].as_u64() {
        expected["n"] = (n + after).into();
    }
    expected == *entry
}

fn split(name: &str) -> Option<(&str, u64)> {
    let (group, number) = name.rsplit_once('-')?;
    Some((group, number.parse().ok()?))
}
