-- Version 1: all tables.
--
-- They hold what the tables of the same names hold in SQLite (../sqlite), of all scopes: the scope is the first column of
-- every key, index and reference, so that a database which is distributed by scope keeps each scope in one place. Texts
-- are compared by their bytes (`COLLATE "C"`), unset values come first, times are milliseconds since 1970, flags 0 or 1.

-- The end of the log of commands of each scope. Whoever writes to a scope holds the lock of its row.
CREATE TABLE sequence (
    scope        TEXT COLLATE "C" NOT NULL CHECK (octet_length(scope) BETWEEN 1 AND 128),
    seq          BIGINT NOT NULL DEFAULT 0,                     -- the number of the last command that took effect
    last_id      TEXT COLLATE "C" NOT NULL DEFAULT '',          -- the last generated id
    chain        BYTEA NOT NULL DEFAULT '',                     -- of the last commit: tells histories of one lineage apart
    results_from BIGINT NOT NULL DEFAULT 1,                     -- the results of commands before this one are not stored
    log_from     BIGINT NOT NULL DEFAULT 1,                     -- the first row of the log
    lineage      TEXT COLLATE "C" NOT NULL DEFAULT gen_random_uuid()::text,  -- another one if the scope is made anew
    PRIMARY KEY (scope)
);

CREATE TABLE meta (
    scope TEXT COLLATE "C" NOT NULL,
    key   TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (scope, key)
);

CREATE TABLE messages (
    scope          TEXT COLLATE "C" NOT NULL,
    id             TEXT COLLATE "C" NOT NULL,
    room_id        TEXT COLLATE "C" NOT NULL,
    sender_id      TEXT COLLATE "C",
    content        TEXT COLLATE "C" NOT NULL,
    timestamp      BIGINT NOT NULL,
    channel_id     TEXT COLLATE "C",
    sender_name    TEXT COLLATE "C",
    edited_at      BIGINT,
    is_deleted     BIGINT NOT NULL DEFAULT 0,
    reply_to_id    TEXT COLLATE "C",
    revision       BIGINT,
    head_hash      TEXT COLLATE "C",
    link_metadata  TEXT COLLATE "C",
    metadata       TEXT COLLATE "C",
    has_rare       BIGINT NOT NULL DEFAULT 0,
    ordinal        BIGINT NOT NULL DEFAULT 0,
    sent_at        BIGINT,
    type           TEXT COLLATE "C",
    thread_id      TEXT COLLATE "C",
    forwarded_from TEXT COLLATE "C",
    mentions       TEXT COLLATE "C",
    pinned_at      BIGINT,
    expires_at     BIGINT,
    origin_seq     BIGINT NOT NULL DEFAULT 0,
    origin_member  BIGINT NOT NULL DEFAULT 0,
    field_versions TEXT COLLATE "C",
    written        BIGINT NOT NULL DEFAULT 1,
    PRIMARY KEY (scope, id)
);

CREATE TABLE cleared_rooms (
    scope   TEXT COLLATE "C" NOT NULL,
    room_id TEXT COLLATE "C" NOT NULL,
    until   BIGINT NOT NULL,
    after   BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, room_id)
);

CREATE TABLE waiting_edits (
    scope      TEXT COLLATE "C" NOT NULL,
    message_id TEXT COLLATE "C" NOT NULL,
    fields     TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (scope, message_id)
);

CREATE TABLE message_aliases (
    scope      TEXT COLLATE "C" NOT NULL,
    message_id TEXT COLLATE "C" NOT NULL,
    target_id  TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (scope, message_id)
);

CREATE TABLE reactions (
    scope         TEXT COLLATE "C" NOT NULL,
    message_id    TEXT COLLATE "C" NOT NULL,
    oder_id       TEXT COLLATE "C" NOT NULL,
    emoji         TEXT COLLATE "C" NOT NULL,
    id            TEXT COLLATE "C",
    user_id       TEXT COLLATE "C",
    timestamp     BIGINT,
    count         BIGINT,
    metadata      TEXT COLLATE "C",
    origin_seq    BIGINT NOT NULL DEFAULT 0,
    origin_member BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, message_id, oder_id, emoji)
);

