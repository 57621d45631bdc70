"""Renaming messages: two ids become one message, which each of them leads to."""

from typing import NamedTuple

from peewee import SQL, Field

from backscroll.handlers import arrival, attachments, changes, message_states, reactions
from backscroll.handlers.aliases import resolve
from backscroll.handlers.arrival import State
from backscroll.handlers.message_rows import OF_OTHERS, erase_replaced
from backscroll.handlers.message_states import Stored
from backscroll.handlers.registry import handles
from backscroll.handlers.shown import IS_SHOWN
from backscroll.handlers.sql import Named, Statement, insertion, statement
from backscroll.handlers.storage import CommandContext, Writes
from backscroll.schema.errors import Conflict, Invalid
from backscroll.schema.operations import RenameMessage
from backscroll.schema.tables import MessageAliases, Messages

INSERT_ALIAS = statement(insertion(MessageAliases))
POINT_TO_NEW = statement(
    MessageAliases.update({MessageAliases.target_id: Named("new_id")}).where(
        MessageAliases.target_id == Named("old_id")
    )
)
SELECT_ORIGIN = statement(
    Messages.select(Messages.origin_seq, Messages.origin_member).where(
        (Messages.id == Named("message_id")) & (Messages.origin_seq > SQL("0"))
    )
)


class Naming(NamedTuple):
    """The statements about the messages that name another in one of their columns."""

    select: Statement
    update: Statement


def _naming(column: Field) -> Naming:
    names = column == Named("old_id")
    return Naming(
        statement(Messages.select(Messages.id, Messages.room_id).where(names & IS_SHOWN)),
        statement(Messages.update({column: Named("new_id")}).where(names)),
    )


NAMING = [_naming(column) for column in OF_OTHERS]
"""Of replies, and of the messages of threads."""


@handles(RenameMessage)
def rename_message(command: RenameMessage, db: Writes, context: CommandContext) -> None:
    old_id, new_id = resolve(command.message_id, db), resolve(command.new_id, db)
    _check_ids(command, old_id, new_id)
    if old_id == new_id:
        return
    old, new = message_states.load(old_id, db), message_states.load(new_id, db)
    if old.room_id is not None and new.room_id is not None and old.room_id != new.room_id:
        where = f"{old_id!r} is in room {old.room_id!r}, {new_id!r} in room {new.room_id!r}"
        raise Conflict.at("$.payload.newId", f"these are two messages: {where}")
    state = arrival.join(old.state, new.state)
    for each in (old, new):
        erase_replaced(each.id, message_states.older_texts(each.state, state), db, context)
    _move_references(old_id, new_id, db)
    _point_to(new_id, old, db)
    reactions.join_lists(old_id, new_id, db, context)
    db.run(attachments.MOVE_ALL, message_id=old_id, new_id=new_id)
    _unite(old, new, state, db, context)
    _move_names(old_id, new_id, db, context)


def _check_ids(command: RenameMessage, old_id: str, new_id: str) -> None:
    """Raise an error for ids that contradict earlier renames; `old_id` and `new_id` are what they lead to."""
    if command.message_id == command.new_id:
        raise Invalid.at("$.payload.newId", "must be another id than messageId")
    if old_id == new_id:
        if command.message_id == old_id:
            raise Conflict.at("$.payload.newId", f"{command.new_id!r} was renamed to {old_id!r}, not the other way")
    elif command.message_id != old_id:
        raise Conflict.at("$.payload.messageId", f"message {command.message_id!r} was renamed to {old_id!r} already")


def _point_to(new_id: str, old: Stored, db: Writes) -> None:
    """Make the old id, and those that led to it, lead to the new one."""
    if old.is_waiting:
        db.run(message_states.DELETE_WAITING, message_id=old.id)
    message_states.hide(old.id, db, is_deleted=False)
    db.run(message_states.CLEAR_ORIGIN, message_id=old.id)
    db.write(INSERT_ALIAS, (old.id, new_id))
    db.run(POINT_TO_NEW, old_id=old.id, new_id=new_id)


def _unite(old: Stored, new: Stored, state: State, db: Writes, context: CommandContext) -> None:
    """Write under the new id the state that joins both."""
    former_room = old.former_room or new.former_room
    if former_room is not None and not message_states.is_complete(state):
        if new.is_waiting:
            db.run(message_states.DELETE_WAITING, message_id=new.id)
        message_states.hide(new.id, db, is_deleted=True, former_room=former_room)
    elif state != new.state:
        message_states.write(new, state, db, context)
    if state.is_deleted:
        message_states.erase(new.id, db, context)
    if old.room_id is not None:
        changes.gone(context, "message", old.id, old.room_id)
    message_states.declare(new, state, context)  # even if it is as before: the other id leads to it now


def _move_references(old_id: str, new_id: str, db: Writes) -> None:
    """Note for each command that contains text about the old id that it is about the new one."""
    places = db.rows(SELECT_ORIGIN, message_id=old_id)
    changes.move_references(changes.message(old_id), changes.message(new_id), places, db)


def _move_names(old_id: str, new_id: str, db: Writes, context: CommandContext) -> None:
    """Let the messages that name the old id, as what they reply to or as their thread, name the new one."""
    found = {tuple(row) for naming in NAMING for row in db.each(naming.select, old_id=old_id)}
    for naming in NAMING:
        db.run(naming.update, old_id=old_id, new_id=new_id)
    changes.all_saved(context, sorted(found))
