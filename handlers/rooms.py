"""Rooms. Their channels, categories and members are in tables of their own, and added again when rooms are read."""

from collections import defaultdict
from typing import Any, Generic, TypeVar

from msgspec.structs import replace
from peewee import Field

from backscroll.handlers import bans, changes, messages
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.sql import Named, Row, RowMapper, field_changes, statement
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.errors import NotFound
from backscroll.schema.operations import DeleteRoom, GetAllRooms, GetRoom, SaveRoom, UpdateRoom
from backscroll.schema.records import Category, Channel, Record, Room, RoomMember
from backscroll.schema.tables import Categories, Channels, Members, Rooms, Table

T = TypeVar("T", bound=Record)
ROWS = RowMapper(Room, Rooms, elsewhere=("members", "channels", "categories"))

UPSERT = ROWS.upsert()
DELETE = statement(Rooms.delete().where(Rooms.id == Named("room_id")))
SELECT_ONE = statement(Rooms.select(*ROWS.columns).where(Rooms.id == Named("room_id")))
SELECT_ALL = statement(Rooms.select(*ROWS.columns).order_by(Rooms.created_at, Rooms.id))


class ChildList(Generic[T]):
    """One of a room's lists, in a table of its own. Its rows are deleted with their room (ON DELETE CASCADE)."""

    def __init__(self, name: str, record_type: type[T], table: type[Table], order: list[Field]) -> None:
        self.name = name
        self.noun = record_type.NOUN
        self.rows = RowMapper(record_type, table, ("room_id",))
        room_id = table._meta.fields["room_id"]
        key = table._meta.fields[record_type.KEY[0]]
        select = table.select(room_id, *self.rows.columns).order_by(room_id, *order)
        in_room = room_id == Named("room_id")
        one = in_room & (key == Named("child_id"))
        self.upsert = self.rows.upsert()
        self.delete_of_room = statement(table.delete().where(in_room))
        self.delete_one = statement(table.delete().where(one))
        self.select_all = statement(select)
        self.select_of_room = statement(select.where(in_room))
        self.select_one = statement(table.select(*self.rows.columns).where(one))

    def replace(self, room_id: str, records: list[T], db: Writes) -> None:
        """Replace the stored list by this one."""
        db.run(self.delete_of_room, room_id=room_id)
        for record in records:
            self.save(room_id, record, db)

    def save(self, room_id: str, record: T, db: Writes) -> None:
        """Insert a record, or overwrite the one with the same key."""
        db.write(self.upsert, self.rows.to_row(record, room_id))

    def remove(self, room_id: str, child_id: str, db: Writes) -> None:
        """Remove a record if it exists."""
        db.run(self.delete_one, room_id=room_id, child_id=child_id)

    def find(self, room_id: str, child_id: str, db: Reads) -> T | None:
        """The record with this id in the room, or None."""
        row = db.row(self.select_one, room_id=room_id, child_id=child_id)
        return self.rows.to_record(row) if row else None

    def of_room(self, room_id: str, db: Reads) -> list[T]:
        """The list of a room, in order."""
        return self.by_room(db.rows(self.select_of_room, room_id=room_id))[room_id]

    def by_room(self, rows: list[Row]) -> dict[str, list[T]]:
        """The lists of all rooms in these rows, in the order of the rows."""
        found: dict[str, list[T]] = defaultdict(list)
        for room_id, *columns in rows:
            found[room_id].append(self.rows.to_record(tuple(columns)))
        return found


CHANNELS = ChildList("channels", Channel, Channels, [Channels.position, Channels.id])
CATEGORIES = ChildList("categories", Category, Categories, [Categories.position, Categories.id])
MEMBERS = ChildList("members", RoomMember, Members, [Members.joined_at, Members.oder_id])
CHILD_LISTS: tuple[ChildList[Any], ...] = (CHANNELS, CATEGORIES, MEMBERS)


@handles(SaveRoom)
def save_room(command: SaveRoom, db: Writes, context: CommandContext) -> None:
    save(command.room, db, context)


@handles(UpdateRoom)
def update_room(command: UpdateRoom, db: Writes, context: CommandContext) -> None:
    row = db.row(SELECT_ONE, room_id=command.room_id)
    if row is None:
        raise NotFound.at("$.payload.roomId", f"there is no room {command.room_id!r}")
    stored = ROWS.to_record(row)
    updates = field_changes(command.updates, stored)
    if updates.get("categories", ()) is None:
        updates["categories"] = []
    save(replace(stored, **updates), db, context)


@handles(DeleteRoom)
def delete_room(command: DeleteRoom, db: Writes, context: CommandContext) -> None:
    room_id = command.room_id
    messages.clear_room(room_id, db, context)
    changes.erase_room(room_id, db, context)
    if db.run(bans.DELETE_OF_ROOM, room_id=room_id):
        changes.cleared(context, "ban", room_id)
    if db.run(DELETE, room_id=room_id):
        changes.cleared(context, "member", room_id)
        changes.gone(context, "room", room_id, room_id)


@handles(GetRoom, cached=Cached.UNTIL_COMMIT)
def get_room(query: GetRoom, db: Reads) -> Room | None:
    row = db.row(SELECT_ONE, room_id=query.room_id)
    if row is None:
        return None
    children = {child.name: {query.room_id: child.of_room(query.room_id, db)} for child in CHILD_LISTS}
    return _with_children(row, children)


@handles(GetAllRooms, cached=Cached.UNTIL_COMMIT)
def get_all_rooms(_query: GetAllRooms, db: Reads) -> list[Room]:
    children = {child.name: child.by_room(db.rows(child.select_all)) for child in CHILD_LISTS}
    return [_with_children(row, children) for row in db.rows(SELECT_ALL)]


def exists(room_id: str, db: Reads) -> bool:
    """Whether a room is stored."""
    return db.row(SELECT_ONE, room_id=room_id) is not None


def save(room: Room, db: Writes, context: CommandContext) -> None:
    """Write a room; the lists in it replace the stored ones."""
    changes.add_reference(changes.in_room("room", room.id), db, context)
    db.write(UPSERT, ROWS.to_row(room))
    changes.saved(context, "room", room.id, room.id)
    for child in CHILD_LISTS:
        records = getattr(room, child.name)
        if records is not None:
            child.replace(room.id, records, db)
    for children in (CHANNELS, CATEGORIES):
        records = getattr(room, children.name) or []
        changes.add_references([changes.in_room(children.noun, room.id, each.id) for each in records], db, context)
    if room.members is not None:
        changes.replaced(context, "member", room.id)


def _with_children(row: Row, children: dict[str, dict[str, list[Any]]]) -> Room:
    """The room as callers see it: always with channels and members, with categories only if it has any."""
    room = ROWS.to_record(row)
    return replace(
        room,
        channels=children["channels"].get(room.id, []),
        categories=children["categories"].get(room.id) or None,
        members=children["members"].get(room.id, []),
    )
