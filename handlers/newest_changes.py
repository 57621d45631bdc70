"""Comparison of rows with what commands of the log say that they changed, which they do even without their payloads."""

from collections.abc import Iterator

from backscroll.handlers.sql import Named, statement
from backscroll.handlers.storage import MEMBERS, Reads
from backscroll.schema.command_log import Change, decode_facts
from backscroll.schema.tables import ClearedRooms, Commands, Messages

NEWEST = 1_000
"""So many commands are looked at."""

SELECT_FACTS = statement(
    Commands.select(Commands.seq, Commands.facts).where(Commands.seq > Named("seq")).order_by(Commands.seq)
)
SELECT_ROOM = statement(Messages.select(Messages.room_id).where(Messages.id == Named("message_id")))

SELECT_MARKS = statement(ClearedRooms.select(ClearedRooms.room_id, ClearedRooms.until).order_by(ClearedRooms.room_id))
SELECT_FACTS_OF_ONE = statement(Commands.select(Commands.facts).where(Commands.seq == Named("seq")))


def unexplained_marks(db: Reads) -> Iterator[str]:
    """The marks of cleared rooms that no command made, in words: messages would be removed because of them.

    Raises one of `DECODE_ERRORS` for damaged rows of the log.
    """
    for room_id, until in db.each(SELECT_MARKS):
        row = db.row(SELECT_FACTS_OF_ONE, seq=until // MEMBERS)
        changes = [] if row is None else decode_facts(row[0]).changes
        if Change(noun="message", kind="cleared", room_id=room_id) not in changes:
            yield f"room {room_id!r} is marked as cleared by command {until // MEMBERS}, which did not clear it"


def lost_messages(log_from: int, last_seq: int, db: Reads) -> Iterator[str]:
    """The messages that the newest commands of a log saved, and that are not where they were saved, in words.

    Raises one of `DECODE_ERRORS` for damaged rows of the log.
    """
    saved: dict[str, tuple[str | None, int]] = {}
    for seq, facts in db.rows(SELECT_FACTS, seq=max(last_seq - NEWEST, log_from - 1)):
        for change in decode_facts(facts).changes:
            if change.noun == "message":
                _follow(change, seq, saved)
    for message_id, (room_id, seq) in saved.items():
        if db.row(SELECT_ROOM, message_id=message_id) != (room_id,):
            yield f"message {message_id!r} is not there, or not in its room, although command {seq} saved it"


def _follow(change: Change, seq: int, saved: dict[str, tuple[str | None, int]]) -> None:
    """Note what is known of messages after a change; nothing is known of those in a room that was rewritten."""
    if change.kind == "saved" and change.id is not None:
        saved[change.id] = (change.room_id, seq)
    elif change.id is None:
        for message_id, (room_id, _) in list(saved.items()):
            if change.room_id in (None, room_id):
                del saved[message_id]
    elif saved.get(change.id, (None, 0))[0] == change.room_id:
        saved.pop(change.id, None)
