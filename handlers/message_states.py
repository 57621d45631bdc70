"""What is known about messages whose events arrive in any order: read, joined with an event, and written.

`arrival.py` has the rules. What is known of a message is in its row, as long as that is complete: which version wrote
which column follows from `revision` and `edited_at`, except where `field_versions` says otherwise. As long as the
original is missing, it is in `waiting_edits`, and the row is hidden.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from peewee import SQL, IntegerField, fn

from backscroll.handlers import arrival, changes, reactions
from backscroll.handlers.aliases import HIDDEN, find_row
from backscroll.handlers.arrival import LOST, NOTHING, Field, State, Version, version_of
from backscroll.handlers.message_rows import (
    DELETION_OF_ONE,
    IS_DELETED_AT,
    OF_ONE,
    RARE,
    ROOM_AT,
    ROWS,
    erase_replaced,
    hidden_row,
    is_elsewhere,
)
from backscroll.handlers.sql import Named, Row, insertion, statement, to_json
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.command_log import Fields
from backscroll.schema.errors import TooLarge
from backscroll.schema.limits import ITEM_BYTES_MAX, WAITING_MESSAGES_MAX
from backscroll.schema.records import Message, MessageUpdates, Reaction
from backscroll.schema.tables import Json, Messages, WaitingEdits

T = TypeVar("T")

OF_ALL = "*"
"""In `field_versions`: the version of all columns that are not named."""
NAMES = frozenset(ROWS.names) - {"id", "is_deleted"}
TEXTS = tuple(changes.MESSAGE_TEXT)
COMPLETE = {False: NAMES, True: NAMES - LOST}
"""The columns that must be known before a message has a visible row, by whether it was deleted."""
CHANNEL_AT = ROWS.names.index("channel_id")
BLANK = {column.name: None if column.null else 0 if isinstance(column, IntegerField) else "" for column in ROWS.fields}

VERSIONS_DECODER = msgspec.json.Decoder(dict[str, Version])
WAITING_DECODER = msgspec.json.Decoder(dict[str, tuple[int, int, int, Any]])

SELECT = statement(Messages.select(*ROWS.fields, Messages.field_versions).where(OF_ONE))
UPSERT = ROWS.upsert("field_versions")
UPSERT_HIDDEN = statement(
    Messages.insert(
        {Messages.id: Named("message_id")} | hidden_row(is_deleted=Named("is_deleted"), channel_id=Named("former_room"))
    ).on_conflict(conflict_target=[Messages.id], preserve=list(hidden_row()))
)
CLEAR_ORIGIN = statement(Messages.update({Messages.origin_seq: SQL("0")}).where(OF_ONE))
OF_MESSAGE = WaitingEdits.message_id == Named("message_id")
SELECT_WAITING = statement(WaitingEdits.select(WaitingEdits.fields).where(OF_MESSAGE))
UPSERT_WAITING = statement(
    insertion(WaitingEdits).on_conflict(conflict_target=[WaitingEdits.message_id], preserve=[WaitingEdits.fields])
)
DELETE_WAITING = statement(WaitingEdits.delete().where(OF_MESSAGE))
SELECT_ALL_WAITING_COUNT = statement(WaitingEdits.select(fn.COUNT(WaitingEdits.message_id)))


class Stored(NamedTuple):
    """What is stored under an id: the state, and the room in which it is visible.

    `former_room` is that of a hidden tombstone, None if it was never known.
    """

    id: str
    state: State = NOTHING
    room_id: str | None = None
    former_room: str | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether there is a row in `waiting_edits`."""
        return self.room_id is None and bool(self.state.fields)


def saved_event(message: Message) -> State:
    """What a saved message tells: every field."""
    version = version_of(message, is_edit=False)
    fields = {name: Field(version, value) for name, value in _columns(ROWS.to_row(message))}
    return arrival.bare(fields) if message.is_deleted else State(fields)


def edited_event(updates: MessageUpdates) -> State:
    """What an edit tells: the fields in it."""
    version = version_of(updates, is_edit=True)
    given = {name: getattr(updates, name) for name in ROWS.names if name in NAMES}
    fields = {
        name: Field(version, _written(name, value)) for name, value in given.items() if value is not msgspec.UNSET
    }
    return arrival.bare(fields) if updates.is_deleted is True else State(fields)


