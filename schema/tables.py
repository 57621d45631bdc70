"""The tables as peewee models, for building SQL; imported by the daemon only.

Columns have the names of the records' fields in snake case. The migrations create the tables; a test compares the two.
Nothing here is specific to one database system: a store compiles queries for its own dialect.
"""

from peewee import BlobField, CompositeKey, IntegerField, Model, TextField


class Flag(IntegerField):
    """A bool, stored as 0 or 1."""


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
    seq = IntegerField()
    last_id = TextField()
    results_from = IntegerField()
    log_from = IntegerField()
    lineage = TextField()
    commits = IntegerField()
    closed = Flag()


class Meta(Table):
    key = TextField(primary_key=True)
    value = Json()


class Messages(Table):
    id = TextField(primary_key=True)
    room_id = TextField()
    sender_id = TextField(null=True)
    content = TextField()
    timestamp = IntegerField()
    channel_id = TextField(null=True)
    sender_name = TextField(null=True)
    edited_at = IntegerField(null=True)
    is_deleted = Flag()
    reply_to_id = TextField(null=True)
    revision = IntegerField(null=True)
    head_hash = TextField(null=True)
    link_metadata = Json(null=True)
    metadata = Json(null=True)
    has_rare = InternalColumn()
    ordinal = IntegerField()
    sent_at = IntegerField(null=True)
    type = TextField(null=True)
    thread_id = TextField(null=True)
    forwarded_from = Json(null=True)
    mentions = Json(null=True)
    pinned_at = IntegerField(null=True)
    expires_at = IntegerField(null=True)
    origin_seq = InternalColumn()
    origin_member = InternalColumn()
    field_versions = Json(null=True)


class Reactions(Table):
    message_id = TextField()
    oder_id = OptionalKey()
    emoji = TextField()
    id = TextField(null=True)
    user_id = TextField(null=True)
    timestamp = IntegerField(null=True)
    count = IntegerField(null=True)
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
    timestamp = IntegerField()

    class Meta:
        primary_key = CompositeKey("message_id", "oder_id", "emoji")


class Attachments(Table):
    id = TextField(primary_key=True)
    message_id = TextField()
    filename = TextField()
    size = IntegerField(null=True)
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
    avatar_updated_at = IntegerField(null=True)
    status = TextField(null=True)
    role = TextField(null=True)
    joined_at = IntegerField(null=True)
    peer_id = TextField(null=True)
    is_online = Flag(null=True)
    is_admin = Flag(null=True)
    is_room_owner = Flag(null=True)
    pubkey = TextField(null=True)
    created_at = IntegerField(null=True)
    updated_at = IntegerField(null=True)
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
    created_at = IntegerField(null=True)
    user_count = IntegerField(null=True)
    max_users = IntegerField(null=True)
    icon = TextField(null=True)
    icon_updated_at = IntegerField(null=True)
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
    created_at = IntegerField(null=True)
    updated_at = IntegerField(null=True)
    metadata = Json(null=True)

    class Meta:
        primary_key = CompositeKey("room_id", "id")


class Categories(Table):
    room_id = TextField()
    id = TextField()
    name = TextField()
    position = IntegerField()
    created_at = IntegerField(null=True)
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
    joined_at = IntegerField(null=True)
    last_seen_at = IntegerField(null=True)
    metadata = Json(null=True)

    class Meta:
        primary_key = CompositeKey("room_id", "oder_id")


class Bans(Table):
    room_id = TextField()
    oder_id = TextField()
    timestamp = IntegerField()
    user_id = TextField(null=True)
    banned_by = TextField(null=True)
    display_name = TextField(null=True)
    reason = TextField(null=True)
    expires_at = IntegerField(null=True)
    metadata = Json(null=True)

    class Meta:
        primary_key = CompositeKey("room_id", "oder_id")


class Sessions(Table):
    token_hash = TextField(primary_key=True)
    user_id = TextField()
    created_at = IntegerField()
    expires_at = IntegerField()
    read_only = Flag(null=True)


class Media(Table):
    id = TextField(primary_key=True)
    sha256 = TextField()
    mime = TextField()
    size = IntegerField()
    uploader_id = TextField(null=True)
    created_at = IntegerField()


class MediaParts(Table):
    media_id = TextField()
    position = IntegerField()
    sha256 = TextField()

    class Meta:
        primary_key = CompositeKey("media_id", "position")


class UnnamedMedia(Table):
    media_id = TextField(primary_key=True)
    since = IntegerField()


class Scope(Table):
    id = IntegerField(primary_key=True)
    name = TextField()


class Commands(Table):
    seq = IntegerField(primary_key=True)
    id = TextField()
    type = TextField()
    at = IntegerField()
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
    seq = IntegerField()
    member = IntegerField()
    replaceable = IntegerField()

    class Meta:
        primary_key = CompositeKey("noun", "parent", "subject", "seq", "member")


TABLES: tuple[type[Table], ...] = (
    Sequence,
    Meta,
    Messages,
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
    table for table in TABLES if table not in (Sequence, UnnamedMedia, Scope, Commands, LogReferences)
)
"""The tables that contain callers' data; the others are the daemon's own."""
