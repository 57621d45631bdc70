//! Requests, their results and errors; what the client does not know; deadlines, and the end of a
//! client.

use std::fs;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use backscroll::operations::*;
use backscroll::records::*;
use backscroll::{Client, ClientOptions, Code, Fault, RequestOptions};
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::task::block_in_place;
use tokio::time::timeout;

use crate::support::{
    Daemon, FakeDaemon, GREETING, LONG, READY, TCP, frame, message, message_with, ok,
    temporary_directory, wait_until,
};

const SHORT: Duration = Duration::from_millis(50);

fn object(value: Value) -> JsonObject {
    value.as_object().unwrap().clone()
}

/// Rule: what is saved is read back, over ipc and tcp.
#[tokio::test]
async fn saved_is_read_back() {
    for flags in [&[][..], &TCP] {
        let daemon = Daemon::start(flags).await;
        let client = daemon.client();
        let metadata = object(
            json!({"list": [1, 1.5, null, true], "nested": {"text": "é\0"}, "big": u64::MAX}),
        );
        let input = message_with(1, "hello 👋 \u{2028}")
            .edited_at(253_402_300_799_999)
            .revision((1 << 53) - 1)
            .metadata(metadata.clone());
        client.save_message(SaveMessage::new(input)).await.unwrap();
        let page = client
            .get_message_page(GetMessagePage::new("r1").limit(50))
            .await
            .unwrap();
        let [read] = &page.messages[..] else {
            panic!("{page:?}")
        };
        assert_eq!(
            (read.id.as_str(), read.content.as_str()),
            ("m1", "hello 👋 \u{2028}")
        );
        assert_eq!(
            (read.edited_at, read.revision),
            (Some(253_402_300_799_999), Some((1 << 53) - 1))
        );
        assert_eq!(
            (read.metadata.as_ref(), read.reactions.as_deref()),
            (Some(&metadata), Some(&[][..]))
        );
        assert_eq!(
            (read.is_deleted, read.ordinal, page.has_older),
            (false, 0, false)
        );
    }
}

/// Rule: in an update a field is left as it is, set, or cleared.
#[tokio::test]
async fn updates_have_three_states() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client();
    let metadata = object(json!({"a": 1}));
    client
        .save_message(SaveMessage::new(
            message(1).sender_name("Ada").metadata(metadata.clone()),
        ))
        .await
        .unwrap();
    let updates = MessageUpdates::new().clear_sender_name().content("new");
    client
        .update_message(UpdateMessage::new("m1", updates))
        .await
        .unwrap();
    let read = client
        .get_message_by_id(GetMessageById::new("m1"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (read.sender_name, read.metadata, read.content.as_str()),
        (None, Some(metadata), "new")
    );
    assert_eq!(
        client
            .get_message_by_id(GetMessageById::new("none"))
            .await
            .unwrap(),
        None
    );
}

/// Rule: an update that is read from JSON has the same three states, and refuses null where nothing
/// can be cleared.
#[test]
fn updates_in_json() {
    let read = |value: Value| serde_json::from_value::<MessageUpdates>(value);
    let updates = read(json!({"senderName": null, "content": "new"})).unwrap();
    assert_eq!(
        updates,
        MessageUpdates::new().clear_sender_name().content("new")
    );
    assert_eq!(
        serde_json::to_value(&updates).unwrap(),
        json!({"senderName": null, "content": "new"})
    );
    assert!(read(json!({"content": null})).is_err());
    assert!(read(json!({"sendreName": "Ada"})).is_err());
}

/// Rule: the bytes of a logged payload are bytes on the wire and base64 in a value, and other fields
/// stay as they are.
#[test]
fn logged_bytes_are_base64_in_values() {
    let payload = json!({"data": "AAH+/w==", "note": "AAH+"});
    let entry = LogEntryInput::new(1, 1, "c1", "put-media-part").payload(payload);
    let written = rmp_serde::to_vec_named(&entry).unwrap();
    assert!(
        written
            .windows(6)
            .any(|window| window == b"\xc4\x04\0\x01\xfe\xff")
    );
    assert_eq!(
        rmp_serde::from_slice::<LogEntryInput>(&written).unwrap(),
        entry
    );
    assert_eq!(
        serde_json::to_value(&entry).unwrap()["payload"]["data"],
        Value::from("AAH+/w==")
    );
}