DELETED_EVENT = State({}, is_deleted=True)
"""What a deletion tells; its command has no text."""


def join_event(
    message_id: str, event: State, listed: Sequence[Reaction] | None, db: Writes, context: CommandContext
) -> None:
    """Join an event with what is known about a message; `listed` are the reactions in it."""
    stored = load(message_id, db)
    if stored.former_room is not None or (stored.state.is_deleted and _other_room(stored, event) is not None):
        if event is not DELETED_EVENT:
            context.redact_own(context.member)
        return
    if (room_id := _other_room(stored, event)) is not None:
        raise is_elsewhere(stored.id, room_id)
    state = arrival.join(stored.state, event)
    if state.is_deleted and event is not DELETED_EVENT:
        context.redact_own(context.member)
    elif not state.is_deleted:
        changes.add_reference(changes.message(stored.id), db, context)
        _erase_older(stored, event, state, db, context)
    changed = state != stored.state
    if changed:
        write(stored, state, db)
    if state.is_deleted and not stored.state.is_deleted:
        erase(stored.id, db, context)
    if listed and not state.is_deleted:
        changed |= reactions.join_listed(stored.id, listed, db, context)
    if changed:
        declare(stored, state, context)


def load(message_id: str, db: Reads) -> Stored:
    """What is known about a message, by whichever of its ids."""
    now, row = find_row(SELECT, ROOM_AT, message_id, db)
    if row is None:
        return Stored(now)
    *columns, versions = row
    if columns[ROOM_AT] != HIDDEN:
        return Stored(now, _state_of(columns, versions), room_id=columns[ROOM_AT])
    waiting = db.row(SELECT_WAITING, message_id=now)
    found = {} if waiting is None else _decoded(waiting[0], WAITING_DECODER)
    fields = {name: Field(Version(*version), value) for name, (*version, value) in found.items() if name in NAMES}
    return Stored(now, State(fields, bool(columns[IS_DELETED_AT])), former_room=columns[CHANNEL_AT])


def write(stored: Stored, state: State, db: Writes) -> None:
    """Write what is now known about a message, in place of what was stored."""
    if not is_complete(state):
        _write_hidden(stored, state, db)
        return
    db.write(UPSERT, (*_row_of(stored.id, state), _versions_text(state)))
    if stored.is_waiting:
        db.run(DELETE_WAITING, message_id=stored.id)
    expires_at = state.fields["expires_at"].value
    if expires_at is not None and not state.is_deleted:
        db.note_due(expires_at)


def erase(message_id: str, db: Writes, context: CommandContext) -> None:
    """Delete everything that belongs to a deleted message, and erase its text from the log."""
    DELETION_OF_ONE.delete_contents(db, context, message_id=message_id)
    db.run(CLEAR_ORIGIN, message_id=message_id)


def is_complete(state: State) -> bool:
    """Whether everything is known that a visible row needs, which it is once a saved message was joined."""
    return COMPLETE[state.is_deleted] <= state.fields.keys()


def declare(stored: Stored, state: State, context: CommandContext) -> None:
    """Declare the change of a message from what was stored to a state."""
    room_id = state.fields["room_id"].value if is_complete(state) else None
    if stored.room_id is not None and stored.room_id != room_id:
        changes.gone(context, "message", stored.id, stored.room_id)
    if room_id is not None:
        changes.saved(context, "message", stored.id, room_id)


def older_texts(one: State, joined: State) -> Fields:
    """The fields with text of which one of the states that were joined does not have what counts."""
    return frozenset(name for name in TEXTS if name in one.fields and one.fields[name] != joined.fields.get(name))


def _erase_older(stored: Stored, event: State, state: State, db: Writes, context: CommandContext) -> None:
    """Erase the text from the log that an event replaced, or that it has and newer text is known; if so set."""
    if not db.retention.redact_replaced:
        return
    newer = [name for name in TEXTS if name in event.fields and state.fields[name] != stored.state.fields.get(name)]
    erase_replaced(stored.id, frozenset(newer), db, context)
    older = frozenset(name for name in older_texts(event, state) if event.fields[name].value)
    if older:
        context.redact_own(context.member, fields=older)


