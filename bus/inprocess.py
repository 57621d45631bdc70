"""The in-process transport: a client's requests are answered by the real dispatcher and store, without a socket.

For tests of applications, and of backscroll itself:

    with InProcess(tmp_path) as transport, Client(transport=transport) as client:
        client.execute(SaveMessage(...))
"""

import os
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.directory import check_store, locked
from backscroll.bus.dispatch import Dispatcher
from backscroll.bus.gate import Gate
from backscroll.bus.settings import Settings
from backscroll.bus.sqlite.scopes import SqliteScopes
from backscroll.bus.status import DaemonStatus
from backscroll.bus.stores import Scopes
from backscroll.bus.upkeep import Upkeep
from backscroll.handlers.storage import Retention
from backscroll.schema.wire import DEFAULT_SCOPE


class InProcess:
    """A client's transport that answers each request while it is sent. Locks the data directory like a daemon.

    `clock` returns the current time in milliseconds since the epoch; `vfs` names an apsw VFS, for fault injection.
    `store` is the address of a PostgreSQL database that holds the data in place of files. Raises `AlreadyRunning`,
    `CannotOpen`, or `BadSettings` if the directory's data is in the other kind of store. A forked child must not use
    it; `close` does nothing there.
    """

    def __init__(
        self, data_dir: Path, *, clock: Callable[[], int] = wall_clock_ms, vfs: str = "", store: str = ""
    ) -> None:
        self._replies: deque[bytes] = deque()
        self._pid = os.getpid()
        with ExitStack() as stack:
            stack.enter_context(locked(data_dir))
            check_store(data_dir, store)
            if store:
                self.scopes: Any = _open_databases(data_dir, store, clock, stack)
            else:
                self.scopes = stack.enter_context(closing(SqliteScopes(data_dir, clock=clock, vfs=vfs)))
            self.scopes.open(DEFAULT_SCOPE)
            self._stack = stack.pop_all()
        self._upkeep = Upkeep(data_dir, self.scopes, clock=clock)
        gate = Gate(self.scopes.access, clock=clock)
        status = DaemonStatus(lambda: {"replies": len(self._replies)}, self.scopes, gate, self._upkeep)
        self.dispatcher = Dispatcher(self.scopes, status)

    @property
    def store(self) -> Any:
        """The store of the scope `default`."""
        return self.scopes.open(DEFAULT_SCOPE)

    def send(self, body: bytes, _timeout_ms: float = 0, /) -> None:
        self._replies.append(self.dispatcher.answer(body))
        for scope in self.scopes.open_names():
            while self.dispatcher.remove_cleared(scope):
                pass
            self.dispatcher.checkpoint(scope)

    def receive(self, _timeout_ms: float) -> bytes | None:
        return self._replies.popleft() if self._replies else None

    def close(self) -> None:
        if os.getpid() == self._pid:  # a forked child would release the locks and checkpoint the files of its parent
            self._upkeep.stop()
            self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_databases(data_dir: Path, store: str, clock: Callable[[], int], stack: ExitStack) -> Scopes:
    from backscroll.bus.postgresql.opening import open_scopes

    return open_scopes(Settings(data_dir=data_dir, store=store), Retention(), stack, clock)
