"""Every limit of the wire, named, with its unit last, and the field types that carry them.

Lengths in the types are characters, which msgspec checks while it decodes; `validation.py` then checks
the bytes of what is not plain ASCII.
"""

from typing import Annotated, Any, TypeVar

from msgspec import Meta

BODY_BYTES_MAX = 16 * 1024 * 1024  # a request; a larger one is answered `too-large`
FRAME_BYTES_MAX = 4 * BODY_BYTES_MAX + 4096  # above this libzmq closes the connection without an answer
REPLY_BYTES_MAX = 64 * 1024 * 1024  # a reply; ask for fewer items instead
LOG_BODY_BYTES_MAX = 2 * BODY_BYTES_MAX  # a piece of a log that is replayed: an entry says more than its command did
TEXT_BYTES_MAX = 1024 * 1024
ID_BYTES_MAX = 128
REQUEST_ID_BYTES_MAX = 64
SCOPE_BYTES_MAX = 128
TRACEPARENT_BYTES_MAX = 256
FREE_JSON_BYTES_MAX = 1024 * 1024  # `metadata` and the other free JSON fields of one payload together
LOG_FREE_JSON_BYTES_MAX = 3 * FREE_JSON_BYTES_MAX  # in MessagePack some JSON is larger
LOG_COMMANDS_MAX = 20_000  # of a piece of a log, those in batches included
FREE_JSON_VALUES_MAX = 50_000  # in one field
LIST_ITEMS_MAX = 100_000  # channels, members, reactions … of one payload
PAGE_ITEMS_MAX = 500
PAGE_BYTES_MAX = 4 * 1024 * 1024  # of a page of the log or of rows: it ends before what would make it larger
BATCH_COMMANDS_MAX = 1_000  # of one batch, and of one piece of a log that is replayed
JSON_DEPTH_MAX = 32  # of `metadata` and the other free JSON fields, themselves included
ROUTING_FRAMES_MAX = 16  # frames before the body: the routing id, REQ's delimiter, proxies' hops
ROUTING_BYTES_MAX = 4_096  # of all of them
INTEGER_MAX = 2**53 - 1  # what every language's JSON carries without loss
JSON_INTEGER_MIN, JSON_INTEGER_MAX = -(2**63), 2**64 - 1  # in free JSON fields: what MessagePack carries

Id = Annotated[str, Meta(min_length=1, max_length=ID_BYTES_MAX)]
HexDigest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]  # a SHA-256
Text = Annotated[str, Meta(max_length=TEXT_BYTES_MAX)]
Integer = Annotated[int, Meta(ge=-INTEGER_MAX, le=INTEGER_MAX)]
Count = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Millis = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]  # milliseconds since the epoch
PageSize = Annotated[int, Meta(ge=1, le=PAGE_ITEMS_MAX)]
Object = dict[str, Any]  # a free JSON object
Array = Annotated[list[Any], Meta(max_length=LIST_ITEMS_MAX)]  # a free JSON list

T = TypeVar("T")
Many = Annotated[list[T], Meta(max_length=LIST_ITEMS_MAX)]  # a list of records or ids
