//! Making a connection to a daemon. Where the daemon is, is looked up for each connection.
//!
//! Over tcp the daemon first proves with `hello` that it knows the token; until then neither token
//! nor requests are sent.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::Error;
use crate::address::{Address, Greeting, Location, Target, find_address, target_of};
use crate::envelope::{Envelope, Reply, encode};
use crate::language::Operation;
use crate::operations::Hello;
use crate::zmtp::{Connection, Stream};

/// How long a connection may take until requests can be sent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection over which requests can be sent.
pub struct Link {
    pub connection: Connection,
    pub endpoint: String,
    /// The token to send with each request; none over ipc.
    pub token: Option<String>,
}

/// Find the daemon and connect to it.
pub async fn connect(location: &Location) -> Result<Link, Error> {
    let address = find_address(location)?;
    let target = target_of(&address.endpoint)?;
    let connecting = timeout(CONNECT_TIMEOUT, connect_to(&target, &address));
    let connection = connecting.await.unwrap_or_else(|_| {
        let limit = CONNECT_TIMEOUT.as_millis();
        Err(unreachable(
            &address.endpoint,
            &format!("it did not let the client connect within {limit} ms"),
        ))
    })?;
    Ok(Link {
        connection,
        endpoint: address.endpoint,
        token: address.token,
    })
}

async fn connect_to(target: &Target, address: &Address) -> Result<Connection, Error> {
    let unreachable = |reason: String| unreachable(&address.endpoint, &reason);
    let stream = stream_to(target)
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    let mut connection = Connection::open(stream).await.map_err(unreachable)?;
    if let Some(token) = &address.token {
        let greeting = Greeting::new(&address.endpoint, token);
        connection.send(&hello(&greeting)?);
        let answer = connection.receive().await.map_err(unreachable)?;
        check_proof(&greeting, &answer)?;
    }
    Ok(connection)
}

/// The error when a connection is lost or cannot be made.
pub fn unreachable(endpoint: &str, reason: &str) -> Error {
    Error::unavailable(format!("no daemon answers at {endpoint}: {reason}"))
}

/// A stream to an endpoint.
pub async fn stream_to(target: &Target) -> io::Result<Stream> {
    match target {
        Target::Ipc(path) => {
            let (reader, writer) = UnixStream::connect(path).await?.into_split();
            Ok((Box::new(reader), Box::new(writer)))
        }
        Target::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let (reader, writer) = stream.into_split();
            Ok((Box::new(reader), Box::new(writer)))
        }
    }
}

fn hello(greeting: &Greeting<'_>) -> Result<Vec<u8>, Error> {
    let mut payload = Hello::new(greeting.nonce());
    payload.name = greeting.token_name().map(str::to_owned);
    let id = format!("hello-{}", greeting.nonce());
    Ok(Envelope::new(&id, Hello::NAME, encode(&payload)?).body(&[], None))
}

fn check_proof(greeting: &Greeting<'_>, answer: &[u8]) -> Result<(), Error> {
    match Reply::read(answer).and_then(Reply::outcome) {
        Ok(answer)
            if answer
                .decode()
                .is_ok_and(|proof| greeting.is_proven(&proof)) =>
        {
            Ok(())
        }
        Ok(_) => Err(greeting.problem(None)),
        Err(error) => Err(greeting.problem(Some(error.code()))),
    }
}
