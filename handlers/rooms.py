"""Rooms. Their channels, categories and members are in tables of their own, and added again when rooms are read."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Generic, TypeVar

from msgspec.structs import replace
from peewee import SQL, Field

from backscroll.handlers import bans, changes, clearing
from backscroll.handlers.lists import Items, OrderedRows
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.sql import Named, Row, RowMapper, field_changes, one_of, statement, to_json
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.errors import NotFound, TooLarge
from backscroll.schema.limits import PAGE_BYTES_MAX, REPLY_BYTES_MAX
from backscroll.schema.operations import DeleteRoom, GetAllRooms, GetRoom, SaveRoom, UpdateRoom
from backscroll.schema.records import Category, Channel, Record, Room, RoomMember
from backscroll.schema.tables import Categories, Channels, Members, Rooms, Table

T = TypeVar("T", bound=Record)
ROWS = RowMapper(Room, Rooms, elsewhere=("members", "channels", "categories"))
ID_AT = ROWS.names.index("id")

UPSERT = ROWS.upsert()
DELETE = statement(Rooms.delete().where(Rooms.id == Named("room_id")))
SELECT_ONE = statement(Rooms.select(*ROWS.columns).where(Rooms.id == Named("room_id")))
SELECT_EXISTS = statement(Rooms.select(SQL("1")).where(Rooms.id == Named("room_id")))
SELECT_ALL = OrderedRows(Rooms.select(*ROWS.columns), [Rooms.created_at, Rooms.id])

ROOMS_AT_ONCE = 50
"""So many rooms are read together, with one statement for each of their lists."""


class ChildList(Generic[T]):
    """One of a room's lists, in a table of its own. Its rows are deleted with their room (ON DELETE CASCADE)."""

    def __init__(self, name: str, record_type: type[T], table: type[Table], order: list[Field]) -> None:
        self.name = name
        self.noun = record_type.NOUN
        self.key = record_type.KEY[0]
        self.rows = RowMapper(record_type, table, ("room_id",))
        room_id = table._meta.fields["room_id"]
        key = table._meta.fields[self.key]
        in_room = room_id == Named("room_id")
        one = in_room & (key == Named("child_id"))
        self.upsert = self.rows.upsert()
        self.delete_of_room = statement(table.delete().where(in_room))
        self.delete_one = statement(table.delete().where(one))
        of_rooms = table.select(room_id, *self.rows.columns).where(one_of(room_id, "room_ids"))
        self.select_of_rooms = statement(of_rooms.order_by(room_id, *order))
        self.ordered = OrderedRows(table.select(*self.rows.columns).where(in_room), order)
        self.select_one = statement(table.select(*self.rows.columns).where(one))

    def replace(self, room_id: str, records: list[T], db: Writes) -> None:
        """Replace the stored list by this one."""
        db.run(self.delete_of_room, room_id=room_id)
        for record in records:
            self.save(room_id, record, db)

    def save(self, room_id: str, record: T, db: Writes) -> None:
        """Insert a record, or overwrite the one with the same key."""
        db.write(self.upsert, self.rows.to_row(record, room_id))

    def remove(self, room_id: str, child_id: str, db: Writes) -> bool:
        """Remove a record; returns whether it existed."""
        return db.run(self.delete_one, room_id=room_id, child_id=child_id) > 0

    def find(self, room_id: str, child_id: str, db: Reads) -> T | None:
        """The record with this id in the room, or None."""
        row = db.row(self.select_one, room_id=room_id, child_id=child_id)
        return self.rows.to_record(row) if row else None

    def page(self, room_id: str, after: Record | None, limit: int | None, db: Reads) -> Items[T]:
        """The list of a room in order, from a position on."""
        rows = self.ordered.read(db, after, limit, room_id=room_id)
        return Items(map(self.rows.to_record, rows), is_page=limit is not None)

    def of_rooms(self, room_ids: str, size_max: int, db: Reads) -> tuple[dict[str, list[T]], int] | None:
        """The lists of rooms, whose ids are given as JSON, and their size; None if they are larger than `size_max`."""
        lists: dict[str, list[T]] = defaultdict(list)
        found = db.rows_within(size_max, self.rows.take_by_size, self.select_of_rooms, room_ids=room_ids)
        if not found.complete:
            return None
        for room_id, *columns in found.rows:
            lists[room_id].append(self.rows.to_record(tuple(columns)))
        return lists, found.size


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
    clearing.clear_room(room_id, db, context)
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
    return next(_rooms([row], query.child_lists, db))


