//! Following what changes, over restarts and other histories.

use std::time::Duration;

use backscroll::operations::{DeleteRoom, GetMessages, GetUser, SaveMessage};
use backscroll::records::{ItemChange, ItemValue, Noun};
use backscroll::{Changes, ChangesOptions, Client, ClientOptions, Code};
use futures_util::future::join;
use serde_json::json;
use tokio::time::timeout;

use crate::support::{Daemon, FakeDaemon, message, ok, temporary_directory, wait_until};

async fn taken(changes: &mut Changes, count: usize) -> Vec<ItemChange> {
    let mut items = Vec::new();
    while items.len() < count {
        items.push(changes.next().await.unwrap().unwrap());
    }
    items
}

fn content(change: &ItemChange) -> &str {
    let Some(ItemValue::Message(message)) = &change.value else {
        panic!("{change:?}")
    };
    &message.content
}

/// Rule: changes come in order, from the beginning, and over restarts; a cursor begins after what
/// was given out.
#[tokio::test]
async fn changes_over_restarts() {
    let mut daemon = Daemon::start(&[]).await;
    let client = daemon.client();
    for number in [1, 2, 3] {
        client
            .save_message(SaveMessage::new(message(number)))
            .await
            .unwrap();
    }
    let mut changes = client.changes(ChangesOptions::new().nouns([Noun::Message]).limit(2));
    let ids: Vec<_> = taken(&mut changes, 3)
        .await
        .into_iter()
        .filter_map(|change| change.id)
        .collect();
    assert_eq!(ids, ["m1", "m2", "m3"]);
    assert!(changes.is_at_page_end());
    let saving = async {
        for number in [4, 5] {
            daemon.restart().await;
            client
                .save_message(SaveMessage::new(message(number)))
                .await
                .unwrap();
        }
    };
    let (next, ()) = join(taken(&mut changes, 2), saving).await;
    assert_eq!(
        (content(&next[0]), content(&next[1]), next[1].seq),
        ("4", "5", 5)
    );

    let mut again = client.changes(ChangesOptions::new().after(changes.cursor().unwrap()));
    let (deleted, _) = join(
        taken(&mut again, 1),
        client.delete_room(DeleteRoom::new("r1")),
    )
    .await;
    assert_eq!(
        (deleted[0].gone, deleted[0].id.as_deref()),
        (Some(true), None)
    );
    assert_eq!(deleted[0].room_id.as_deref(), Some("r1"));
}

/// Rule: nothing is lost when a future that waits for a change is dropped, at any time.
#[tokio::test]
async fn a_dropped_future_loses_no_change() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client();
    for number in 0..10 {
        client
            .save_message(SaveMessage::new(message(number)))
            .await
            .unwrap();
    }
    let mut changes = client.changes(ChangesOptions::new().limit(3));
    let mut seen = Vec::new();
    let mut patience = Duration::from_micros(1);
    while seen.len() < 10 {
        match timeout(patience, changes.next()).await {
            Ok(change) => {
                seen.push(content(&change.unwrap().unwrap()).to_owned());
                patience = Duration::from_micros(1);
            }
            Err(_) => patience *= 2,
        }
    }
    assert_eq!(
        seen,
        (0..10).map(|number| number.to_string()).collect::<Vec<_>>()
    );
}

/// Rule: a cursor of another history is a gap, whose error has the cursor to go on with.
#[tokio::test]
async fn another_history_is_a_gap() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client();
    for number in [1, 2] {
        client
            .save_message(SaveMessage::new(message(number)))
            .await
            .unwrap();
    }
    let mut changes = client.changes(ChangesOptions::new());
    taken(&mut changes, 2).await;
    client.delete_scope().await.unwrap();
    client
        .save_message(SaveMessage::new(message(3)))
        .await
        .unwrap();
    let gap = changes.next().await.unwrap_err();
    assert_eq!(*gap.code(), Code::FeedGap);
    let mut changes = client.changes(ChangesOptions::new().after(gap.cursor().unwrap()));
    let saving = client.save_message(SaveMessage::new(message(4)));
    let (next, _) = join(taken(&mut changes, 1), saving).await;
    assert_eq!(content(&next[0]), "4");
}

/// Rule: a watched query gives each new result, over restarts and gaps, and nothing for what it
/// does not read.
#[tokio::test]
async fn a_watched_query() {
    let mut daemon = Daemon::start(&[]).await;
    let (client, other) = (daemon.client(), daemon.client());
    let mut watch = client.watch(GetMessages::new("r1"));
    let mut seen = async || {
        let watched = watch.next().await.unwrap().unwrap();
        (watched.result.len(), watched.seq, watched.gap)
    };
    assert_eq!(seen().await, (0, 0, false));
    other
        .save_message(SaveMessage::new(message(1)))
        .await
        .unwrap();
    assert_eq!(seen().await, (1, 1, false));
    daemon.restart().await;
    other
        .save_message(SaveMessage::new(message(2)))
        .await
        .unwrap();
    assert_eq!(seen().await, (2, 2, false));
    let mut elsewhere = message(3);
    elsewhere.room_id = "r2".into();
    other
        .save_message(SaveMessage::new(elsewhere))
        .await
        .unwrap(); // changes another room
    other.delete_scope().await.unwrap();
    assert_eq!(seen().await, (0, 0, true));
    assert!(
        timeout(Duration::from_millis(100), watch.next())
            .await
            .is_err()
    );
}

/// Rule: what follows the feed ends when the client is closed.
#[tokio::test]
async fn closing_ends_what_follows() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client();
    let mut changes = client.changes(ChangesOptions::new().after("now"));
    let mut watch = client.watch(GetUser::new("ada"));
    assert_eq!(watch.next().await.unwrap().unwrap().result, None);
    let closing = async {
        client.ping().await.unwrap();
        client.close();
    };
    let ((change, user), ()) = join(join(changes.next(), watch.next()), closing).await;
    assert!(change.unwrap().is_none() && user.unwrap().is_none());
}

/// Rule: if no daemon answers at the start, that is an error.
#[tokio::test]
async fn without_a_daemon_at_the_start() {
    let directory = temporary_directory();
    let options = ClientOptions::new()
        .data_dir(directory.path())
        .timeout(Duration::from_millis(50));
    let client = Client::new(options).unwrap();
    let error = client
        .changes(ChangesOptions::new())
        .next()
        .await
        .unwrap_err();
    assert_eq!(*error.code(), Code::Unavailable);
    assert_eq!(
        *client
            .watch(GetUser::new("ada"))
            .next()
            .await
            .unwrap_err()
            .code(),
        Code::Unavailable
    );
}

/// Rule: a change of a later noun keeps what it has.
#[tokio::test]
async fn a_noun_of_a_later_level() {
    let directory = temporary_directory();
    let fake = FakeDaemon::at(&directory.path().join("socket"), |request, _| {
        if request["type"] == "ping" {
            return ok(request, json!({"pong": true}));
        }
        let change = json!({"seq": 1, "at": 1, "requestId": "x", "noun": "moon", "id": "m", "value": {"phase": "full"}});
        ok(
            request,
            json!({"changes": [change], "cursor": "c", "more": false}),
        )
    });
    let client = Client::new(ClientOptions::new().endpoint(&fake.endpoint)).unwrap();
    let change = client
        .changes(ChangesOptions::new())
        .next()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(change.noun, Noun::Other("moon".into()));
    assert_eq!(
        change.value,
        Some(ItemValue::Other(json!({"phase": "full"})))
    );
    wait_until("it has asked", async || fake.requests().len() == 2).await;
}
