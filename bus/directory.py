"""The data directory: made, locked, and told apart from one that another daemon holds."""

import json
import mmap
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

from backscroll.bus.failures import AlreadyRunning, CannotOpen
from backscroll.bus.files import write_whole
from backscroll.schema.paths import ENDPOINT_FILE

SOCKET_PATH_BYTES_MAX = 100  # the shortest of the systems' limits on an ipc path, macOS's, is about 103
HOLDER_TRIES, HOLDER_RETRY_SECONDS = 20, 0.05


def check_file_system(directory: Path) -> None:
    """Raise `CannotOpen` where the file system lacks what SQLite needs: file locks and shared memory mappings."""
    if fcntl is None:
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(dir=directory))
            file.truncate(mmap.PAGESIZE)
        except OSError:  # a full or read-only disk: opening the database says more
            return
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotOpen(_unsuitable(directory, f"file locks do not work there ({error.strerror})")) from error
        try:
            mmap.mmap(file.fileno(), mmap.PAGESIZE).close()
        except OSError as error:
            raise CannotOpen(
                _unsuitable(directory, f"files cannot be mapped into shared memory there ({error.strerror})")
            ) from error


def _unsuitable(directory: Path, why: str) -> str:
    return (
        f"{directory} cannot hold a database: {why}. Is it on a network file system? Name a directory on a local disk."
    )


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory for this process; raises `AlreadyRunning` when another daemon does.

    The lock is the system's own and ends with the process, however that ends.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_file_system(directory)
        lock = FileLock(directory / "lock", thread_local=False)  # whichever thread closes it
        lock.acquire(timeout=0)
        (directory / "pid").write_text(f"{os.getpid()}\n", encoding="ascii")
    except Timeout:
        raise AlreadyRunning(f"another daemon{_holder(directory)} holds {directory}") from None
    except OSError as error:
        raise CannotOpen(f"the data directory {directory} cannot be used: {error}") from error
    try:
        yield
    finally:
        (directory / "pid").unlink(missing_ok=True)
        lock.release()


@contextmanager
def announced(directory: Path, ready: dict[str, Any]) -> Iterator[None]:
    """Keep `endpoint.json` in the directory while the daemon serves; written at once or not at all."""
    path = directory / ENDPOINT_FILE
    write_whole(path, json.dumps(ready).encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def default_endpoint(directory: Path) -> Iterator[str]:
    """ipc in the data directory, or in a short temporary one where its path is too long; tcp on Windows."""
    if os.name == "nt":
        yield "tcp://127.0.0.1:*"
        return
    path = directory / "backscroll.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        yield f"ipc://{path}"
        path.unlink(missing_ok=True)
        return
    with tempfile.TemporaryDirectory(prefix="backscroll-") as short:
        yield f"ipc://{short}/backscroll.sock"


def _holder(directory: Path) -> str:
    """Which process it is; one that took the lock this moment gets a moment to say so."""
    for _ in range(HOLDER_TRIES):
        with suppress(OSError, ValueError):
            return f" (process {int((directory / 'pid').read_text(encoding='ascii'))})"
        time.sleep(HOLDER_RETRY_SECONDS)
    return ""
