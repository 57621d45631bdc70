"""Declarations of what a command changed, and of the text that has to be erased from the command log.

A handler declares each item it writes as `saved`, `gone`, `cleared` or `replaced` (see `schema.command_log.Change`).
The query cache evicts the pages of rooms whose messages changed (`rooms_with_changed_messages`), and the command's row
in the log stores the changes for readers of the log.

A handler also notes which items its command contains text about (`add_reference`), and erases that text from all
commands when an item is deleted (`erase`). The text is found in two ways. The command that first saved a message is in
the message's own row (`origin_seq`, `origin_member`), because nearly all messages are saved once. All other commands
are in `log_references`, where `parent` is the room that an item belongs to.

Where the log is not to keep replaced text (`Retention.redact_replaced`), a command that replaces text erases it from
the earlier ones (`erase_replaced`). A reference says which fields of its command may still have text that can be
replaced, so each command is rewritten once for each of them at most, however often the message is edited.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from peewee import SQL, Expression

from backscroll.handlers.sql import Named, Statement, insertion, statement
from backscroll.handlers.storage import CommandContext, Redaction, Writes
from backscroll.schema.command_log import Change, Fields, Noun, Target
from backscroll.schema.tables import LogReferences

NAMED_MAX = 100
"""A command that changes more messages than these at once declares their room instead."""
ROOM_NOUNS = ("room", "channel", "category", "member", "ban")
"""The nouns of references with a room as parent."""

MESSAGE_TEXT: dict[str, int] = {
    "content": 1,
    "link_metadata": 2,
    "metadata": 4,
    "forwarded_from": 8,
    "mentions": 16,
}
"""The fields of a message with text that an edit can replace, and their bits in `log_references.replaceable`."""
ALL_TEXT = sum(MESSAGE_TEXT.values())
NO_TEXT = 0

INSERT_REFERENCE = statement(insertion(LogReferences).on_conflict_ignore())
OF_ONE = (
    (LogReferences.noun == Named("noun"))
    & (LogReferences.parent == Named("parent"))
    & (LogReferences.subject == Named("subject"))
)
OF_PARENT = (LogReferences.noun == Named("noun")) & (LogReferences.parent == Named("parent"))


def references(where: Expression) -> tuple[Statement, Statement]:
    """The statements that select and that delete the references matching `where`."""
    columns = (LogReferences.seq, LogReferences.member)
    return statement(LogReferences.select(*columns).where(where)), statement(LogReferences.delete().where(where))


SELECT_OF_ONE, DELETE_OF_ONE = references(OF_ONE)
SELECT_WHOLE_OF_ONE = statement(
    LogReferences.select(LogReferences.seq, LogReferences.member, LogReferences.replaceable).where(OF_ONE)
)
SELECT_OF_PARENT, DELETE_OF_PARENT = references(OF_PARENT)
EARLIER = OF_ONE & ((LogReferences.seq < Named("seq")) | (LogReferences.member < Named("member")))
SELECT_EARLIER, DELETE_EARLIER = references(EARLIER)
REPLACEABLE = EARLIER & (LogReferences.replaceable.bin_and(Named("fields")) != SQL("0"))
SELECT_REPLACEABLE, _ = references(REPLACEABLE)
UPDATE_REPLACEABLE = statement(
    LogReferences.update({LogReferences.replaceable: LogReferences.replaceable.bin_and(Named("others"))}).where(
        REPLACEABLE
    )
)


class Item(NamedTuple):
    """An item that text in the log is about: its noun, the room it belongs to ("" for none), and its key."""

    noun: str
    parent: str
    subject: str


def message(message_id: str) -> Item:
    return Item("message", "", message_id)


def attachment(attachment_id: str) -> Item:
    return Item("attachment", "", attachment_id)


def media(media_id: str) -> Item:
    return Item("media", "", media_id)


def in_room(noun: str, room_id: str, subject: str = "") -> Item:
    """A channel, category, member or ban of a room; with the noun "room" the room itself."""
    return Item(noun, room_id, subject)


# Changes


def saved(context: CommandContext, noun: Noun, subject: str | None, room_id: str | None = None) -> None:
    """Declare that an item was written and can be read."""
    context.changes.append(Change(noun=noun, id=subject, room_id=room_id))


def gone(context: CommandContext, noun: Noun, subject: str, room_id: str | None = None) -> None:
    """Declare that an item no longer exists, at least not in this room."""
    context.changes.append(Change(noun=noun, kind="gone", id=subject, room_id=room_id))


def cleared(context: CommandContext, noun: Noun, room_id: str | None = None, channel_id: str | None = None) -> None:
    """Declare that all items of a noun are gone: in a room, in one of its channels, or everywhere."""
    context.changes.append(Change(noun=noun, kind="cleared", room_id=room_id, channel_id=channel_id))


def replaced(context: CommandContext, noun: Noun, room_id: str) -> None:
    """Declare that all items of a noun in a room were rewritten."""
    context.changes.append(Change(noun=noun, kind="replaced", room_id=room_id))


def all_saved(context: CommandContext, messages: Sequence[tuple[str, str]]) -> None:
    """Declare that messages were written, given as (id, room id); if they are many, all of their rooms."""
    if len(messages) <= NAMED_MAX:
        for message_id, room_id in messages:
            saved(context, "message", message_id, room_id)
    else:
        for room_id in sorted({room_id for _, room_id in messages}):
            replaced(context, "message", room_id)


def rooms_with_changed_messages(changes: Iterable[Change]) -> set[str | None]:
    """The rooms whose messages changed; None in the set means all rooms."""
    return {change.room_id for change in changes if change.noun == "message"}


# Text in the log


def add_reference(item: Item, db: Writes, context: CommandContext, replaceable: int = ALL_TEXT) -> None:
    """Note that the command contains text about an item, to be erased when the item is deleted."""
    db.write(INSERT_REFERENCE, (*item, context.seq, context.member, replaceable))


def add_references(items: Iterable[Item], db: Writes, context: CommandContext) -> None:
    """Note that the command contains text about each of these items."""
    db.write_all(INSERT_REFERENCE, [(*item, context.seq, context.member, ALL_TEXT) for item in items])


def erase(item: Item, db: Writes, context: CommandContext, target: Target | None = None) -> None:
    """Erase the text about a deleted item from all commands; from those about several items only that of `target`."""
    named = item._asdict()
    redact(db.rows(SELECT_OF_ONE, **named), db, context, target)
    db.run(DELETE_OF_ONE, **named)


def erase_earlier(item: Item, db: Writes, context: CommandContext) -> None:
    """Erase all text about an item from the commands before this one."""
    bound = item._asdict() | {"seq": context.seq, "member": context.member}
    redact(db.rows(SELECT_EARLIER, **bound), db, context)
    db.run(DELETE_EARLIER, **bound)


def erase_replaced(item: Item, fields: Fields, db: Writes, context: CommandContext) -> None:
    """Erase the text in these fields of a message, which this command replaced, from the commands before it."""
    bits = sum(MESSAGE_TEXT[field] for field in fields)
    bound = item._asdict() | {"seq": context.seq, "member": context.member, "fields": bits}
    redact(db.rows(SELECT_REPLACEABLE, **bound), db, context, fields=fields)
    db.run(UPDATE_REPLACEABLE, **bound, others=ALL_TEXT - bits)


def erase_children(noun: str, parent: str, db: Writes, context: CommandContext) -> None:
    """Erase the text about all items of a noun that belonged to a room."""
    redact(set(db.each(SELECT_OF_PARENT, noun=noun, parent=parent)), db, context)
    db.run(DELETE_OF_PARENT, noun=noun, parent=parent)


def erase_room(room_id: str, db: Writes, context: CommandContext) -> None:
    """Erase the text about a room and everything in it except messages."""
    for noun in ROOM_NOUNS:
        erase_children(noun, room_id, db, context)


def take_references(item: Item, db: Writes) -> list[int]:
    """Return the seqs of the commands that contain text about an item, and delete these references."""
    found = [seq for seq, _ in db.rows(SELECT_OF_ONE, **item._asdict())]
    db.run(DELETE_OF_ONE, **item._asdict())
    return found


def move_references(item: Item, to: Item, places: Iterable[tuple[int, int]], db: Writes) -> None:
    """Make the text about an item, also that of `places`, given as (seq, member), text about another one."""
    moved = [*db.rows(SELECT_WHOLE_OF_ONE, **item._asdict()), *((*place, ALL_TEXT) for place in places)]
    db.run(DELETE_OF_ONE, **item._asdict())
    db.write_all(INSERT_REFERENCE, [(*to, *each) for each in moved])


def redact(
    places: Iterable[tuple[int, int]],
    db: Writes,
    context: CommandContext,
    target: Target | None = None,
    fields: Fields | None = None,
) -> None:
    """Have text erased from these commands, given as (seq, member), before the transaction commits."""
    for seq, member in places:
        if seq == context.seq:
            context.redact_own(member, target, fields)
        else:
            db.redactions.append(Redaction(seq, member, target, fields))
