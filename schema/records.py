"""The records in payloads and replies: the entities of a chat, as callers see them.

A field without a default is required in a save. An optional field that is unset is `None` here and left out on the
wire; `null` from a caller means unset. A child list (`reactions`, `channels`, …) that is left out of a save leaves the
stored list untouched; replies always contain it. Times are milliseconds since the epoch.

A client decodes replies into these classes and ignores what it does not know: fields of a later level, and values
not listed in `OneOf`. The daemon decodes requests into stricter subclasses of them; see `strict.py`.

`KEY` names the fields that identify a record inside its parent's list, `NOUN` is its kind in the command log, and
`REDACTABLE` maps the fields whose text is erased from the command log when the item is deleted to their replacements.
`SECRET` maps the fields that are never in the command log, nor in a `repr`, to what stands there in their place.

Each entity that can be updated has an `…Updates` record in which a field has three states: absent (leave it), `null`
(clear it) and a value (set it); a required field cannot be cleared. These records are written out, not derived, so that
editors and type checkers know the fields; a test compares each of them with its entity. `UPDATES` names the entity.

`Attributes:` in a docstring says what fields mean whose name and type do not tell, of subclasses and `…Updates` too. It
is in the description of the language, and so in the documentation of clients in every language.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeAlias, TypeVar

from msgspec import UNSET, Struct, UnsetType, field
from msgspec.structs import replace

from backscroll.schema.hidden import shown, shown_fields
from backscroll.schema.limits import (
    Array,
    Bytes,
    ChannelType,
    Count,
    Id,
    Integer,
    Many,
    Millis,
    Object,
    PositiveCount,
    Text,
)
from backscroll.schema.markers import REPLY_ONLY, OneOf

T = TypeVar("T")
Settable: TypeAlias = T | UnsetType  # leave it or set it
Clearable: TypeAlias = T | UnsetType | None  # leave it, clear it or set it

DELETED_TEXT = "[Message deleted]"
"""The content of a deleted message in every reply."""

ERASED_EMOJI = "\ufdd0"
"""Replaces an emoji that was erased from the command log. A Unicode noncharacter, reserved for use inside programs.

