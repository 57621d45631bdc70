"""The statements that PostgreSQL gets: those of the registry, their plans, and all that a daemon says to a server."""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import psycopg
from peewee import ModelSelect
from psycopg import sql
from psycopg.pq import Trace

from backscroll import handlers
from backscroll.bus import postgresql, sqlite
from backscroll.bus.postgresql.compiling import BEGUN, COMPILED, SIZES, WITHIN, Compiled
from backscroll.bus.postgresql.connecting import Connection, Database
from backscroll.handlers.sql import STATEMENTS
from tests.support.named_statements import modules_of, named_in

Plan = dict[str, Any]

OF_FILES: Final = {
    "table_rows.LARGEST_SEQS.messages": "compares a file that was restored with its log",
    "table_rows.ALL.sequence.select": "compares what a replay led to in a file, with a column that only files have",
}
"""The statements of handlers that run on SQLite only, and why."""

VALUES: Final[dict[str, Any]] = {
    "after_created_at": 1,
    "after_emoji": "",
    "after_id": "",
    "after_joined_at": 1,
    "after_oder_id": "",
    "after_position": 0,
    "after_timestamp": 1,
    "bytes_max": 1_000_000,
    "channel_id": "c0",
    "child_id": "c0",
    "key": "key1",
    "limit": 100,
    "media_id": "media0",
    "noun": "message",
    "oder_id": "u1",
    "parent": "",
    "pubkey": "key1",
    "room_id": "r0",
    "rows_max": 200,
    "size_max": 1_000_000,
    "user_id": "u1",
}
"""What is bound to parameters, by name, so that rows of `tests.support.filled_postgresql` are found."""
OF_TYPE: Final[dict[str, Any]] = {"text": "m0", "jsonb": '["m0", "m1", "r0"]', "bytea": "", "bigint": 2, "integer": 1}
"""The same for other parameters, by type."""


def named_statements() -> dict[str, Compiled]:
    """Every statement of the registry that PostgreSQL may get, by name.

    A SELECT is there three times more: as it is when rows are read until they are larger than fits, or one by one, at
    first some and then all after their sizes.
    """
    ours = named_in([*modules_of(handlers), *modules_of(postgresql)])
    assert set(STATEMENTS) <= ours.keys() | named_in(modules_of(sqlite)).keys()
    assert OF_FILES.keys() <= set(ours.values())
    kept = {found: name for found, name in ours.items() if name not in OF_FILES}
    selects = {found: name for found, name in kept.items() if type(found.query) is ModelSelect}
    within = {f"{name}, within": WITHIN[found] for found, name in selects.items()}
    begun = {f"{name}, begun": BEGUN[found] for found, name in selects.items()}
    sizes = {f"{name}, sizes": SIZES[found] for found, name in selects.items()}
    return {name: COMPILED[found] for found, name in kept.items()} | within | begun | sizes


def parameter_types(connection: "psycopg.Connection[Any]", text: str) -> list[str]:
    """The types that the server infers for the parameters of a statement."""
    connection.execute(sql.SQL("PREPARE typed AS ") + sql.SQL(text), prepare=False)
    [(types,)] = connection.execute(
        "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = 'typed'"
    ).fetchall()
    connection.execute("DEALLOCATE typed", prepare=False)
    return list(types)


def values_for(compiled: Compiled, types: Sequence[str], scope: str) -> list[Any]:
    """Values for all parameters of a statement: the scope, and what stands above."""
    names = [*compiled.names, *[""] * (len(types) - 1 - len(compiled.names))]
    return [scope, *(VALUES.get(name, OF_TYPE[type_]) for name, type_ in zip(names, types[1:], strict=True))]


def generic_plan(connection: "psycopg.Connection[Any]", text: str) -> Plan:
    """The plan of a statement for any values of its parameters."""
    return _explained(connection, f"EXPLAIN (GENERIC_PLAN, VERBOSE, FORMAT JSON) {text}")


