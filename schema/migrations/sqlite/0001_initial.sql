-- Version 1: seed 000's entities, reactions, channels and members in rows of their own.
--
-- Times are milliseconds since the epoch. Flags are 0 or 1. Columns that hold JSON say so. A column that may be
-- NULL is an optional field, NULL meaning unset. Names are those of the records, in snake case.

-- The number of the last command that took effect. One row.
CREATE TABLE sequence (
    id  INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO sequence (id, seq) VALUES (1, 0);

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL               -- JSON
) STRICT, WITHOUT ROWID;

-- A message may name a room, sender or reply that is not stored: history arrives out of order.
CREATE TABLE messages (
    id            TEXT NOT NULL PRIMARY KEY,
    room_id       TEXT NOT NULL,
    sender_id     TEXT NOT NULL,
    content       TEXT NOT NULL,               -- empty once deleted
    timestamp     INTEGER NOT NULL,
    channel_id    TEXT,
    sender_name   TEXT,
    edited_at     INTEGER,
    is_deleted    INTEGER NOT NULL DEFAULT 0,  -- 1: a tombstone; it never comes back to life
    reply_to_id   TEXT,
    revision      INTEGER,
    head_hash     TEXT,
    link_metadata TEXT,                        -- JSON object
    metadata      TEXT                         -- JSON object
) STRICT;
CREATE INDEX messages_by_room ON messages (room_id, timestamp, id);

-- May arrive before its message, so the message is no foreign key.
CREATE TABLE reactions (
    message_id TEXT NOT NULL,
    oder_id    TEXT NOT NULL,
    emoji      TEXT NOT NULL,
    id         TEXT,
    user_id    TEXT,
    timestamp  INTEGER,
    PRIMARY KEY (message_id, oder_id, emoji)
) STRICT, WITHOUT ROWID;

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

-- Stands by itself: neither the room, the banned nor the banning person need be stored.
CREATE TABLE bans (
    room_id      TEXT NOT NULL,
    oder_id      TEXT NOT NULL,
    timestamp    INTEGER NOT NULL,
    user_id      TEXT,
    banned_by    TEXT,
    display_name TEXT,
    reason       TEXT,
    expires_at   INTEGER,                      -- NULL: for ever; else in force before this time
    metadata     TEXT,                         -- JSON object
    PRIMARY KEY (room_id, oder_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX bans_by_age ON bans (room_id, timestamp, oder_id);
CREATE INDEX bans_by_user ON bans (room_id, user_id);
