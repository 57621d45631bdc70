"""Every limit of the protocol, with its unit at the end of its name, and the field types that enforce the limits.

Lengths in the types are in characters, which msgspec checks while decoding; `validation.py` then checks the bytes of
text that is not ASCII. `LIMITS` has the same limits as data, for `PROTOCOL.md` and `describe`.
"""

from typing import Annotated, Any, NamedTuple, TypeVar

from msgspec import Meta

BODY_BYTES_MAX = 7 * 1024 * 1024
REPLY_BYTES_MAX = 8 * 1024 * 1024
LOG_BODY_BYTES_MAX = 2 * BODY_BYTES_MAX  # of append-log: an entry is larger than the command it records
FRAME_BYTES_MAX = LOG_BODY_BYTES_MAX + 1024 * 1024  # above this libzmq closes the connection without a reply
TEXT_BYTES_MAX = 1024 * 1024
CHANNEL_TYPE_BYTES_MAX = 64
ID_BYTES_MAX = 512  # so that a key of two ids fits the index entries of every database system
REQUEST_ID_BYTES_MAX = 64
CLIENT_BYTES_MAX = 64
KNOWN_CLIENTS_MAX = 1_000  # of a scope: those whose last command took effect latest
SCOPE_BYTES_MAX = 128
TRACEPARENT_BYTES_MAX = 256
FREE_JSON_BYTES_MAX = 1024 * 1024
LOG_FREE_JSON_BYTES_MAX = 3 * FREE_JSON_BYTES_MAX  # some JSON is larger in MessagePack
LOG_COMMANDS_MAX = 20_000
FREE_JSON_VALUES_MAX = 50_000
LIST_ITEMS_MAX = 100_000
ITEM_BYTES_MAX = 6_400 * 1024  # in JSON; more than any text takes there, and less than a reply
LOG_ENTRY_BYTES_MAX = REPLY_BYTES_MAX - 512 * 1024  # in MessagePack, for the same reason
PAGE_ITEMS_MAX = 500
PAGE_BYTES_MAX = 4 * 1024 * 1024  # a page ends before the item that would make it larger
PAGE_REACTIONS_MAX = 10_000  # of the messages of a page, which ends before the message that would make them more
PAGE_ATTACHMENTS_MAX = 10_000
REACTION_METADATA_BYTES_MAX = 2 * 1024  # so that the reactions to a message rarely exceed those of a page
PAGE_REACTIONS_BYTES_MAX = REPLY_BYTES_MAX - ITEM_BYTES_MAX - 256 * 1024  # so that they fit beside any message
BATCH_COMMANDS_MAX = 1_000
FAILURES_BYTES_MAX = 1024 * 1024  # in JSON; beyond it a batch's failed commands are listed without their messages
WAITING_MESSAGES_MAX = 10_000  # constant, so that a replay refuses and accepts the same edits
DELETED_MESSAGES_MAX = 1_000  # by one command that deletes by time, so that others need not wait for it
CURSOR_CHARS_MAX = 2_560  # a cursor names a room, a channel and a message, in base64
WAIT_MS_MAX = 60_000
WAITING_QUERIES_MAX, WAITING_QUERIES_OF_CLIENT_MAX = 10_000, 64
WAITING_BYTES_MAX = 16 * 1024 * 1024
CHANGED_ROOMS_MAX = 100
PATH_CHARS_MAX = 4_096
FUTURE_MS_MAX = 24 * 60 * 60 * 1000
TOKEN_BYTES_MAX = 128
NEW_TOKEN_CHARS_MIN = 22  # 128 random bits in base64
AUTH_BYTES_MAX = 256
TOKENS_MAX = 256  # with all their scopes they fit a reply
TOKEN_SCOPES_MAX = 32
CLIENT_KEYS_MAX = 256
MEDIA_PART_BYTES_MAX = 4 * 1024 * 1024
MEDIA_PARTS_MAX = 256  # put-media reads them all in one transaction
JSON_DEPTH_MAX = 32
ROUTING_FRAMES_MAX = 16
ROUTING_BYTES_MAX = 4_096
INTEGER_MAX = 2**53 - 1  # the largest that JSON carries exactly in every language
JSON_INTEGER_MIN, JSON_INTEGER_MAX = -(2**63), 2**64 - 1  # the range of MessagePack
MILLIS_MAX = 253_402_300_799_999  # the end of the year 9999; a larger value is usually in microseconds

