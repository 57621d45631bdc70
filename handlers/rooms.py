"""Rooms: saved with channels, categories and members split off into rows, read with them put back."""

from collections import defaultdict
from typing import Any, Generic, TypeVar

from msgspec.structs import replace
from peewee import Field

from backscroll.handlers import bans, command_log, messages
from backscroll.handlers.sql import Named, RowMapper, changes, statement
from backscroll.handlers.storage import Database, Row
from backscroll.schema.errors import NotFound
from backscroll.schema.operations import DeleteRoom, GetAllRooms, GetRoom, SaveRoom, UpdateRoom
from backscroll.schema.records import Category, Channel, Record, Room, RoomMember
from backscroll.schema.tables import Categories, Channels, Members, Rooms, Table

T = TypeVar("T", bound=Record)
ROWS = RowMapper(Room, Rooms)

UPSERT = ROWS.upsert()
DELETE = statement(Rooms.delete().where(Rooms.id == Named("room_id")))
SELECT_ONE = statement(Rooms.select(*ROWS.columns).where(Rooms.id == Named("room_id")))
SELECT_ALL = statement(Rooms.select(*ROWS.columns).order_by(Rooms.created_at, Rooms.id))


class ChildList(Generic[T]):
    """One of a room's lists, kept in a table of its own; rows go when their room does (ON DELETE CASCADE)."""

    def __init__(self, name: str, record_type: type[T], table: type[Table], order: list[Field]) -> None:
        self.name = name
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

    def replace(self, room_id: str, records: list[T], db: Database) -> None:
        """Make the stored list exactly this one."""
        db.run(self.delete_of_room, room_id=room_id)
        for record in records:
            self.save(room_id, record, db)

    def save(self, room_id: str, record: T, db: Database) -> None:
        """Write one record, new or over the one with the same key."""
        db.write(self.upsert, self.rows.to_row(record, room_id))

    def remove(self, room_id: str, child_id: str, db: Database) -> None:
        """Remove one record, if it is there."""
        db.run(self.delete_one, room_id=room_id, child_id=child_id)

    def find(self, room_id: str, child_id: str, db: Database) -> T | None:
        """One record of the room, or None."""
        row = db.row(self.select_one, room_id=room_id, child_id=child_id)
        return self.rows.to_record(row) if row else None

    def of_room(self, room_id: str, db: Database) -> list[T]:
        """The room's list, in its order."""
        return self.by_room(db.rows(self.select_of_room, room_id=room_id))[room_id]

    def by_room(self, rows: list[Row]) -> dict[str, list[T]]:
        """The lists of all rooms that the rows belong to, in the rows' order."""
        found: dict[str, list[T]] = defaultdict(list)
        for room_id, *columns in rows:
            found[room_id].append(self.rows.to_record(tuple(columns)))
        return found


CHANNELS = ChildList("channels", Channel, Channels, [Channels.position, Channels.id])
CATEGORIES = ChildList("categories", Category, Categories, [Categories.position, Categories.id])
MEMBERS = ChildList("members", RoomMember, Members, [Members.joined_at, Members.oder_id])
CHILD_LISTS: tuple[ChildList[Any], ...] = (CHANNELS, CATEGORIES, MEMBERS)


def save_room(command: SaveRoom, db: Database) -> None:
    save(command.room, db)


def update_room(command: UpdateRoom, db: Database) -> None:
    row = db.row(SELECT_ONE, room_id=command.room_id)
    if row is None:
        raise NotFound.at("$.payload.roomId", f"there is no room {command.room_id!r}")
    changed = changes(command.updates)
    if changed.get("categories", ()) is None:
        changed["categories"] = []
    save(replace(ROWS.to_record(row), **changed), db)


def delete_room(command: DeleteRoom, db: Database) -> None:
    messages.DELETION_OF_ROOM.carry_out(db, room_id=command.room_id)
    command_log.forget("room", command.room_id, db)
    db.run(bans.DELETE_OF_ROOM, room_id=command.room_id)
    db.run(DELETE, room_id=command.room_id)


def get_room(query: GetRoom, db: Database) -> Room | None:
    row = db.row(SELECT_ONE, room_id=query.room_id)
    if row is None:
        return None
    children = {child.name: {query.room_id: child.of_room(query.room_id, db)} for child in CHILD_LISTS}
    return _with_children(row, children)


def get_all_rooms(_query: GetAllRooms, db: Database) -> list[Room]:
    children = {child.name: child.by_room(db.rows(child.select_all)) for child in CHILD_LISTS}
    return [_with_children(row, children) for row in db.rows(SELECT_ALL)]


def exists(room_id: str, db: Database) -> bool:
    """Whether a room is stored."""
    return db.row(SELECT_ONE, room_id=room_id) is not None


def save(room: Room, db: Database) -> None:
    command_log.mention("room", room.id, db)
    db.write(UPSERT, ROWS.to_row(room))
    for child in CHILD_LISTS:
        records = getattr(room, child.name)
        if records is not None:
            child.replace(room.id, records, db)


def _with_children(row: Row, children: dict[str, dict[str, list[Any]]]) -> Room:
    """The room as callers see it: channels and members always, categories where it has some."""
    room = ROWS.to_record(row)
    return replace(
        room,
        channels=children["channels"].get(room.id, []),
        categories=children["categories"].get(room.id) or None,
        members=children["members"].get(room.id, []),
    )
