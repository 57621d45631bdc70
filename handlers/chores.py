"""Periodic work of the daemon: removing what has expired or is no longer used."""

from collections.abc import Callable
from contextlib import closing
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from peewee import SQL

from backscroll.handlers import command_log, messages
from backscroll.handlers.media import SELECT_UNNAMED_PARTS, SELECT_USED_PARTS
from backscroll.handlers.sql import Named, statement, to_json
from backscroll.handlers.storage import Reads, Writes
from backscroll.schema.operations import Command, DeleteExpiredMessages, DeleteExpiredSessions, DeleteMedia
from backscroll.schema.tables import Sessions

UNUSED_PARTS_KEPT_MS = 24 * 60 * 60 * 1000  # the time an upload may take from a part to its `put-media`
UNNAMED_MEDIA_KEPT_MS = 24 * 60 * 60 * 1000  # after the last attachment that named it, or after it was put again
PARTS_AT_ONCE = 1_000  # that one statement asks about
DELETED_PARTS_MAX = 1_000  # per run, of media that no attachment names; a media is deleted as a whole

SELECT_EXPIRED = statement(Sessions.select(SQL("1")).where(Sessions.expires_at <= Named("now")).limit(SQL("1")))


def remove_unused_parts(db: Writes) -> int:
    """Remove unused parts of media. Returns their number."""
    unused: list[str] = []
    put = iter(db.blobs.put_before(db.now - UNUSED_PARTS_KEPT_MS))
    while some := list(islice(put, PARTS_AT_ONCE)):
        used = {sha256 for (sha256,) in db.rows(SELECT_USED_PARTS, hashes=to_json(some).decode())}
        unused += [sha256 for sha256 in some if sha256 not in used]
    for sha256 in unused:
        db.blobs.remove_after_commit(sha256)
    return len(unused)


def next_expiry(db: Reads) -> int | None:
    """The time from which on `expired_messages` has something to do, in milliseconds since the epoch."""
    return messages.next_expiry(db)


def expired_messages(db: Reads) -> DeleteExpiredMessages | None:
    """The command that deletes messages that have expired, if there are any."""
    at = messages.next_expiry(db)
    return DeleteExpiredMessages() if at is not None and at <= db.now else None


def sessions_due(db: Reads) -> list[Command[Any]]:
    """The command that deletes sessions that have expired, if there are any."""
    return [DeleteExpiredSessions()] if db.row(SELECT_EXPIRED, now=db.now) else []


def media_due(db: Reads) -> list[Command[Any]]:
    """The commands that delete media which no attachment names.

    They are deleted one by one and by their ids, because what is due depends on when their parts were put, which a
    replay does not know.
    """
    return [DeleteMedia(each) for each in _media_due(db)]


def _media_due(db: Reads) -> list[str]:
    """The media that attachments named and none has named for a day, and whose parts nobody put again meanwhile."""
    until = db.now - UNNAMED_MEDIA_KEPT_MS
    due, number = [], 0
    with closing(db.each(SELECT_UNNAMED_PARTS, until=until)) as rows:
        for media_id, its_parts in groupby(rows, itemgetter(0)):
            parts = [sha256 for _, sha256 in its_parts]
            if any(db.blobs.was_put_since(sha256, until) for sha256 in parts):
                continue
            due.append(media_id)
            number += len(parts)
            if number >= DELETED_PARTS_MAX:
                break
    return due


REMOVALS: dict[str, Callable[[Writes], int]] = {
    "unused_media_parts": remove_unused_parts,
    "dropped_results": command_log.drop_old_results,
}
"""What is removed without a command, by the name of what it is; each returns how many there were."""
COMMANDS_DUE: tuple[Callable[[Reads], list[Command[Any]]], ...] = (sessions_due, media_due)
"""The work that must be executed as commands, because it changes rows and a replay must do the same."""
