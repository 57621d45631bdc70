//! Who is calling: tokens, and whether what answers is the daemon.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backscroll::operations::{
    DeleteScope, GetLog, GetMessageById, ListTokens, ListUsers, SaveMessage,
};
use backscroll::{Client, ClientOptions, Code, Error};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::support::{
    Daemon, FakeDaemon, GREETING, LONG, TCP, backscroll, message, message_with, ok, refusal,
    temporary_directory, wait_until,
};

const SHORT: Duration = Duration::from_millis(300);

/// Rule: a token without the right or the scope is `forbidden`, and one that was revoked
/// `unauthenticated`.
#[tokio::test]
async fn read_only_revoked_and_unknown_tokens() {
    let daemon = Daemon::start(&TCP).await;
    let words = [
        "token", "create", "bot", "--right", "read", "--scope", "ada",
    ];
    let token = backscroll(&words, daemon.data_dir())
        .await
        .lines()
        .last()
        .unwrap()
        .to_owned();
    let options = ClientOptions::new()
        .endpoint(daemon.endpoint())
        .token(&token)
        .timeout(LONG);
    let client = Client::new(options.clone().scope("ada")).unwrap();
    assert_eq!(client.list_users(ListUsers::new()).await.unwrap(), []);
    let refused = client.save_message(SaveMessage::new(message(1))).await;
    assert_eq!(*refused.unwrap_err().code(), Code::Forbidden);
    let elsewhere = Client::new(options.clone().scope("bob")).unwrap();
    assert_eq!(
        *elsewhere
            .list_users(ListUsers::new())
            .await
            .unwrap_err()
            .code(),
        Code::Forbidden
    );

    backscroll(&["token", "revoke", "bot"], daemon.data_dir()).await;
    assert_eq!(
        *client
            .list_users(ListUsers::new())
            .await
            .unwrap_err()
            .code(),
        Code::Unauthenticated
    );
    let error = Client::new(options)
        .unwrap()
        .list_users(ListUsers::new())
        .await
        .unwrap_err();
    assert_eq!(*error.code(), Code::Unauthenticated);
    let problem =
        "does not know the token \"bot\": it was revoked, has expired, or is for another daemon";
    assert!(error.message().contains(problem), "{error}");
}

/// Rule: a token that may write is not one that may administer.
#[tokio::test]
async fn writing_is_not_administering() {
    let daemon = Daemon::start(&TCP).await;
    let words = ["token", "create", "bot", "--right", "write"];
    let token = backscroll(&words, daemon.data_dir())
        .await
        .lines()
        .last()
        .unwrap()
        .to_owned();
    let client = Client::new(
        ClientOptions::new()
            .endpoint(daemon.endpoint())
            .token(token)
            .timeout(LONG),
    )
    .unwrap();
    client
        .save_message(SaveMessage::new(message(1)))
        .await
        .unwrap();
    let forbidden: [Error; 3] = [
        client.get_log(GetLog::new()).await.unwrap_err(),
        client.send(DeleteScope::new()).await.unwrap_err(),
        client.send(ListTokens::new()).await.unwrap_err(),
    ];
    assert!(
        forbidden
            .iter()
            .all(|error| *error.code() == Code::Forbidden)
    );
    assert!(
        client
            .get_message_by_id(GetMessageById::new("m1"))
            .await
            .unwrap()
            .is_some()
    );
}

/// Rule: where a token is missing, the error says where to get one; text that is no token is
/// `invalid`.
#[tokio::test]
async fn missing_and_impossible_tokens() {
    let daemon = Daemon::start(&TCP).await;
    let directory = temporary_directory();
    let options = ClientOptions::new()
        .endpoint(daemon.endpoint())
        .data_dir(directory.path())
        .timeout(LONG);
    let error = Client::new(options.clone())
        .unwrap()
        .ping()
        .await
        .unwrap_err();
    assert_eq!(*error.code(), Code::Unauthenticated);
    assert!(
        error.message().starts_with("there is no token for tcp://"),
        "{error}"
    );
    assert!(error.message().contains("`backscroll token create`"));
    for token in ["line\nbreak".to_owned(), "x".repeat(257)] {
        let error = Client::new(options.clone().token(token))
            .unwrap()
            .ping()
            .await
            .unwrap_err();
        assert_eq!(*error.code(), Code::Invalid);
    }
}

/// Rule: a program that has the port of a killed daemon gets neither the token nor a request;
/// requests wait for the daemon.
#[tokio::test]
async fn an_impostor_on_the_old_port() {
    let mut daemon = Daemon::start(&TCP).await;
    let ready = daemon.ready();
    let client = Client::new(daemon.options().timeout(SHORT)).unwrap();
    client
        .save_message(SaveMessage::new(message(1)))
        .await
        .unwrap();
    daemon.kill().await;
    let port = ready["endpoints"][0]
        .as_str()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let endpoints = ready["endpoints"].clone();
    let impostor = FakeDaemon::on(port, move |request, _| {
        ok(
            request,
            json!({"proof": "0".repeat(64), "endpoints": endpoints}),
        )
    })
    .await;
    let error = client
        .save_message(SaveMessage::new(message_with(2, "a secret")))
        .await
        .unwrap_err();
    assert_eq!(*error.code(), Code::Unavailable);
    assert!(
        error
            .message()
            .contains("did not prove that it knows the token: it is another program"),
        "{error}"
    );
    assert!(!impostor.requests().is_empty());
    assert!(
        impostor
            .requests()
            .iter()
            .all(|request| request["type"] == "hello" && request.get("auth").is_none())
    );
    assert!(!impostor.has_seen(ready["token"].as_str().unwrap()) && !impostor.has_seen("secret"));
    drop(impostor);

    daemon.restart().await;
    daemon
        .client()
        .save_message(SaveMessage::new(message(3)))
        .await
        .unwrap();
    wait_until("the client goes on", async || {
        client
            .save_message(SaveMessage::new(message(2)))
            .await
            .is_ok()
    })
    .await;
}