CREATE TABLE reaction_removals (
    scope      TEXT COLLATE "C" NOT NULL,
    message_id TEXT COLLATE "C" NOT NULL,
    oder_id    TEXT COLLATE "C" NOT NULL,
    emoji      TEXT COLLATE "C" NOT NULL,
    timestamp  BIGINT NOT NULL,
    PRIMARY KEY (scope, message_id, oder_id, emoji)
);

CREATE TABLE attachments (
    scope            TEXT COLLATE "C" NOT NULL,
    id               TEXT COLLATE "C" NOT NULL,
    message_id       TEXT COLLATE "C" NOT NULL,
    filename         TEXT COLLATE "C" NOT NULL,
    size             BIGINT,
    mime             TEXT COLLATE "C",
    media_id         TEXT COLLATE "C",
    is_image         BIGINT,
    uploader_peer_id TEXT COLLATE "C",
    file_path        TEXT COLLATE "C",
    saved_path       TEXT COLLATE "C",
    sha256           TEXT COLLATE "C",
    metadata         TEXT COLLATE "C",
    PRIMARY KEY (scope, id)
);

CREATE TABLE users (
    scope             TEXT COLLATE "C" NOT NULL,
    oder_id           TEXT COLLATE "C" NOT NULL,
    id                TEXT COLLATE "C" NOT NULL,
    username          TEXT COLLATE "C" NOT NULL,
    display_name      TEXT COLLATE "C",
    description       TEXT COLLATE "C",
    avatar_url        TEXT COLLATE "C",
    avatar_hash       TEXT COLLATE "C",
    avatar_mime       TEXT COLLATE "C",
    avatar_updated_at BIGINT,
    status            TEXT COLLATE "C",
    role              TEXT COLLATE "C",
    joined_at         BIGINT,
    peer_id           TEXT COLLATE "C",
    is_online         BIGINT,
    is_admin          BIGINT,
    is_room_owner     BIGINT,
    pubkey            TEXT COLLATE "C",
    created_at        BIGINT,
    updated_at        BIGINT,
    metadata          TEXT COLLATE "C",
    -- An entry of an index has at most 2,704 bytes, and keys may be longer. That each is of one user is seen to by those
    -- who hold the lock of the scope. (A column, because row-level security keeps functions of columns from indexes.)
    pubkey_hash       BIGINT GENERATED ALWAYS AS (hashtextextended(pubkey, 0)) STORED,
    PRIMARY KEY (scope, oder_id)
);

CREATE INDEX users_by_pubkey ON users (scope, pubkey_hash);

CREATE TABLE rooms (
    scope               TEXT COLLATE "C" NOT NULL,
    id                  TEXT COLLATE "C" NOT NULL,
    name                TEXT COLLATE "C" NOT NULL,
    description         TEXT COLLATE "C",
    topic               TEXT COLLATE "C",
    host_id             TEXT COLLATE "C",
    host_name           TEXT COLLATE "C",
    has_password        BIGINT,
    password            TEXT COLLATE "C",
    is_private          BIGINT,
    created_at          BIGINT,
    user_count          BIGINT,
    max_users           BIGINT,
    icon                TEXT COLLATE "C",
    icon_updated_at     BIGINT,
    slow_mode_interval  BIGINT,
    permissions         TEXT COLLATE "C",
    roles               TEXT COLLATE "C",
    role_assignments    TEXT COLLATE "C",
    channel_permissions TEXT COLLATE "C",
    source_id           TEXT COLLATE "C",
    source_name         TEXT COLLATE "C",
    source_url          TEXT COLLATE "C",
    metadata            TEXT COLLATE "C",
    PRIMARY KEY (scope, id)
);

CREATE TABLE channels (
    scope       TEXT COLLATE "C" NOT NULL,
    room_id     TEXT COLLATE "C" NOT NULL,
    id          TEXT COLLATE "C" NOT NULL,
    name        TEXT COLLATE "C" NOT NULL,
    type        TEXT COLLATE "C" NOT NULL,
    position    BIGINT NOT NULL,
    topic       TEXT COLLATE "C",
    category_id TEXT COLLATE "C",
    created_at  BIGINT,
    updated_at  BIGINT,
    metadata    TEXT COLLATE "C",
    PRIMARY KEY (scope, room_id, id),
    FOREIGN KEY (scope, room_id) REFERENCES rooms (scope, id) ON DELETE CASCADE
);