It is never stored: otherwise a replay would add and remove reactions that nobody made.
"""

Arrival = Annotated[str, OneOf("any-order")]
"""`any-order`: the command reports an event of a network, and events about one message may arrive in any order."""


class Record(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """Base of all records. `field(default_factory=bool)` marks a default that replies include.

    The garbage collector does not track them (`gc=False`), which makes pages faster. A record could be part of a cycle
    only if its `metadata` contained the record itself, and that cannot be encoded.
    """

    NOUN: ClassVar[str] = ""
    KEY: ClassVar[tuple[str, ...]] = ()
    REDACTABLE: ClassVar[Mapping[str, Any]] = {}
    SECRET: ClassVar[Mapping[str, Any]] = {}

    def __repr__(self) -> str:
        return shown(self, self.SECRET)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return shown_fields(self, self.SECRET)


_R = TypeVar("_R", bound=Record)


def without_secrets(record: _R) -> _R:
    """The record as it is in the command log."""
    return replace(record, **record.SECRET)


class StoredRecord(Record, frozen=True, kw_only=True):
    """A record with free JSON fields.

    Attributes:
        damaged: The names of fields whose stored JSON is broken on the disk, so that they read as unset. Only in
            replies, and only if there are any.
    """

    damaged: Annotated[list[str] | None, REPLY_ONLY] = None


class Reaction(StoredRecord, frozen=True, kw_only=True):
    """One user's emoji on one message, or with `count` instead of `oderId` that of several users whom nobody names.

    A user can add each emoji to a message only once, and a message has one count of unnamed users for each emoji.

    Attributes:
        message_id: The message, which need not be stored yet.
        oder_id: Who reacted: an id of the application's, which need not be a stored user. Absent where `count` stands
            for users whom nobody names.
        emoji: The emoji, or any other text that stands for one, such as the name of a custom emoji.
        id: An id of the application's for the reaction. The daemon only keeps it: the key is message, user and emoji.
        user_id: Another id of the user, which the daemon only keeps.
        timestamp: When the user reacted; set by the caller. With `arrival` the latest counts, and one without it is the
            earliest.
        count: How many users reacted, where nobody names them; in place of `oderId`. It does not include the named
            ones.
        metadata: Free JSON such as the address of the emoji's image, at most 2 KiB.
    """

    NOUN = "reaction"
    KEY = ("message_id", "oder_id", "emoji")
    REDACTABLE = {"emoji": ERASED_EMOJI, "metadata": None}

    message_id: Id
    oder_id: Id | None = None
    emoji: Id
    id: Id | None = None
    user_id: Id | None = None
    timestamp: Millis | None = None
    count: PositiveCount | None = None
    metadata: Object | None = None


class Message(StoredRecord, frozen=True, kw_only=True):
    """A chat message. A deleted message keeps its place in the room, with the content "[Message deleted]".

    Attributes:
        id: Unique in the scope, not only in the room.
        sender_id: The `oderId` of the sender, who need not be a stored user. Absent for a line of the system.
        timestamp: The time that orders the message, such as that of the server or of the arrival. The messages of a
            room are in the order (timestamp, ordinal, id).
        channel_id: The channel of the room that the message is in, if any.
        sender_name: The display name of the sender, kept with the message.
        edited_at: When the message was last edited; set by the caller. With `arrival`, versions of a message are
            compared by `revision`, then by this.
        is_deleted: Whether the message was deleted. A save or an update with true deletes it, as `delete-message` does;
            false does not bring it back.
        reply_to_id: The message that this one answers; it need not be stored.
        reactions: In a save or an update they replace the stored ones (with `arrival` they are added to them); left
            out, those stay. In replies, unless the query has `childLists: false`.
        revision: The number of this version of the message, set by the caller and greater with each edit. With
            `arrival` the greatest counts.
        head_hash: A hash of the application's, which the daemon only keeps, also when the message is deleted.
        link_metadata: What the application knows about links in the text; the daemon only keeps it.
        ordinal: Orders messages with the same `timestamp`. 0 where it is left out.
        sent_at: The sender's own claim of when the message was sent; the daemon does nothing with it.
        type: Any word of the application's, such as `call` or `poll`; a message without it is a `text`. The daemon does
            nothing with it.
        thread_id: The id of the message that the thread began with. That message is itself in the thread only if it has
            this too.
        forwarded_from: Where the message was forwarded from, in the application's own form; the daemon does nothing
            with it.
        mentions: The ids of the users whom the message mentions; the daemon does nothing with them.
        pinned_at: When the message was pinned. It is pinned as long as this is set.
        expires_at: When the daemon deletes the message, as `delete-message` does; at once if that is past. The deleted
            message keeps it.
        attachments: Ordered by id. Only in replies: to queries with `attachments: true`, and in the changes of
            `get-changes`.
    """

    NOUN = "message"
    KEY = ("id",)
    REDACTABLE = {
        "content": "",
        "reactions": [],
        "link_metadata": None,
        "metadata": None,
        "forwarded_from": None,
        "mentions": None,
    }

    id: Id
    room_id: Id
    sender_id: Id | None = None
    content: Text
    timestamp: Millis
    channel_id: Id | None = None
    sender_name: Text | None = None
    edited_at: Millis | None = None
    is_deleted: bool = field(default_factory=bool)
    reply_to_id: Id | None = None
    reactions: Many[Reaction] | None = None
    revision: Count | None = None
    head_hash: Text | None = None
    link_metadata: Object | None = None
    metadata: Object | None = None
    ordinal: Integer = 0
    sent_at: Millis | None = None
    type: Id | None = None
    thread_id: Id | None = None
    forwarded_from: Object | None = None
    mentions: Many[Id] | None = None
    pinned_at: Millis | None = None
    expires_at: Millis | None = None
    attachments: Annotated["list[Attachment] | None", REPLY_ONLY] = None


class MessageUpdates(Record, frozen=True, kw_only=True):
    """What `update-message` may change. With another `roomId` the message moves to that room."""

    UPDATES = Message
    REDACTABLE = {
        "content": "",
        "reactions": [],
        "link_metadata": None,
        "metadata": None,
        "forwarded_from": None,
        "mentions": None,
    }

    room_id: Settable[Id] = UNSET
    sender_id: Clearable[Id] = UNSET
    content: Settable[Text] = UNSET
    timestamp: Settable[Millis] = UNSET
    channel_id: Clearable[Id] = UNSET
    sender_name: Clearable[Text] = UNSET
    edited_at: Clearable[Millis] = UNSET
    is_deleted: Settable[bool] = UNSET
    reply_to_id: Clearable[Id] = UNSET
    reactions: Settable[Many[Reaction]] = UNSET
    revision: Clearable[Count] = UNSET
    head_hash: Clearable[Text] = UNSET
    link_metadata: Clearable[Object] = UNSET
    metadata: Clearable[Object] = UNSET
    ordinal: Settable[Integer] = UNSET
    sent_at: Clearable[Millis] = UNSET
    type: Clearable[Id] = UNSET
    thread_id: Clearable[Id] = UNSET
    forwarded_from: Clearable[Object] = UNSET
    mentions: Clearable[Many[Id]] = UNSET
    pinned_at: Clearable[Millis] = UNSET
    expires_at: Clearable[Millis] = UNSET


class User(StoredRecord, frozen=True, kw_only=True):
    """A user's profile. `oderId` is the key; `id` and `pubkey` identify the same user in other ways.

    Attributes:
        oder_id: The key: an id of the application's own, or one that `create-user` made. The name is a misspelling in
            the chat client whose data model this protocol adopted; it is kept so that that client's payloads can be
            sent unchanged.
        id: Another id of the user: `get-user` and `update-user` look for it if no user has the `oderId`.
        status: Any word of the application's, such as `away`; the daemon does nothing with it.
        role: Any word of the application's; it gives no rights in the daemon.
        peer_id: The id of the user's peer in the application's network; the daemon only keeps it.
        is_online: What the application saved last: the daemon does not know who is online.
        is_admin: Kept for the application; it gives no rights in the daemon.
        is_room_owner: Kept for the application; it gives no rights in the daemon.
        pubkey: The public key, in the application's own form. Another user with the same key is a `conflict`.
        created_at: Set by the caller, and by the daemon in `create-user`. `list-users` is ordered by it.
        updated_at: Set by the caller, and by the daemon in `create-user`; `update-user` does not change it by itself.
    """

    NOUN = "user"
    KEY = ("oder_id",)

    oder_id: Id
    id: Id
    username: Text
    display_name: Text | None = None
    description: Text | None = None
    avatar_url: Text | None = None
    avatar_hash: Text | None = None
    avatar_mime: Text | None = None
    avatar_updated_at: Millis | None = None
    status: Text | None = None
    role: Text | None = None
    joined_at: Millis | None = None
    peer_id: Id | None = None
    is_online: bool | None = None
    is_admin: bool | None = None
    is_room_owner: bool | None = None
    pubkey: Text | None = None
    created_at: Millis | None = None
    updated_at: Millis | None = None
    metadata: Object | None = None


class UserUpdates(Record, frozen=True, kw_only=True):
    """What `update-user` may change."""

    UPDATES = User

    id: Settable[Id] = UNSET
    username: Settable[Text] = UNSET
    display_name: Clearable[Text] = UNSET
    description: Clearable[Text] = UNSET
    avatar_url: Clearable[Text] = UNSET
    avatar_hash: Clearable[Text] = UNSET
    avatar_mime: Clearable[Text] = UNSET
    avatar_updated_at: Clearable[Millis] = UNSET
    status: Clearable[Text] = UNSET
    role: Clearable[Text] = UNSET
    joined_at: Clearable[Millis] = UNSET
    peer_id: Clearable[Id] = UNSET
    is_online: Clearable[bool] = UNSET
    is_admin: Clearable[bool] = UNSET
    is_room_owner: Clearable[bool] = UNSET
    pubkey: Clearable[Text] = UNSET
    created_at: Clearable[Millis] = UNSET
    updated_at: Clearable[Millis] = UNSET
    metadata: Clearable[Object] = UNSET


class Channel(StoredRecord, frozen=True, kw_only=True):
    """A channel of a room. Its id is unique only within the room: `general` may exist in several rooms.

    Attributes:
        type: Any word of the application's, such as `text` or `voice`; the daemon does nothing with it.
        position: The place among the channels of the room, which are in the order (position, id).
        category_id: The category of the room that the channel is listed under, if any.
        created_at: Set by the caller, and by the daemon in `create-channel`.
        updated_at: Set by the caller, and by the daemon in `create-channel`, and in `update-channel` unless the updates
            have it.
    """

    NOUN = "channel"
    KEY = ("id",)
    REDACTABLE = {"name": "", "type": "text", "topic": None, "metadata": None}

    id: Id
    name: Text
    type: ChannelType
    position: Integer = field(default_factory=int)
    topic: Text | None = None
    category_id: Id | None = None
    created_at: Millis | None = None
    updated_at: Millis | None = None
    metadata: Object | None = None


class ChannelUpdates(Record, frozen=True, kw_only=True):
    """What `update-channel` may change."""

    UPDATES = Channel
    REDACTABLE = {"name": "", "type": "text", "topic": None, "metadata": None}

    name: Settable[Text] = UNSET
    type: Settable[ChannelType] = UNSET
    position: Settable[Integer] = UNSET
    topic: Clearable[Text] = UNSET
    category_id: Clearable[Id] = UNSET
    created_at: Clearable[Millis] = UNSET
    updated_at: Clearable[Millis] = UNSET
    metadata: Clearable[Object] = UNSET


class Category(StoredRecord, frozen=True, kw_only=True):
    """A heading under which channels of a room are listed.

    Attributes:
        position: The place among the categories of the room, which are in the order (position, id).
        created_at: Set by the caller, and by the daemon in `create-category`.
    """

    NOUN = "category"
    KEY = ("id",)
    REDACTABLE = {"name": "", "metadata": None}

    id: Id
    name: Text
    position: Integer = field(default_factory=int)
    created_at: Millis | None = None
    metadata: Object | None = None


class CategoryUpdates(Record, frozen=True, kw_only=True):
    """What `update-category` may change."""

    UPDATES = Category
    REDACTABLE = {"name": "", "metadata": None}

    name: Settable[Text] = UNSET
    position: Settable[Integer] = UNSET
    created_at: Clearable[Millis] = UNSET
    metadata: Clearable[Object] = UNSET


class RoomMember(StoredRecord, frozen=True, kw_only=True):
    """A user's membership in a room, with the profile fields that the room keeps itself.

    Attributes:
        oder_id: The `oderId` of the user, who need not be stored.
        id: The `id` of the user.
        role: Any word of the application's; it gives no rights in the daemon.
        role_ids: The ids of roles that the application defines; the daemon does nothing with them.
        joined_at: When the user joined the room; set by the caller. Members are in the order (joinedAt, oderId).
        last_seen_at: What the application saved last: the daemon does not set it.
    """

    NOUN = "member"
    KEY = ("oder_id",)
    REDACTABLE = dict.fromkeys(["username", "display_name", "avatar_url", "role", "metadata"])

    oder_id: Id
    id: Id | None = None
    username: Text | None = None
    display_name: Text | None = None
    avatar_url: Text | None = None
    role: Text | None = None
    role_ids: Many[Id] | None = None
    joined_at: Millis | None = None
    last_seen_at: Millis | None = None
    metadata: Object | None = None


ROOM_REDACTABLE: Mapping[str, Any] = {"name": ""} | dict.fromkeys(
    [
        *("description", "topic", "host_name", "icon", "permissions", "roles", "role_assignments"),
        *("channel_permissions", "source_name", "source_url", "metadata"),
    ]
)


class Room(StoredRecord, frozen=True, kw_only=True):
    """A room (server) with its channels, categories and members.

    Attributes:
        host_id: Who hosts the room: an id of the application's.
        has_password: Set by the caller: the daemon does not derive it from `password`.
        password: Kept for the application, which alone checks it. It is left out of the command log, so a replayed room
            has none.
        is_private: Kept for the application: the daemon does not hide the room.
        created_at: Set by the caller. `get-all-rooms` is ordered by it.
        user_count: The application's own number: the daemon does not count the members.
        max_users: Kept for the application: the daemon does not enforce it.
        icon: The icon in the application's own form; the daemon only keeps it.
        slow_mode_interval: Kept for the application, in its own unit: the daemon does not enforce it.
        permissions: Kept for the application: the daemon grants and refuses nothing by it.
        roles: The roles that the application defines for the room; the daemon does nothing with them.
        role_assignments: Which users have which roles, in the application's own form; the daemon does nothing with it.
        channel_permissions: Kept for the application: the daemon grants and refuses nothing by it.
        source_id: The source that the room comes from: an id of the application's, which the daemon only keeps.
        source_name: The name of the source that the room comes from.
        source_url: The address of the source that the room comes from.
        channels: In the order (position, id). In a save or an update they replace the stored ones; left out, those
            stay.
        categories: In the order (position, id), and left out of replies if there are none. In a save or an update they
            replace the stored ones; left out, those stay.
        members: In the order (joinedAt, oderId). In a save or an update they replace the stored ones; left out, those
            stay. `save-member` saves one alone.
    """

    NOUN = "room"
    KEY = ("id",)
    REDACTABLE = ROOM_REDACTABLE
    SECRET = {"password": None}

    id: Id
    name: Text
    description: Text | None = None
    topic: Text | None = None
    host_id: Id | None = None
    host_name: Text | None = None
    has_password: bool | None = None
    password: Text | None = None
    is_private: bool | None = None
    created_at: Millis | None = None
    user_count: Integer | None = None
    max_users: Integer | None = None
    icon: Text | None = None
    icon_updated_at: Millis | None = None
    slow_mode_interval: Integer | None = None
    permissions: Object | None = None
    roles: Array | None = None
    role_assignments: Array | None = None
    channel_permissions: Array | None = None
    source_id: Id | None = None
    source_name: Text | None = None
    source_url: Text | None = None
    channels: Many[Channel] | None = None
    categories: Many[Category] | None = None
    members: Many[RoomMember] | None = None
    metadata: Object | None = None


class RoomUpdates(Record, frozen=True, kw_only=True):
    """What `update-room` may change. A list replaces the stored list."""

    UPDATES = Room
    REDACTABLE = ROOM_REDACTABLE
    SECRET = {"password": UNSET}

    name: Settable[Text] = UNSET
    description: Clearable[Text] = UNSET
    topic: Clearable[Text] = UNSET
    host_id: Clearable[Id] = UNSET
    host_name: Clearable[Text] = UNSET
    has_password: Clearable[bool] = UNSET
    password: Clearable[Text] = UNSET
    is_private: Clearable[bool] = UNSET
    created_at: Clearable[Millis] = UNSET
    user_count: Clearable[Integer] = UNSET
    max_users: Clearable[Integer] = UNSET
    icon: Clearable[Text] = UNSET
    icon_updated_at: Clearable[Millis] = UNSET
    slow_mode_interval: Clearable[Integer] = UNSET
    permissions: Clearable[Object] = UNSET
    roles: Clearable[Array] = UNSET
    role_assignments: Clearable[Array] = UNSET
    channel_permissions: Clearable[Array] = UNSET
    source_id: Clearable[Id] = UNSET
    source_name: Clearable[Text] = UNSET
    source_url: Clearable[Text] = UNSET
    channels: Settable[Many[Channel]] = UNSET
    categories: Clearable[Many[Category]] = UNSET
    members: Settable[Many[RoomMember]] = UNSET
    metadata: Clearable[Object] = UNSET


SECRET_COLUMNS: Mapping[str, frozenset[str]] = {"rooms": frozenset(Room.SECRET)}
"""The columns with secrets, by table. A replay does not have them, so comparisons leave them out."""


class Ban(StoredRecord, frozen=True, kw_only=True):
    """A ban of one user from one room, in force while `expiresAt` is absent or in the future.

    Attributes:
        oder_id: The `oderId` of the banned user, who need not be stored.
        timestamp: When the user was banned; set by the caller.
        user_id: Another id of the user: `is-user-banned` compares with both.
        banned_by: Who banned the user: an id of the application's.
        display_name: The display name of the banned user.
    """

    NOUN = "ban"
    KEY = ("room_id", "oder_id")
    REDACTABLE = {"display_name": None, "reason": None, "metadata": None}

    room_id: Id
    oder_id: Id
    timestamp: Millis
    user_id: Id | None = None
    banned_by: Id | None = None
    display_name: Text | None = None
    reason: Text | None = None
    expires_at: Millis | None = None
    metadata: Object | None = None


class Attachment(StoredRecord, frozen=True, kw_only=True):
    """A file attached to a message. Its bytes are in the media `mediaId`, or elsewhere.

    Attributes:
        id: Unique in the scope, not only in the message.
        message_id: The message, which need not be stored yet.
        size: The size of the file. Absent if it is not known.
        mime: The media type, such as `image/png`. Absent if it is not known.
        media_id: The media with the bytes, from `put-media`; it need not exist. It is deleted a day after the last
            attachment that names it is gone.
        is_image: Set by the caller: the daemon does not look into files.
        uploader_peer_id: The peer that uploaded the file: an id in the application's network, which the daemon only
            keeps.
        file_path: A path of the application's; the daemon never opens it.
        saved_path: The path under which the application saved the file; the daemon never opens it.
        sha256: The hash of the file as the caller gives it; the daemon does not check it.
    """

    NOUN = "attachment"
    KEY = ("id",)
    REDACTABLE = {
        "filename": "",
        "mime": None,
        "uploader_peer_id": None,
        "file_path": None,
        "saved_path": None,
        "sha256": None,
        "metadata": None,
    }

    id: Id
    message_id: Id
    filename: Text
    size: Bytes | None = None
    mime: Text | None = None
    media_id: Id | None = None
    is_image: bool | None = None
    uploader_peer_id: Id | None = None
    file_path: Text | None = None
    saved_path: Text | None = None
    sha256: Text | None = None
    metadata: Object | None = None
