//! One connection that speaks ZMTP 3.0 with the mechanism NULL, as a DEALER: greeting, READY, and
//! then frames.
//!
//! A message is one frame, the body. The end of the stream is the end of the connection; it never
//! connects again. What is wrong with a connection is said as text, which goes on "no daemon
//! answers at …".

use std::ops::Range;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::limits::FRAME_BYTES;

const GREETING_BYTES: usize = 64;
const GREETING_START: &[u8] = b"\xff\0\0\0\0\0\0\0\0\x7f\x03\0NULL";
const READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER";
/// The types of sockets that a DEALER talks to; a daemon has a ROUTER.
const PEERS: [&[u8]; 3] = [b"ROUTER", b"DEALER", b"REP"];
/// So much of a socket's type is quoted: whoever sent it may be anybody.
const TYPE_BYTES_MAX: usize = 64;
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;
const READ_BYTES: usize = 64 * 1024;
/// So much that was written is kept until the rest is.
const WRITTEN_BYTES_MAX: usize = 1024 * 1024;

/// The two directions of a stream.
pub type Stream = (
    Box<dyn AsyncRead + Send + Unpin>,
    Box<dyn AsyncWrite + Send + Unpin>,
);

/// A connection on which messages are sent and received.
pub struct Connection {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// What has arrived; the first `taken` bytes of it were used.
    input: Vec<u8>,
    taken: usize,
    /// What is to be sent; the first `written` bytes of it were.
    output: Vec<u8>,
    written: usize,
    received_at: Instant,
}

impl Connection {
    /// Greet the other side of a stream, and wait until it is ready for messages.
    pub async fn open((reader, writer): Stream) -> Result<Self, String> {
        let mut connection = Self {
            reader,
            writer,
            input: Vec::new(),
            taken: 0,
            output: GREETING_START.to_vec(),
            written: 0,
            received_at: Instant::now(),
        };
        connection.output.resize(GREETING_BYTES, 0);
        connection.greet().await?;
        connection.output.extend_from_slice(READY);
        connection.await_ready().await?;
        Ok(connection)
    }

    /// When the latest bytes arrived.
    pub fn received_at(&self) -> Instant {
        self.received_at
    }

    /// Have a message sent, as soon as [`receive`](Self::receive) is awaited.
    pub fn send(&mut self, body: &[u8]) {
        self.output.push(LONG);
        self.output
            .extend_from_slice(&(body.len() as u64).to_be_bytes());
        self.output.extend_from_slice(body);
    }

    /// Send what is to be sent, until a message arrives. Nothing is lost if the future is dropped.
    pub async fn receive(&mut self) -> Result<Vec<u8>, String> {
        loop {
            if let Some(body) = self.take_message()? {
                return Ok(body);
            }
            self.exchange().await?;
        }
    }

    /// The next message, if it has arrived as a whole.
    pub fn take_message(&mut self) -> Result<Option<Vec<u8>>, String> {
        while let Some((flags, body)) = self.take_frame()? {
            if flags & COMMAND != 0 {
                self.refuse_error(body)?;
            } else if flags & MORE == 0 {
                return Ok(Some(self.input[body].to_vec()));
            } // frames before the body carry nothing for a DEALER
        }
        Ok(None)
    }

    /// Wait for the other side's greeting.
    async fn greet(&mut self) -> Result<(), String> {
        while self.input.first().is_none_or(|&byte| byte == 0xff)
            && self.input.len() < GREETING_BYTES
        {
            self.exchange().await?;
        }
        let [0xff, _, _, _, _, _, _, _, _, 0x7f, (3..=u8::MAX), ..] = self.input[..] else {
            return Err(
                "what answers there does not speak ZMTP 3: it is no backscroll daemon".into(),
            );
        };
        let mechanism = String::from_utf8_lossy(&self.input[12..32]);
        let mechanism = mechanism.trim_end_matches('\0');
        if mechanism != "NULL" {
            return Err(format!(
                "the daemon asks for the mechanism {mechanism}, which this client lacks"
            ));
        }
        self.taken = GREETING_BYTES;
        Ok(())
    }

    async fn await_ready(&mut self) -> Result<(), String> {
        loop {
            let Some((flags, body)) = self.take_frame()? else {
                self.exchange().await?;
                continue;
            };
            if flags & COMMAND == 0 {
                return Err("the daemon sent a message before it was ready".into());
            }
            self.refuse_error(body.clone())?;
            if let Some(properties) = self.input[body].strip_prefix(b"\x05READY") {
                let kind = property(properties, b"socket-type").unwrap_or_default();
                let quoted = String::from_utf8_lossy(&kind[..kind.len().min(TYPE_BYTES_MAX)]);
                let problem = || format!("what answers there is a {quoted:?}, no daemon's socket");
                return if PEERS.contains(&kind) {
                    Ok(())
                } else {
                    Err(problem())
                };
            }
        }
    }

    /// The flags of the next frame and where its body is, if it has arrived as a whole.
    fn take_frame(&mut self) -> Result<Option<(u8, Range<usize>)>, String> {
        let Some((&flags, rest)) = self.input[self.taken..].split_first() else {
            return Ok(None);
        };
        let long = rest
            .first_chunk()
            .map(|size| (9, u64::from_be_bytes(*size)));
        let short = rest.first().map(|&size| (2, u64::from(size)));
        let Some((header, size)) = (if flags & LONG != 0 { long } else { short }) else {
            return Ok(None);
        };
        if size > FRAME_BYTES {
            return Err(format!("the daemon sent a frame of {size} bytes"));
        }
        let start = self.taken + header;
        let end = start + usize::try_from(size).map_err(|error| error.to_string())?;
        if self.input.len() < end {
            self.input.reserve(end - self.input.len());
            return Ok(None);
        }
        self.taken = end;
        Ok(Some((flags, start..end)))
    }

    /// Fail if a command is ERROR; others that are not known are skipped.
    fn refuse_error(&self, body: Range<usize>) -> Result<(), String> {
        let Some([size, reason @ ..]) = self.input[body].strip_prefix(b"\x05ERROR") else {
            return Ok(());
        };
        let reason = String::from_utf8_lossy(&reason[..reason.len().min(usize::from(*size))]);
        Err(format!("the daemon refused the connection: {reason}"))
    }

    /// Read what arrives, or write what is to be sent, whichever is possible first.
    async fn exchange(&mut self) -> Result<(), String> {
        self.input.drain(..std::mem::take(&mut self.taken));
        self.input.reserve(READ_BYTES);
        let unwritten = &self.output[self.written..];
        tokio::select! {
            biased;
            read = self.reader.read_buf(&mut self.input) => match read {
                Ok(0) => return Err("the connection was closed".into()),
                Ok(_) => self.received_at = Instant::now(),
                Err(error) => return Err(error.to_string()),
            },
            wrote = self.writer.write(unwritten), if !unwritten.is_empty() => {
                self.written += wrote.map_err(|error| error.to_string())?;
                if self.written == self.output.len() || self.written >= WRITTEN_BYTES_MAX {
                    self.output.drain(..std::mem::take(&mut self.written));
                }
            }
        }
        Ok(())
    }
}

/// The value of a property in the metadata of READY, whose names are in any case.
fn property<'a>(mut metadata: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    loop {
        let (&size, rest) = metadata.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(size))?;
        let (size, rest) = rest.split_first_chunk::<4>()?;
        let size = u32::from_be_bytes(*size) as usize;
        let (value, rest) = rest.split_at_checked(size)?;
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        metadata = rest;
    }
}
