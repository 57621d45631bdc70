-- Version 1: all tables.
--
-- Times are milliseconds since the epoch. Flags are 0 or 1. Columns that contain JSON are marked. A column that may
-- be NULL is an optional field; NULL means unset. Names are those of the records, in snake case.

-- The end of the scope's command log. One row.
CREATE TABLE sequence (
    id           INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    seq          INTEGER NOT NULL DEFAULT 0,  -- the number of the last command that took effect
    last_id      TEXT NOT NULL DEFAULT '',    -- the last generated id: the next is greater even if the clock goes back
    results_from INTEGER NOT NULL DEFAULT 1,  -- the results of commands before this one are no longer stored
    log_from     INTEGER NOT NULL DEFAULT 1,  -- the first row of the log
    lineage      TEXT NOT NULL DEFAULT '',    -- a random number that the database got when it was created
    commits      INTEGER NOT NULL DEFAULT 0,  -- transactions, with or without commands
    closed       INTEGER NOT NULL DEFAULT 0   -- 1: nothing is missing from the file without its write-ahead log
) STRICT;
INSERT INTO sequence (id) VALUES (1);

-- The scope that the file belongs to; its file name is derived from this name. One row.
CREATE TABLE scope (
    id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    name TEXT NOT NULL
) STRICT;

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL               -- JSON
) STRICT, WITHOUT ROWID;

-- A message may refer to a room, sender or message that is not stored: history can arrive out of order.
CREATE TABLE messages (
    id            TEXT NOT NULL PRIMARY KEY,
    room_id       TEXT NOT NULL,
    sender_id     TEXT NOT NULL,
    content       TEXT NOT NULL,               -- empty once deleted
    timestamp     INTEGER NOT NULL,
    channel_id    TEXT,
    sender_name   TEXT,
    edited_at     INTEGER,
    is_deleted    INTEGER NOT NULL DEFAULT 0,  -- 1: a tombstone, which is never overwritten
    reply_to_id   TEXT,
    revision      INTEGER,
    head_hash     TEXT,
    link_metadata TEXT,                        -- JSON object
    metadata      TEXT,                        -- JSON object
    origin_seq    INTEGER NOT NULL DEFAULT 0,  -- the command that saved it first; the others are in log_references
    origin_member INTEGER NOT NULL DEFAULT 0   -- its index in a batch
) STRICT;
CREATE INDEX messages_by_room ON messages (room_id, timestamp, id);
CREATE INDEX messages_by_channel ON messages (room_id, channel_id, timestamp, id);

-- A reaction may arrive before its message, so message_id is not a foreign key.
CREATE TABLE reactions (
    message_id TEXT NOT NULL,
    oder_id    TEXT NOT NULL,
    emoji      TEXT NOT NULL,
    id         TEXT,
    user_id    TEXT,
    timestamp  INTEGER,
    PRIMARY KEY (message_id, oder_id, emoji)
) STRICT, WITHOUT ROWID;
CREATE INDEX reactions_by_time ON reactions (message_id, timestamp, oder_id, emoji);

CREATE TABLE attachments (
    id               TEXT NOT NULL PRIMARY KEY,
    message_id       TEXT NOT NULL,            -- may arrive before its message
    filename         TEXT NOT NULL,
    size             INTEGER NOT NULL,         -- bytes
    mime             TEXT NOT NULL,
    is_image         INTEGER,
    uploader_peer_id TEXT,
    file_path        TEXT,
    saved_path       TEXT,
    sha256           TEXT,
    metadata         TEXT                      -- JSON object
) STRICT;
CREATE INDEX attachments_by_message ON attachments (message_id, id);

CREATE TABLE users (
    oder_id           TEXT NOT NULL PRIMARY KEY,
    id                TEXT NOT NULL,
    username          TEXT NOT NULL,
    display_name      TEXT,
    description       TEXT,
    avatar_url        TEXT,
    avatar_hash       TEXT,
    avatar_mime       TEXT,
    avatar_updated_at INTEGER,
    status            TEXT,
    role              TEXT,
    joined_at         INTEGER,
    peer_id           TEXT,
    is_online         INTEGER,
    is_admin          INTEGER,
    is_room_owner     INTEGER,
    pubkey            TEXT UNIQUE,
    created_at        INTEGER,
    updated_at        INTEGER,
    metadata          TEXT                     -- JSON object
) STRICT;
CREATE INDEX users_by_id ON users (id, oder_id);
CREATE INDEX users_by_age ON users (created_at, oder_id);

CREATE TABLE rooms (
    id                  TEXT NOT NULL PRIMARY KEY,
    name                TEXT NOT NULL,
    description         TEXT,
    topic               TEXT,
    host_id             TEXT,
    host_name           TEXT,
    has_password        INTEGER,
    password            TEXT,
    is_private          INTEGER,
    created_at          INTEGER,
    user_count          INTEGER,
    max_users           INTEGER,
    icon                TEXT,
    icon_updated_at     INTEGER,
    slow_mode_interval  INTEGER,
    permissions         TEXT,                  -- JSON object
    roles               TEXT,                  -- JSON list
    role_assignments    TEXT,                  -- JSON list
    channel_permissions TEXT,                  -- JSON list
    source_id           TEXT,
    source_name         TEXT,
    source_url          TEXT,
    metadata            TEXT                   -- JSON object
) STRICT;
CREATE INDEX rooms_by_age ON rooms (created_at, id);

