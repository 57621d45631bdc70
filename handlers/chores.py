"""What is tidied up now and then, without anybody asking."""

from backscroll.handlers.database import Database
from backscroll.handlers.media import SELECT_USE_OF_PART
from backscroll.handlers.sessions import DELETE_EXPIRED

ORPHANS_KEPT_MS = 24 * 60 * 60 * 1000  # an upload has so long to name the parts that it put


def tidy(db: Database) -> dict[str, int]:
    """Remove sessions that are over and parts of media that no file names; how many of each."""
    orphans = [
        sha256
        for sha256 in db.parts.put_before(db.now - ORPHANS_KEPT_MS)
        if db.row(SELECT_USE_OF_PART, sha256=sha256) is None
    ]
    for sha256 in orphans:
        db.parts.remove_after_commit(sha256)
    return {"expired_sessions": db.run(DELETE_EXPIRED, now=db.now), "orphaned_media_parts": len(orphans)}
