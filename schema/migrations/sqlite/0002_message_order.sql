-- Version 2: more of what messages have, and their order is (timestamp, ordinal, id).
--
-- The table is rebuilt because sender_id may be NULL now. Indexes on what few messages have are partial, so that the
-- others do not pay for them.

CREATE TABLE messages_rebuilt (
    id             TEXT NOT NULL PRIMARY KEY,
    room_id        TEXT NOT NULL,
    sender_id      TEXT,                        -- NULL: a line of the system
    content        TEXT NOT NULL,               -- empty once deleted
    timestamp      INTEGER NOT NULL,
    channel_id     TEXT,
    sender_name    TEXT,
    edited_at      INTEGER,
    is_deleted     INTEGER NOT NULL DEFAULT 0,  -- 1: a tombstone, which is never overwritten
    reply_to_id    TEXT,
    revision       INTEGER,
    head_hash      TEXT,
    link_metadata  TEXT,                        -- JSON object
    metadata       TEXT,                        -- JSON object
    has_rare       INTEGER NOT NULL DEFAULT 0,  -- 1: some of the following may be set, so they have to be read
    ordinal        INTEGER NOT NULL DEFAULT 0,  -- the order of messages with the same timestamp
    sent_at        INTEGER,                     -- as the sender claims
    type           TEXT,                        -- NULL: text
    thread_id      TEXT,
    forwarded_from TEXT,                        -- JSON object
    mentions       TEXT,                        -- JSON list of ids
    pinned_at      INTEGER,
    expires_at     INTEGER,
    origin_seq     INTEGER NOT NULL DEFAULT 0,  -- the command that saved it first; the others are in log_references
    origin_member  INTEGER NOT NULL DEFAULT 0   -- its index in a batch
) STRICT;
INSERT INTO messages_rebuilt (
    id, room_id, sender_id, content, timestamp, channel_id, sender_name, edited_at, is_deleted, reply_to_id, revision,
    head_hash, link_metadata, metadata, origin_seq, origin_member
) SELECT
    id, room_id, sender_id, content, timestamp, channel_id, sender_name, edited_at, is_deleted, reply_to_id, revision,
    head_hash, link_metadata, metadata, origin_seq, origin_member
FROM messages ORDER BY rowid;
DROP TABLE messages;
ALTER TABLE messages_rebuilt RENAME TO messages;

CREATE INDEX messages_by_room ON messages (room_id, timestamp, ordinal, id);
CREATE INDEX messages_by_channel ON messages (room_id, channel_id, timestamp, ordinal, id);
-- The thread first, so that its messages are found when it is renamed.
CREATE INDEX messages_by_thread ON messages (thread_id, room_id, timestamp, ordinal, id) WHERE thread_id IS NOT NULL;
-- The expression is true in every row of the index; a query that compares it prefers this index to messages_by_room.
CREATE INDEX messages_pinned ON messages (room_id, (pinned_at IS NOT NULL), timestamp, ordinal, id)
    WHERE pinned_at IS NOT NULL;
CREATE INDEX messages_by_expiry ON messages (expires_at, id) WHERE expires_at IS NOT NULL AND is_deleted = 0;
