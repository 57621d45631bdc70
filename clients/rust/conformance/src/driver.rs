//! What the benchmark and the test of all languages do from Rust, as an application would.
//!
//! ```sh
//! driver ENDPOINT
//! ```
//!
//! Each line of standard input is an order, a JSON object; so is the answer to it, on standard
//! output.

use std::error::Error;
use std::fs;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use backscroll::operations::{GetMessagePage, SaveMessage};
use backscroll::records::{MessageInput, MessagePage};
use backscroll::{Client, ClientOptions};
use serde::Deserialize;
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(90);
const PAGE: i64 = 50;

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Order {
    Load { path: String },
    Ping { count: usize },
    Save { in_flight: usize },
    Read { in_flight: usize },
    ReadBack,
}

/// What there is to do; other fields are for other drivers.
#[derive(Default, Deserialize)]
struct Work {
    messages: Vec<MessageInput>,
    visits: Vec<String>,
    rooms: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let endpoint = std::env::args().nth(1).ok_or("usage: driver ENDPOINT")?;
    let client = Client::new(ClientOptions::new().endpoint(endpoint).timeout(TIMEOUT))?;
    let mut work = Work::default();
    for line in std::io::stdin().lock().lines() {
        let answer = obey(serde_json::from_str(&line?)?, &client, &mut work).await?;
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    Ok(())
}

async fn obey(order: Order, client: &Client, work: &mut Work) -> Result<Value, Failure> {
    match order {
        Order::Load { path } => {
            *work = serde_json::from_slice(&fs::read(path)?)?;
            Ok(json!({}))
        }
        Order::Ping { count } => {
            let ping = |client: Client, ()| async move { client.ping().await.map(|_| ()) };
            timed(client, 1, vec![(); count], ping).await
        }
        Order::Save { in_flight } => {
            let save = |client: Client, message| async move {
                client.save_message(SaveMessage::new(message)).await
            };
            timed(client, in_flight, work.messages.clone(), save).await
        }
        Order::Read { in_flight } => {
            let read = |client: Client, room: String| async move {
                newest(&client, &room).await.map(|_| ())
            };
            timed(client, in_flight, work.visits.clone(), read).await
        }
        Order::ReadBack => {
            let mut pages = Vec::new();
            for room in &work.rooms {
                pages.push(newest(client, room).await?.messages);
            }
            Ok(json!({"pages": pages}))
        }
    }
}

async fn newest(client: &Client, room: &str) -> Result<MessagePage, backscroll::Error> {
    client
        .get_message_page(GetMessagePage::new(room).limit(PAGE))
        .await
}

/// How long it takes to ask for all items with so many of them in flight.
async fn timed<T, Asking>(
    client: &Client,
    in_flight: usize,
    items: Vec<T>,
    ask: impl Fn(Client, T) -> Asking + Copy + Send + 'static,
) -> Result<Value, Failure>
where
    T: Clone + Send + Sync + 'static,
    Asking: Future<Output = Result<(), backscroll::Error>> + Send,
{
    let started = Instant::now();
    let (items, next) = (Arc::new(items), Arc::new(AtomicUsize::new(0)));
    let asking = (0..in_flight).map(|_| {
        let (client, items, next) = (client.clone(), items.clone(), next.clone());
        tokio::spawn(async move {
            while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                ask(client.clone(), item.clone()).await?;
            }
            Ok::<_, backscroll::Error>(())
        })
    });
    for each in asking.collect::<Vec<_>>() {
        each.await??;
    }
    Ok(json!({"seconds": started.elapsed().as_secs_f64()}))
}
