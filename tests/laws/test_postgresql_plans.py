"""How PostgreSQL executes what a daemon asks it: from indexes, in their order, and in few round trips.

The tables have 100,000 messages in 20 scopes, in the long form 1,000,000 in 100.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from msgspec.structs import replace

from backscroll.bus.inprocess import InProcess
from backscroll.bus.postgresql.access import AccessDatabase
from backscroll.bus.postgresql.commits import Commits
from backscroll.bus.postgresql.compiling import Compiled
from backscroll.bus.postgresql.connecting import Database
from backscroll.clients.python import Client
from backscroll.schema import Batch, GetLog, GetMessagePage, GetMessages
from backscroll.schema.wire import DEFAULT_SCOPE
from tests.handlers.test_statements import QUERIES, fill
from tests.laws.test_postgresql import as_superuser, rows_of
from tests.support import filled_postgresql
from tests.support.chosen_store import CHOSEN
from tests.support.messages import message_document, save_message
from tests.support.postgresql import Server
from tests.support.postgresql_statements import (
    Conversation,
    Plan,
    custom_plan,
    followed_conversation,
    generic_plan,
    named_statements,
    nodes,
    parameter_types,
    values_for,
)

SCOPE = "s7"
OF_WHOLE_SCOPES = ("log_check", "newest_changes", "repairs", "scopes", "table_rows", "whole_tables")
"""Handlers whose statements count or compare the rows of a whole scope, for maintenance."""
SEARCHES = {
    name: compiled for name, compiled in named_statements().items() if name.partition(".")[0] not in OF_WHOLE_SCOPES
}
FEW_ROWS = {
    "cleared_rooms": "the rooms that are being emptied",
    "meta": "the current user, and other settings",
    "sequence": "one row of each scope",
}
"""Tables of which a scope has few rows, and of what."""


class Filled:
    """A database with many rows: a connection as a daemon makes it, and one with the planner's own settings."""

    def __init__(self, daemon: "psycopg.Connection[Any]", plain: "psycopg.Connection[Any]") -> None:
        self.daemon, self.plain = daemon, plain


@pytest.fixture(scope="module")
def filled(request: pytest.FixtureRequest) -> Iterator[Filled]:
    size = (
        {"scopes": 100, "messages": 10_000} if request.config.getoption("--long") else {"scopes": 20, "messages": 5_000}
    )
    with CHOSEN.server.database() as address:
        with psycopg.connect(as_superuser(address), autocommit=True) as admin:
            filled_postgresql.fill(admin, **size)
        with (
            Database(address, connections=2, wait_ms=5_000) as database,
            database.connection() as daemon,
            psycopg.connect(address, autocommit=True) as plain,
        ):
            for each in (daemon, plain):
                rows_of(each, "SELECT set_config('backscroll.scope', $1, false)", SCOPE)
            yield Filled(daemon, plain)


def both_plans(connection: "psycopg.Connection[Any]", compiled: Compiled) -> list[Plan]:
    """The plans of a statement for any values, and for values of which there are rows."""
    values = values_for(compiled, parameter_types(connection, compiled.text), SCOPE)
    return [generic_plan(connection, compiled.text), custom_plan(connection, compiled.text, values)]


def may_read_all(name: str, text: str) -> bool:
    """Whether a statement is about all rows of its scope, or ends after the first one in the index's order."""
    return "select_all" in name.lower() or "EMPTY_EVERY_TABLE" in name or bool(re.search(r" LIMIT 1\b", text))


def searches_badly(name: str, compiled: Compiled, plan: Plan) -> Iterator[str]:
    """What a plan reads other than by an index, or by the scope alone, or sorts although an index has the order."""
    reads_all = may_read_all(name, compiled.text)
    for node in nodes(plan):
        kind, table, condition = (node.get(each, "") for each in ("Node Type", "Relation Name", "Index Cond"))
        if kind in ("Seq Scan", "Bitmap Heap Scan"):
            yield f"{name}: {kind} of {table}"
        elif kind == "Sort":
            yield f"{name}: sorts {node['Plan Rows']} rows"
        elif kind.startswith("Index") and not (" AND " in condition or table in FEW_ROWS or reads_all):
            yield f"{name}: reads all of {table} by {node['Index Name']}"


def test_every_statement_is_served_from_an_index_in_its_order(filled: Filled) -> None:
    """No table is searched without one, or by the scope alone, and nothing is sorted that an index gives in order.

    A statement about all rows of a scope reads them all. Inside each parent of a page, children may be sorted.
    """
    problems = [
        problem
        for name, compiled in SEARCHES.items()
        for plan in both_plans(filled.daemon, compiled)
        for problem in searches_badly(name, compiled, plan)
    ]
    assert problems == []


def test_a_pooler_that_forgets_settings_costs_no_search_of_tables(filled: Filled) -> None:
    """With the planner's own settings no statement reads a table of many rows without an index either."""
    scans = [
        f"{name}: {node['Relation Name']}"
        for name, compiled in SEARCHES.items()
        for plan in both_plans(filled.plain, compiled)
        for node in nodes(plan)
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] not in FEW_ROWS
    ]
    assert scans == []


