"""Seed 003, line by line: every item of its test list and every requirement, as they are met here.

Traits are operations here, `StorageError` is `BackscrollError`, the server is the daemon, and `axum` state is what
the dispatcher hands to handlers. What is short here is tested in depth in the module of its noun.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import peewee
import pytest

from backscroll.bus.dispatch import Dispatcher
from backscroll.bus.inprocess import InProcess
from backscroll.bus.status import DaemonStatus
from backscroll.clients.python import AsyncClient, Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.handlers.sql import Statement
from backscroll.handlers.storage import CommandContext, LogPosition, Redaction
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

StartDaemon = Callable[..., DaemonProcess]


@pytest.fixture
def user(client: Client) -> User:
    return client.execute(CreateUser("ed25519:8f3a", display_name="Ada"))


@pytest.fixture
def channel(client: Client) -> Channel:
    return client.execute(CreateChannel("general"))


# --- "Test List" ---


def test_sqlite_storage_initializes_with_an_in_memory_database_and_runs_migrations_successfully(
    transport: InProcess,
) -> None:
    """ "Unit test: `SqliteStorage` initializes with an in-memory database and runs migrations successfully" """
    with apsw.Connection(":memory:") as memory, apsw.Connection(str(transport.store.path)) as file:
        for script in migrations():
            memory.execute(script)
        schema = "SELECT name, sql FROM sqlite_schema ORDER BY name"
        assert memory.execute(schema).fetchall() == file.execute(schema).fetchall()
        assert file.pragma("user_version") == len(migrations())
        assert memory.pragma("integrity_check") == file.pragma("integrity_check") == "ok"


def test_user_store_create_user_get_by_id_get_by_pubkey_update_list(client: Client, clock: Clock) -> None:
    """ "Unit test: `UserStore` — create user, get by id, get by pubkey, update, list" """
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


def test_user_store_duplicate_pubkey_returns_appropriate_error(client: Client, user: User) -> None:
    """ "Unit test: `UserStore` — duplicate pubkey returns appropriate error" """
    with pytest.raises(Conflict) as refused:
        client.execute(CreateUser("ed25519:8f3a"))
    assert refused.value.details == {"path": "$.payload.pubkey"}
    assert client.ask(ListUsers()) == [user]


def test_channel_store_create_get_list_update_delete(client: Client) -> None:
    """ "Unit test: `ChannelStore` — create, get, list, update, delete" """
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


def test_message_store_create_message_get_by_id_list_by_channel_with_ordering(
    client: Client, user: User, channel: Channel
) -> None:
    """ "Unit test: `MessageStore` — create message, get by id, list by channel with ordering" """
    said = [client.execute(CreateMessage(channel.id, user.id, str(number))) for number in range(5)]
    other = client.execute(CreateMessage(client.execute(CreateChannel("other")).id, user.id, "elsewhere"))
    for message in (*said, other):
        assert client.ask(GetMessageById(message.id)) == message
    assert client.ask(ListMessages(channel.id)).messages == said[::-1]
    client.execute(UpdateMessage(said[0].id, MessageUpdates(content="edited", edited_at=1)))
    edited = client.ask(ListMessages(channel.id)).messages[-1]
    assert (edited.id, edited.content, edited.edited_at) == (said[0].id, "edited", 1)


def test_message_store_cursor_based_pagination_returns_correct_pages(
    client: Client, user: User, channel: Channel
) -> None:
    """ "Unit test: `MessageStore` — cursor-based pagination returns correct pages" """
    for number in range(5):
        client.execute(CreateMessage(channel.id, user.id, str(number)))
    pages, before = [], None
    for _ in range(3):
        page = client.ask(ListMessages(channel.id, before=before, limit=2))
        pages.append(("".join(each.content for each in page.messages), page.has_more))
        before = page.messages[-1].id
    assert pages == [("43", True), ("21", True), ("0", False)]


def test_message_store_soft_delete_sets_deleted_flag_message_no_longer_appears_in_list(
    client: Client, user: User, channel: Channel
) -> None:
    """ "Unit test: `MessageStore` — soft delete sets `deleted` flag, message no longer appears in list" """
    gone, stays = (client.execute(CreateMessage(channel.id, user.id, text)) for text in ("gone", "stays"))
    client.execute(DeleteMessage(gone.id))
    tombstone = client.ask(GetMessageById(gone.id))
    assert tombstone is not None
    assert (tombstone.is_deleted, tombstone.content) == (True, DELETED_TEXT)
    assert client.ask(ListMessages(channel.id)).messages == [stays]


def test_session_store_create_session_retrieve_by_token_verify_expiry_time(
    client: Client, user: User, clock: Clock
) -> None:
    """ "Unit test: `SessionStore` — create session, retrieve by token, verify expiry time" """
    session = client.execute(CreateSession(user.id, 90_000))
    assert (session.user_id, session.created_at, session.expires_at) == (user.id, clock.now, clock.now + 90_000)
    assert client.ask(GetSession(session.token)) == session
    clock.now = session.expires_at
    assert client.ask(GetSession(session.token)) is None


def test_session_store_delete_expired_sessions_removes_only_expired_sessions(
    client: Client, user: User, clock: Clock
) -> None:
    """ "Unit test: `SessionStore` — `delete_expired_sessions` removes only expired sessions" """
    expired, lasting = (client.execute(CreateSession(user.id, duration)) for duration in (10, 20))
    clock.now += 15
    assert client.execute(DeleteExpiredSessions()) == 1
    clock.now -= 15
    assert client.ask(GetSession(expired.token)) is None
    assert client.ask(GetSession(lasting.token)) == lasting


def test_storage_error_variants_cover_not_found_conflict_and_internal_error_cases(
    client: Client, transport: InProcess, user: User
) -> None:
    """ "Unit test: `StorageError` variants cover not-found, conflict, and internal error cases" """
    with pytest.raises(NotFound):
        client.execute(UpdateUser("nobody", UserUpdates(status="x")))
    with pytest.raises(Conflict):
        client.execute(CreateUser("ed25519:8f3a"))

    def broken(_query: ListUsers, _db: Any) -> list[User]:
        raise ZeroDivisionError("something secret")

    status = DaemonStatus(dict, transport.scopes)
    dispatcher = Dispatcher(transport.scopes, status, replacing({ListUsers: broken}))
    error = json.loads(dispatcher.answer(body("list-users")))["error"]
    assert ERRORS[error["code"]] is Internal
    assert "secret" not in error["message"]


def test_server_starts_initializes_sqlite_storage_health_still_responds(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """ "Integration test: server starts, initializes SQLite storage, `/health` still responds" """
    daemon = start_daemon(data_dir=tmp_path / "new")
    with Client(daemon.endpoint) as client:
        health = client.ask(Health())
        assert (health.ready, health.pid) == (True, daemon.process.pid)
        user = client.execute(CreateUser("key"))
        assert client.ask(ListUsers()) == [user]
    assert (tmp_path / "new" / "default.db").read_bytes().startswith(b"SQLite format 3\0")


# --- "Requirements" ---

TRAITS = {
    "UserStore": ["create-user", "get-user", "get-user-by-pubkey", "update-user", "list-users"],
    "MessageStore": ["create-message", "get-message-by-id", "list-messages", "update-message", "delete-message"],
    "ChannelStore": ["create-channel", "get-channel", "list-channels", "update-channel", "delete-channel"],
    "SessionStore": ["create-session", "get-session", "delete-session", "delete-expired-sessions"],
    "MediaStore": ["put-media-part", "put-media", "get-media", "get-media-part", "delete-media"],
}


def test_storage_trait_hierarchy_defined_with_async_methods(start_daemon: StartDaemon) -> None:
    """ "Storage trait hierarchy defined in the `shared` crate (…) with async methods" """
    endpoint = start_daemon().endpoint

    async def use() -> None:
        async with AsyncClient(endpoint) as client:
            users = await asyncio.gather(*(client.execute(CreateUser(f"key {number}")) for number in range(5)))
            assert sorted(await client.ask(ListUsers()), key=str) == sorted(users, key=str)

    asyncio.run(use())


@pytest.mark.parametrize("trait", TRAITS)
def test_traits_user_store_message_store_channel_store_session_store(trait: str) -> None:
    """ "Traits: `UserStore`, `MessageStore`, `ChannelStore`, `SessionStore`" """
    for name in TRAITS[trait]:
        assert name in OPERATIONS
        assert OPERATIONS[name].__doc__


def test_media_store_trait_is_defined_and_no_longer_deferred(client: Client) -> None:
    """ "`MediaStore` trait is defined but the implementation is deferred to the file-uploads feature" """
    media = client.execute(PutMedia([client.execute(PutMediaPart(b"hello"))], "text/plain"))
    assert client.ask(GetMedia(media.id)) == media
    assert client.ask(GetMediaPart(media.id)) == b"hello"
    client.execute(DeleteMedia(media.id))
    assert client.ask(GetMedia(media.id)) is None


@pytest.mark.parametrize("trait", TRAITS)
def test_sqlite_backend_implements_all_active_traits(trait: str) -> None:
    """ "SQLite backend implements all four active traits using sqlx" """
    for name in TRAITS[trait]:
        assert handler_of(OPERATIONS[name]).__name__ == name.replace("-", "_")


def test_database_schema_is_managed_via_migrations(transport: InProcess) -> None:
    """ "Database schema is managed via sqlx migrations" """
    assert len(migrations()) >= 1
    with apsw.Connection(str(transport.store.path), flags=apsw.SQLITE_OPEN_READONLY) as connection:
        made = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        assert made == {table._meta.table_name for table in TABLES}
        assert connection.pragma("user_version") == len(migrations())


def test_sqlite_database_file_is_created_automatically_on_first_run_at_the_path_specified_in_config(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """ "SQLite database file is created automatically on first run at the path specified in config" """
    data_dir = tmp_path / "not" / "yet" / "there"
    start_daemon(data_dir=data_dir)
    assert (data_dir / "default.db").is_file()


def test_wal_mode_is_enabled_for_sqlite_for_better_concurrent_read_performance(
    client: Client, transport: InProcess
) -> None:
    """ "WAL mode is enabled for SQLite for better concurrent read performance" """
    with apsw.Connection(str(transport.store.path), flags=apsw.SQLITE_OPEN_READONLY) as connection:
        assert connection.pragma("journal_mode") == "wal"
    with transport.store.write():
        assert client.ask(ListUsers()) == [], "a query is answered while a commit is under way"


def test_session_tokens_are_stored_in_sqlite_for_simplicity(tmp_path: Path) -> None:
    """ "Session tokens are stored in SQLite for simplicity (…)": by their hash, and so they outlive the process."""
    with InProcess(tmp_path / "data") as transport, Client(transport=transport) as client:
        session = client.execute(CreateSession(client.execute(CreateUser("key")).id, 600_000))
    with InProcess(tmp_path / "data") as transport, Client(transport=transport) as client:
        assert client.ask(GetSession(session.token)) == session
        client.execute(DeleteSession(session.token))
        assert client.ask(GetSession(session.token)) is None


class OtherStore:
    """Another store behind the same handlers: Python's own `sqlite3`, in memory."""

    dialect = peewee.SqliteDatabase(None)

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:")
        for script in migrations():
            self.connection.executescript(script)
        self.now = 1_767_225_600_000
        self.position = LogPosition()
        self.redactions: list[Redaction] = []

    def command(self) -> CommandContext:
        """The context of the next command."""
        seq = self.position.seq + 1
        return CommandContext(seq, f"command {seq}", self.now, self.position.last_id, None, lambda *_: "a token")

    def rows(self, statement: Statement, /, **values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement.compiled(self.dialect), values).fetchall()

    def row(self, statement: Statement, /, **values: Any) -> tuple[Any, ...] | None:
        rows = self.rows(statement, **values)
        return rows[0] if rows else None

    def run(self, statement: Statement, /, **values: Any) -> int:
        return self.connection.execute(statement.compiled(self.dialect), values).rowcount

    def write(self, statement: Statement, row: Sequence[Any], /) -> int:
        return self.connection.execute(statement.compiled(self.dialect), row).rowcount

    def write_all(self, statement: Statement, rows: Iterable[Sequence[Any]], /) -> None:
        self.connection.executemany(statement.compiled(self.dialect), rows)


