//! Real daemons and lost connections: nothing is lost, nothing takes effect twice, and nothing
//! overtakes what was sent before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backscroll::operations::{GetLog, GetMessagePage, SaveMessage, UpdateMessage};
use backscroll::records::MessageUpdates;
use backscroll::{Client, ClientOptions, Code, Error};
use futures_util::future::{join, join_all};
use tokio::time::{sleep, timeout};

use crate::support::{Daemon, LONG, Proxy, Relay, TCP, is_long, message, message_with, wait_until};

const MANY: usize = 10_000;
/// Over each bad connection, except in the long form.
const FEWER: usize = 2_000;
/// So many commands are executed from one kill to the next.
const MANY_EXECUTED: i64 = 2_000;
const REFUSED_EVERY: usize = 7;
const PAIRS: usize = 20;

fn is_refused(number: usize) -> bool {
    number % REFUSED_EVERY == 0
}

/// Save messages without waiting, and among that update one that is never there. Returns the
/// outcomes. A command that was refused, the reply lost, may be superseded when it is sent again.
async fn pipelined(client: &Client, many: usize) -> Vec<String> {
    let commands = (0..many).map(async |number| {
        let outcome = if is_refused(number) {
            let updates = MessageUpdates::new().content("x");
            client
                .update_message(UpdateMessage::new("none", updates))
                .await
        } else {
            client.save_message(SaveMessage::new(message(number))).await
        };
        match outcome {
            Ok(()) => "saved".to_owned(),
            Err(error) if matches!(error.code(), Code::NotFound | Code::Superseded) => {
                "refused".to_owned()
            }
            Err(error) => format!("{error:?}"),
        }
    });
    join_all(commands).await
}

/// Each command has its outcome, and an observer reads in the log that each save took effect once,
/// in the order of the calls.
async fn assert_complete(outcomes: &[String], observer: &Client) {
    let expected = (0..outcomes.len()).map(|number| {
        if is_refused(number) {
            "refused"
        } else {
            "saved"
        }
    });
    assert_same(outcomes, &expected.map(str::to_owned).collect::<Vec<_>>());
    let mut executed = Vec::new();
    loop {
        let query = GetLog::new()
            .from_seq(i64::try_from(executed.len()).unwrap() + 1)
            .limit(500);
        let page = observer.get_log(query).await.unwrap();
        let ids = page.entries.iter().map(|entry| {
            entry.payload.as_ref().unwrap()["message"]["id"]
                .as_str()
                .unwrap()
        });
        executed.extend(ids.map(str::to_owned));
        if i64::try_from(executed.len()).unwrap() >= page.last_seq {
            break;
        }
    }
    let saved: Vec<String> = (0..outcomes.len())
        .filter(|&number| !is_refused(number))
        .map(|number| format!("m{number}"))
        .collect();
    assert_same(&executed, &saved);
}

/// Like `assert_eq!`, but names only the first difference of long lists.
fn assert_same(actual: &[String], expected: &[String]) {
    let difference = actual
        .iter()
        .zip(expected)
        .position(|(one, other)| one != other);
    if let Some(index) = difference {
        panic!(
            "[{index}]: expected {}, got {}",
            expected[index], actual[index]
        );
    }
    assert_eq!(actual.len(), expected.len());
}

/// Wait until the log has so many commands.
async fn wait_for(observer: &Client, commands: i64) {
    while observer
        .get_log(GetLog::new().limit(1))
        .await
        .unwrap()
        .last_seq
        < commands
    {
        sleep(Duration::from_millis(5)).await;
    }
}

async fn survives_kills(flags: &[&'static str]) {
    let mut daemon = Daemon::start(&[flags, &["--batch-requests", "100"]].concat()).await; // so replies come in portions
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let options = daemon
        .options()
        .timeout(4 * LONG)
        .on_connection(move |problem| {
            counted.fetch_add(usize::from(problem.is_none()), Ordering::SeqCst);
        });
    let client = Client::new(options).unwrap();
    let observer = daemon.client();
    let killing = tokio::spawn(async move {
        for kill in 1..=3 {
            timeout(LONG, wait_for(&observer, kill * MANY_EXECUTED))
                .await
                .unwrap();
            daemon.restart().await;
        }
        daemon
    });
    let outcomes = pipelined(&client, MANY).await;
    let daemon = killing.await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 4);
    assert_complete(&outcomes, &daemon.client()).await;
}

