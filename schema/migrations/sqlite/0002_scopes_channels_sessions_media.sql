-- Version 2: pages of one channel, users by age, sessions, and media beside the database.

CREATE INDEX messages_by_channel ON messages (room_id, channel_id, timestamp, id);
CREATE INDEX users_by_age ON users (created_at, oder_id);
CREATE INDEX channels_by_category ON channels (room_id, category_id);

-- The token itself is nowhere in the file.
CREATE TABLE sessions (
    token_hash TEXT NOT NULL PRIMARY KEY,      -- SHA-256 of the token, in hex
    user_id    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    read_only  INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- A file that lies beside the database, in parts; each part has the SHA-256 of its bytes for a name.
CREATE TABLE media (
    id          TEXT NOT NULL PRIMARY KEY,
    sha256      TEXT NOT NULL UNIQUE,          -- of the whole, in hex
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

-- The last id that the daemon made, so that the next is greater, whatever the clock does meanwhile.
ALTER TABLE sequence ADD COLUMN last_id TEXT NOT NULL DEFAULT '';

-- Whose data this is: the name that the file's own name was derived from.
CREATE TABLE scope (
    id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    name TEXT NOT NULL
) STRICT;
