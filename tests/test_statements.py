"""How many statements an operation takes, and that SQLite serves each from an index."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw
import pytest

from backscroll import handlers
from backscroll.bus.inprocess import InProcess
from backscroll.clients import Client
from backscroll.schema import (
    OPERATIONS,
    Attachment,
    Ban,
    Category,
    Channel,
    Command,
    GetAllAttachments,
    GetAllRooms,
    GetAttachmentsForMessage,
    GetBansForRoom,
    GetCurrentUser,
    GetMessageById,
    GetMessages,
    GetReactionsForMessage,
    GetRoom,
    GetUser,
    GetUsersByRoom,
    IsUserBanned,
    Message,
    Query,
    Reaction,
    Room,
    RoomMember,
    SaveAttachment,
    SaveBan,
    SaveMessage,
    SaveRoom,
    SaveUser,
    SetCurrentUserId,
    User,
)
from backscroll.schema.operations import Builtin

QUERIES: list[Query[Any]] = [
    GetMessages("r0"),
    GetMessages("r0", limit=5, offset=3),
    GetMessageById("m0"),
    GetReactionsForMessage("m0"),
    GetUser("u0"),
    GetCurrentUser(),
    GetUsersByRoom("r0"),
    GetRoom("r0"),
    GetAllRooms(),
    GetBansForRoom("r0"),
    IsUserBanned("u0", "r0"),
    GetAttachmentsForMessage("m0"),
    GetAllAttachments(),
]


def fill(client: Client, size: int) -> None:
    """`size` of everything, in `size` rooms."""
    members = [RoomMember(oder_id=f"u{at}") for at in range(size)]
    channels = [Channel(id=f"c{at}", name="c", type="text", position=at) for at in range(size)]
    categories = [Category(id=f"k{at}", name="k") for at in range(size)]
    reactions = [Reaction(message_id="m0", oder_id=f"u{at}", emoji="👍") for at in range(size)]
    client.execute(SetCurrentUserId("u0"))
    for at in range(size):
        client.execute(SaveUser(User(oder_id=f"u{at}", id=f"id{at}", username="u")))
        client.execute(SaveRoom(Room(id=f"r{at}", name="r", channels=channels, members=members, categories=categories)))
        client.execute(SaveBan(Ban(room_id="r0", oder_id=f"u{at}", timestamp=at)))
        client.execute(SaveAttachment(Attachment(id=f"a{at}", message_id="m0", filename="f", size=1, mime="x/y")))
        message = Message(id=f"m{at}", room_id="r0", sender_id="u0", content="x", timestamp=at)
        client.execute(SaveMessage(message))
    client.execute(
        SaveMessage(Message(id="m0", room_id="r0", sender_id="u0", content="x", timestamp=0, reactions=reactions))
    )


@contextmanager
def traced() -> Iterator[list[str]]:
    """Every statement that is run on connections opened inside the block, in order."""
    statements: list[str] = []

    def note(_cursor: apsw.Cursor, sql: str, _bindings: Any) -> bool:
        statements.append(sql)
        return True

    def trace(connection: apsw.Connection) -> None:
        connection.exec_trace = note

    apsw.connection_hooks.append(trace)
    try:
        yield statements
    finally:
        apsw.connection_hooks.remove(trace)


@pytest.fixture
def statements() -> Iterator[list[str]]:
    with traced() as statements:
        yield statements


def test_every_query_is_held_against_these_laws() -> None:
    """A query that is added must be added to this file."""
    queries = {each for each in OPERATIONS.values() if issubclass(each, Query) and not issubclass(each, Builtin)}
    assert {type(query) for query in QUERIES} == queries


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.wire_name)
def test_statements_do_not_grow_with_rows(statements: list[str], transport: InProcess, query: Query[Any]) -> None:
    """A query takes as many statements for 12 of everything as for one."""
    client = Client(transport=transport)
    counts = []
    for size in (1, 12):
        fill(client, size)
        client.ask(query)
        before = len(statements)
        client.ask(query)
        counts.append(len(statements) - before)
    assert counts[0] == counts[1]
    assert counts[0] <= 3 + 4, "more than BEGIN, seq and ROLLBACK around four statements"


def all_statements() -> dict[str, str]:
    """Every statement that the handlers compiled, by where it stands."""
    found: dict[str, str] = {}
    for module in (
        getattr(handlers, name) for name in ("attachments", "bans", "messages", "reactions", "rooms", "users")
    ):
        for name, value in vars(module).items():
            if isinstance(value, str) and re.match("(SELECT|UPDATE|DELETE|INSERT) ", value):
                found[f"{module.__name__.rpartition('.')[2]}.{name}"] = value
    for child in handlers.rooms.CHILD_LISTS:
        found |= {f"rooms.{child.name}.{name}": getattr(child, name) for name in ("delete", "upsert")}
        found |= {f"rooms.{child.name}.{name}": getattr(child, name) for name in ("select_all", "select_of_room")}
    return found


def plan(connection: apsw.Connection, sql: str) -> list[str]:
    values = dict.fromkeys(re.findall(r":(\w+)", sql), "[]")
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


@pytest.mark.parametrize(("name", "sql"), all_statements().items(), ids=lambda each: each if "." in each else "")
def test_every_plan_uses_an_index(transport: InProcess, name: str, sql: str) -> None:
    """No statement searches by reading a table through, and no list is sorted that an index gives in order.

    Lists of everything read their table, in the order of an index. The children of a page are sorted inside each
    parent only ("LAST n TERMS"). json_each is the bound list of a page's ids.
    """
    with apsw.Connection(str(transport.store.path)) as connection:
        steps = [step for step in plan(connection, sql) if "json_each" not in step]
    scans = [step for step in steps if step.startswith("SCAN") and "USING" not in step]
    sorts = [step for step in steps if "TEMP B-TREE" in step and not re.search(r"LAST \d TERMS", step)]
    assert scans == []
    assert sorts == []
    reads_everything = [step for step in steps if step.startswith("SCAN")]
    assert not reads_everything or name.endswith(("SELECT_ALL", "select_all"))


def test_a_plain_save_takes_one_statement_of_its_own(statements: list[str], transport: InProcess) -> None:
    """Around a save without reactions stand only the transaction, its savepoint and the commit number."""
    client = Client(transport=transport)
    message = Message(id="m0", room_id="r0", sender_id="u0", content="x", timestamp=0)
    client.execute(SaveMessage(message))
    statements.clear()
    client.execute(SaveMessage(message))
    own = [sql for sql in statements if sql.startswith(("INSERT", "DELETE", "SELECT"))]
    assert len(own) == 1
    assert len(statements) == len(own) + 5


def test_commands_that_wait_share_one_commit(statements: list[str], transport: InProcess) -> None:
    """A batch has one BEGIN and one COMMIT, however many commands are in it."""
    body = b'{"id":"%d","type":"initialize"}'
    requests = [transport.dispatcher.decode(body % at) for at in range(50)]
    statements.clear()
    transport.dispatcher.commit(requests)
    assert statements.count("COMMIT") == 1
    assert sum(sql.startswith("BEGIN") for sql in statements) == 1


def test_every_command_and_query_is_of_one_kind() -> None:
    """An operation is a command or a query and never both."""
    kinds = {(issubclass(each, Command), issubclass(each, Query)) for each in OPERATIONS.values()}
    assert kinds == {(True, False), (False, True)}
