"""The tables as peewee models, for building SQL; imported by the daemon only.

Columns have the names of the records' fields in snake case. The migrations create the tables; a test compares the two.
Nothing here is specific to one database system: a store compiles queries for its own dialect.
"""

from peewee import BlobField, CompositeKey, IntegerField, Model, TextField


class Flag(IntegerField):
    """A bool, stored as 0 or 1."""


class Count(IntegerField):
    """A number that is not negative."""


class Time(IntegerField):
    """Milliseconds since 1970 (UTC)."""


class Json(TextField):
    """A JSON document, stored as text."""


class OptionalKey(TextField):
    """Text in a primary key, which cannot be NULL: an unset one is stored as the empty text."""


class InternalColumn(IntegerField):
    """A number for the daemon's own use; callers neither store nor read it."""


class Table(Model):
    class Meta:
        legacy_table_names = False


class Sequence(Table):
    id = IntegerField(primary_key=True)
    seq = Count()
    last_id = TextField()
    results_from = Count()
    log_from = Count()
    lineage = TextField()
    commits = Count()
    closed = Flag()


class Meta(Table):
    key = TextField(primary_key=True)
    value = Json()


class Messages(Table):
    id = TextField(primary_key=True)
    room_id = TextField()
    sender_id = TextField(null=True)
    content = TextField()
    timestamp = Time()
    channel_id = TextField(null=True)
    sender_name = TextField(null=True)
    edited_at = Time(null=True)
    is_deleted = Flag()
    reply_to_id = TextField(null=True)
    revision = Count(null=True)
    head_hash = TextField(null=True)
    link_metadata = Json(null=True)
    metadata = Json(null=True)
    has_rare = InternalColumn()
    ordinal = IntegerField()
    sent_at = Time(null=True)
    type = TextField(null=True)
    thread_id = TextField(null=True)
    forwarded_from = Json(null=True)
    mentions = Json(null=True)
    pinned_at = Time(null=True)
    expires_at = Time(null=True)
    origin_seq = InternalColumn()
    origin_member = InternalColumn()
    field_versions = Json(null=True)
    written = InternalColumn()


class ClearedRooms(Table):
    room_id = TextField(primary_key=True)
    until = Time()
    after = IntegerField()


class Reactions(Table):
    message_id = TextField()
    oder_id = OptionalKey()
    emoji = TextField()
    id = TextField(null=True)
    user_id = TextField(null=True)
    timestamp = Time(null=True)
    count = Count(null=True)
    metadata = Json(null=True)
    origin_seq = InternalColumn()
    origin_member = InternalColumn()

    class Meta:
        primary_key = CompositeKey("message_id", "oder_id", "emoji")


class WaitingEdits(Table):
    message_id = TextField(primary_key=True)
    fields = Json()


class MessageAliases(Table):
    message_id = TextField(primary_key=True)
    target_id = TextField()


class ReactionRemovals(Table):
    message_id = TextField()
    oder_id = TextField()
    emoji = TextField()
    timestamp = Time()

    class Meta:
        primary_key = CompositeKey("message_id", "oder_id", "emoji")


class Attachments(Table):
    id = TextField(primary_key=True)
    message_id = TextField()
    filename = TextField()
    size = Count(null=True)
    mime = TextField(null=True)
    media_id = TextField(null=True)
    is_image = Flag(null=True)
    uploader_peer_id = TextField(null=True)
    file_path = TextField(null=True)
    saved_path = TextField(null=True)
    sha256 = TextField(null=True)
    metadata = Json(null=True)


class Users(Table):
    oder_id = TextField(primary_key=True)
    id = TextField()
    username = TextField()
    display_name = TextField(null=True)
    description = TextField(null=True)
    avatar_url = TextField(null=True)
    avatar_hash = TextField(null=True)
    avatar_mime = TextField(null=True)
    avatar_updated_at = Time(null=True)
    status = TextField(null=True)
    role = TextField(null=True)
    joined_at = Time(null=True)
    peer_id = TextField(null=True)
    is_online = Flag(null=True)
    is_admin = Flag(null=True)
    is_room_owner = Flag(null=True)
    pubkey = TextField(null=True)
    created_at = Time(null=True)
    updated_at = Time(null=True)
    metadata = Json(null=True)


