-- Version 3: the command log.

-- Every command that took effect, in order. A row commits together with the command's effects, or neither does.
-- Binary columns are MessagePack where nothing else is said.
CREATE TABLE commands (
    seq      INTEGER NOT NULL PRIMARY KEY,
    id       TEXT NOT NULL UNIQUE,             -- made by the caller
    type     TEXT NOT NULL,
    at       INTEGER NOT NULL,                 -- the time that the command took for now
    digest   BLOB NOT NULL,                    -- SHA-256 of the payload as it was received, in its canonical form
    payload  BLOB,                             -- canonical; NULL: not kept, or taken out
    redacted INTEGER NOT NULL DEFAULT 0,       -- 1: what was deleted since is left out of the payload, or all of it
    decided  BLOB,                             -- ids and hashes of tokens that it made; NULL: none
    result   BLOB,                             -- NULL: null; of no bytes: no longer kept
    chain    BLOB NOT NULL                     -- SHA-256 of the chain before it and of what the row says
) STRICT;

-- Which commands hold text about what, so that it can be taken out of them when that is deleted.
CREATE TABLE mentions (
    noun    TEXT NOT NULL,                     -- message, attachment, room or media
    subject TEXT NOT NULL,                     -- its id
    seq     INTEGER NOT NULL,
    member  INTEGER NOT NULL,                  -- which command of a batch; 0 in any other
    PRIMARY KEY (noun, subject, seq, member)
) STRICT, WITHOUT ROWID;

-- The results of commands before this one are no longer kept.
ALTER TABLE sequence ADD COLUMN results_from INTEGER NOT NULL DEFAULT 1;

-- Where the log begins: after what took effect before there was one.
ALTER TABLE sequence ADD COLUMN log_from INTEGER NOT NULL DEFAULT 1;
UPDATE sequence SET log_from = seq + 1;
