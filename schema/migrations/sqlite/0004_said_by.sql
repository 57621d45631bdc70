-- Version 4: a message knows the command that said it, so that saving one writes no other row about it.

-- The command that first said what stands here, while it says it; `mentions` has the others. 0: none, or it is there too.
ALTER TABLE messages ADD COLUMN said_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN said_member INTEGER NOT NULL DEFAULT 0;