class Rooms(Table):
    id = TextField(primary_key=True)
    name = TextField()
    description = TextField(null=True)
    topic = TextField(null=True)
    host_id = TextField(null=True)
    host_name = TextField(null=True)
    has_password = Flag(null=True)
    password = TextField(null=True)
    is_private = Flag(null=True)
    created_at = Time(null=True)
    user_count = IntegerField(null=True)
    max_users = IntegerField(null=True)
    icon = TextField(null=True)
    icon_updated_at = Time(null=True)
    slow_mode_interval = IntegerField(null=True)
    permissions = Json(null=True)
    roles = Json(null=True)
    role_assignments = Json(null=True)
    channel_permissions = Json(null=True)
    source_id = TextField(null=True)
    source_name = TextField(null=True)
    source_url = TextField(null=True)
    metadata = Json(null=True)


class Channels(Table):
    room_id = TextField()
    id = TextField()
    name = TextField()
    type = TextField()
    position = IntegerField()
    topic = TextField(null=True)
    category_id = TextField(null=True)
    created_at = Time(null=True)
    updated_at = Time(null=True)
    metadata = Json(null=True)

    class Meta:
        primary_key = CompositeKey("room_id", "id")


class Categories(Table):
    room_id = TextField()
    id = TextField()
    name = TextField()
    position = IntegerField()
    created_at = Time(null=True)
    metadata = Json(null=True)

    class Meta:
        primary_key = CompositeKey("room_id", "id")


class Members(Table):
    room_id = TextField()
    oder_id = TextField()
    id = TextField(null=True)
    username = TextField(null=True)
    display_name = TextField(null=True)
    avatar_url = TextField(null=True)
    role = TextField(null=True)
    role_ids = Json(null=True)
    joined_at = Time(null=True)
    last_seen_at = Time(null=True)
    metadata = Json(null=True)

    class Meta:
        primary_key = CompositeKey("room_id", "oder_id")


class Bans(Table):
    room_id = TextField()
    oder_id = TextField()
    timestamp = Time()
    user_id = TextField(null=True)
    banned_by = TextField(null=True)
    display_name = TextField(null=True)
    reason = TextField(null=True)
    expires_at = Time(null=True)
    metadata = Json(null=True)

    class Meta:
        primary_key = CompositeKey("room_id", "oder_id")


class Sessions(Table):
    token_hash = TextField(primary_key=True)
    user_id = TextField()
    created_at = Time()
    expires_at = Time()
    read_only = Flag(null=True)


class Media(Table):
    id = TextField(primary_key=True)
    sha256 = TextField()
    mime = TextField()
    size = Count()
    uploader_id = TextField(null=True)
    created_at = Time()


class MediaParts(Table):
    media_id = TextField()
    position = IntegerField()
    sha256 = TextField()

    class Meta:
        primary_key = CompositeKey("media_id", "position")


class UnnamedMedia(Table):
    media_id = TextField(primary_key=True)
    since = Time()


class Scope(Table):
    id = IntegerField(primary_key=True)
    name = TextField()


class Commands(Table):
    seq = Count(primary_key=True)
    id = TextField()
    type = TextField()
    at = Time()
    payload = BlobField(null=True)
    salt = BlobField(null=True)
    redacted = Flag()
    facts = BlobField()
    result = BlobField(null=True)
    chain = BlobField()


class LogReferences(Table):
    noun = TextField()
    parent = TextField()
    subject = TextField()
    seq = Count()
    member = IntegerField()
    replaceable = IntegerField()

    class Meta:
        primary_key = CompositeKey("noun", "parent", "subject", "seq", "member")


TABLES: tuple[type[Table], ...] = (
    Sequence,
    Meta,
    Messages,
    ClearedRooms,
    WaitingEdits,
    MessageAliases,
    Reactions,
    ReactionRemovals,
    Attachments,
    Users,
    Rooms,
    Channels,
    Categories,
    Members,
    Bans,
    Sessions,
    Media,
    MediaParts,
    UnnamedMedia,
    Scope,
    Commands,
    LogReferences,
)
"""All tables. A table comes after those it references, so rows are deleted in reverse order."""

CONTENT: tuple[type[Table], ...] = tuple(
    table for table in TABLES if table not in (Sequence, ClearedRooms, UnnamedMedia, Scope, Commands, LogReferences)
)
"""The tables that contain callers' data; the others are the daemon's own."""