/// Rule: the ids of requests are ULIDs, which rise, however many are made in a millisecond.
#[tokio::test]
async fn ids_rise() {
    let directory = temporary_directory();
    let fake = FakeDaemon::at(&directory.path().join("socket"), |request, _| {
        ok(request, json!({"pong": true}))
    });
    let client = Client::new(ClientOptions::new().endpoint(&fake.endpoint).timeout(LONG)).unwrap();
    join_all((0..1_000).map(|_| client.ping())).await;
    let requests = fake.requests();
    let ids: Vec<_> = requests
        .iter()
        .map(|request| request["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 1_000);
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(ids.iter().all(|id| id.len() == 26));
}

/// Rule: an error has the code, the fault, the path and the words of the daemon.
#[tokio::test]
async fn errors_are_those_of_the_daemon() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client();
    let update = || UpdateMessage::new("m1", MessageUpdates::new().content("x"));
    let missing = client.update_message(update()).await.unwrap_err();
    assert_eq!(
        (missing.code(), missing.fault(), missing.is_retryable()),
        (&Code::NotFound, Fault::Caller, false)
    );
    assert_eq!(missing.path(), Some("$.payload.messageId"));
    assert_eq!(
        missing.to_string(),
        "$.payload.messageId: there is no message 'm1'"
    );
    client
        .save_message(SaveMessage::new(message(1)))
        .await
        .unwrap();
    client
        .delete_message(DeleteMessage::new("m1"))
        .await
        .unwrap();
    assert_eq!(
        *client.update_message(update()).await.unwrap_err().code(),
        Code::Conflict
    );
    let late = client
        .save_message(SaveMessage::new(MessageInput::new("m2", "r1", "x", -1)))
        .await
        .unwrap_err();
    assert_eq!(
        (late.code(), late.path()),
        (&Code::Invalid, Some("$.payload.message.timestamp"))
    );
}

/// Rule: a batch is all or nothing, and its error lists each command that fails.
#[tokio::test]
async fn a_batch_says_what_fails() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client();
    let commands = [
        SaveMessage::new(message(1)).into(),
        DeleteMessage::new("none").into(),
        Initialize::new().into(),
    ];
    let error = client.batch(Batch::new(commands)).await.unwrap_err();
    let failures = error.failures();
    assert_eq!(failures.len(), 1);
    assert_eq!((failures[0].index, &failures[0].code), (1, &Code::NotFound));
    assert_eq!(failures[0].path, "$.payload.commands[1].payload.messageId");
    assert_eq!(
        client
            .get_message_by_id(GetMessageById::new("m1"))
            .await
            .unwrap(),
        None
    );
    let commands = [
        SaveMessage::new(message(1)).into(),
        CreateUser::new("a key").into(),
    ];
    let results = client.batch(Batch::new(commands)).await.unwrap();
    assert_eq!(
        (results[0].is_null(), results[1]["pubkey"].as_str()),
        (true, Some("a key"))
    );
}

/// Rule: an id makes a command take effect once, whoever sends it, and another command under it is
/// a conflict.
#[tokio::test]
async fn an_id_is_executed_once() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client();
    let mine = || RequestOptions::new().request_id("mine");
    let first = client
        .answer(CreateUser::new("a key"), mine())
        .await
        .unwrap();
    assert_eq!(
        daemon
            .client()
            .answer(CreateUser::new("a key"), mine())
            .await
            .unwrap(),
        first
    );
    let other = client
        .answer(CreateUser::new("another"), mine())
        .await
        .unwrap_err();
    assert_eq!(*other.code(), Code::Conflict);
    let save = || {
        client.answer(
            SaveMessage::new(message(1)),
            RequestOptions::new().request_id("same"),
        )
    };
    let (one, two) = join(save(), save()).await;
    assert!(one.is_ok());
    assert_eq!(
        two.unwrap_err().message(),
        "a request with the id \"same\" is already in flight"
    );
}

