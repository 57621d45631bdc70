"""Users, and the current user of the application."""

from msgspec.structs import replace
from peewee import JOIN, SQL

from backscroll.handlers import changes
from backscroll.handlers.lists import Items, OrderedRows
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.sql import Named, Row, RowMapper, field_changes, from_json, is_long_text, statement, to_json
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.errors import Conflict, NotFound
from backscroll.schema.operations import (
    CreateUser,
    GetCurrentUser,
    GetUser,
    GetUserByPubkey,
    GetUsersByRoom,
    ListUsers,
    SaveUser,
    SetCurrentUserId,
    UpdateUser,
)
from backscroll.schema.records import User
from backscroll.schema.tables import Members, Meta, Users

CURRENT_USER_KEY = "currentUserId"
ROWS = RowMapper(User, Users)
MEMBER_COLUMNS = [
    Members.oder_id,
    Members.id,
    Members.username,
    Members.display_name,
    Members.avatar_url,
    Members.role,
    Members.joined_at,
]

UPSERT = ROWS.upsert()
SELECT_BY_ODER_ID = statement(Users.select(*ROWS.columns).where(Users.oder_id == Named("user_id")))
SELECT_BY_ID = statement(
    Users.select(*ROWS.columns).where(Users.id == Named("user_id")).order_by(Users.oder_id).limit(SQL("1"))
)
SELECT_BY_PUBKEY = statement(Users.select(*ROWS.columns).where(is_long_text(Users.pubkey, "pubkey")))
SELECT_ALL = OrderedRows(Users.select(*ROWS.columns), [Users.created_at, Users.oder_id])
SELECT_OTHER_WITH_PUBKEY = statement(
    Users.select(SQL("1")).where(is_long_text(Users.pubkey, "pubkey") & (Users.oder_id != Named("oder_id")))
)
SELECT_OF_ROOM = OrderedRows(
    Members.select(*MEMBER_COLUMNS, *ROWS.columns)
    .join(Users, JOIN.LEFT_OUTER, on=(Users.oder_id == Members.oder_id))
    .where(Members.room_id == Named("room_id")),
    [Members.oder_id],
)
UPSERT_META = statement(
    Meta.insert({Meta.key: Named("key"), Meta.value: Named("value")}).on_conflict(
        conflict_target=[Meta.key], preserve=[Meta.value]
    )
)
DELETE_META = statement(Meta.delete().where(Meta.key == Named("key")))
SELECT_META = statement(Meta.select(Meta.value).where(Meta.key == Named("key")))


@handles(SaveUser)
def save_user(command: SaveUser, db: Writes, context: CommandContext) -> None:
    _save(command.user, "$.payload.user.pubkey", db, context)


@handles(UpdateUser)
def update_user(command: UpdateUser, db: Writes, context: CommandContext) -> None:
    user = find(command.user_id, db)
    if user is None:
        raise NotFound.at("$.payload.userId", f"there is no user {command.user_id!r}")
    _save(replace(user, **field_changes(command.updates, user)), "$.payload.updates.pubkey", db, context)


@handles(CreateUser)
def create_user(command: CreateUser, db: Writes, context: CommandContext) -> User:
    oder_id = context.new_id()
    user = User(
        oder_id=oder_id,
        id=oder_id,
        username=command.display_name or oder_id,
        display_name=command.display_name,
        pubkey=command.pubkey,
        created_at=context.now,
        updated_at=context.now,
    )
    _save(user, "$.payload.pubkey", db, context)
    return user


@handles(SetCurrentUserId)
def set_current_user_id(command: SetCurrentUserId, db: Writes, context: CommandContext) -> None:
    if command.user_id is None:
        db.run(DELETE_META, key=CURRENT_USER_KEY)
    else:
        db.run(UPSERT_META, key=CURRENT_USER_KEY, value=to_json(command.user_id).decode())
    changes.saved(context, "current-user", command.user_id)


@handles(GetUser)
def get_user(query: GetUser, db: Reads) -> User | None:
    return find(query.user_id, db)


@handles(GetUserByPubkey)
def get_user_by_pubkey(query: GetUserByPubkey, db: Reads) -> User | None:
    row = db.row(SELECT_BY_PUBKEY, pubkey=query.pubkey)
    return ROWS.to_record(row) if row else None


@handles(ListUsers, cached=Cached.UNTIL_COMMIT)
def list_users(query: ListUsers, db: Reads) -> Items[User]:
    rows = SELECT_ALL.read(db, query.after, query.limit)
    return Items(map(ROWS.to_record, rows), is_page=query.limit is not None)


@handles(GetCurrentUser)
def get_current_user(_query: GetCurrentUser, db: Reads) -> User | None:
    user_id = current_user_id(db)
    return find(user_id, db) if user_id is not None else None


@handles(GetUsersByRoom, cached=Cached.UNTIL_COMMIT)
def get_users_by_room(query: GetUsersByRoom, db: Reads) -> Items[User]:
    rows = SELECT_OF_ROOM.read(db, query.after, query.limit, room_id=query.room_id)
    return Items(map(_member_as_user, rows), is_page=query.limit is not None)


def current_user_id(db: Reads) -> str | None:
    """The id of the application's current user, who need not be stored; None if unset."""
    row = db.row(SELECT_META, key=CURRENT_USER_KEY)
    return str(from_json(row[0])) if row else None


def _member_as_user(row: Row) -> User:
    """The user of a joined row; if none is stored, one with the fields of the member."""
    member, user = row[: len(MEMBER_COLUMNS)], row[len(MEMBER_COLUMNS) :]
    if user[0] is not None:
        return ROWS.to_record(user)
    oder_id, user_id, username, display_name, avatar_url, role, joined_at = member
    return User(
        oder_id=oder_id,
        id=user_id or oder_id,
        username=username or oder_id,
        display_name=display_name,
        avatar_url=avatar_url,
        role=role,
        joined_at=joined_at,
    )


def _save(user: User, pubkey_path: str, db: Writes, context: CommandContext) -> None:
    if user.pubkey is not None and db.row(SELECT_OTHER_WITH_PUBKEY, pubkey=user.pubkey, oder_id=user.oder_id):
        raise Conflict.at(pubkey_path, "another user has this public key")
    db.write(UPSERT, ROWS.to_row(user))
    changes.saved(context, "user", user.oder_id)


def find_by_oder_id(oder_id: str, db: Reads) -> User | None:
    """The user with this oderId, or None."""
    row = db.row(SELECT_BY_ODER_ID, user_id=oder_id)
    return ROWS.to_record(row) if row else None


def find(user_id: str, db: Reads) -> User | None:
    """The user with this oderId, or else this id, or None."""
    user = find_by_oder_id(user_id, db)
    if user is not None:
        return user
    row = db.row(SELECT_BY_ID, user_id=user_id)
    return ROWS.to_record(row) if row else None
