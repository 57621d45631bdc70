-- Version 4: events about a message in any order, and messages with two ids.
--
-- A row of `messages` with an empty room_id is hidden: it is a tombstone that its room no longer shows (channel_id is
-- then that room; NULL: the room was never known), the place of a message of which only edits are known, or the former
-- id of a renamed message. It is a row of this table so that an INSERT of a late copy finds it without another look-up.

-- Which version wrote which column, where a row alone does not tell. JSON: "*" for most columns, others by name.
ALTER TABLE messages ADD COLUMN field_versions TEXT;

-- So that replies follow a renamed message.
CREATE INDEX messages_by_reply ON messages (reply_to_id) WHERE reply_to_id IS NOT NULL;

-- What is known of messages whose original has not arrived.
CREATE TABLE waiting_edits (
    message_id TEXT NOT NULL PRIMARY KEY,
    fields     TEXT NOT NULL               -- JSON: [revision, editedAt, is_edit, value] by column
) STRICT;

-- The former ids of renamed messages. A target is never itself in message_id.
CREATE TABLE message_aliases (
    message_id TEXT NOT NULL PRIMARY KEY,
    target_id  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX message_aliases_by_target ON message_aliases (target_id);

-- Removals that are later than every reaction of this user with this emoji to this message.
CREATE TABLE reaction_removals (
    message_id TEXT NOT NULL,
    oder_id    TEXT NOT NULL,
    emoji      TEXT NOT NULL,
    timestamp  INTEGER NOT NULL,
    PRIMARY KEY (message_id, oder_id, emoji)
) STRICT, WITHOUT ROWID;
