//! Save a message and read its room: cargo run --example hello [DATA_DIR]
use std::time::UNIX_EPOCH;

use backscroll::Client;
use backscroll::operations::{GetMessagePage, SaveMessage, SaveReaction};
use backscroll::records::{MessageInput, ReactionInput};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data_dir = std::env::args().nth(1).unwrap_or("./data".into());
    let client = Client::open(data_dir).await?; // starts a daemon if none serves the directory
    let now = UNIX_EPOCH.elapsed()?.as_millis().try_into()?;
    let message = MessageInput::new("m1", "home", "Hello!", now).sender_id("ada");
    client.save_message(SaveMessage::new(message)).await?;
    let reaction = ReactionInput::new("m1", "👋").oder_id("bo");
    client.save_reaction(SaveReaction::new(reaction)).await?;
    let page = client
        .get_message_page(GetMessagePage::new("home").limit(50))
        .await?;
    for message in page.messages {
        let reactions: String = message
            .reactions
            .into_iter()
            .flatten()
            .map(|each| each.emoji)
            .collect();
        println!(
            "{}: {} {reactions}",
            message.sender_id.unwrap_or_default(),
            message.content
        );
    }
    Ok(())
}
