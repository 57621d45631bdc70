//! What an application can attach: its log, and the trace context of its spans.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use backscroll::operations::{GetRoom, Ping, SaveMessage, SaveUser};
use backscroll::records::UserInput;
use backscroll::{Client, ClientOptions, RequestOptions};
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::support::{FakeDaemon, message_with, ok, refusal, temporary_directory, wait_until};

/// Keeps the lines of the crate.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("backscroll")
    }

    fn event(&self, event: &Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                if field.name() != "ms" {
                    write!(self.0, " {}={value:?}", field.name()).unwrap();
                }
            }
        }
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Rule: the log gets outcomes and connections, and nothing of what people wrote.
#[tokio::test]
async fn the_log_has_outcomes() {
    let recorder = Recorder::default();
    let _guard = tracing::subscriber::set_default(recorder.clone());
    let directory = temporary_directory();
    let fake = FakeDaemon::at(
        &directory.path().join("socket"),
        |request, _| match request["type"].as_str() {
            Some("save-user") => refusal(request, "busy", "daemon"),
            Some("get-room") => refusal(request, "not-found", "caller"),
            _ => ok(request, json!(null)),
        },
    );
    let client = Client::new(ClientOptions::new().endpoint(&fake.endpoint)).unwrap();
    client
        .save_message(SaveMessage::new(message_with(1, "a secret")))
        .await
        .unwrap();
    client.get_room(GetRoom::new("r1")).await.unwrap_err();
    let user = UserInput::new("ada", "ada", "ada").display_name("a secret");
    client.save_user(SaveUser::new(user)).await.unwrap_err();
    fake.cut();
    wait_until("the loss is told", async || {
        recorder.0.lock().unwrap().len() >= 5
    })
    .await;
    let lines = recorder.0.lock().unwrap();
    assert_eq!(lines[0], "DEBUG message=connected");
    assert_eq!(
        lines[1],
        "DEBUG message=ok operation=\"save-message\" seq=7"
    );
    assert_eq!(
        lines[2],
        "DEBUG message=refused operation=\"get-room\" code=not-found"
    );
    assert_eq!(
        lines[3],
        "WARN message=refused: busy operation=\"save-user\" code=busy"
    );
    assert!(
        lines[4].starts_with("WARN message=not connected: no daemon answers at ipc:"),
        "{}",
        lines[4]
    );
    assert!(!lines.iter().any(|line| line.contains("secret")));
}

/// Rule: a request has its own trace context, or else the client's at that moment.
#[tokio::test]
async fn trace_contexts() {
    let directory = temporary_directory();
    let fake = FakeDaemon::at(&directory.path().join("socket"), |request, _| {
        ok(request, json!({"pong": true}))
    });
    let span = Arc::<Mutex<Option<String>>>::default();
    let current = span.clone();
    let options = ClientOptions::new().endpoint(&fake.endpoint);
    let client = Client::new(options.traceparent(move || current.lock().unwrap().clone())).unwrap();
    client.ping().await.unwrap();
    *span.lock().unwrap() = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into());
    client.ping().await.unwrap();
    let own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    client
        .answer(Ping::new(), RequestOptions::new().traceparent(own))
        .await
        .unwrap();
    let contexts: Vec<_> = fake
        .requests()
        .iter()
        .map(|request| request["traceparent"].clone())
        .collect();
    assert_eq!(
        contexts,
        [
            json!(null),
            json!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            json!(own)
        ]
    );
}
