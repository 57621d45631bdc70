-- Version 5: a room is cleared by a mark, and the messages from before it are removed in steps.

-- The command that wrote the message last: its seq * 1024 + its index in a batch.
ALTER TABLE messages ADD COLUMN written INTEGER NOT NULL DEFAULT 0;

-- Rooms from which not all messages are removed that were written before the command `until`: they are not shown.
CREATE TABLE cleared_rooms (
    room_id TEXT NOT NULL PRIMARY KEY,
    until   INTEGER NOT NULL,
    after   INTEGER NOT NULL DEFAULT 0     -- those with earlier timestamps are removed
) STRICT, WITHOUT ROWID;
