//! A connection over which one body after the other is sent and answered.

use backscroll::internal::{Connection, stream_to, target_of};
use serde_json::Value;
use tokio::time::timeout;

use crate::Failure;
use crate::context::TIMEOUT;

/// Bytes below are JSON, others MessagePack.
const FIRST_OF_MSGPACK: u8 = 0x80;

pub struct Exchange(Connection);

impl Exchange {
    pub async fn open(endpoint: &str) -> Result<Self, Failure> {
        let stream = stream_to(&target_of(endpoint)?).await?;
        Ok(Self(Connection::open(stream).await?))
    }

    /// The reply to a body, which has to be in the same encoding.
    pub async fn reply(&mut self, body: &[u8]) -> Result<Value, Failure> {
        self.0.send(body);
        let reply = timeout(TIMEOUT, self.0.receive())
            .await
            .map_err(|_| "no reply")??;
        let is_json = |bytes: &[u8]| bytes.first().is_none_or(|&first| first < FIRST_OF_MSGPACK);
        if is_json(&reply) != is_json(body) {
            return Err("the reply is in another encoding".into());
        }
        Ok(if is_json(&reply) {
            serde_json::from_slice(&reply)?
        } else {
            rmp_serde::from_slice(&reply)?
        })
    }
}
