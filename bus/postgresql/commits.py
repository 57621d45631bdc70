"""How daemons on one database tell each other of commits: NOTIFY, outside of transactions and not for each of them.

A notification inside each transaction would cost a third of the speed: the server has one lock for all of them. So a
thread sends one for all commits of the last few milliseconds. It may be lost, or a pooler may not pass it on: so the
rows of the open scopes are also looked at every second.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec

from backscroll.bus.logging import log
from backscroll.bus.postgresql.connecting import (
    ANSWER_SECONDS,
    LIST_SCOPES,
    SHARED_SCOPE,
    Connection,
    Database,
    check_server,
)
from backscroll.bus.postgresql.store import Row

CHANNEL = "backscroll"
COALESCED_SECONDS = 0.01
POLL_SECONDS = 1.0
PAYLOAD_BYTES_MAX = 7_000  # the server allows 8,000
SELECT_ROWS = "SELECT scope, seq, lineage, chain FROM sequence WHERE scope = ANY($1::text[])"

Seqs = dict[str, int]
Known = Callable[[], Mapping[str, Row]]
"""The last commits of the scopes that are open or awaited, as far as this daemon knows them, by scope."""
Noticed = Callable[[str], None]
"""Receives the name of a scope that others have written to."""


class Commits:
    """Sends and receives the seqs of commits to one database, in two threads, until it is closed."""

    def __init__(self, database: Database, known: Known, noticed: Noticed) -> None:
        self._database = database
        self._known, self._noticed = known, noticed
        self._to_send: Seqs = {}
        self._lock = threading.Lock()
        self._has_work = threading.Event()
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._send_all, name="commits-sent", daemon=True),
            threading.Thread(target=self._receive_all, name="commits-received", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def send(self, scope: str, seq: int) -> None:
        """Tell other daemons of a commit, soon."""
        with self._lock:
            self._to_send[scope] = seq
        self._has_work.set()

    def close(self) -> None:
        self._ended.set()
        self.send(SHARED_SCOPE, 0)  # so that the thread which receives wakes, too
        for thread in self._threads:
            thread.join()

    def _send_all(self) -> None:
        while not self._ended.is_set():
            self._has_work.wait()
            self._ended.wait(COALESCED_SECONDS)
            self._has_work.clear()
            with self._lock:
                seqs, self._to_send = self._to_send, {}
            try:
                self._send_some(seqs)
            except Exception as error:  # noqa: BLE001  # others look for themselves, a second later
                log.debug("commits are not told", database=self._database.name, error=repr(error))

    def _send_some(self, seqs: Seqs) -> None:
        with self._database.connection() as connection:
            for payload in payloads(seqs):
                connection.execute("SELECT pg_notify($1, $2)", (CHANNEL, payload))

    def _receive_all(self) -> None:
        while not self._ended.is_set():
            try:
                with self._database.beside_pool() as connection:
                    connection.answer_seconds = ANSWER_SECONDS
                    self._receive(connection)
            except Exception as error:  # noqa: BLE001  # whatever it is, others' commits must be told of again
                self._note_problem(str(error).strip() or type(error).__name__)
                self._ended.wait(POLL_SECONDS)

    def _note_problem(self, cause: str) -> None:
        """Say in `health`, and once in the log, that the database cannot be used, or with "" that it can."""
        problem = cause and f"the database does not answer: {cause}"
        if problem and problem != self._database.problem:
            log.error("the database does not answer", database=self._database.name, error=cause)
        elif self._database.problem and not problem:
            log.info("the database answers again", database=self._database.name)
        self._database.problem = problem

    def _receive(self, connection: Connection) -> None:
        check_server(connection, self._database.name)  # after a failover it may be another one, set up in another way
        connection.execute(f"LISTEN {CHANNEL}")
        look_at = time.monotonic()
        while not self._ended.is_set():
            if time.monotonic() >= look_at:  # and not after each notification, of which there may be hundreds a second
                self._look(connection)
                self._note_problem("")
                look_at = time.monotonic() + POLL_SECONDS
            for notification in connection.notifies(timeout=max(0.001, look_at - time.monotonic()), stop_after=1):
                self._notice_later(_seqs_of(notification.payload))

    def _look(self, connection: Connection) -> None:
        """Notice every scope whose row is another than the known one, also if it counts to the same seq."""
        known = self._known()
        with connection.transaction():
            connection.execute(LIST_SCOPES)
            found = {scope: Row(*row) for scope, *row in connection.execute(SELECT_ROWS, (list(known),)).fetchall()}
        for scope, row in known.items():
            if found.get(scope, Row()) != row:
                self._notice(scope)

    def _notice_later(self, seqs: Seqs) -> None:
        """Notice the scopes with commits that are not known yet: not those that this daemon has told of itself."""
        known = self._known()
        for scope, seq in seqs.items():
            if scope in known and known[scope].seq < seq:
                self._notice(scope)

    def _notice(self, scope: str) -> None:
        """Have a scope looked at. What is wrong with one says nothing about the database, nor about others."""
        try:
            self._noticed(scope)
        except Exception as error:  # noqa: BLE001  # it is asked for again
            log.error("commits of others are not absorbed", scope=scope, error=repr(error))


def payloads(seqs: Seqs) -> list[str]:
    """Seqs as JSON in as few texts as have room for them."""
    found: list[str] = []
    part: Seqs = {}
    size = 0
    for scope, seq in seqs.items():
        added = len(msgspec.json.encode({scope: seq}))
        if size + added > PAYLOAD_BYTES_MAX:
            found.append(msgspec.json.encode(part).decode())
            part, size = {}, 0
        part[scope] = seq
        size += added
    return [*found, msgspec.json.encode(part).decode()] if part else found


def _seqs_of(payload: str) -> Seqs:
    """The seqs in a notification; none if it is not one of a daemon."""
    with suppress(msgspec.MsgspecError):
        return msgspec.json.decode(payload, type=Seqs)
    return {}
