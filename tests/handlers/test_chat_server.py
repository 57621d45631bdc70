"""What a chat server needs of its storage, end to end: accounts, channels, messages by pages, sessions and files.

Each test is a short scenario of one need; the modules of the operations test them in depth.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import peewee
import pytest

from backscroll.bus.dispatch import Dispatcher
from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import AsyncClient, Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.handlers.sql import Row, RowsWithin, Statement, TakeWithin
from backscroll.handlers.storage import CommandContext, LogPosition, Redaction, Retention
from backscroll.schema import (
    DELETED_TEXT,
    OPERATIONS,
    BackscrollError,
    Channel,
    ChannelUpdates,
    Command,
    Conflict,
    CreateChannel,
    CreateMessage,
    CreateSession,
    CreateUser,
    DeleteChannel,
    DeleteExpiredSessions,
    DeleteMedia,
    DeleteMessage,
    DeleteSession,
    GetChannel,
    GetMedia,
    GetMediaPart,
    GetMessageById,
    GetSession,
    GetUser,
    GetUserByPubkey,
    Health,
    Internal,
    ListChannels,
    ListMessages,
    ListUsers,
    Message,
    MessageUpdates,
    NotFound,
    PutMedia,
    PutMediaPart,
    Session,
    UpdateChannel,
    UpdateMessage,
    UpdateUser,
    User,
    UserUpdates,
)
from backscroll.schema.errors import ERRORS
from backscroll.schema.migrations.sqlite import migrations
from backscroll.schema.tables import TABLES
from tests.support.clocks import Clock
from tests.support.handlers import handler_of, replacing
from tests.support.requests import body
from tests.support.status import status_of

StartDaemon = Callable[..., DaemonProcess]


@pytest.fixture
def user(client: Client) -> User:
    return client.execute(CreateUser("ed25519:8f3a", display_name="Ada"))


@pytest.fixture
def channel(client: Client) -> Channel:
    return client.execute(CreateChannel("general"))


# --- scenarios ---


def test_migrations_make_the_same_schema_in_memory_and_on_disk(
    transport: InProcess,
) -> None:
    """The migrations run on an empty in-memory database and make the schema that a store has."""
    with apsw.Connection(":memory:") as memory, apsw.Connection(str(transport.store.path)) as file:
        for script in migrations():
            memory.execute(script)
        schema = "SELECT name, sql FROM sqlite_schema ORDER BY name"
        assert memory.execute(schema).fetchall() == file.execute(schema).fetchall()
        assert file.pragma("user_version") == len(migrations())
        assert memory.pragma("integrity_check") == file.pragma("integrity_check") == "ok"


def test_users_can_be_created_found_updated_and_listed(client: Client, clock: Clock) -> None:
    """A user is found by id and by public key, and updates change only the given fields."""
    ada = client.execute(CreateUser("key a", display_name="Ada"))
    clock.now += 1
    bob = client.execute(CreateUser("key b"))
    assert client.ask(GetUser(ada.id)) == client.ask(GetUserByPubkey("key a")) == ada
    assert (ada.pubkey, ada.display_name, bob.display_name) == ("key a", "Ada", None)
    assert client.ask(GetUserByPubkey("key c")) is None
    client.execute(UpdateUser(ada.id, UserUpdates(display_name="Ada L.", avatar_hash="a1")))
    updated = client.ask(GetUser(ada.id))
    assert updated is not None
    assert (updated.display_name, updated.avatar_hash, updated.pubkey) == ("Ada L.", "a1", "key a")
    assert client.ask(ListUsers()) == [updated, bob]


def test_a_duplicate_public_key_is_a_conflict(client: Client, user: User) -> None:
    """The error names the field, and no second user is created."""
    with pytest.raises(Conflict) as refused:
        client.execute(CreateUser("ed25519:8f3a"))
    assert refused.value.details == {"path": "$.payload.pubkey"}
    assert client.ask(ListUsers()) == [user]


def test_channels_can_be_created_listed_updated_and_deleted(client: Client) -> None:
    """Channels are listed by position, and updates return the changed channel."""
    second = client.execute(CreateChannel("random", position=2))
    first = client.execute(CreateChannel("general", topic="old", position=1))
    assert client.ask(GetChannel(first.id)) == first
    assert client.ask(ListChannels()) == [first, second]
    updated = client.execute(UpdateChannel(first.id, ChannelUpdates(name="new", topic=None, position=3)))
    assert (updated.name, updated.topic, updated.position) == ("new", None, 3)
    assert client.ask(ListChannels()) == [second, updated]
    client.execute(DeleteChannel(second.id))
    assert client.ask(GetChannel(second.id)) is None
    assert client.ask(ListChannels()) == [updated]


def test_messages_are_listed_by_channel_newest_first(client: Client, user: User, channel: Channel) -> None:
    """Created messages are found by id, and listed in their channel only, with later edits."""
    created = [client.execute(CreateMessage(channel.id, user.id, str(number))) for number in range(5)]
    other = client.execute(CreateMessage(client.execute(CreateChannel("other")).id, user.id, "elsewhere"))
    for message in (*created, other):
        assert client.ask(GetMessageById(message.id)) == message
    assert client.ask(ListMessages(channel.id)).messages == created[::-1]
    client.execute(UpdateMessage(created[0].id, MessageUpdates(content="edited", edited_at=1)))
    edited = client.ask(ListMessages(channel.id)).messages[-1]
    assert (edited.id, edited.content, edited.edited_at) == (created[0].id, "edited", 1)


def test_messages_of_a_channel_are_paged_by_message_id(client: Client, user: User, channel: Channel) -> None:
    """`before` is the last message seen, and `hasMore` is false on the last page."""
    for number in range(5):
        client.execute(CreateMessage(channel.id, user.id, str(number)))
    pages, before = [], None
    for _ in range(3):
        page = client.ask(ListMessages(channel.id, before=before, limit=2))
        pages.append(("".join(each.content for each in page.messages), page.has_more))
        before = page.messages[-1].id
    assert pages == [("43", True), ("21", True), ("0", False)]


def test_a_deleted_message_is_a_tombstone_and_not_listed(client: Client, user: User, channel: Channel) -> None:
    """It is still found by id, marked as deleted and without its text."""
    gone, stays = (client.execute(CreateMessage(channel.id, user.id, text)) for text in ("gone", "stays"))
    client.execute(DeleteMessage(gone.id))
    tombstone = client.ask(GetMessageById(gone.id))
    assert tombstone is not None
    assert (tombstone.is_deleted, tombstone.content) == (True, DELETED_TEXT)
    assert client.ask(ListMessages(channel.id)).messages == [stays]


def test_a_session_is_found_by_token_until_it_expires(client: Client, user: User, clock: Clock) -> None:
    """It expires at exactly `expiresAt`."""
    command = CreateSession.with_new_token(user.id, 90_000)
    session = client.execute(command)
    assert (session.user_id, session.created_at, session.expires_at) == (user.id, clock.now, clock.now + 90_000)
    assert command.token is not None
    assert client.ask(GetSession(command.token)) == session
    clock.now = session.expires_at
    assert client.ask(GetSession(command.token)) is None


def test_delete_expired_sessions_removes_only_expired_ones(client: Client, user: User, clock: Clock) -> None:
    """A session that has not expired stays."""
    tokens = "the first token of the user", "the second token of the user"
    sessions = [
        client.execute(CreateSession(user.id, duration, token))
        for duration, token in zip((10, 20), tokens, strict=True)
    ]
    clock.now += 15
    assert client.execute(DeleteExpiredSessions()) == 1
    clock.now -= 15
    assert [client.ask(GetSession(token)) for token in tokens] == [None, sessions[1]]


def test_errors_are_not_found_conflict_or_internal(client: Client, transport: InProcess, user: User) -> None:
    """A bug in a handler is `internal`, and its message stays in the log."""
    with pytest.raises(NotFound):
        client.execute(UpdateUser("nobody", UserUpdates(status="x")))
    with pytest.raises(Conflict):
        client.execute(CreateUser("ed25519:8f3a"))

    def broken(_query: ListUsers, _db: Any) -> list[User]:
        raise ZeroDivisionError("something secret")

    status = status_of(transport.scopes)
    dispatcher = Dispatcher(transport.scopes, status, replacing({ListUsers: broken}))
    error = json.loads(dispatcher.answer(body("list-users")))["error"]
    assert ERRORS[error["code"]] is Internal
    assert "secret" not in error["message"]


def test_a_new_daemon_creates_its_database_and_is_healthy(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """In a new directory it answers `health`, and stores what it is given."""
    daemon = start_daemon(data_dir=tmp_path / "new")
    with Client(daemon.endpoint) as client:
        health = client.ask(Health())
        assert (health.ready, health.pid) == (True, daemon.process.pid)
        user = client.execute(CreateUser("key"))
        assert client.ask(ListUsers()) == [user]
    assert (tmp_path / "new" / "default.db").read_bytes().startswith(b"SQLite format 3\0")


# --- the storage itself ---

OPERATIONS_OF = {
    "users": ["create-user", "get-user", "get-user-by-pubkey", "update-user", "list-users"],
    "messages": ["create-message", "get-message-by-id", "list-messages", "update-message", "delete-message"],
    "channels": ["create-channel", "get-channel", "list-channels", "update-channel", "delete-channel"],
    "sessions": ["create-session", "get-session", "delete-session", "delete-expired-sessions"],
    "media": ["put-media-part", "put-media", "get-media", "get-media-part", "delete-media"],
}


def test_the_asyncio_client_executes_concurrently(start_daemon: StartDaemon) -> None:
    """Several commands can be in flight at once."""
    endpoint = start_daemon().endpoint

    async def use() -> None:
        async with AsyncClient(endpoint) as client:
            users = await asyncio.gather(*(client.execute(CreateUser(f"key {number}")) for number in range(5)))
            assert sorted(await client.ask(ListUsers()), key=str) == sorted(users, key=str)

    asyncio.run(use())


@pytest.mark.parametrize("kind", OPERATIONS_OF)
def test_every_kind_of_data_has_its_operations(kind: str) -> None:
    """Users, messages, channels, sessions and media each have documented operations."""
    for name in OPERATIONS_OF[kind]:
        assert name in OPERATIONS
        assert OPERATIONS[name].__doc__


def test_a_file_can_be_stored_fetched_and_deleted(client: Client) -> None:
    """A file of one part is returned byte for byte, and is gone once it is deleted."""
    media = client.execute(PutMedia([client.execute(PutMediaPart(b"hello"))], "text/plain"))
    assert client.ask(GetMedia(media.id)) == media
    assert client.ask(GetMediaPart(media.id)) == b"hello"
    client.execute(DeleteMedia(media.id))
    assert client.ask(GetMedia(media.id)) is None


@pytest.mark.parametrize("kind", OPERATIONS_OF)
def test_every_operation_of_each_kind_has_a_handler(kind: str) -> None:
    """The handler has the operation's name."""
    for name in OPERATIONS_OF[kind]:
        assert handler_of(OPERATIONS[name]).__name__ == name.replace("-", "_")


