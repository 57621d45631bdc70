"""Media: files stored beside the database by the hash of their content, uploaded and downloaded in parts."""

import hashlib
from typing import Annotated, Self

from msgspec import Meta

from backscroll.schema.limits import MEDIA_PART_BYTES_MAX, MEDIA_PARTS_MAX, Count, HexDigest, Id, PageSize, Text
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.positions import MediaPosition
from backscroll.schema.replies import Media

PartData = Annotated[bytes, Meta(max_length=MEDIA_PART_BYTES_MAX)]


class PutMediaPart(Command[str], frozen=True):
    """Store a part of a file (base64 in JSON) for a later `put-media`; the result is its SHA-256 in hex.

    Parts that no file uses are removed a day after they were put. Exactly one of `data` and `sha256` is given.

    Attributes:
        data: The bytes of the part.
        sha256: Instead of `data`: the part that is already stored under this hash counts as put now; `not-found` if it
            is not stored.

    Example: {"data": "aGVsbG8="}
    """

    ERRORS = ("not-found",)

    ALONE = True

    data: PartData | None = None
    sha256: HexDigest | None = None

    def as_logged(self) -> Self:
        return self if self.data is None else type(self)(sha256=hashlib.sha256(self.data).hexdigest())


class PutMedia(Command[Media], frozen=True):
    """Create a file from parts, in order. `not-found` if a part was not put, or was removed since.

    If a file with the same content exists, that one is the result.

    Attributes:
        parts: The SHA-256 of each part, as `put-media-part` returned it.
        mime: The media type, such as `image/png`.
        uploader_id: Who uploaded the file: an id of the application's, which the daemon only keeps.

    Example: {"parts": ["2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"], "mime": "text/plain"}
    """

    ERRORS = ("not-found",)

    ALONE = True

    parts: Annotated[list[HexDigest], Meta(min_length=1, max_length=MEDIA_PARTS_MAX)]
    mime: Text
    uploader_id: Id | None = None


class DeleteMedia(Command[None], frozen=True):
    """Delete a file. Succeeds if it does not exist.

    The daemon deletes by itself what attachments named, a day after the last of them is gone.

    Example: {"mediaId": "01JGH0000000000000000000000"}
    """

    ADDS = False
    media_id: Id


class GetMedia(Query[Media | None], frozen=True):
    """The properties of a file, without its bytes; null if it does not exist.

    Example: {"mediaId": "01JGH0000000000000000000000"}
    """

    READS = ("media",)

    media_id: Id


class ListMedia(Query[list[Media]], frozen=True):
    """The properties of all files of the scope, ordered by id, which is the order in which they were made.

    Attributes:
        limit: The most items of a page, which has fewer where they are large. Without it the result is the whole list.
        after: Where the page begins: the fields of the order as they are in the last item of the page before, and null
            for one that it lacks. The end is an empty page.

    Example: {"limit": 100, "after": {"id": "01JGH0000000000000000000000"}}
    """

    READS = ("media",)

    limit: PageSize | None = None
    after: MediaPosition | None = None


class GetMediaPart(Query[bytes], frozen=True):
    """The bytes of one part of a file, verified against their hash. `not-found` past the last part.

    Attributes:
        part: The number of the part, from 0; `get-media` says how many there are.

    Example: {"mediaId": "01JGH0000000000000000000000"}
    """

    READS = ("media",)

    ERRORS = ("not-found",)

    run_max = 4  # each part can have 4 MiB

    media_id: Id
    part: Count = 0