CREATE TABLE categories (
    scope      TEXT COLLATE "C" NOT NULL,
    room_id    TEXT COLLATE "C" NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    position   BIGINT NOT NULL,
    created_at BIGINT,
    metadata   TEXT COLLATE "C",
    PRIMARY KEY (scope, room_id, id),
    FOREIGN KEY (scope, room_id) REFERENCES rooms (scope, id) ON DELETE CASCADE
);

CREATE TABLE members (
    scope        TEXT COLLATE "C" NOT NULL,
    room_id      TEXT COLLATE "C" NOT NULL,
    oder_id      TEXT COLLATE "C" NOT NULL,
    id           TEXT COLLATE "C",
    username     TEXT COLLATE "C",
    display_name TEXT COLLATE "C",
    avatar_url   TEXT COLLATE "C",
    role         TEXT COLLATE "C",
    role_ids     TEXT COLLATE "C",
    joined_at    BIGINT,
    last_seen_at BIGINT,
    metadata     TEXT COLLATE "C",
    PRIMARY KEY (scope, room_id, oder_id),
    FOREIGN KEY (scope, room_id) REFERENCES rooms (scope, id) ON DELETE CASCADE
);

CREATE TABLE bans (
    scope        TEXT COLLATE "C" NOT NULL,
    room_id      TEXT COLLATE "C" NOT NULL,
    oder_id      TEXT COLLATE "C" NOT NULL,
    timestamp    BIGINT NOT NULL,
    user_id      TEXT COLLATE "C",
    banned_by    TEXT COLLATE "C",
    display_name TEXT COLLATE "C",
    reason       TEXT COLLATE "C",
    expires_at   BIGINT,
    metadata     TEXT COLLATE "C",
    PRIMARY KEY (scope, room_id, oder_id)
);

CREATE TABLE sessions (
    scope      TEXT COLLATE "C" NOT NULL,
    token_hash TEXT COLLATE "C" NOT NULL,
    user_id    TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    read_only  BIGINT,
    PRIMARY KEY (scope, token_hash)
);

CREATE TABLE media (
    scope       TEXT COLLATE "C" NOT NULL,
    id          TEXT COLLATE "C" NOT NULL,
    sha256      TEXT COLLATE "C" NOT NULL,
    mime        TEXT COLLATE "C" NOT NULL,
    size        BIGINT NOT NULL,
    uploader_id TEXT COLLATE "C",
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (scope, id),
    UNIQUE (scope, sha256)
);

CREATE TABLE media_parts (
    scope    TEXT COLLATE "C" NOT NULL,
    media_id TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    sha256   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (scope, media_id, position),
    FOREIGN KEY (scope, media_id) REFERENCES media (scope, id) ON DELETE CASCADE
);

CREATE TABLE unnamed_media (
    scope    TEXT COLLATE "C" NOT NULL,
    media_id TEXT COLLATE "C" NOT NULL,
    since    BIGINT NOT NULL,
    PRIMARY KEY (scope, media_id),
    FOREIGN KEY (scope, media_id) REFERENCES media (scope, id) ON DELETE CASCADE
);

CREATE TABLE commands (
    scope    TEXT COLLATE "C" NOT NULL,
    seq      BIGINT NOT NULL,
    id       TEXT COLLATE "C" NOT NULL,
    type     TEXT COLLATE "C" NOT NULL,
    at       BIGINT NOT NULL,
    payload  BYTEA,
    salt     BYTEA,
    redacted BIGINT NOT NULL DEFAULT 0,
    facts    BYTEA NOT NULL,
    result   BYTEA,
    chain    BYTEA NOT NULL,
    PRIMARY KEY (scope, seq),
    UNIQUE (scope, id)
);

CREATE TABLE log_references (
    scope       TEXT COLLATE "C" NOT NULL,
    noun        TEXT COLLATE "C" NOT NULL,
    parent      TEXT COLLATE "C" NOT NULL,
    subject     TEXT COLLATE "C" NOT NULL,
    seq         BIGINT NOT NULL,
    member      BIGINT NOT NULL,
    replaceable BIGINT NOT NULL DEFAULT 31,
    PRIMARY KEY (scope, noun, parent, subject, seq, member)
);