Cursor = Annotated[str, Meta(min_length=1, max_length=CURSOR_CHARS_MAX)]
Id = Annotated[str, Meta(min_length=1, max_length=ID_BYTES_MAX)]
HexDigest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]  # a SHA-256
Nonce = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", max_length=32)]  # of one length, as text is appended to it
CallerName = Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,64}$(?!\\n)", max_length=64)]
CurveKey = Annotated[str, Meta(pattern=r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$", max_length=40)]
ClientId = Annotated[str, Meta(min_length=1, max_length=CLIENT_BYTES_MAX)]
ScopeName = Annotated[str, Meta(min_length=1, max_length=SCOPE_BYTES_MAX)]
Text = Annotated[str, Meta(max_length=TEXT_BYTES_MAX)]
ChannelType = Annotated[str, Meta(min_length=1, max_length=CHANNEL_TYPE_BYTES_MAX)]
Integer = Annotated[int, Meta(ge=-INTEGER_MAX, le=INTEGER_MAX)]
Count = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
PositiveCount = Annotated[int, Meta(ge=1, le=INTEGER_MAX)]
Bytes = Annotated[int, Meta(ge=0, le=INTEGER_MAX, extra_json_schema={"x-unit": "bytes"})]
Millis = Annotated[int, Meta(ge=0, le=MILLIS_MAX, extra_json_schema={"x-unit": "ms since 1970-01-01 UTC"})]
WaitMs = Annotated[int, Meta(ge=0, le=WAIT_MS_MAX, extra_json_schema={"x-unit": "ms"})]
DurationMs = Annotated[int, Meta(ge=0, le=MILLIS_MAX, extra_json_schema={"x-unit": "ms"})]
Seq = Annotated[int, Meta(ge=1, le=INTEGER_MAX)]
PageSize = Annotated[int, Meta(ge=1, le=PAGE_ITEMS_MAX)]
OperationName = Annotated[str, Meta(max_length=64)]
TableName = Annotated[str, Meta(max_length=64)]
Object = dict[str, Any]  # a free JSON object
Array = Annotated[list[Any], Meta(max_length=LIST_ITEMS_MAX)]  # a free JSON list

T = TypeVar("T")
Many = Annotated[list[T], Meta(max_length=LIST_ITEMS_MAX)]  # a list of records or ids


class Limit(NamedTuple):
    """One limit: what it bounds, its value and unit, and the error code of a request that exceeds it."""

    subject: str
    value: int
    unit: str
    error: str
    note: str = ""


LIMITS: dict[str, Limit] = {
    "bodyBytes": Limit("request body", BODY_BYTES_MAX, "bytes", "too-large"),
    "logBodyBytes": Limit("request body of `append-log`", LOG_BODY_BYTES_MAX, "bytes", "too-large"),
    "frameBytes": Limit("frame", FRAME_BYTES_MAX, "bytes", "", "a larger one closes the connection without a reply"),
    "replyBytes": Limit(
        "reply body", REPLY_BYTES_MAX, "bytes", "too-large", "a list has 1 KiB less; pages are shorter instead"
    ),
    "routingFrames": Limit("frames before the body", ROUTING_FRAMES_MAX, "frames", "malformed"),
    "routingBytes": Limit("frames before the body, together", ROUTING_BYTES_MAX, "bytes", "malformed"),
    "requestIdBytes": Limit("`id` of a request", REQUEST_ID_BYTES_MAX, "bytes", "too-large", "at least 1"),
    "clientBytes": Limit("`client`", CLIENT_BYTES_MAX, "bytes", "too-large", "at least 1"),
    "knownClients": Limit(
        "clients of a scope whose `n` is known",
        KNOWN_CLIENTS_MAX,
        "clients",
        "",
        "the silent longest are forgotten",
    ),
    "scopeBytes": Limit("`scope`", SCOPE_BYTES_MAX, "bytes", "too-large", "at least 1"),
    "traceparentBytes": Limit("`traceparent`", TRACEPARENT_BYTES_MAX, "bytes", "too-large"),
    "idBytes": Limit("an id, an emoji or a message's `type`", ID_BYTES_MAX, "bytes", "too-large", "at least 1"),
    "channelTypeBytes": Limit("`type` of a channel", CHANNEL_TYPE_BYTES_MAX, "bytes", "too-large", "at least 1"),
    "textBytes": Limit("a text (`content`, `name`, …)", TEXT_BYTES_MAX, "bytes", "too-large"),
    "itemBytes": Limit(
        "the texts of a message, user, room, member, …, in JSON",
        ITEM_BYTES_MAX,
        "bytes",
        "too-large",
        "without the lists in it; also after an update",
    ),
    "listItems": Limit("a list (`members`, `reactions`, …)", LIST_ITEMS_MAX, "items", "too-large"),
    "freeJsonBytes": Limit(
        "free JSON (`metadata`, `permissions`, …) of one request",
        FREE_JSON_BYTES_MAX,
        "bytes",
        "too-large",
        "the sum of all fields and, in a batch, of all commands",
    ),
    "reactionMetadataBytes": Limit(
        "`metadata` of a reaction, in JSON", REACTION_METADATA_BYTES_MAX, "bytes", "too-large"
    ),
    "freeJsonValues": Limit("free JSON in one field", FREE_JSON_VALUES_MAX, "values", "too-large"),
    "freeJsonDepth": Limit("free JSON", JSON_DEPTH_MAX, "levels", "invalid"),
    "integer": Limit("integers", INTEGER_MAX, "", "invalid", "at least −(2⁵³−1); sizes and offsets at least 0"),
    "millis": Limit(
        "times and durations", MILLIS_MAX, "ms", "invalid", "at least 0; the maximum is the end of the year 9999"
    ),
    "pageItems": Limit("`limit` of a page", PAGE_ITEMS_MAX, "items", "invalid", "at least 1"),
    "pageBytes": Limit(
        "a page of messages, of the log or of rows", PAGE_BYTES_MAX, "bytes", "", "the page is shorter; at least 1 item"
    ),
    "pageReactions": Limit(
        "reactions in a page of messages",
        PAGE_REACTIONS_MAX,
        "items",
        "",
        "the page is shorter; a message with more is `too-large`: ask with `childLists: false`",
    ),
    "pageReactionsBytes": Limit(
        "reactions in a page of messages, in JSON", PAGE_REACTIONS_BYTES_MAX, "bytes", "", "as above"
    ),
    "pageAttachments": Limit(
        "attachments in a page of messages",
        PAGE_ATTACHMENTS_MAX,
        "items",
        "",
        "with the reactions they have at most `pageReactionsBytes`; the page is shorter; a message with more is "
        "`too-large`: ask without `attachments`",
    ),
    "deletedMessages": Limit(
        "messages that one `delete-messages-before` or `delete-expired-messages` deletes",
        DELETED_MESSAGES_MAX,
        "messages",
        "",
        "its result says how many; send it again for the rest",
    ),
    "cursorChars": Limit("a cursor", CURSOR_CHARS_MAX, "characters", "too-large"),
    "waitMs": Limit("`waitMs`", WAIT_MS_MAX, "ms", "invalid"),
    "waitingQueries": Limit(
        "queries that wait, of all clients", WAITING_QUERIES_MAX, "queries", "", "the oldest is answered with nothing"
    ),
    "waitingQueriesOfClient": Limit(
        "queries that wait, of one connection", WAITING_QUERIES_OF_CLIENT_MAX, "queries", "", "as above"
    ),
    "waitingBytes": Limit("requests of queries that wait, of all clients", WAITING_BYTES_MAX, "bytes", "", "as above"),
    "changedRooms": Limit("`rooms` of `get-changes`", CHANGED_ROOMS_MAX, "items", "too-large", "at least 1"),
    "batchCommands": Limit(
        "commands of a `batch`, entries of `append-log`", BATCH_COMMANDS_MAX, "items", "too-large", "at least 1"
    ),
    "failuresBytes": Limit(
        "messages of the failed commands of a `batch`, in JSON",
        FAILURES_BYTES_MAX,
        "bytes",
        "",
        "the others are listed with `index` and `code` alone",
    ),
    "waitingMessages": Limit(
        "messages of a scope of which only edits have arrived",
        WAITING_MESSAGES_MAX,
        "messages",
        "too-large",
        "an edit of one more is refused until one of the originals arrives",
    ),
    "logCommands": Limit("commands in the entries of one `append-log`", LOG_COMMANDS_MAX, "commands", "too-large"),
    "futureMs": Limit(
        "how far `at` of an entry may be ahead of the daemon's clock",
        FUTURE_MS_MAX,
        "ms",
        "invalid",
        "unless `append-log` has `allowFuture`",
    ),
    "logEntryBytes": Limit(
        "a command's entry in the log, in MessagePack", LOG_ENTRY_BYTES_MAX, "bytes", "too-large", "split the batch"
    ),
    "mediaPartBytes": Limit("a part of a file", MEDIA_PART_BYTES_MAX, "bytes", "too-large"),
    "mediaParts": Limit("parts of a file", MEDIA_PARTS_MAX, "parts", "too-large", "at least 1"),
    "tokenBytes": Limit(
        "a session's token",
        TOKEN_BYTES_MAX,
        "bytes",
        "too-large",
        f"at least 1; of a new session at least {NEW_TOKEN_CHARS_MIN} characters",
    ),
    "authBytes": Limit("`auth`", AUTH_BYTES_MAX, "bytes", "too-large"),
    "tokens": Limit("tokens of a daemon", TOKENS_MAX, "tokens", "too-large"),
    "tokenScopes": Limit("scopes of a token", TOKEN_SCOPES_MAX, "items", "too-large", "at least 1"),
    "clientKeys": Limit("client keys of a daemon", CLIENT_KEYS_MAX, "keys", "too-large"),
    "pathChars": Limit("`path` of a legacy database", PATH_CHARS_MAX, "characters", "too-large", "at least 1"),
}