def test_storage_layer_is_injected_so_handlers_are_backend_agnostic() -> None:
    """ "The storage layer is injected into the axum app state (…) so handlers are backend-agnostic" """
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
        _talk(call, db.now)


def _talk(call: Callable[[Any], Any], now: int) -> None:
    user, channel = call(CreateUser("key")), call(CreateChannel("general"))
    message = call(CreateMessage(channel.id, user.id, "hello"))
    session = call(CreateSession(user.id, 1_000))
    assert isinstance(message, Message)
    assert call(ListMessages(channel.id)).messages == [message]
    assert (
        call(GetSession("a token"))
        == session
        == Session(token="a token", user_id=user.id, created_at=now, expires_at=now + 1_000)
    )
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
        CreateSession("nobody", 1),
        PutMedia(["0" * 64], "x/y"),
        GetMediaPart("nobody"),
    ],
    ids=lambda operation: operation.wire_name,
)
def test_all_store_methods_return_a_result_with_a_unified_error_type(client: Client, operation: Any) -> None:
    """ "All store methods return `Result<T, StorageError>` with a unified error type" """
    client.execute(CreateUser("taken"))
    with pytest.raises(BackscrollError) as refused:
        client.execute(operation)
    assert refused.value.code in ERRORS
    assert (refused.value.details or {})["path"].startswith("$.payload")
    assert not refused.value.retryable