/// Rule: a program that passes on what the real daemon answers gets neither the token nor a
/// request: its port is another.
#[tokio::test]
async fn an_impostor_that_relays_a_real_proof() {
    let daemon = Daemon::start(&TCP).await;
    let (target, token) = (
        daemon.endpoint(),
        daemon.ready()["token"].as_str().unwrap().to_owned(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let seen = Arc::<Mutex<Vec<u8>>>::default();
    let kept = seen.clone();
    let relaying = tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let daemon = TcpStream::connect(target.strip_prefix("tcp://").unwrap())
                .await
                .unwrap();
            let kept = kept.clone();
            tokio::spawn(async move {
                let ((mut from_client, mut to_client), (mut from_daemon, mut to_daemon)) =
                    (client.into_split(), daemon.into_split());
                let copying =
                    tokio::spawn(
                        async move { tokio::io::copy(&mut from_daemon, &mut to_client).await },
                    );
                let mut chunk = vec![0; 4096];
                while let Ok(size @ 1..) = from_client.read(&mut chunk).await {
                    kept.lock().unwrap().extend(&chunk[..size]);
                    to_daemon.write_all(&chunk[..size]).await.unwrap();
                }
                copying.abort();
            });
        }
    });
    let client = Client::new(
        ClientOptions::new()
            .endpoint(endpoint)
            .token(&token)
            .timeout(SHORT),
    )
    .unwrap();
    let error = client
        .save_message(SaveMessage::new(message_with(1, "a secret")))
        .await
        .unwrap_err();
    assert_eq!(*error.code(), Code::Unavailable);
    assert!(
        error
            .message()
            .contains("did not prove that it knows the token: it is another program"),
        "{error}"
    );
    let seen = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    assert!(seen.contains("hello") && !seen.contains(&token) && !seen.contains("secret"));
    relaying.abort();
}

/// Rule: a daemon that refuses `hello`, or answers it with anything but a proof, is not trusted.
#[tokio::test]
async fn no_proof_is_no_proof() {
    let no_text = json!({"proof": "0".repeat(64), "endpoints": [{"a": 1}, null, 5]});
    let answers = [
        None,
        Some(no_text),
        Some(json!("proof")),
        Some(json!({"proof": "+0", "endpoints": []})),
    ];
    for answer in answers {
        let is_refusal = answer.is_none();
        let fake = FakeDaemon::on(0, move |request, _| match &answer {
            Some(result) => ok(request, result.clone()),
            None => refusal(request, "unknown-operation", "caller"),
        })
        .await;
        let options = ClientOptions::new()
            .endpoint(&fake.endpoint)
            .token("bot.secret")
            .timeout(SHORT);
        let error = Client::new(options).unwrap().ping().await.unwrap_err();
        assert!(
            error
                .message()
                .contains("did not prove that it knows the token"),
            "{error}"
        );
        assert_eq!(
            error
                .message()
                .contains("and answered \"unknown-operation\""),
            is_refusal
        );
        assert!(!fake.has_seen("secret"));
    }
}

/// Rule: of what a daemon says when it refuses a connection, only the reason is quoted, and not
/// without end.
#[tokio::test]
async fn refusals_of_connections_are_quoted() {
    let directory = temporary_directory();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let refusing = tokio::spawn(async move {
        let long_type = [
            b"\x05READY\x0bSocket-Type\0\0\x10\0".as_slice(),
            &[b'x'; 4096],
        ]
        .concat();
        for command in [
            b"\x05ERROR\x04full and more".to_vec(),
            long_type,
            b"\x05ERROR\0".to_vec(),
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let size = (command.len() as u64).to_be_bytes();
            stream
                .write_all(&[GREETING.as_slice(), &[6], &size, &command].concat())
                .await
                .unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let problems = Arc::<Mutex<Vec<String>>>::default();
    let kept = problems.clone();
    let options = ClientOptions::new()
        .endpoint(format!("ipc://{}", path.display()))
        .timeout(LONG);
    let client = Client::new(options.on_connection(move |problem| {
        kept.lock()
            .unwrap()
            .extend(problem.map(ToString::to_string));
    }))
    .unwrap();
    let waiting = tokio::spawn(async move { client.ping().await });
    wait_until("two connections are refused", async || {
        problems.lock().unwrap().len() >= 2
    })
    .await;
    waiting.abort();
    refusing.abort();
    let problems = problems.lock().unwrap();
    assert!(
        problems[0].ends_with(": the daemon refused the connection: full"),
        "{problems:?}"
    );
    let quoted = format!(
        ": what answers there is a {:?}, no daemon's socket",
        "x".repeat(64)
    );
    assert!(problems[1].ends_with(&quoted), "{problems:?}");
}

/// Rule: a program that speaks no ZMTP is told apart.
#[tokio::test]
async fn a_web_server_is_no_daemon() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let directory = temporary_directory();
    let announced = json!({"endpoints": [endpoint], "token": "start"}).to_string();
    fs::write(directory.path().join("endpoint.json"), announced).unwrap();
    let client = Client::new(
        ClientOptions::new()
            .data_dir(directory.path())
            .timeout(SHORT),
    )
    .unwrap();
    let error = client.ping().await.unwrap_err();
    assert!(
        error
            .message()
            .contains("does not speak ZMTP 3: it is no backscroll daemon"),
        "{error}"
    );
    serving.abort();
}