def custom_plan(connection: "psycopg.Connection[Any]", text: str, values: Sequence[Any]) -> Plan:
    """The plan of a statement for these values of its parameters."""
    connection.execute(sql.SQL("PREPARE planned AS ") + sql.SQL(text), prepare=False)
    literals = ", ".join(sql.Literal(value).as_string(None) for value in values)
    with connection.transaction():
        connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        plan = _explained(connection, f"EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE planned ({literals})")
    connection.execute("DEALLOCATE planned", prepare=False)
    return plan


def _explained(connection: "psycopg.Connection[Any]", text: str) -> Plan:
    [[[found]]] = psycopg.RawCursor(connection).execute(text, prepare=False).fetchall()
    plan: Plan = found["Plan"]
    return plan


def nodes(plan: Plan) -> Iterator[Plan]:
    """All nodes of a plan."""
    yield plan
    for each in plan.get("Plans", []):
        yield from nodes(each)


def without_scope(plan: Plan, scope: str) -> list[str]:
    """The nodes of a plan that touch rows of more than one scope, in words; `scope` is a pattern of its expression.

    A table that is read has the condition `scope = …` in the index or on each row; a row that is inserted has it as the
    first column.
    """
    return [_described(each) for each in nodes(plan) if not _keeps_to(each, scope)]


def _keeps_to(node: Plan, scope: str) -> bool:
    of_scope = rf"\bscope = \(?{scope}\)?"
    if node.get("Operation") == "Insert":
        [source] = [each for each in node["Plans"] if each["Parent Relationship"] == "Outer"]
        return bool(re.fullmatch(rf"\(?{scope}\)?(::text)?", source["Output"][0]))
    if node["Node Type"] == "Bitmap Index Scan":
        return bool(re.search(of_scope, node["Index Cond"]))
    if "Relation Name" not in node or node["Node Type"] == "ModifyTable":
        return True
    conditions = " ".join(node.get(name, "") for name in ("Index Cond", "Recheck Cond", "Filter"))
    return bool(re.search(of_scope, conditions))


def _described(node: Plan) -> str:
    names = ("Node Type", "Relation Name", "Index Name", "Index Cond", "Filter")
    return ", ".join(str(node[name]) for name in names if name in node)


class Conversation:
    """What was said on connections to a server, in libpq's words; not on those that wait for notifications."""

    def __init__(self) -> None:
        self._files = ExitStack()
        self._traces: list[Any] = []
        self._begins: list[int] = []

    def follow(self, connection: Connection) -> None:
        """Note all that is said on a connection from now on."""
        file = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # that is what the context is for
        self._traces.append(file)
        connection.pgconn.trace(file.fileno())
        connection.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)

    def begin(self) -> None:
        """Leave out what was said until now."""
        self._begins = [len(said) for said in self._all_said()]

    def _all_said(self) -> list[str]:
        return [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode() for file in self._traces]

    def _said(self) -> list[str]:
        all_said = self._all_said()
        begins = [*self._begins, *[0] * len(all_said)]
        return [said[begin:] for said, begin in zip(all_said, begins, strict=False) if '"LISTEN' not in said]

    @property
    def round_trips(self) -> int:
        """How many times the server has answered and waited for more."""
        return sum(len(re.findall(r"^B\t\d+\tReadyForQuery", said, re.MULTILINE)) for said in self._said())

    @property
    def statements(self) -> list[str]:
        """The texts that were sent, to be executed or prepared."""
        sent = re.compile(r'^F\t\d+\t(?:Query\t "|Parse\t "\w*" ")(.*?)"(?: \d+)*$', re.MULTILINE | re.DOTALL)
        return [text for said in self._said() for text in sent.findall(said)]

    def close(self) -> None:
        self._files.close()


@contextmanager
def followed_conversation() -> Iterator[Conversation]:
    """All that daemons' connections say which are opened, and closed, inside the block."""
    conversation, configure = Conversation(), Database._configure

    def follow(database: Database, connection: Connection) -> None:
        configure(database, connection)
        conversation.follow(connection)

    Database._configure = follow  # type: ignore[method-assign, assignment]
    try:
        yield conversation
    finally:
        Database._configure = configure  # type: ignore[method-assign]
        conversation.close()
