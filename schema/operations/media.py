"""Media: files kept beside the database by the hash of their content, put and fetched in parts."""

import hashlib
from typing import Annotated, Self

from msgspec import Meta

from backscroll.schema.limits import MEDIA_PART_BYTES_MAX, MEDIA_PARTS_MAX, Count, HexDigest, Id, Text
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.replies import Media

PartData = Annotated[bytes, Meta(max_length=MEDIA_PART_BYTES_MAX)]


class PutMediaPart(Command[str], frozen=True):
    """Keep some bytes (base64 in JSON), for `put-media` to name; the result is their SHA-256 in hex.

    Parts that no media name within a day are removed. With `sha256` in place of `data` a part that is there already
    counts as put now; `not-found` where it is not.

    Example: {"data": "aGVsbG8="}
    """

    ERRORS = ("not-found",)

    ALONE = True

    data: PartData | None = None
    sha256: HexDigest | None = None

    def as_logged(self) -> Self:
        return self if self.data is None else type(self)(sha256=hashlib.sha256(self.data).hexdigest())


class PutMedia(Command[Media], frozen=True):
    """Make a file of parts, in their order; `not-found` when one was not put, or not put lately.

    The same content again gives the media that is there.

    Example: {"parts": ["2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"], "mime": "text/plain"}
    """

    ERRORS = ("not-found",)

    ALONE = True

    parts: Annotated[list[HexDigest], Meta(min_length=1, max_length=MEDIA_PARTS_MAX)]
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

    ERRORS = ("not-found",)

    run_max = 4  # of four megabytes each

    media_id: Id
    part: Count = 0