-- The parts of media, by the SHA-256 of their bytes in hex.
CREATE TABLE blobs (
    scope  TEXT COLLATE "C" NOT NULL,
    sha256 TEXT COLLATE "C" NOT NULL,
    data   BYTEA NOT NULL,
    put_at BIGINT NOT NULL,                                     -- when it was last put
    PRIMARY KEY (scope, sha256)
);
-- They are compressed already, or cannot be.
ALTER TABLE blobs ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX blobs_by_age ON blobs (scope, put_at);

-- What all daemons share: access tokens, client keys, the version of these tables. The rows belong to the scope with the
-- empty name, which no caller can use.
CREATE TABLE shared (
    scope TEXT COLLATE "C" NOT NULL,
    key   TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,                            -- JSON
    PRIMARY KEY (scope, key)
);

CREATE INDEX messages_by_room ON messages (scope, room_id, timestamp, ordinal, id);
CREATE INDEX messages_by_channel ON messages (scope, room_id, channel_id, timestamp, ordinal, id);
CREATE INDEX messages_by_thread ON messages (scope, thread_id, room_id, timestamp, ordinal, id)
    WHERE thread_id IS NOT NULL;
CREATE INDEX messages_pinned ON messages (scope, room_id, timestamp, ordinal, id) WHERE pinned_at IS NOT NULL;
CREATE INDEX messages_by_expiry ON messages (scope, expires_at NULLS FIRST, id)
    WHERE expires_at IS NOT NULL AND is_deleted = 0;
CREATE INDEX messages_by_reply ON messages (scope, reply_to_id) WHERE reply_to_id IS NOT NULL;
CREATE INDEX message_aliases_by_target ON message_aliases (scope, target_id);
CREATE INDEX reactions_by_time ON reactions (scope, message_id, timestamp NULLS FIRST, oder_id, emoji);
CREATE INDEX attachments_by_message ON attachments (scope, message_id, id);
CREATE INDEX attachments_by_media ON attachments (scope, media_id) WHERE media_id IS NOT NULL;
CREATE INDEX users_by_id ON users (scope, id, oder_id);
CREATE INDEX users_by_age ON users (scope, created_at NULLS FIRST, oder_id);
CREATE INDEX rooms_by_age ON rooms (scope, created_at NULLS FIRST, id);
CREATE INDEX channels_by_position ON channels (scope, room_id, position, id);
CREATE INDEX channels_by_category ON channels (scope, room_id, category_id);
CREATE INDEX categories_by_position ON categories (scope, room_id, position, id);
CREATE INDEX members_by_age ON members (scope, room_id, joined_at NULLS FIRST, oder_id);
CREATE INDEX bans_by_age ON bans (scope, room_id, timestamp, oder_id);
CREATE INDEX bans_by_user ON bans (scope, room_id, user_id);
CREATE INDEX sessions_by_expiry ON sessions (scope, expires_at);
CREATE INDEX media_parts_by_hash ON media_parts (scope, sha256);
CREATE INDEX unnamed_media_by_age ON unnamed_media (scope, since, media_id);

-- Every statement names its scope. If one did not, it would find nothing: a transaction sees the rows of its own scope.
DO $$
DECLARE
    name TEXT;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'sequence', 'meta', 'messages', 'cleared_rooms', 'waiting_edits', 'message_aliases', 'reactions',
        'reaction_removals', 'attachments', 'users', 'rooms', 'channels', 'categories', 'members', 'bans',
        'sessions', 'media', 'media_parts', 'unnamed_media', 'commands', 'log_references', 'blobs', 'shared'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY one_scope ON %I USING (scope = current_setting(''backscroll.scope'', true))'
            ' WITH CHECK (scope = current_setting(''backscroll.scope'', true))', name
        );
    END LOOP;
END
$$;
-- The names of all scopes can be listed.
CREATE POLICY listing ON sequence FOR SELECT USING (current_setting('backscroll.listing', true) = 'on');
