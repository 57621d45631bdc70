"""What a program would be that is written by hand with psycopg and does what the daemon does for the same requests.

The statements are recorded while the daemon's dispatcher executes the requests on a database of its own, and repeated
on another one with psycopg as it comes: one by one, or in its pipeline mode, which a program that needs the results
could not use.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from backscroll.bus.inprocess import InProcess
from backscroll.bus.postgresql.connecting import UntypedInt
from tests.bench.daemon import body_of, check_all_ok
from tests.bench.measuring import seconds


class Said(NamedTuple):
    """A statement that was executed: with these values, with each of them, or without any, a script of several."""

    text: str
    values: Any
    many: bool


class Recorder:
    """Executes requests in this process, so many commands in each transaction, and notes the statements."""

    def __init__(self, directory: Path, address: str) -> None:
        self._transport = InProcess(directory, store=address)

    def saves(self, commands: Sequence[Any], group: int) -> list[list[Said]]:
        """The statements of each transaction."""
        dispatcher = self._transport.dispatcher
        requests = [dispatcher.receive(body_of(each)) for each in commands]
        groups = [requests[at : at + group] for at in range(0, len(requests), group)]
        with recorded() as said:
            return [self._taken(said, partial(dispatcher.answer_commands, each)) for each in groups]

    def reads(self, queries: Sequence[Any]) -> list[list[Said]]:
        """The statements of each query, none of whose results are cached."""
        dispatcher = self._transport.dispatcher
        found = []
        with recorded() as said:
            for query in queries:
                self._transport.scopes.clear_caches()
                request = dispatcher.receive(body_of(query))
                found.append(self._taken(said, partial(dispatcher.answer_queries, [request])))
        return found

    def close(self) -> None:
        self._transport.close()

    def _taken(self, said: list[Said], work: Callable[[], list[bytes]]) -> list[Said]:
        said.clear()
        check_all_ok(work())
        return list(said)


@contextmanager
def recorded() -> Iterator[list[Said]]:
    """All statements that this thread executes inside the block."""
    said: list[Said] = []
    thread, execute, executemany = threading.get_ident(), psycopg.RawCursor.execute, psycopg.RawCursor.executemany

    def note_one(self: Any, text: Any, values: Any = None, **options: Any) -> Any:
        if threading.get_ident() == thread:
            said.append(Said(text, values, many=False))
        return execute(self, text, values, **options)

    def note_many(self: Any, text: Any, values: Any, **options: Any) -> Any:
        if threading.get_ident() == thread:
            said.append(Said(text, values, many=True))
        return executemany(self, text, values, **options)

    psycopg.RawCursor.execute, psycopg.RawCursor.executemany = note_one, note_many  # type: ignore[method-assign, assignment]
    try:
        yield said
    finally:
        psycopg.RawCursor.execute, psycopg.RawCursor.executemany = execute, executemany  # type: ignore[method-assign]


class ByHand:
    """One connection that repeats what was recorded."""

    def __init__(self, address: str) -> None:
        self._connection = psycopg.connect(
            address, autocommit=True, prepare_threshold=0, cursor_factory=psycopg.RawCursor
        )
        self._connection.prepared_max = 1_000
        self._connection.adapters.register_dumper(bool, UntypedInt)  # flags are numbers in the tables

    def repeat(self, transactions: Sequence[Sequence[Said]]) -> float:
        """Execute one statement after the other, and fetch all results; the seconds it took."""

        def work() -> None:
            for transaction in transactions:
                for each in transaction:
                    self._execute(each)

        return seconds(work)

    def _execute(self, said: Said) -> None:
        with self._connection.cursor() as cursor:
            if said.many:
                cursor.executemany(said.text, said.values)
                return
            cursor.execute(said.text, said.values, prepare=said.values is not None)
            while cursor.nextset():
                pass
            if cursor.description:
                cursor.fetchall()

    def repeat_in_pipeline(self, transactions: Sequence[Sequence[Said]]) -> float:
        """The same, without waiting for any result inside a transaction; the seconds it took."""
        parts = [[part for each in transaction for part in _single(each)] for transaction in transactions]

        def work() -> None:
            for transaction in parts:
                with self._connection.pipeline(), self._connection.cursor() as cursor:
                    for text, values in transaction:
                        cursor.execute(text, values)

        return seconds(work)

    def close(self) -> None:
        self._connection.close()


def _single(said: Said) -> Iterator[tuple[str, Any]]:
    if said.many:
        yield from ((said.text, values) for values in said.values)
    elif said.values is None:
        yield from ((part, None) for part in re.split("; (?=SET LOCAL|SELECT|COMMIT)", said.text))
    else:
        yield said.text, said.values