/// Rule: bad arguments are refused before anything is sent.
#[tokio::test]
async fn bad_arguments_are_not_sent() {
    let directory = temporary_directory();
    let fake = FakeDaemon::at(&directory.path().join("socket"), |request, _| {
        ok(request, Value::Null)
    });
    let client = Client::new(ClientOptions::new().endpoint(&fake.endpoint)).unwrap();
    for id in [String::new(), "x".repeat(65), "é".repeat(33)] {
        let options = RequestOptions::new().request_id(id);
        let error = client
            .answer(SaveMessage::new(message(1)), options)
            .await
            .unwrap_err();
        assert_eq!(
            error.message(),
            "a request id must be text of 1 to 64 bytes"
        );
    }
    let large = message_with(1, &"x".repeat(8 << 20));
    let error = client
        .save_message(SaveMessage::new(large))
        .await
        .unwrap_err();
    assert_eq!(*error.code(), Code::TooLarge);
    let error = client
        .call::<Value>("get-room", &"r1", RequestOptions::new())
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.path()),
        (&Code::Invalid, Some("$.payload"))
    );
    for endpoint in [
        "http://127.0.0.1",
        "curve://127.0.0.1:5555",
        "tcp://127.0.0.1:0",
        "tcp://h:65536",
        "ipc://",
    ] {
        let error = Client::new(ClientOptions::new().endpoint(endpoint)).unwrap_err();
        assert_eq!(*error.code(), Code::Invalid);
    }
    assert!(fake.bodies().is_empty());
}

/// Rule: the accounts of scopes are separate.
#[tokio::test]
async fn scopes_are_separate() {
    let daemon = Daemon::start(&[]).await;
    let [ada, bob] =
        ["ada", "bob"].map(|scope| Client::new(daemon.options().scope(scope)).unwrap());
    ada.save_message(SaveMessage::new(message(1)))
        .await
        .unwrap();
    assert_eq!(
        bob.get_message_by_id(GetMessageById::new("m1"))
            .await
            .unwrap(),
        None
    );
    assert!(
        ada.get_message_by_id(GetMessageById::new("m1"))
            .await
            .unwrap()
            .is_some()
    );
}

/// Rule: fields, values, codes and operations of a later level are kept.
#[tokio::test]
async fn what_is_of_a_later_level_is_kept() {
    let directory = temporary_directory();
    let fake = FakeDaemon::at(
        &directory.path().join("socket"),
        |request, _| match request["type"].as_str() {
            Some("get-user") => ok(
                request,
                json!({"oderId": "ada", "id": "u1", "username": "ada", "mood": {"of": "the future"}}),
            ),
            Some("list-tokens") => ok(
                request,
                json!([{"name": "bot", "right": "dream", "createdAt": 1}]),
            ),
            Some("summarise-room") => ok(request, json!({"summary": "all is well"})),
            _ => {
                let error = json!({"code": "teapot", "message": "short and stout", "fault": "caller", "hint": "later"});
                Some(json!({"id": request["id"], "ok": false, "error": error, "later": 1}))
            }
        },
    );
    let client = Client::new(ClientOptions::new().endpoint(&fake.endpoint).timeout(LONG)).unwrap();
    let user = client.get_user(GetUser::new("ada")).await.unwrap().unwrap();
    assert_eq!(user.extra["mood"]["of"], "the future");
    assert_eq!(
        serde_json::to_value(&user).unwrap()["mood"]["of"],
        "the future"
    );
    let tokens = client.list_tokens().await.unwrap();
    assert_eq!(tokens[0].right, Right::Other("dream".into()));
    let payload = json!({"roomId": "r1"});
    let summary = client
        .call::<Value>("summarise-room", &payload, RequestOptions::new())
        .await
        .unwrap();
    assert_eq!(
        (summary.result["summary"].as_str(), summary.seq),
        (Some("all is well"), 7)
    );
    let error = client.ping().await.unwrap_err();
    assert_eq!(
        (error.code(), error.fault()),
        (&Code::Other("teapot".into()), Fault::Caller)
    );
    assert_eq!(fake.requests()[0]["level"], 1);
    assert!(fake.requests()[1].get("level").is_none());
}

/// Rule: without a daemon the error says so, and what to do; after `close` too.
#[tokio::test]
async fn without_a_daemon() {
    let directory = temporary_directory();
    let client = Client::new(
        ClientOptions::new()
            .data_dir(directory.path())
            .timeout(SHORT),
    )
    .unwrap();
    let error = client.ping().await.unwrap_err();
    assert_eq!(
        (error.code(), error.is_retryable()),
        (&Code::Unavailable, true)
    );
    assert!(
        error.message().starts_with("no daemon is ready in "),
        "{error}"
    );
    assert!(
        error
            .message()
            .contains("start one with `backscroll serve --data-dir "),
        "{error}"
    );
    client.close();
    let error = client.ping().await.unwrap_err();
    assert_eq!(error.message(), "the client was closed; nothing was sent");
}

