"""Media: files kept beside the database by the hash of their content, put and fetched in parts."""

from typing import Annotated

from msgspec import Meta

from backscroll.schema.limits import Count, Id, Text
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.records import Media

MEDIA_PART_BYTES_MAX = 4 * 1024 * 1024
MEDIA_PARTS_MAX = 256  # which `put-media` reads in one transaction

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
Bytes = Annotated[bytes, Meta(max_length=MEDIA_PART_BYTES_MAX)]


class PutMediaPart(Command[str], frozen=True):
    """Keep some bytes (base64 in JSON), for `put-media` to name; the result is their SHA-256 in hex.

    Parts that no media name within a day are removed.

    Example: {"data": "aGVsbG8="}
    """

    data: Bytes


class PutMedia(Command[Media], frozen=True):
    """Make a file of parts, in their order; `not-found` when one was not put, or not put lately.

    The same content again gives the media that is there.

    Example: {"parts": ["2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"], "mime": "text/plain"}
    """

    parts: Annotated[list[Sha256], Meta(min_length=1, max_length=MEDIA_PARTS_MAX)]
    mime: Text
    uploader_id: Id | None = None


class DeleteMedia(Command[None], frozen=True):
    """Remove a file, if it is there.

    Example: {"mediaId": "01JGH0000000000000000000000"}
    """

    media_id: Id


class GetMedia(Query[Media | None], frozen=True):
    """What is known of a file, or null.

    Example: {"mediaId": "01JGH0000000000000000000000"}
    """

    media_id: Id


class GetMediaPart(Query[bytes], frozen=True):
    """The bytes of one part of a file, held against their hash; `not-found` past the last part.

    Example: {"mediaId": "01JGH0000000000000000000000"}
    """

    run_max = 4  # of four megabytes each

    media_id: Id
    part: Count = 0