/// Rule: commands over three kills of the daemon take effect once each and in the order of the
/// calls, over ipc.
#[tokio::test(flavor = "multi_thread")]
async fn kills_over_ipc() {
    survives_kills(&[]).await;
}

/// Rule: the same over tcp, where the daemon's port and token change with each start.
#[tokio::test(flavor = "multi_thread")]
async fn kills_over_tcp() {
    survives_kills(&TCP).await;
}

/// Rule: commands over connections that are cut anywhere, or swallow everything, take effect once
/// each and in order.
#[tokio::test(flavor = "multi_thread")]
async fn bad_connections() {
    let daemon = Daemon::start(&[]).await;
    let (seeds, many) = if is_long() { (100, MANY) } else { (3, FEWER) };
    let mut faults = 0;
    for seed in 0..seeds {
        println!("seed {seed}");
        let proxy = Proxy::start(&daemon.endpoint(), seed).await;
        let options = ClientOptions::new()
            .scope(format!("seed-{seed}"))
            .timeout(4 * LONG);
        let client = Client::new(options.clone().endpoint(&proxy.endpoint)).unwrap();
        let outcomes = pipelined(&client, many).await;
        faults += proxy.stop().await;
        assert_complete(
            &outcomes,
            &Client::new(options.endpoint(daemon.endpoint())).unwrap(),
        )
        .await;
    }
    assert!(faults > seeds);
}

/// The contents of messages that were first updated, in vain, and then saved, where the replies to
/// both were lost; and the outcomes of the updates.
async fn updated_and_saved(has_numbers: bool) -> (Vec<String>, Vec<Result<(), Error>>) {
    let daemon = Daemon::start(&[]).await;
    let relay = Relay::start(&daemon.endpoint(), has_numbers);
    let client = Client::new(ClientOptions::new().endpoint(&relay.endpoint).timeout(LONG)).unwrap();
    let observer = daemon.client();
    client.ping().await.unwrap();
    relay.lose_replies(true);
    let pairs = (0..PAIRS).map(async |number| {
        let update = UpdateMessage::new(format!("m{number}"), MessageUpdates::new().content("old"));
        let save = SaveMessage::new(message_with(number, "new"));
        join(client.update_message(update), client.save_message(save)).await
    });
    let contents = async || {
        let page = observer
            .get_message_page(GetMessagePage::new("r1"))
            .await
            .unwrap();
        page.messages
            .into_iter()
            .map(|message| message.content)
            .collect::<Vec<_>>()
    };
    let losing = async {
        wait_until("all is saved", async || contents().await.len() == PAIRS).await;
        relay.lose_replies(false);
        relay.cut();
    };
    let (outcomes, ()) = join(join_all(pairs), losing).await;
    let updated = outcomes.into_iter().map(|(update, save)| {
        save.unwrap();
        update
    });
    let updated = updated.collect();
    (contents().await, updated)
}

/// Rule: an update that was refused, the reply lost, does not win over a later save when it is sent
/// again.
#[tokio::test]
async fn a_refused_update_never_wins() {
    let (contents, updates) = updated_and_saved(true).await;
    assert_eq!(contents, vec!["new"; PAIRS]);
    for update in updates {
        assert_eq!(*update.unwrap_err().code(), Code::Superseded);
    }
}

/// Rule: that is because of `client` and `n`; without them the update wins, which shows that the
/// test before is one.
#[tokio::test]
async fn a_refused_update_wins_without_numbers() {
    let (contents, updates) = updated_and_saved(false).await;
    assert_eq!(contents, vec!["old"; PAIRS]);
    assert!(updates.iter().all(Result::is_ok));
}