/// Rule: an address that nobody can connect to is an error of each call at once.
#[tokio::test]
async fn an_impossible_address() {
    let directory = temporary_directory();
    let announced = json!({"endpoints": ["tcp://127.0.0.1:99999"], "token": "a"}).to_string();
    fs::write(directory.path().join("endpoint.json"), announced).unwrap();
    let client = Client::new(
        ClientOptions::new()
            .data_dir(directory.path())
            .timeout(LONG),
    )
    .unwrap();
    for _ in 0..2 {
        assert_eq!(*client.ping().await.unwrap_err().code(), Code::Invalid);
    }
}

/// Rule: a client that waits finds a daemon that starts.
#[tokio::test]
async fn a_daemon_that_starts_is_found() {
    let mut daemon = Daemon::start(&[]).await;
    daemon.kill().await;
    let client = daemon.client();
    let (pong, ()) = join(client.ping(), daemon.restart()).await;
    assert!(pong.unwrap().pong);
}

/// Rule: when the time of a request is over, its outcome is unknown if it was sent, and the
/// connection of a daemon that says nothing is given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs() {
    let directory = temporary_directory();
    let answered = Arc::new(AtomicUsize::new(0));
    let counted = answered.clone();
    let (release, hung) = mpsc::channel::<()>();
    let hung = Mutex::new(hung);
    let fake = FakeDaemon::at(
        &directory.path().join("socket"),
        move |request, connection| {
            counted.fetch_add(1, Ordering::SeqCst);
            if connection == 1 {
                let _ = block_in_place(|| hung.lock().unwrap().recv());
            }
            ok(request, json!({"pong": true}))
        },
    );
    let client = Client::new(ClientOptions::new().endpoint(&fake.endpoint).timeout(LONG)).unwrap();
    let started = Instant::now();
    let options = RequestOptions::new().timeout(SHORT);
    let error = client.answer(Ping::new(), options).await.unwrap_err();
    drop(release);
    assert_eq!(*error.code(), Code::NoReply);
    assert_eq!(
        error.message(),
        "no reply within 50 ms: whether the request took effect is unknown"
    );
    assert!(started.elapsed() < LONG);
    assert!(client.ping().await.unwrap().pong); // over another connection
    assert_eq!(answered.load(Ordering::SeqCst), 2);
}

/// Rule: a request ends in time also while other replies arrive without a pause.
#[tokio::test(flavor = "multi_thread")]
async fn replies_without_a_pause() {
    let directory = temporary_directory();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let flooding = tokio::spawn(async move {
        let other = rmp_serde::to_vec_named(&json!({"id": "other", "ok": true, "result": null}));
        let replies = frame(&other.unwrap()).repeat(10_000);
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(GREETING).await.unwrap();
        stream.write_all(READY).await.unwrap();
        while stream.write_all(&replies).await.is_ok() {}
    });
    let options = ClientOptions::new().endpoint(format!("ipc://{}", path.display()));
    let client = Client::new(options.timeout(SHORT)).unwrap();
    let outcome = timeout(LONG, client.ping()).await.unwrap();
    assert_eq!(*outcome.unwrap_err().code(), Code::NoReply);
    client.close();
    flooding.await.unwrap();
}

/// Rule: a reply that came while the process was busy is not late.
#[tokio::test]
async fn a_busy_process_is_not_late() {
    let daemon = Daemon::start(&[]).await;
    let losses = Arc::new(AtomicUsize::new(0));
    let counted = losses.clone();
    let options = daemon.options().on_connection(move |problem| {
        counted.fetch_add(usize::from(problem.is_some()), Ordering::SeqCst);
    });
    let client = Client::new(options).unwrap();
    client.ping().await.unwrap();
    let waiting = client.answer(Ping::new(), RequestOptions::new().timeout(2 * SHORT));
    let working = async {
        tokio::task::yield_now().await; // the request is sent
        tokio::task::yield_now().await;
        std::thread::sleep(10 * SHORT);
    };
    let (answer, ()) = join(waiting, working).await;
    assert!(answer.unwrap().result.pong);
    assert_eq!(losses.load(Ordering::SeqCst), 0);
}