def _other_room(stored: Stored, event: State) -> str | None:
    """The room in which another message is shown under the id of this saved one, where no edit moved it to."""
    given = event.fields.get("room_id")
    if stored.room_id is None or given is None or given.value == stored.room_id or given.version.is_edit:
        return None
    known = stored.state.fields["room_id"].version
    return None if known.is_edit and given.version < known else stored.room_id


def _write_hidden(stored: Stored, state: State, db: Writes) -> None:
    """Write a hidden row, and what waits. Raises `TooLarge` if too many messages wait."""
    if state.fields and not stored.is_waiting and db.rows(SELECT_ALL_WAITING_COUNT)[0][0] >= WAITING_MESSAGES_MAX:
        problem = f"edits of {WAITING_MESSAGES_MAX} messages wait for their originals; save those first"
        raise TooLarge.at("$.payload.messageId", problem)
    hide(stored.id, db, is_deleted=state.is_deleted)
    if state.fields:
        fields = {name: (*field.version, field.value) for name, field in sorted(state.fields.items())}
        db.write(UPSERT_WAITING, (stored.id, to_json(fields).decode()))
    elif stored.is_waiting:
        db.run(DELETE_WAITING, message_id=stored.id)


def hide(message_id: str, db: Writes, *, is_deleted: bool, former_room: str | None = None) -> None:
    """Write a hidden row for this id, in place of the one that it has."""
    db.run(UPSERT_HIDDEN, message_id=message_id, is_deleted=is_deleted, former_room=former_room)


def _columns(row: Sequence[Any]) -> Iterable[tuple[str, Any]]:
    """The columns of a row that have versions; what follows the fields is left out."""
    return ((name, value) for name, value in zip(ROWS.names, row, strict=False) if name in NAMES)


def _written(name: str, value: Any) -> Any:
    """The value of a field as it is stored in its column."""
    column: Any = Messages._meta.fields[name]
    return to_json(value).decode() if isinstance(column, Json) and value is not None else value


def _state_of(row: Sequence[Any], text: str | None) -> State:
    """The state that a visible row, and the text of its `field_versions`, tell."""
    own = _version_in(dict(_columns(row)))
    versions = {} if text is None else _decoded(text, VERSIONS_DECODER)
    of_all = versions.get(OF_ALL, own)
    fields = {name: Field(versions.get(name, of_all), value) for name, value in _columns(row)}
    return arrival.bare(fields) if row[IS_DELETED_AT] else State(fields)


def _row_of(message_id: str, state: State) -> Row:
    """The visible row of a state; raises `TooLarge` if its fields, which came one by one, are too large together."""
    values = BLANK | {name: field.value for name, field in state.fields.items()}
    values |= {"id": message_id, "is_deleted": state.is_deleted}
    row = tuple(values[name] for name in ROWS.names)
    if ROWS.json_size_of(row) > ITEM_BYTES_MAX:
        raise TooLarge.at("$.payload", f"message {message_id!r} would be larger than {ITEM_BYTES_MAX} bytes in JSON")
    has_rare = any(values[name] != BLANK[name] for name in RARE)
    return (*row, int(has_rare))


def _versions_text(state: State) -> str | None:
    """The text of `field_versions`; None if every version is the one that the row has."""
    versions = {name: state.fields[name].version for name in sorted(COMPLETE[state.is_deleted])}
    of_all = min(versions.values())
    if set(versions.values()) == {_version_in({name: field.value for name, field in state.fields.items()})}:
        return None
    others = {name: version for name, version in versions.items() if version != of_all}
    return to_json({OF_ALL: of_all} | others).decode()


def _version_in(values: Mapping[str, Any]) -> Version:
    """The version that a row has."""
    known = {name: values[name] for name in ("revision", "edited_at") if values[name] is not None}
    return Version(**known)


def _decoded(text: str, decoder: msgspec.json.Decoder[dict[str, T]]) -> dict[str, T]:
    """The JSON of a column; nothing if it is damaged."""
    try:
        return decoder.decode(text)
    except msgspec.DecodeError:
        return {}
