"""What is tidied up now and then, without anybody asking."""

from peewee import SQL

from backscroll.handlers import command_log
from backscroll.handlers.media import SELECT_USE_OF_PART
from backscroll.handlers.sql import Named, statement
from backscroll.handlers.storage import Database
from backscroll.schema.operations import Command, DeleteExpiredSessions
from backscroll.schema.tables import Sessions

ORPHANS_KEPT_MS = 24 * 60 * 60 * 1000  # an upload has so long to name the parts that it put

SELECT_EXPIRED = statement(Sessions.select(SQL("1")).where(Sessions.expires_at <= Named("now")).limit(SQL("1")))


def tidy(db: Database) -> dict[str, int]:
    """Remove what is in no table and no command: orphaned parts of media, old results in the log; how many of each."""
    orphans = [
        sha256
        for sha256 in db.parts.put_before(db.now - ORPHANS_KEPT_MS)
        if db.row(SELECT_USE_OF_PART, sha256=sha256) is None
    ]
    for sha256 in orphans:
        db.parts.remove_after_commit(sha256)
    return {"orphaned_media_parts": len(orphans), "results_no_longer_kept": command_log.forget_results(db)}


def commands_due(db: Database) -> list[Command[int]]:
    """What is to be carried out as a command, for it changes rows: then a replay does the same."""
    return [DeleteExpiredSessions()] if db.row(SELECT_EXPIRED, now=db.now) else []
