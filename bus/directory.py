"""The data directory: creating, checking and locking it, and the endpoint in it."""

import errno
import json
import mmap
import os
import shutil
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

from backscroll.bus.failures import AlreadyRunning, BadSettings, CannotOpen
from backscroll.bus.files import is_private, write_whole
from backscroll.bus.logging import log
from backscroll.bus.watched_files import WatchedFiles
from backscroll.schema.paths import ENDPOINT_FILE, STORE_FILE, runtime_dir, start_command, store_of

SOCKET_PATH_BYTES_MAX = 100  # the limit on ipc paths is lowest on macOS, about 103
LOCK_FILE = "lock"
RESTORING = "restoring"  # the file that says that a restore is moving files into the data directory
DATA_NAMES = ("default.db", LOCK_FILE, "scopes", RESTORING)
HOLDER_TRIES, HOLDER_RETRY_SECONDS = 20, 0.05


def check_file_system(directory: Path) -> None:
    """Raise `CannotOpen` if the file system lacks what SQLite needs: file locks and shared memory mappings."""
    if fcntl is None:
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(dir=directory))
            file.truncate(mmap.PAGESIZE)
        except OSError:  # a full or read-only disk: opening the database gives a better error
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
        f"{directory} cannot be used for a database: {why}. Is it on a network file system? "
        "Name a directory on a local disk."
    )


def is_data_directory(directory: Path) -> bool:
    """Whether a daemon has used this directory, or a restore into it was interrupted."""
    return directory.is_dir() and any((directory / name).exists() for name in DATA_NAMES)


def is_new(directory: Path) -> bool:
    """Whether nothing is there, or an empty directory."""
    return not directory.exists() or (directory.is_dir() and not any(directory.iterdir()))


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lock the directory for this process; raises `AlreadyRunning` if another daemon has locked it, or `CannotOpen`.

    The operating system releases the lock when the process ends, however it ends.
    """
    with ExitStack() as stack:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_file_system(directory)
            writable = os.access(directory, os.W_OK)
            stack.enter_context(_lock_directory(directory, alone=not writable))
            _remove_runtime_dir(directory)  # of a daemon that was killed
            if not writable:
                yield
                return
            lock = FileLock(directory / LOCK_FILE, thread_local=False)  # any thread may release it
            lock.acquire(timeout=0)
            stack.callback(lock.release)
            with _unless_full():
                (directory / "pid").write_text(f"{os.getpid()}\n", encoding="ascii")
            stack.callback(_remove_own, directory / "pid", _watched(directory))
        except (Timeout, BlockingIOError):
            raise AlreadyRunning(
                f"another daemon{_holder(directory)} is using {directory}. Stop it, or use another data directory."
            ) from None
        except OSError as error:
            raise CannotOpen(f"the data directory {directory} cannot be used: {error}") from error
        yield


@contextmanager
def _lock_directory(directory: Path, *, alone: bool) -> Iterator[None]:
    """Lock the directory itself where the system can: this lock outlives the removal of any file in it.

    It is taken `alone` if the lock file cannot be written. Raises BlockingIOError if another process has it, and
    `CannotOpen` if it is the only one and does not work, or if the directory is replaced meanwhile.
    """
    if fcntl is None:
        if alone:
            raise CannotOpen(f"the data directory {directory} is read-only, and cannot be locked on this system.")
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:  # the lock file has to do
            if alone:
                raise CannotOpen(f"{directory} is read-only, and cannot be locked ({error.strerror}).") from error
            log.error("the directory itself cannot be locked", directory=str(directory), error=str(error))
        if not os.path.samestat(os.fstat(descriptor), directory.stat()):
            raise CannotOpen(f"the data directory {directory} was replaced just now. Start the daemon again.")
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _unless_full() -> Iterator[None]:
    """Go on without what a full disk has no room for."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def _watched(directory: Path) -> WatchedFiles:
    files = WatchedFiles()
    files.note(directory)
    return files


def _remove_own(path: Path, directory: WatchedFiles) -> None:
    """Remove a file, unless its directory was replaced: then another daemon may have created it."""
    if not directory.problem():
        path.unlink(missing_ok=True)


@contextmanager
def place_for_endpoint(directory: Path) -> Iterator[Path]:
    """Where the socket and the endpoint file can be: the data directory, or a directory that is removed at the end.

    Raises `CannotOpen` if that directory cannot be made, or may be another user's.
    """
    if _has_room_for_a_file(directory):
        yield directory
        return
    place = runtime_dir(directory)
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_private(place.parent):
            raise CannotOpen(f"{place.parent} belongs to another user, or others can write it. Remove it.")
        place.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CannotOpen(
            f"{directory} cannot be written, and {place} cannot be made: {error}. Name a directory for runtime files in"
            " XDG_RUNTIME_DIR."
        ) from error
    try:
        yield place
    finally:
        _remove_runtime_dir(directory)


def _has_room_for_a_file(directory: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(mmap.PAGESIZE))
    except OSError:
        return False
    return True


def _remove_runtime_dir(directory: Path) -> None:
    """Remove what a daemon of this user has left for a data directory outside of it."""
    place = runtime_dir(directory)
    if is_private(place.parent):
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def announced(directory: Path, ready: dict[str, Any]) -> Iterator[None]:
    """Keep `endpoint.json` in the directory while the daemon serves. It is written atomically."""
    path, files = directory / ENDPOINT_FILE, _watched(directory)
    write_whole(path, json.dumps(ready).encode())
    try:
        yield
    finally:
        _remove_own(path, files)


def check_store(directory: Path, store: str) -> None:
    """Raise `BadSettings` if a daemon with this store would not serve what the directory has; empty stands for files.

    Else somebody who forgets a flag would find all data gone, and write new data to another place.
    """
    if not store and store_of(directory) is not None:
        raise BadSettings(
            f"the data of {directory} is in PostgreSQL. Start the daemon with `{start_command(directory)}`, or name"
            f" another data directory. (To have files there from now on, remove {directory / STORE_FILE}.)"
        )
    if store and has_scopes_in_files(directory):
        raise BadSettings(
            f"{directory} holds scopes in files, which a daemon with a store does not serve. Copy them with"
            f" `backscroll copy {directory} postgresql://USER@HOST/DATABASE`, and name another data directory."
        )


def has_scopes_in_files(directory: Path) -> bool:
    """Whether the directory has the database of a scope."""
    return (directory / "default.db").exists() or any(directory.glob("scopes/*.db"))


def note_store(directory: Path, store: str) -> None:
    """Write the address of the database that has the data into `store.json`."""
    with suppress(OSError):  # the disk is full, or the directory read-only; the daemon can do without
        write_whole(directory / STORE_FILE, json.dumps({"store": store}).encode())


@contextmanager
def default_endpoint(directory: Path) -> Iterator[str]:
    """ipc in the data directory, or in a temporary directory if its path is too long; tcp on Windows."""
    if os.name == "nt":
        yield "tcp://127.0.0.1:*"
        return
    path = directory / "backscroll.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        files = _watched(directory)
        try:
            yield f"ipc://{path}"
        finally:
            _remove_own(path, files)  # libzmq leaves it
        return
    with tempfile.TemporaryDirectory(prefix="backscroll-") as short:
        yield f"ipc://{short}/backscroll.sock"


def _holder(directory: Path) -> str:
    """The process that has the lock, for the message. It may have taken it just now, so its pid is waited for."""
    for _ in range(HOLDER_TRIES):
        with suppress(OSError, ValueError):
            return f" (process {int((directory / 'pid').read_text(encoding='ascii'))})"
        time.sleep(HOLDER_RETRY_SECONDS)
    return ""