def test_positions_are_found_in_the_index(filled: Filled) -> None:
    """A page begins where the index has the position after which it is: no rows before it are read."""
    pages = {
        name: each for name, each in SEARCHES.items() if re.search(r'\(\("t1"\."\w+", .*?\) [<>]=? \(\$', each.text)
    }
    assert len(pages) > 20
    for name, compiled in pages.items():
        for plan in both_plans(filled.daemon, compiled):
            assert any("ROW(" in node.get("Index Cond", "") for node in nodes(plan)), name


# Round trips


@pytest.fixture
def conversation(monkeypatch: pytest.MonkeyPatch) -> Iterator[Conversation]:
    """What daemons say, without their work in other threads: to tell others of commits, and to read tokens again."""
    monkeypatch.setattr(AccessDatabase, "watch", lambda *_: None)
    monkeypatch.setattr(Commits, "_send_some", lambda *_: None)
    monkeypatch.setattr(Commits, "_look", lambda *_: None)
    with followed_conversation() as conversation:
        yield conversation


@pytest.fixture
def in_postgresql(tmp_path: Path, postgresql: Server, conversation: Conversation) -> Iterator[InProcess]:
    with postgresql.database() as address, InProcess(tmp_path / "data", store=address) as transport:
        yield transport


CONNECTIONS = 6
"""More than a daemon opens for one client. They take turns."""


def round_trips(conversation: Conversation, transport: InProcess, work: Callable[[], object]) -> int:
    """The number of round trips that work takes when each connection has all statements, and no result is cached."""
    for _ in range(CONNECTIONS):
        transport.scopes.clear_caches()
        conversation.begin()
        work()
    return conversation.round_trips


@pytest.mark.undescribed
def test_the_number_of_round_trips_does_not_grow_with_rows(
    conversation: Conversation, in_postgresql: InProcess
) -> None:
    """A query takes as many for 12 records of everything as for one: five besides the two of a transaction at most.

    The log contains the bytes of each part of a file, which are read part by part.
    """
    client = Client(transport=in_postgresql)
    counts: dict[int, list[int]] = {}
    for size in (1, 12):
        media = fill(client, size)
        asked = [replace(each, media_id=media.id) if hasattr(each, "media_id") else each for each in QUERIES]
        counts[size] = [round_trips(conversation, in_postgresql, partial(client.ask, each)) for each in asked]
    grown = [(each, *both) for each, *both in zip(QUERIES, counts[1], counts[12], strict=True) if both[1] > both[0]]
    assert [each for each in grown if not isinstance(each[0], GetLog)] == []
    assert max(counts[1]) <= 2 + 5


@pytest.mark.undescribed
def test_the_round_trips_of_the_commonest_requests(conversation: Conversation, in_postgresql: InProcess) -> None:
    """The beginning of a transaction takes one, its end another, and each statement between them one."""
    client, dispatcher = Client(transport=in_postgresql), in_postgresql.dispatcher
    numbers = count()

    def batch(size: int) -> Batch:
        return Batch.of(save_message(f"of a batch {next(numbers)}") for _ in range(size))

    def save_together() -> None:
        saves = [{"message": message_document(f"together {next(numbers)}")} for _ in range(50)]
        requests = [{"id": f"z{next(numbers):09}", "type": "save-message", "payload": each} for each in saves]
        dispatcher.answer_commands([dispatcher.receive(msgspec.json.encode(each)) for each in requests])

    found = {
        "save-message": round_trips(conversation, in_postgresql, lambda: client.execute(save_message(next(numbers)))),
        "50 save-message together": round_trips(conversation, in_postgresql, save_together),
        "batch of 20 save-message": round_trips(conversation, in_postgresql, lambda: client.execute(batch(20))),
        "get-message-page": round_trips(
            conversation, in_postgresql, lambda: client.ask(GetMessagePage("r1", limit=50))
        ),
        "get-messages": round_trips(conversation, in_postgresql, lambda: client.ask(GetMessages("r1"))),
    }
    assert found == {
        "save-message": 2 + 2,
        "50 save-message together": 2 + 50 * 2,
        "batch of 20 save-message": 2 + 20 + 2,
        "get-message-page": 2 + 3,
        "get-messages": 2 + 2,
    }


@pytest.mark.undescribed
def test_the_chores_do_not_ask_about_each_part_of_media(conversation: Conversation, in_postgresql: InProcess) -> None:
    """They hold the scope meanwhile, and so everybody who writes to it, at every daemon."""
    client = Client(transport=in_postgresql)
    counts = []
    for size in (1, 12):
        fill(client, size)
        with in_postgresql.store.write() as db:
            db.connection.execute("UPDATE blobs SET put_at = 1 WHERE scope = $1", (DEFAULT_SCOPE,))
        chores = partial(in_postgresql.dispatcher.run_chores, DEFAULT_SCOPE)
        counts.append(round_trips(conversation, in_postgresql, chores))
    assert counts[1] == counts[0]


@pytest.mark.undescribed
def test_each_statement_is_prepared_once(in_postgresql: InProcess) -> None:
    """A connection has each statement once, whatever values are bound to it."""
    client = Client(transport=in_postgresql)
    for size in (1, 3):
        fill(client, size)
    with in_postgresql.scopes.databases()[0].connection() as connection:
        prepared = rows_of(connection, "SELECT statement, count(*) FROM pg_prepared_statements GROUP BY 1")
    assert [each for each in prepared if each[1] > 1] == []
