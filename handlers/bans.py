"""Bans. They are independent of users and messages; deleting a room deletes its bans."""

from peewee import SQL

from backscroll.handlers import changes
from backscroll.handlers.lists import Items, OrderedRows
from backscroll.handlers.registry import handles
from backscroll.handlers.sql import Named, RowMapper, statement
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.operations import GetBansForRoom, IsUserBanned, RemoveBan, SaveBan
from backscroll.schema.records import Ban
from backscroll.schema.tables import Bans

ROWS = RowMapper(Ban, Bans)
OF_ROOM_AND_ACTIVE = (Bans.room_id == Named("room_id")) & (Bans.expires_at.is_null() | (Bans.expires_at > Named("now")))

UPSERT = ROWS.upsert()
OF_ONE = (Bans.room_id == Named("room_id")) & (Bans.oder_id == Named("oder_id"))
DELETE = statement(Bans.delete().where(OF_ONE))
SELECT_ONE = statement(Bans.select(*ROWS.columns).where(OF_ONE))
DELETE_OF_ROOM = statement(Bans.delete().where(Bans.room_id == Named("room_id")))
SELECT_ACTIVE = OrderedRows(Bans.select(*ROWS.columns).where(OF_ROOM_AND_ACTIVE), [Bans.timestamp, Bans.oder_id])
# Two index lookups, because one query with OR would read every ban of the room.
SELECT_ACTIVE_OF_USER = statement(
    Bans.select(SQL("1"))
    .where(OF_ROOM_AND_ACTIVE & (Bans.oder_id == Named("user_id")))
    .union_all(Bans.select(SQL("1")).where(OF_ROOM_AND_ACTIVE & (Bans.user_id == Named("user_id"))))
)


@handles(SaveBan)
def save_ban(command: SaveBan, db: Writes, context: CommandContext) -> None:
    ban = command.ban
    changes.add_reference(changes.in_room("ban", ban.room_id, ban.oder_id), db, context)
    db.write(UPSERT, ROWS.to_row(ban))
    changes.saved(context, "ban", ban.oder_id, ban.room_id)


@handles(RemoveBan)
def remove_ban(command: RemoveBan, db: Writes, context: CommandContext) -> None:
    if db.run(DELETE, room_id=command.room_id, oder_id=command.oder_id):
        changes.erase(changes.in_room("ban", command.room_id, command.oder_id), db, context)
        changes.gone(context, "ban", command.oder_id, command.room_id)


@handles(GetBansForRoom)
def get_bans_for_room(query: GetBansForRoom, db: Reads) -> Items[Ban]:
    rows = SELECT_ACTIVE.read(db, query.after, query.limit, room_id=query.room_id, now=db.now)
    return Items(map(ROWS.to_record, rows), is_page=query.limit is not None)


@handles(IsUserBanned)
def is_user_banned(query: IsUserBanned, db: Reads) -> bool:
    found = db.row(SELECT_ACTIVE_OF_USER, room_id=query.room_id, user_id=query.user_id, now=db.now)
    return found is not None


def find(room_id: str, oder_id: str, db: Reads) -> Ban | None:
    """The ban of a user from a room, also one that has expired, or None."""
    row = db.row(SELECT_ONE, room_id=room_id, oder_id=oder_id)
    return ROWS.to_record(row) if row else None