-- Channel ids such as `general` repeat across rooms.
CREATE TABLE channels (
    room_id     TEXT NOT NULL REFERENCES rooms (id) ON DELETE CASCADE,
    id          TEXT NOT NULL,
    name        TEXT NOT NULL,
    type        TEXT NOT NULL,                 -- text, voice, audio or video
    position    INTEGER NOT NULL DEFAULT 0,
    topic       TEXT,
    category_id TEXT,
    created_at  INTEGER,
    updated_at  INTEGER,
    metadata    TEXT,                          -- JSON object
    PRIMARY KEY (room_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX channels_by_position ON channels (room_id, position, id);
CREATE INDEX channels_by_category ON channels (room_id, category_id);

CREATE TABLE categories (
    room_id    TEXT NOT NULL REFERENCES rooms (id) ON DELETE CASCADE,
    id         TEXT NOT NULL,
    name       TEXT NOT NULL,
    position   INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER,
    metadata   TEXT,                           -- JSON object
    PRIMARY KEY (room_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX categories_by_position ON categories (room_id, position, id);

CREATE TABLE members (
    room_id      TEXT NOT NULL REFERENCES rooms (id) ON DELETE CASCADE,
    oder_id      TEXT NOT NULL,                -- the user need not be stored
    id           TEXT,
    username     TEXT,
    display_name TEXT,
    avatar_url   TEXT,
    role         TEXT,
    role_ids     TEXT,                         -- JSON list of ids
    joined_at    INTEGER,
    last_seen_at INTEGER,
    metadata     TEXT,                         -- JSON object
    PRIMARY KEY (room_id, oder_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_by_age ON members (room_id, joined_at, oder_id);

-- Neither the room nor the banned or banning user need be stored, so there are no foreign keys.
CREATE TABLE bans (
    room_id      TEXT NOT NULL,
    oder_id      TEXT NOT NULL,
    timestamp    INTEGER NOT NULL,
    user_id      TEXT,
    banned_by    TEXT,
    display_name TEXT,
    reason       TEXT,
    expires_at   INTEGER,                      -- NULL: never expires
    metadata     TEXT,                         -- JSON object
    PRIMARY KEY (room_id, oder_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX bans_by_age ON bans (room_id, timestamp, oder_id);
CREATE INDEX bans_by_user ON bans (room_id, user_id);

-- The token itself is not stored.
CREATE TABLE sessions (
    token_hash TEXT NOT NULL PRIMARY KEY,      -- SHA-256 of the token, in hex
    user_id    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    read_only  INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- Files. Their parts are stored beside the database, each named by the SHA-256 of its bytes.
CREATE TABLE media (
    id          TEXT NOT NULL PRIMARY KEY,
    sha256      TEXT NOT NULL UNIQUE,          -- of the whole file, in hex
    mime        TEXT NOT NULL,
    size        INTEGER NOT NULL,              -- bytes
    uploader_id TEXT,
    created_at  INTEGER NOT NULL
) STRICT;
CREATE TABLE media_parts (
    media_id TEXT NOT NULL REFERENCES media (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,                 -- 0, 1, 2 …
    sha256   TEXT NOT NULL,
    PRIMARY KEY (media_id, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX media_parts_by_hash ON media_parts (sha256);

-- Every command that took effect, in order. A row is committed in the same transaction as the command's effects.
-- Binary columns are MessagePack unless noted otherwise.
CREATE TABLE commands (
    seq      INTEGER NOT NULL PRIMARY KEY,
    id       TEXT NOT NULL UNIQUE,             -- chosen by the caller
    type     TEXT NOT NULL,
    at       INTEGER NOT NULL,                 -- the current time as the command saw it
    payload  BLOB,                             -- NULL: not kept, or erased as a whole
    salt     BLOB,                             -- 16 random bytes, part of the digest; NULL: erased with the text
    redacted INTEGER NOT NULL DEFAULT 0,       -- 1: the payload, or text in it that was deleted later, was erased
    facts    BLOB NOT NULL,                    -- [format, principal, digest, changes, generated]
    result   BLOB,                             -- NULL: the result is null; empty: it is no longer stored
    chain    BLOB NOT NULL                     -- SHA-256 of the previous row's chain and this row
) STRICT;

-- Which commands contain text about which item, so that the text can be erased when the item is deleted.
CREATE TABLE log_references (
    noun    TEXT NOT NULL,                     -- message, attachment, room, channel, category, ban or media
    parent  TEXT NOT NULL,                     -- the room it belongs to; empty if its key is globally unique
    subject TEXT NOT NULL,                     -- its key
    seq     INTEGER NOT NULL,
    member  INTEGER NOT NULL,                  -- the index of the command in its batch, else 0
    PRIMARY KEY (noun, parent, subject, seq, member)
) STRICT, WITHOUT ROWID;
