"""Whole files to a daemon and back, part by part, so that no more than a few parts are ever in memory.

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

PARTS_UNDER_WAY = 3
READING_MS = 100  # what a part may take a slow disk


def upload(client: Client, file: BinaryIO, mime: str, *, uploader_id: str | None = None) -> Media:
    """Put what is left to read of a file; the media that it is, or already was.

    `file` is read to its end and not closed. Other threads that share the client wait meanwhile. What was put before
    an error is removed by the daemon within a day or two. Raises what `Client.execute` raises, and `Storage` when the
    daemon has not kept the bytes that were sent.
    """
    digest = hashlib.sha256()
    commands = (PutMediaPart(data) for data in _parts_of(file, digest))
    parts = list(client.pipeline(commands, window=PARTS_UNDER_WAY))
    timeout_ms = TIMEOUT_MS + READING_MS * len(parts)  # the daemon reads them all again
    media = client.execute(PutMedia(parts, mime, uploader_id), timeout_ms=timeout_ms)
    _compare(digest, media)
    return media


def download(client: Client, media_id: str, file: BinaryIO) -> Media:
    """Write the bytes of a media to a file, from where it stands; what is known of the media.

    `file` is not closed; after an error it holds a part of the bytes. Other threads that share the client wait
    meanwhile. Raises `NotFound` for an unknown media, what `Client.ask` raises, and `Storage` when the bytes that came
    are not those that were put.
    """
    media = client.ask(GetMedia(media_id))
    if media is None:
        raise NotFound(f"there is no media {media_id!r}")
    digest = hashlib.sha256()
    queries = (GetMediaPart(media_id, number) for number in range(media.parts))
    for data in client.pipeline(queries, window=PARTS_UNDER_WAY):
        digest.update(data)
        file.write(data)
    _compare(digest, media)
    return media


def _parts_of(file: BinaryIO, digest: "hashlib._Hash") -> Iterator[bytes]:
    """The file's bytes in parts as large as they may be, at least one; all go through the digest."""
    data = file.read(MEDIA_PART_BYTES_MAX)
    yield data  # an empty file has one empty part
    while data:
        digest.update(data)
        if data := file.read(MEDIA_PART_BYTES_MAX):
            yield data


def _compare(digest: "hashlib._Hash", media: Media) -> None:
    if digest.hexdigest() != media.sha256:
        raise Storage(f"media {media.id!r} is not made of the same bytes")
