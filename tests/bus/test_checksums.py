"""Every page of a database has a checksum, in new files, compact copies and adopted files; a read verifies it."""

import re
import shutil
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from backscroll.bus.failures import CannotOpen
from backscroll.bus.inprocess import InProcess
from backscroll.bus.query_cache import QueryCache
from backscroll.bus.sqlite import checksums, errors
from backscroll.bus.sqlite.read_only_store import ReadOnlyStore
from backscroll.schema.errors import Storage
from tests.support.local import Local
from tests.support.messages import save_payload
from tests.support.requests import body, result, send
from tests.support.sql import sql

PAGE_BYTES = 4096
MESSAGES = 60
COUNT = sql("SELECT count(*), sum(length(content)) FROM messages")


def fill_in(local: Local, scope: str = "default") -> None:
    for number in range(MESSAGES):
        local.result("save-message", save_payload(number, f"content {number} " * 40), scope=scope)


def contents(local: Local, scope: str = "default") -> list[str]:
    return [each["content"] for each in local.result("get-messages", {"roomId": "r1", "limit": 100}, scope=scope)]


def pages_of(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [data[at : at + PAGE_BYTES] for at in range(0, len(data), PAGE_BYTES)]


def with_right_checksums(path: Path) -> int:
    """How many pages match their checksums, as SQLite's own function says."""
    with closing(apsw.Connection(":memory:")) as connection:
        return sum(connection.execute("SELECT verify_checksum(?)", (page,)).get for page in pages_of(path))


def have_checksums(path: Path) -> bool:
    return path.read_bytes()[20] == 8 and with_right_checksums(path) == len(pages_of(path))


def flip(path: Path) -> None:
    """Flip a bit in each copy of a message's text, in its row and in the command log."""
    data, text = path.read_bytes(), b"content 7 " * 20
    found = [match.start() for match in re.finditer(text, data)]
    assert found
    with path.open("rb+") as file:
        for at in found:
            file.seek(at)
            file.write(bytes([data[at] ^ 1]))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory that was closed, with messages."""
    with Local(tmp_path / "data") as local:
        fill_in(local)
    return tmp_path / "data"


@pytest.fixture
def without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory that was closed, whose database was made without checksums."""
    with monkeypatch.context() as patch:
        patch.setattr(checksums, "reserve", lambda _: None)
        with Local(tmp_path / "without") as local:
            fill_in(local)
    assert (tmp_path / "without" / "default.db").read_bytes()[20] == 0
    return tmp_path / "without"


def test_a_new_database_and_its_compact_copy_have_checksums(directory: Path) -> None:
    """Each page of the closed file matches, before and after a compaction."""
    assert have_checksums(directory / "default.db")
    with Local(directory) as local:
        local.result("compact-scope")
        before = contents(local)
    assert have_checksums(directory / "default.db")
    with Local(directory) as local:
        assert contents(local) == before


def test_a_file_without_checksums_is_served_and_gets_them(without: Path) -> None:
    """It is read and written as it is, also over a restart; compaction writes a copy that has them."""
    database = without / "default.db"
    for request_id in ("new-1", "new-2"):
        with Local(without) as local:
            assert len(contents(local)) == MESSAGES
            local.result("save-message", save_payload(1, "edited"), request_id)
        assert database.read_bytes()[20] == 0
    with Local(without) as local:
        local.result("compact-scope")
        assert "edited" in contents(local)
    assert have_checksums(database)


def test_an_adopted_file_gets_checksums(directory: Path, without: Path, tmp_path: Path) -> None:
    """The scope's database has them, whether or not the file that it was copied from has."""
    with Local(tmp_path / "adopting") as local:
        for old in (directory, without):
            with Local(old) as owner:
                owner.result("set-current-user-id", {"userId": "ada"}, "new-1")
            with closing(apsw.Connection(str(old / "default.db"))) as connection:
                connection.execute("DELETE FROM scope")
            before = (old / "default.db").read_bytes()
            payload = {"path": str(old / "default.db"), "userId": "ada"}
            local.result("adopt-legacy-database", payload, scope=old.name)
            assert (old / "default.db").read_bytes() == before
            assert len(contents(local, old.name)) == MESSAGES
        files = [local.store(old.name).path for old in (directory, without)]
    assert [have_checksums(file) for file in files] == [True, True]


def test_a_flipped_bit_is_an_error_and_no_answer(directory: Path) -> None:
    """A text with another letter would be a valid row; the reply is `storage`, and says that the file is damaged."""
    flip(directory / "default.db")
    with InProcess(directory) as transport:
        reply = send(transport, body("get-messages", {"roomId": "r1", "limit": 100}))
        assert reply["error"]["code"] == "storage"
        assert "the database file is damaged" in reply["error"]["message"]
        assert not reply["error"]["retryable"]
        assert result(transport, "ping") is not None


def test_a_damaged_page_at_start_is_told_in_words(directory: Path) -> None:
    """The message has the path, what is wrong, and what to do."""
    database = directory / "default.db"
    data = bytearray(database.read_bytes())
    data[200] ^= 1  # of the schema
    database.write_bytes(data)
    with pytest.raises(CannotOpen, match=r"default\.db is damaged: a page does not match its checksum") as caught:
        Local(directory)
    assert "`backscroll repair`" in str(caught.value)


@pytest.mark.parametrize("logged", [True, False], ids=["with a log", "closed"])
def test_a_store_that_is_read_only_verifies_checksums(tmp_path: Path, *, logged: bool) -> None:
    """Also where it reads the log without locks: then no VFS of SQLite's own would verify anything."""
    copy = tmp_path / "copy"
    with Local(tmp_path / "data") as local:
        fill_in(local)
        local.store().checkpoint_fully()
        if logged:
            local.result("save-message", save_payload("late", "in the log"))
            shutil.copytree(tmp_path / "data", copy, ignore=shutil.ignore_patterns("*-shm", "pid", "lock"))
    if not logged:
        shutil.copytree(tmp_path / "data", copy, ignore=shutil.ignore_patterns("pid", "lock"))
    assert bool(list(copy.glob("*-wal"))) == logged
    arguments = {"clock": lambda: 0, "scope": "default", "query_cache": QueryCache(0)}
    with closing(ReadOnlyStore(copy / "default.db", **arguments)) as store, store.read() as snapshot:  # type: ignore[arg-type]
        assert snapshot.rows(COUNT)[0][0] == MESSAGES + logged
    flip(copy / "default.db")
    store = ReadOnlyStore(copy / "default.db", **arguments)  # type: ignore[arg-type]
    with closing(store), store.read() as snapshot, pytest.raises(apsw.IOError) as caught:
        snapshot.rows(COUNT)
    error = errors.wire_error(caught.value)
    assert isinstance(error, Storage)
    assert "damaged" in str(error)