@handles(GetAllRooms, cached=Cached.UNTIL_COMMIT)
def get_all_rooms(query: GetAllRooms, db: Reads) -> Items[Room]:
    rows = SELECT_ALL.read(db, query.after, query.limit)
    found = _all_rooms(rows, query.child_lists, db)
    return Items(found, is_page=False) if query.limit is None else Items(_that_fit(found), is_page=True)


def without_members(room_id: str, db: Reads) -> Room | None:
    """A room with its channels and categories, but without its members; raises `TooLarge`."""
    row = db.row(SELECT_ONE, room_id=room_id)
    if row is None:
        return None
    children = _children([room_id], (CHANNELS, CATEGORIES), db)
    if children is None:
        raise _too_large(room_id)
    return _with_children(row, children)


def exists(room_id: str, db: Reads) -> bool:
    """Whether a room is stored."""
    return db.row(SELECT_EXISTS, room_id=room_id) is not None


def save(room: Room, db: Writes, context: CommandContext) -> None:
    """Write a room; the lists in it replace the stored ones."""
    changes.add_reference(changes.in_room("room", room.id), db, context)
    db.write(UPSERT, ROWS.to_row(room))
    changes.saved(context, "room", room.id, room.id)
    for child in CHILD_LISTS:
        records = getattr(room, child.name)
        if records is not None:
            child.replace(room.id, records, db)
            subjects = [getattr(each, child.key) for each in records]
            changes.add_references([changes.in_room(child.noun, room.id, each) for each in subjects], db, context)
    if room.members is not None:
        changes.replaced(context, "member", room.id)


def _all_rooms(rows: Iterator[Row], child_lists: bool, db: Reads) -> Iterator[Room]:
    """The rooms of these rows, read some at a time."""
    while some := _first_rows(rows):
        yield from _rooms(some, child_lists, db)


def _that_fit(rooms: Iterator[Room]) -> Iterator[Room]:
    """The rooms before the first whose lists do not fit into a reply; raises `TooLarge` if that is the first of all."""
    yield from islice(rooms, 1)
    with suppress(TooLarge):
        yield from rooms


def _first_rows(rows: Iterator[Row]) -> list[Row]:
    """The next rows: at most `ROOMS_AT_ONCE`, and no more after those that are large."""
    some: list[Row] = []
    size = 0
    for row in rows:
        some.append(row)
        size += ROWS.size(row)
        if len(some) == ROOMS_AT_ONCE or size > PAGE_BYTES_MAX:
            break
    return some


def _rooms(rows: list[Row], child_lists: bool, db: Reads) -> Iterator[Room]:
    """The rooms of these rows, half of them at a time if their lists are large."""
    if not child_lists:
        yield from map(ROWS.to_record, rows)
        return
    children = _children([row[ID_AT] for row in rows], CHILD_LISTS, db)
    if children is not None:
        yield from (_with_children(row, children) for row in rows)
        return
    if len(rows) == 1:
        raise _too_large(rows[0][ID_AT])
    half = len(rows) // 2
    yield from _rooms(rows[:half], child_lists, db)
    yield from _rooms(rows[half:], child_lists, db)


def _too_large(room_id: str) -> TooLarge:
    instead = "list-channels, list-categories and get-members with `limit`"
    problem = f"the lists of room {room_id!r} do not fit into a reply of {REPLY_BYTES_MAX} bytes"
    return TooLarge(f"{problem}: ask with `childLists: false`, and for its lists with {instead}")


def _children(
    room_ids: list[str], lists: tuple[ChildList[Any], ...], db: Reads
) -> dict[str, dict[str, list[Any]]] | None:
    """These lists of rooms by name and room; None if together they do not fit into a reply."""
    ids, left = to_json(room_ids).decode(), REPLY_BYTES_MAX
    children: dict[str, dict[str, list[Any]]] = {}
    for child in lists:
        found = child.of_rooms(ids, left, db)
        if found is None:
            return None
        children[child.name], size = found
        left -= size
    return children


def _with_children(row: Row, children: dict[str, dict[str, list[Any]]]) -> Room:
    """The room as callers see it: with channels, with categories only if it has any, and with members if asked for."""
    room = ROWS.to_record(row)
    return replace(
        room,
        channels=children["channels"].get(room.id, []),
        categories=children["categories"].get(room.id) or None,
        members=children["members"].get(room.id, []) if "members" in children else None,
    )
