-- Version 5: a room is cleared by a mark, and the messages from before it are removed in steps.

-- The command that wrote the message last: its seq * 1024 + its index in a batch; 1 for those from before. It is the last
-- column and never 0: otherwise the last page of the row is damaged.
ALTER TABLE messages ADD COLUMN written INTEGER NOT NULL DEFAULT 1;

-- Rooms from which not all messages are removed that were written before the command `until`: they are not shown.
CREATE TABLE cleared_rooms (
    room_id TEXT NOT NULL PRIMARY KEY,
    until   INTEGER NOT NULL,
    after   INTEGER NOT NULL DEFAULT 0     -- those with earlier timestamps are removed
) STRICT, WITHOUT ROWID;
