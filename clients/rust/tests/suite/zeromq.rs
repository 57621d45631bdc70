//! An ordinary ZeroMQ library against the daemon: nothing that it needs is only in this client.

use serde_json::{Value, json};
use zeromq::{DealerSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

use crate::support::Daemon;

async fn exchanged(socket: &mut DealerSocket, request: &Value) -> Vec<u8> {
    socket
        .send(ZmqMessage::from(request.to_string()))
        .await
        .unwrap();
    let reply = socket.recv().await.unwrap();
    assert_eq!(reply.len(), 1);
    reply.get(0).unwrap().to_vec()
}

/// Rule: a command is executed, and its retry is answered with the same bytes.
#[tokio::test]
async fn a_round_trip_and_a_retry() {
    let daemon = Daemon::start(&[]).await;
    let connect = async || {
        let mut socket = DealerSocket::new();
        socket.connect(&daemon.endpoint()).await.unwrap();
        socket
    };
    let mut socket = connect().await;
    let request = json!({"id": "first", "type": "create-user", "payload": {"pubkey": "a key"}});
    let reply = exchanged(&mut socket, &request).await;
    let read: Value = serde_json::from_slice(&reply).unwrap();
    assert_eq!(
        (&read["id"], &read["ok"], &read["result"]["pubkey"]),
        (&json!("first"), &json!(true), &json!("a key"))
    );
    assert_eq!(exchanged(&mut socket, &request).await, reply);
    assert_eq!(exchanged(&mut connect().await, &request).await, reply);
}
