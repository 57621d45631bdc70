//! Files of several parts, from and into streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use backscroll::operations::{GetMedia, PutMediaPart};
use backscroll::{Client, ClientOptions, Code, UploadOptions};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, duplex};

use crate::support::{Daemon, FakeDaemon, ok, temporary_directory};

/// Bytes that do not repeat with the parts.
fn bytes(size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| u8::try_from(at * 31 % 251).unwrap())
        .collect()
}

/// Rule: a file of several parts goes up from a stream and comes down as one, also over a kill of
/// the daemon.
#[tokio::test]
async fn up_and_down() {
    let mut daemon = Daemon::start(&[]).await;
    let client = daemon.client();
    let file = bytes((9 << 20) + 7);
    let uploader = UploadOptions::new().uploader_id("ada");
    let media = client
        .upload(&file[..], "image/png", uploader.clone())
        .await
        .unwrap();
    assert_eq!(
        (media.size, media.parts, media.mime.as_str()),
        (9 * 1024 * 1024 + 7, 3, "image/png")
    );
    assert_eq!(media.uploader_id.as_deref(), Some("ada"));
    let digest: String = Sha256::digest(&file)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(media.sha256, digest);
    assert_eq!(
        client
            .upload(&file[..], "image/png", uploader)
            .await
            .unwrap()
            .id,
        media.id
    );

    let (sink, mut source) = duplex(64 * 1024); // a sink that takes little at a time
    let downloading = tokio::spawn({
        let (client, id) = (client.clone(), media.id.clone());
        async move { client.download(id, sink).await }
    });
    let mut read = vec![0; 1 << 20];
    source.read_exact(&mut read).await.unwrap();
    daemon.restart().await;
    source.read_to_end(&mut read).await.unwrap();
    assert_eq!(downloading.await.unwrap().unwrap(), media);
    assert!(read == file);
}

/// Rule: an empty file is one, and an unknown one is not found.
#[tokio::test]
async fn empty_and_unknown_files() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client();
    let media = client
        .upload(tokio::io::empty(), "text/plain", UploadOptions::new())
        .await
        .unwrap();
    assert_eq!(media.size, 0);
    let mut read = Vec::new();
    client.download(media.id, &mut read).await.unwrap();
    assert!(read.is_empty());
    let error = client
        .download("none", tokio::io::sink())
        .await
        .unwrap_err();
    assert_eq!(*error.code(), Code::NotFound);
    assert_eq!(client.get_media(GetMedia::new("none")).await.unwrap(), None);
}

/// Rule: bytes of a part are the same on the wire and in the log, where they are base64.
#[tokio::test]
async fn parts_are_in_the_log() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client();
    client
        .put_media_part(PutMediaPart::new().data([0, 1, 0xfe, 0xff]))
        .await
        .unwrap();
    let page = client
        .get_log(backscroll::operations::GetLog::new())
        .await
        .unwrap();
    assert_eq!(
        page.entries[0].payload.as_ref().unwrap()["data"],
        "AAH+/w=="
    );
}

/// A source or a sink that fails after some bytes.
struct Failing(usize);

impl AsyncRead for Failing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let size = buffer.remaining().min(self.0);
        self.0 -= size;
        if size == 0 {
            return Poll::Ready(Err(io::Error::other("the disk was pulled out")));
        }
        buffer.put_slice(&vec![b'x'; size]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Failing {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::Error::other("the disk is full")))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Rule: an upload whose source fails, or which is refused, ends with that error; so does a
/// download whose sink fails.
#[tokio::test]
async fn failing_streams() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client();
    let error = client
        .upload(Failing(5 << 20), "text/plain", UploadOptions::new())
        .await
        .unwrap_err();
    assert_eq!(*error.code(), Code::Io);
    assert_eq!(
        error.message(),
        "the file cannot be read: the disk was pulled out"
    );
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "the disk was pulled out"
    );
    let refused = UploadOptions::new().uploader_id("");
    assert_eq!(
        *client
            .upload(&b"x"[..], "text/plain", refused)
            .await
            .unwrap_err()
            .code(),
        Code::Invalid
    );
    let media = client
        .upload(&b"x"[..], "text/plain", UploadOptions::new())
        .await
        .unwrap();
    let error = client.download(&media.id, Failing(0)).await.unwrap_err();
    assert_eq!(
        error.message(),
        "the file cannot be written: the disk is full"
    );
    client.close();
    let error = client
        .upload(&bytes(5 << 20)[..], "text/plain", UploadOptions::new())
        .await
        .unwrap_err();
    assert_eq!(*error.code(), Code::Unavailable);
}

/// Rule: a download whose bytes are not those that were put is an error at its end.
#[tokio::test]
async fn damaged_files() {
    let directory = temporary_directory();
    let fake = FakeDaemon::at(&directory.path().join("socket"), |request, _| {
        let media = json!({"id": "f", "sha256": "0".repeat(64), "mime": "a/b", "size": 1, "parts": 1, "createdAt": 1});
        ok(
            request,
            if request["type"] == "get-media" {
                media
            } else {
                json!([120])
            },
        )
    });
    let client = Client::new(ClientOptions::new().endpoint(&fake.endpoint)).unwrap();
    let mut read = Vec::new();
    let error = client.download("f", &mut read).await.unwrap_err();
    assert_eq!(*error.code(), Code::Storage);
    assert_eq!(
        error.message(),
        "media \"f\" does not have the same bytes as the file"
    );
    assert_eq!(read, b"x");
}
