"""What a command changed, in one vocabulary: everything that has to know about it follows from these declarations.

A handler says `saved`, `gone`, `cleared` or `replaced` of what it writes (see `schema.command_log.Change`). From that

- the query cache drops the pages of rooms whose messages changed (`rooms_with_changed_messages`),
- the command log remembers which commands contain text about a thing (`log_references`), and erases that text from them
  when the thing is gone,
- the row of the command keeps the changes, for whoever follows them.

Text in the log is found through two tables. The command that first saved a message stands in the message's own row
(`origin_seq`, `origin_member`), since nearly all messages are saved once; `log_references` has the others, with the room
or message that a thing belongs to as its `parent`.
"""

from collections.abc import Iterable
from typing import NamedTuple

from peewee import Expression

from backscroll.handlers.sql import Named, Statement, insertion, statement, to_json
from backscroll.handlers.storage import CommandContext, Redaction, Writes
from backscroll.schema.command_log import Change, Noun, Target
from backscroll.schema.tables import LogReferences

ROOM_NOUNS = ("room", "channel", "category", "ban")
"""What references name as things inside a room; text about members and the room itself counts as the room's."""

INSERT_REFERENCE = statement(insertion(LogReferences).on_conflict_ignore())
OF_ONE = (
    (LogReferences.noun == Named("noun"))
    & (LogReferences.parent == Named("parent"))
    & (LogReferences.subject == Named("subject"))
)
OF_PARENT = (LogReferences.noun == Named("noun")) & (LogReferences.parent == Named("parent"))


def references(where: Expression) -> tuple[Statement, Statement]:
    """The statements that find and that delete references."""
    columns = (LogReferences.seq, LogReferences.member)
    return statement(LogReferences.select(*columns).where(where)), statement(LogReferences.delete().where(where))


SELECT_OF_ONE, DELETE_OF_ONE = references(OF_ONE)
SELECT_OF_PARENT, DELETE_OF_PARENT = references(OF_PARENT)


class Thing(NamedTuple):
    """What text in the log can be about: its noun, the room or message it belongs to ("" for none), and its own key."""

    noun: str
    parent: str
    subject: str


def message(message_id: str) -> Thing:
    return Thing("message", "", message_id)


def attachment(attachment_id: str) -> Thing:
    return Thing("attachment", "", attachment_id)


def reaction(message_id: str, oder_id: str, emoji: str) -> Thing:
    return Thing("reaction", message_id, to_json([oder_id, emoji]).decode())


def media(media_id: str) -> Thing:
    return Thing("media", "", media_id)


def in_room(noun: str, room_id: str, subject: str = "") -> Thing:
    """A room's channel, category or ban, or with the noun "room" the room itself."""
    return Thing(noun, room_id, subject)


# What changed


def saved(context: CommandContext, noun: Noun, subject: str | None, room_id: str | None = None) -> None:
    """Something was written and can be read."""
    context.changes.append(Change(noun=noun, id=subject, room_id=room_id))


def gone(context: CommandContext, noun: Noun, subject: str, room_id: str | None = None) -> None:
    """Something no longer exists, in this room at least."""
    context.changes.append(Change(noun=noun, kind="gone", id=subject, room_id=room_id))


def cleared(context: CommandContext, noun: Noun, room_id: str | None = None, channel_id: str | None = None) -> None:
    """All of a kind are gone: in a room, in one channel of it, or everywhere."""
    context.changes.append(Change(noun=noun, kind="cleared", room_id=room_id, channel_id=channel_id))


def replaced(context: CommandContext, noun: Noun, room_id: str) -> None:
    """All of a kind in a room were written anew."""
    context.changes.append(Change(noun=noun, kind="replaced", room_id=room_id))


def rooms_with_changed_messages(changes: Iterable[Change]) -> set[str | None]:
    """The rooms whose messages changed; None among them stands for all rooms."""
    return {change.room_id for change in changes if change.noun == "message"}


# What the log says about it


def mention(thing: Thing, db: Writes, context: CommandContext) -> None:
    """The command contains text about this, which goes when that is deleted."""
    db.write(INSERT_REFERENCE, (*thing, context.seq, context.member))


def mention_all(things: Iterable[Thing], db: Writes, context: CommandContext) -> None:
    """The command contains text about each of these."""
    db.write_all(INSERT_REFERENCE, [(*thing, context.seq, context.member) for thing in things])


def erase(thing: Thing, db: Writes, context: CommandContext, target: Target | None = None) -> None:
    """Erase what commands say about a thing that is gone; of commands about several things only the item `target`."""
    named = thing._asdict()
    redact(db.rows(SELECT_OF_ONE, **named), db, context, target)
    db.run(DELETE_OF_ONE, **named)


def erase_children(noun: str, parent: str, db: Writes, context: CommandContext) -> None:
    """Erase what commands say about all things of a kind that belonged to a room or message."""
    redact(db.rows(SELECT_OF_PARENT, noun=noun, parent=parent), db, context)
    db.run(DELETE_OF_PARENT, noun=noun, parent=parent)


def erase_room(room_id: str, db: Writes, context: CommandContext) -> None:
    """Erase what commands say about a room and all that was in it, its messages excepted."""
    for noun in ROOM_NOUNS:
        erase_children(noun, room_id, db, context)


def take_commands_about(thing: Thing, db: Writes) -> list[int]:
    """The numbers of the commands that contain text about a thing, which are not remembered as such any longer."""
    found = [seq for seq, _ in db.rows(SELECT_OF_ONE, **thing._asdict())]
    db.run(DELETE_OF_ONE, **thing._asdict())
    return found


def redact(
    places: Iterable[tuple[int, int]], db: Writes, context: CommandContext, target: Target | None = None
) -> None:
    """Erase text from these commands, given as (seq, member), before the transaction commits."""
    for seq, member in places:
        if seq == context.seq:
            context.redact_own(member, target)
        else:
            db.redactions.append(Redaction(seq, member, target))
