"""Upload and download of whole files in parts, with only a few parts in memory at a time.

with open("photo.jpg", "rb") as file:
    media = upload(client, file, "image/jpeg")
with open("copy.jpg", "wb") as file:
    download(client, media.id, file)
"""

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

from backscroll.clients.python.client import Client
from backscroll.clients.python.pending_calls import TIMEOUT_MS
from backscroll.schema.errors import NotFound, Storage
from backscroll.schema.limits import MEDIA_PART_BYTES_MAX
from backscroll.schema.operations import GetMedia, GetMediaPart, PutMedia, PutMediaPart
from backscroll.schema.replies import Media

PARTS_IN_FLIGHT = 3
READ_MS_PER_PART = 100  # on a slow disk


def upload(client: Client, file: BinaryIO, mime: str, *, uploader_id: str | None = None) -> Media:
    """Upload a file from its current position, and return its media, which may have existed already.

    `file` is read to its end and not closed. Other threads that share the client wait meanwhile. Parts that were put
    before an error are removed by the daemon within two days. Raises what `Client.execute` raises, and `Storage` if
    what the daemon stored is not what was sent.
    """
    digest = hashlib.sha256()
    commands = (PutMediaPart(data) for data in _parts_of(file, digest))
    parts = list(client.pipeline(commands, window=PARTS_IN_FLIGHT))
    timeout_ms = TIMEOUT_MS + READ_MS_PER_PART * len(parts)  # the daemon reads them all again
    media = client.execute(PutMedia(parts, mime, uploader_id), timeout_ms=timeout_ms)
    _compare(digest, media)
    return media


def download(client: Client, media_id: str, file: BinaryIO) -> Media:
    """Write the bytes of a media to a file, at its current position, and return the media.

    `file` is not closed; after an error it contains a part of the bytes. Other threads that share the client wait
    meanwhile. Raises `NotFound` for an unknown media, what `Client.ask` raises, and `Storage` if the received bytes
    are not those that were put.
    """
    media = client.ask(GetMedia(media_id))
    if media is None:
        raise NotFound(f"there is no media {media_id!r}")
    digest = hashlib.sha256()
    queries = (GetMediaPart(media_id, number) for number in range(media.parts))
    for data in client.pipeline(queries, window=PARTS_IN_FLIGHT):
        digest.update(data)
        file.write(data)
    _compare(digest, media)
    return media


def _parts_of(file: BinaryIO, digest: "hashlib._Hash") -> Iterator[bytes]:
    """Read a file in parts of the maximum size, at least one, and update the digest with them."""
    data = file.read(MEDIA_PART_BYTES_MAX)
    yield data  # an empty file has one empty part
    while data:
        digest.update(data)
        if data := file.read(MEDIA_PART_BYTES_MAX):
            yield data


def _compare(digest: "hashlib._Hash", media: Media) -> None:
    if digest.hexdigest() != media.sha256:
        raise Storage(f"media {media.id!r} does not have the same bytes as the file")