def test_the_schema_is_made_by_migrations(transport: InProcess) -> None:
    """The file has exactly the declared tables, and its `user_version` is the number of migrations."""
    assert len(migrations()) >= 1
    with apsw.Connection(str(transport.store.path), flags=apsw.SQLITE_OPEN_READONLY) as connection:
        made = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        assert made == {table._meta.table_name for table in TABLES}
        assert connection.pragma("user_version") == len(migrations())


def test_the_data_directory_is_created_on_the_first_start(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Missing parent directories are created too."""
    data_dir = tmp_path / "not" / "yet" / "there"
    start_daemon(data_dir=data_dir)
    assert (data_dir / "default.db").is_file()


def test_queries_are_answered_during_a_commit(client: Client, transport: InProcess) -> None:
    """The database is in WAL mode, so a query does not wait for a write transaction."""
    with apsw.Connection(str(transport.store.path), flags=apsw.SQLITE_OPEN_READONLY) as connection:
        assert connection.pragma("journal_mode") == "wal"
    with transport.store.write():
        assert client.ask(ListUsers()) == [], "a query is answered during a commit"


def test_sessions_survive_a_restart(tmp_path: Path) -> None:
    """Sessions are stored in the database, by the hash of their token."""
    with InProcess(tmp_path / "data") as transport, Client(transport=transport) as client:
        session = client.execute(CreateSession(client.execute(CreateUser("key")).id, 600_000, TOKEN))
    with InProcess(tmp_path / "data") as transport, Client(transport=transport) as client:
        assert client.ask(GetSession(TOKEN)) == session
        client.execute(DeleteSession(TOKEN))
        assert client.ask(GetSession(TOKEN)) is None


TOKEN = "a token that is long enough"


class OtherStore:
    """Another implementation of the handlers' database: the standard library's `sqlite3`, in memory."""

    dialect = peewee.SqliteDatabase(None)

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:")
        for script in migrations():
            self.connection.executescript(script)
        self.now = 1_767_225_600_000
        self.position = LogPosition()
        self.redactions: list[Redaction] = []
        self.retention = Retention()

    def command(self) -> CommandContext:
        """The context of the next command."""
        seq = self.position.seq + 1
        return CommandContext(seq, f"command {seq}", self.now, self.position.last_id, None)

    def rows(self, statement: Statement, /, **values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement.compiled(self.dialect), values).fetchall()

    def rows_within(self, size_max: int, take: TakeWithin, statement: Statement, /, **values: Any) -> RowsWithin:
        return take(self.connection.execute(statement.compiled(self.dialect), values), size_max)

    def each(self, statement: Statement, /, **values: Any) -> Iterator[Row]:
        return iter(self.rows(statement, **values))

    def row(self, statement: Statement, /, **values: Any) -> tuple[Any, ...] | None:
        rows = self.rows(statement, **values)
        return rows[0] if rows else None

    def run(self, statement: Statement, /, **values: Any) -> int:
        return self.connection.execute(statement.compiled(self.dialect), values).rowcount

    def write(self, statement: Statement, row: Sequence[Any], /) -> int:
        return self.connection.execute(statement.compiled(self.dialect), row).rowcount

    def write_all(self, statement: Statement, rows: Iterable[Sequence[Any]], /) -> None:
        self.connection.executemany(statement.compiled(self.dialect), rows)


def test_handlers_run_on_another_store() -> None:
    """Handlers depend only on the interface in `handlers/storage.py`."""
    db = OtherStore()

    def call(operation: Any) -> Any:
        handle = handler_of(type(operation))
        if not isinstance(operation, Command):
            return handle(operation, db)
        context = db.command()
        result = handle(operation, db, context)
        db.position = LogPosition(context.seq, context.last_id)
        return result

    with closing(db.connection):
        _converse(call, db.now)


def _converse(call: Callable[[Any], Any], now: int) -> None:
    """A short conversation by direct calls of the handlers."""
    user, channel = call(CreateUser("key")), call(CreateChannel("general"))
    message = call(CreateMessage(channel.id, user.id, "hello"))
    session = call(CreateSession(user.id, 1_000, TOKEN))
    assert isinstance(message, Message)
    assert call(ListMessages(channel.id)).messages == [message]
    assert call(GetSession(TOKEN)) == session == Session(user_id=user.id, created_at=now, expires_at=now + 1_000)
    assert list(call(ListUsers()).items) == [user]
    with pytest.raises(Conflict):
        call(DeleteChannel(channel.id))


@pytest.mark.parametrize(
    "operation",
    [
        CreateUser("taken"),
        UpdateUser("nobody", UserUpdates()),
        CreateMessage("nowhere", "nobody", "x"),
        UpdateMessage("nobody", MessageUpdates()),
        DeleteMessage("nobody"),
        ListMessages("nowhere", before="nobody"),
        CreateChannel("x", room_id="nowhere"),
        UpdateChannel("nobody", ChannelUpdates()),
        DeleteChannel("nobody"),
        CreateSession("nobody", 1, TOKEN),
        PutMedia(["0" * 64], "x/y"),
        GetMediaPart("nobody"),
    ],
    ids=lambda operation: operation.wire_name,
)
def test_every_refusal_is_a_typed_error_with_a_path(client: Client, operation: Any) -> None:
    """Whatever is wrong with a command or query, the error has a code of the protocol and the path of the field."""
    client.execute(CreateUser("taken"))
    with pytest.raises(BackscrollError) as refused:
        client.execute(operation)
    assert refused.value.code in ERRORS
    assert (refused.value.details or {})["path"].startswith("$.payload")
    assert not refused.value.retryable
