//! Upload and download of whole files in parts, with only a few parts in memory at a time.

use std::collections::VecDeque;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::address::hex;
use crate::client::{Client, RequestOptions};
use crate::limits::MEDIA_PART_BYTES;
use crate::operations::{GetMedia, GetMediaPart, PutMedia, PutMediaPart};
use crate::records::Media;
use crate::{Code, Error};

const PARTS_IN_FLIGHT: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the daemon may take for each part that it reads again.
const READ_TIME_PER_PART: Duration = Duration::from_millis(100);

/// What holds for an upload.
#[derive(Clone, Debug, Default)]
pub struct UploadOptions {
    uploader_id: Option<String>,
}

impl UploadOptions {
    /// Without an uploader.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Who uploads the file, as [`Media`] names it.
    #[must_use]
    pub fn uploader_id(mut self, uploader_id: impl Into<String>) -> Self {
        self.uploader_id = Some(uploader_id.into());
        self
    }
}

impl Client {
    /// Upload a file in parts, such as a `tokio::fs::File` or bytes in memory. Returns its media,
    /// which may have existed.
    ///
    /// If the future is dropped, the parts that were put are removed by the daemon within two days.
    ///
    /// # Errors
    ///
    /// [`Io`](Code::Io) if the source cannot be read, and those of [`put_media`](Self::put_media).
    ///
    /// ```no_run
    /// # async fn example(client: backscroll::Client) -> Result<(), backscroll::Error> {
    /// let photo: &[u8] = b"...";
    /// let media = client.upload(photo, "image/jpeg", backscroll::UploadOptions::new()).await?;
    /// client.download(media.id, tokio::io::sink()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn upload(
        &self,
        mut source: impl AsyncRead + Unpin,
        mime: impl Into<String>,
        options: UploadOptions,
    ) -> Result<Media, Error> {
        let mut digest = Sha256::new();
        let mut parts: Vec<String> = Vec::new();
        let mut putting = InOrder::new();
        loop {
            let part = next_part(&mut source).await?;
            if part.is_empty() && putting.len() + parts.len() > 0 {
                break;
            }
            digest.update(&part);
            if putting.len() >= PARTS_IN_FLIGHT {
                parts.extend(putting.next().await?);
            }
            let client = self.clone();
            putting
                .push(async move { client.put_media_part(PutMediaPart::new().data(part)).await });
        }
        while let Some(part) = putting.next().await? {
            parts.push(part);
        }
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let timeout = TIMEOUT.saturating_add(READ_TIME_PER_PART.saturating_mul(count));
        let mut media = PutMedia::new(parts, mime);
        media.uploader_id = options.uploader_id;
        let media = self
            .answer(media, RequestOptions::new().timeout(timeout))
            .await?
            .result;
        compare(digest, media)
    }

    /// Write the bytes of a file to a sink, part by part. The sink is flushed at the end, but not
    /// shut down.
    ///
    /// # Errors
    ///
    /// [`NotFound`](Code::NotFound) for an unknown media, [`Io`](Code::Io) if the sink cannot be
    /// written to, and [`Storage`](Code::Storage) if the bytes are not those that were put; this is
    /// known only when they were written.
    pub async fn download(
        &self,
        media_id: impl Into<String>,
        mut sink: impl AsyncWrite + Unpin,
    ) -> Result<Media, Error> {
        let media_id = media_id.into();
        let media = self.get_media(GetMedia::new(&media_id)).await?;
        let media = media
            .ok_or_else(|| Error::new(Code::NotFound, format!("there is no media {media_id:?}")))?;
        let mut digest = Sha256::new();
        let mut getting = InOrder::new();
        for part in 0..media.parts {
            let client = self.clone();
            let query = GetMediaPart::new(&media_id).part(part);
            getting.push(async move { client.get_media_part(query).await });
            if getting.len() >= PARTS_IN_FLIGHT {
                if let Some(part) = getting.next().await? {
                    write(&mut sink, &mut digest, &part).await?;
                }
            }
        }
        while let Some(part) = getting.next().await? {
            write(&mut sink, &mut digest, &part).await?;
        }
        sink.flush().await.map_err(cannot_write)?;
        compare(digest, media)
    }
}

/// The next part of the maximum size, or a smaller one at the end; an empty one after that.
async fn next_part(source: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Error> {
    let mut part = Vec::new();
    let read = source.take(MEDIA_PART_BYTES).read_to_end(&mut part).await;
    read.map_err(|error| Error::io(format!("the file cannot be read: {error}"), error))?;
    Ok(part)
}

async fn write(
    sink: &mut (impl AsyncWrite + Unpin),
    digest: &mut Sha256,
    part: &[u8],
) -> Result<(), Error> {
    digest.update(part);
    sink.write_all(part).await.map_err(cannot_write)
}

fn cannot_write(error: std::io::Error) -> Error {
    Error::io(format!("the file cannot be written: {error}"), error)
}

fn compare(digest: Sha256, media: Media) -> Result<Media, Error> {
    if hex(&digest.finalize()) == media.sha256 {
        return Ok(media);
    }
    let problem = format!(
        "media {:?} does not have the same bytes as the file",
        media.id
    );
    Err(Error::new(Code::Storage, problem))
}

/// Requests that are under way at the same time, and whose results are taken in order. They end
/// when this is dropped.
struct InOrder<T>(VecDeque<JoinHandle<Result<T, Error>>>);

impl<T: Send + 'static> InOrder<T> {
    fn new() -> Self {
        Self(VecDeque::new())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn push(&mut self, request: impl Future<Output = Result<T, Error>> + Send + 'static) {
        self.0.push_back(tokio::spawn(request));
    }

    /// The result of the oldest; `None` if there is none.
    async fn next(&mut self) -> Result<Option<T>, Error> {
        let Some(oldest) = self.0.front_mut() else {
            return Ok(None);
        };
        let outcome = oldest
            .await
            .unwrap_or_else(|error| Err(Error::unavailable(format!("a request ended: {error}"))));
        self.0.pop_front();
        outcome.map(Some)
    }
}

impl<T> Drop for InOrder<T> {
    fn drop(&mut self) {
        for request in &self.0 {
            request.abort();
        }
    }
}