/// Rule: dropping a future stops waiting, and nothing else.
#[tokio::test]
async fn a_dropped_future_stops_waiting() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client();
    let cursor = client
        .get_changes(GetChanges::new().after("now"))
        .await
        .unwrap()
        .cursor;
    let waiting = client.get_changes(GetChanges::new().after(cursor).wait_ms(60_000));
    assert!(timeout(SHORT, waiting).await.is_err());
    assert!(client.ping().await.unwrap().pong);
}

/// Rule: at most 1,000 requests are in flight, and those beyond 100,000 are refused as `busy`.
#[tokio::test]
async fn what_waits_is_bounded() {
    let directory = temporary_directory();
    let client = Client::new(
        ClientOptions::new()
            .data_dir(directory.path())
            .timeout(20 * SHORT),
    )
    .unwrap();
    let calls = join_all((0..100_001).map(|_| client.ping()));
    let outcomes = tokio::task::unconstrained(calls).await;
    let busy: Vec<_> = outcomes
        .iter()
        .filter(|outcome| *outcome.as_ref().unwrap_err().code() == Code::Busy)
        .collect();
    assert_eq!(busy.len(), 1);
    let message = busy[0].as_ref().unwrap_err().to_string();
    assert!(
        message.starts_with("100000 requests of this client, of "),
        "{message}"
    );
}

/// Rule: a client can be used from all threads, and its futures can be sent between them.
#[test]
fn a_client_goes_to_any_thread() {
    fn check<T: Send + Sync>(value: T) -> T {
        value
    }
    fn check_future<T: Future + Send>(_: T) {}
    let client = check(Client::new(ClientOptions::new().data_dir("unused")).unwrap());
    check_future(client.clone().ping());
    check_future(client.save_message(SaveMessage::new(message(1))));
    check_future(client.upload(&b"x"[..], "text/plain", backscroll::UploadOptions::new()));
    check_future(client.watch(GetMessages::new("r1")).next());
}

/// Rule: the task of a client ends with its last handle, and its connection with it; a request that
/// waits is not cut off by another handle that is dropped.
#[tokio::test]
async fn the_task_ends_with_the_last_handle() {
    let daemon = Daemon::start(&[]).await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let client = daemon.client();
    client.ping().await.unwrap();
    assert_eq!(tasks(), before + 1);
    let other = client.clone();
    drop(client);
    other.ping().await.unwrap();
    drop(other);
    wait_until("the task has ended", async || tasks() == before).await;
}

/// Rule: `close` ends what waits, with an error that says whether it was sent, and the task.
#[tokio::test]
async fn close_ends_what_waits() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client();
    let cursor = client
        .get_changes(GetChanges::new().after("now"))
        .await
        .unwrap()
        .cursor;
    let waiting = client.get_changes(GetChanges::new().after(cursor).wait_ms(60_000));
    let closing = async {
        client.ping().await.unwrap();
        client.close();
    };
    let (waited, ()) = join(waiting, closing).await;
    let error = waited.unwrap_err();
    assert_eq!(*error.code(), Code::NoReply);
    assert_eq!(
        error.message(),
        "the client was closed: whether the request took effect is unknown"
    );
}

/// Rule: a client goes on with another runtime when that of its task was shut down.
#[test]
fn a_client_outlives_a_runtime() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let daemon = second.block_on(Daemon::start(&[]));
    let client = daemon.client();
    first.block_on(client.ping()).unwrap();
    drop(first);
    assert!(second.block_on(client.ping()).unwrap().pong);
}

/// Rule: a panic in the application's function harms no request, and the function is told of each
/// loss.
#[tokio::test]
async fn a_panic_in_on_connection_does_no_harm() {
    let directory = temporary_directory();
    let fake = FakeDaemon::at(&directory.path().join("socket"), |request, connection| {
        if connection == 1 {
            None
        } else {
            ok(request, json!({"pong": true}))
        }
    });
    let told = Arc::<Mutex<Vec<bool>>>::default();
    let kept = told.clone();
    let options = ClientOptions::new()
        .endpoint(&fake.endpoint)
        .timeout(LONG)
        .on_connection(move |problem| {
            kept.lock().unwrap().push(problem.is_none());
            panic::resume_unwind(Box::new("a bug")); // without a message
        });
    assert!(Client::new(options).unwrap().ping().await.unwrap().pong);
    assert_eq!(*told.lock().unwrap(), [true, false, true]);
}
