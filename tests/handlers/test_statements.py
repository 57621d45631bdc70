"""The number of SQL statements of each operation, and that SQLite serves each of them from an index."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw
import pytest
from msgspec.structs import replace

from backscroll import handlers
from backscroll.bus import postgresql, sqlite
from backscroll.bus.inprocess import InProcess
from backscroll.bus.sqlite import opening, store
from backscroll.bus.sqlite.statements import COMPILED
from backscroll.clients.python import Client
from backscroll.handlers.sql import STATEMENTS
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
    GetChanges,
    GetChannel,
    GetCurrentUser,
    GetLog,
    GetMedia,
    GetMediaPart,
    GetMember,
    GetMembers,
    GetMessageById,
    GetMessagePage,
    GetMessages,
    GetMessagesByIds,
    GetReactionsForMessage,
    GetRoom,
    GetRows,
    GetSession,
    GetUser,
    GetUserByPubkey,
    GetUsersByRoom,
    IsUserBanned,
    ListCategories,
    ListChannels,
    ListMedia,
    ListMessages,
    ListUsers,
    Maintenance,
    Media,
    PutMedia,
    PutMediaPart,
    Query,
    Reaction,
    Room,
    RoomMember,
    SaveAttachment,
    SaveBan,
    SaveRoom,
    SaveUser,
    SetCurrentUserId,
    User,
)
from backscroll.schema.operations import Builtin
from backscroll.schema.positions import MemberPosition
from tests.support.messages import save_message
from tests.support.named_statements import modules_of, named_in
from tests.support.sql import sql

MEDIA_ID = "the daemon's own"
"""Stands for the id that the daemon gave to the media."""

QUERIES: list[Query[Any]] = [
    GetMessages("r0"),
    GetMessages("r0", limit=5, offset=3),
    GetMessageById("m0"),
    GetReactionsForMessage("m0"),
    GetUser("u0"),
    GetCurrentUser(),
    GetUsersByRoom("r0"),
    GetMembers("r0"),
    GetMembers("r0", limit=5, after=MemberPosition(joined_at=None, oder_id="u0")),
    GetMember("r0", "u0"),
    GetRoom("r0"),
    GetAllRooms(),
    GetBansForRoom("r0"),
    IsUserBanned("u0", "r0"),
    GetAttachmentsForMessage("m0"),
    GetAllAttachments(),
    GetMessagePage("r0", limit=5),
    GetMessagePage("r0", channel_id="c0", limit=5, include_deleted=False),
    GetMessagePage("r0", around="m0", limit=5),
    GetMessagePage("r0", around_time=1, limit=5, attachments=True),
    GetMessagePage("r0", thread_id="m0", limit=5),
    GetMessagePage("r0", pinned=True, limit=5),
    GetMessagesByIds(["m0", "m1"], attachments=True),
    ListMessages("c0", room_id="r0", limit=5),
    ListMessages("c0", room_id="r0", before="m0", limit=5),
    GetUserByPubkey("key0"),
    ListUsers(),
    GetChannel("c0", room_id="r0"),
    ListChannels("r0"),
    ListCategories("r0"),
    GetSession("a token"),
    GetMedia(MEDIA_ID),
    GetMediaPart(MEDIA_ID),
    ListMedia(),
    GetLog(),
    GetLog(from_seq=5, limit=5),
    GetRows("messages"),
    GetRows("messages", after=["m0"], limit=5),
    GetChanges(limit=500, values=False),
    GetChanges(limit=500, nouns=["message"]),  # values of other nouns are read one by one, as many as fit a page
]


def fill(client: Client, size: int) -> Media:
    """`size` records of every kind, in `size` rooms, and a file of `size` parts."""
    members = [RoomMember(oder_id=f"u{at}") for at in range(size)]
    channels = [Channel(id=f"c{at}", name="c", type="text", position=at) for at in range(size)]
    categories = [Category(id=f"k{at}", name="k") for at in range(size)]
    reactions = [Reaction(message_id="m0", oder_id=f"u{at}", emoji="👍") for at in range(size)]
    client.execute(SetCurrentUserId("u0"))
    for at in range(size):
        client.execute(SaveUser(User(oder_id=f"u{at}", id=f"id{at}", username="u", pubkey=f"key{at}")))
        client.execute(SaveRoom(Room(id=f"r{at}", name="r", channels=channels, members=members, categories=categories)))
        client.execute(SaveBan(Ban(room_id="r0", oder_id=f"u{at}", timestamp=at)))
        client.execute(SaveAttachment(Attachment(id=f"a{at}", message_id="m0", filename="f", size=1, mime="x/y")))
        client.execute(save_message(at, "x", "r0", channel_id="c0", sender_id="u0", thread_id="m0", pinned_at=at))
    client.execute(save_message(0, "x", "r0", channel_id="c0", sender_id="u0", reactions=reactions))
    parts = [client.execute(PutMediaPart(f"part {at} of {size}".encode())) for at in range(size)]
    return client.execute(PutMedia(parts, "x/y"))


@contextmanager
def traced() -> Iterator[list[str]]:
    """Every statement that is executed on connections opened inside the block, in order."""
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


def test_every_query_is_covered() -> None:
    """`QUERIES` lists every query of the registry."""
    queries = {each for each in OPERATIONS.values() if issubclass(each, Query) and not issubclass(each, Builtin)}
    assert {type(query) for query in QUERIES} == queries


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.wire_name)
def test_the_number_of_statements_does_not_grow_with_rows(
    statements: list[str], transport: InProcess, query: Query[Any]
) -> None:
    """A query takes as many statements for 12 records of everything as for one."""
    client = Client(transport=transport)
    counts = []
    for size in (1, 12):
        media = fill(client, size)
        if isinstance(query, GetMedia | GetMediaPart):
            query = replace(query, media_id=media.id)
        client.ask(query)
        before = len(statements)
        client.ask(query)
        counts.append(len(statements) - before)
    assert counts[0] == counts[1]
    assert counts[0] <= 3 + 5, "more than BEGIN, seq and ROLLBACK around five statements"


MODULES = modules_of(handlers)
STORES = [*modules_of(sqlite), *modules_of(postgresql)]
OF_WHOLE_SCOPES = ("scopes", "log_check", "table_rows", "whole_tables", "newest_changes", "repairs")
"""Handlers whose statements count, compare or copy the rows of a whole scope, and read its tables through to do so."""


def all_statements() -> dict[str, str]:
    """Every statement that a request may execute, by name."""
    of_requests = [each for each in MODULES if each.__name__.rpartition(".")[2] not in OF_WHOLE_SCOPES]
    named = named_in([*of_requests, store, opening])
    assert named.keys() | named_in([*MODULES, *STORES]).keys() == set(STATEMENTS)
    return {name: COMPILED[found] for found, name in named.items()}


def reads_one_row(sql: str) -> bool:
    """Whether a statement without a search ends after one row: the first in index order, or the only one."""
    return bool(
        re.fullmatch(r'SELECT "t1"\."\w+" FROM "\w+" AS "t1" ORDER BY "t1"\."\w+" DESC LIMIT 1', sql)
        or re.match(r'(SELECT ("t1"\."\w+",? )+FROM|UPDATE) "(sequence|scope)"', sql)
    )


def plan(connection: apsw.Connection, sql: str) -> list[str]:
    by_place = len(set(re.findall(r"\?\d+", sql)))
    values: Any = ["[]"] * by_place if by_place else dict.fromkeys(re.findall(r":(\w+)", sql), "[]")
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


@pytest.mark.parametrize(("name", "sql"), all_statements().items(), ids=lambda each: each if "." in each else "")
def test_every_query_plan_uses_an_index(transport: InProcess, name: str, sql: str) -> None:
    """No statement scans a table to search it, and no list is sorted that an index gives in order.

    Lists of everything read their table, in the order of an index. The children of a page are sorted inside each
    parent only ("LAST n TERMS"). json_each is the bound list of a page's ids. The end of the log is the first row that
    is met from there, and `sequence` has but one, as has `scope`; `cleared_rooms` has few.
    """
    with apsw.Connection(str(transport.store.path)) as connection:
        steps = [step for step in plan(connection, sql) if "json_each" not in step]
    sorts = [step for step in steps if "TEMP B-TREE" in step and not re.search(r"LAST \d TERMS", step)]
    assert sorts == []
    if reads_one_row(sql):
        assert len(steps) == 1
        return
    of_a_page = name.startswith("rows.") and sql.endswith(" LIMIT :limit")  # unsorted, it is the order of the key
    one_row = ["SCAN t1"] if re.search(r'FROM "(sequence|scope)" AS "t1"$', sql) else []
    one_row += [f"SCAN {name}" for name in re.findall(r'"cleared_rooms" AS "(t\d+)"', sql)]
    scans = [step for step in steps if step.startswith("SCAN") and "USING" not in step and step not in one_row]
    assert scans == [] or of_a_page
    reads_everything = [step for step in steps if step.startswith("SCAN") and step not in one_row]
    assert not reads_everything or "select_all" in name.lower()


UNSET = {name: sql for name, sql in all_statements().items() if name.endswith(".select_unset")}


@pytest.mark.parametrize(("name", "sql"), UNSET.items(), ids=lambda each: each if "." in each else "")
def test_a_page_of_unset_times_reads_no_other_rows(transport: InProcess, name: str, sql: str) -> None:
    """It is found by the index of the order, not by searching the key for those without a time."""
    with apsw.Connection(str(transport.store.path)) as connection:
        [step] = plan(connection, sql)
    assert re.search(r"USING INDEX \w+ \((\w+=\? AND )?(\w+_at|timestamp)=\? AND ", step), step


def test_the_sequence_table_has_exactly_one_row(transport: InProcess) -> None:
    """A second row violates a constraint, so that no search is needed."""
    fill(Client(transport=transport), 2)
    with transport.store.write() as transaction:
        with pytest.raises(apsw.ConstraintError):
            transaction.run(sql("INSERT INTO sequence (id, seq) VALUES (2, 0)"))
        with pytest.raises(apsw.ConstraintError):
            transaction.run(sql("INSERT INTO scope (id, name) VALUES (2, 'other')"))
        assert transaction.rows(sql("SELECT count(*) FROM sequence")) == [(1,)]
        assert transaction.rows(sql("SELECT count(*) FROM scope")) == [(1,)]


def test_a_save_without_reactions_takes_one_statement(statements: list[str], transport: InProcess) -> None:
    """Besides it there are only the transaction, the log entry and the sequence."""
    client = Client(transport=transport)
    client.execute(save_message(0))
    statements.clear()
    client.execute(save_message(1))
    beginnings = [re.match(r'[A-Z ]+("\w+")?', sql) for sql in statements]
    assert [found and found[0].strip() for found in beginnings] == [
        "BEGIN IMMEDIATE",
        'INSERT OR IGNORE INTO "messages"',
        'INSERT INTO "commands"',
        'UPDATE "sequence"',
        "COMMIT",
    ]


def test_commands_executed_together_share_one_commit(statements: list[str], transport: InProcess) -> None:
    """There is one BEGIN and one COMMIT, however many commands are in the transaction."""
    body = b'{"id":"%d","type":"initialize"}'
    requests = [transport.dispatcher.receive(body % at) for at in range(50)]
    statements.clear()
    transport.dispatcher.answer_commands(requests)
    assert statements.count("COMMIT") == 1
    assert sum(sql.startswith("BEGIN") for sql in statements) == 1


def test_every_operation_is_command_query_or_maintenance() -> None:
    """An operation has exactly one of the three kinds."""
    for each in OPERATIONS.values():
        assert sum(issubclass(each, kind) for kind in (Command, Query, Maintenance)) == 1
