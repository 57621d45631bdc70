-- Version 3: counts and metadata of reactions; attachments of unknown size and type; which media attachments name.

-- A reaction of users whom nobody names has a count, and the empty text as its oder_id.
ALTER TABLE reactions ADD COLUMN count INTEGER;
ALTER TABLE reactions ADD COLUMN metadata TEXT;                             -- JSON object
ALTER TABLE reactions ADD COLUMN origin_seq INTEGER NOT NULL DEFAULT 0;     -- the command that saved the metadata
ALTER TABLE reactions ADD COLUMN origin_member INTEGER NOT NULL DEFAULT 0;  -- its index in a batch

-- SQLite cannot make a column optional, so the table is written anew.
CREATE TABLE new_attachments (
    id               TEXT NOT NULL PRIMARY KEY,
    message_id       TEXT NOT NULL,            -- may arrive before its message
    filename         TEXT NOT NULL,
    size             INTEGER,                  -- bytes
    mime             TEXT,
    media_id         TEXT,                     -- the media with its bytes, which may be gone
    is_image         INTEGER,
    uploader_peer_id TEXT,
    file_path        TEXT,
    saved_path       TEXT,
    sha256           TEXT,
    metadata         TEXT                      -- JSON object
) STRICT;
INSERT INTO new_attachments
    (id, message_id, filename, size, mime, is_image, uploader_peer_id, file_path, saved_path, sha256, metadata)
SELECT id, message_id, filename, size, mime, is_image, uploader_peer_id, file_path, saved_path, sha256, metadata
FROM attachments;
DROP TABLE attachments;
ALTER TABLE new_attachments RENAME TO attachments;
CREATE INDEX attachments_by_message ON attachments (message_id, id);
CREATE INDEX attachments_by_media ON attachments (media_id) WHERE media_id IS NOT NULL;

-- Which fields of the command may have text about a message that an edit can still replace: 1 content,
-- 2 link_metadata, 4 metadata, 8 forwarded_from, 16 mentions.
ALTER TABLE log_references ADD COLUMN replaceable INTEGER NOT NULL DEFAULT 31;

-- Media that attachments named and none names any more. They are deleted after a time.
CREATE TABLE unnamed_media (
    media_id TEXT NOT NULL PRIMARY KEY REFERENCES media (id) ON DELETE CASCADE,
    since    INTEGER NOT NULL                  -- when the last attachment that named it went
) STRICT, WITHOUT ROWID;
CREATE INDEX unnamed_media_by_age ON unnamed_media (since, media_id);
