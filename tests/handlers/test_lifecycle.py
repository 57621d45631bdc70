"""handlers/lifecycle.py: `initialize`, `clear-all-data`, `ping` and `health`."""

import os
from pathlib import Path

import apsw

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.schema import (
    Attachment,
    Ban,
    ClearAllData,
    GetCurrentUser,
    Health,
    Initialize,
    Ping,
    Reaction,
    Room,
    RoomMember,
    SaveAttachment,
    SaveBan,
    SaveReaction,
    SaveRoom,
    SaveUser,
    SetCurrentUserId,
    User,
)
from backscroll.schema.wire import PROTOCOL_LEVEL
from tests.support.clocks import Clock
from tests.support.messages import save_message
from tests.support.sql import sql
from tests.support.tables import all_rows, content_rows


def test_initialize_has_no_effect_but_a_number(client: Client, transport: InProcess) -> None:
    """It is a command like any other, with the result null and a `seq`."""
    assert client.execute(Initialize()) is None
    assert transport.store.seq == 1


def test_clear_all_data_deletes_everything_but_the_seq(client: Client, transport: InProcess) -> None:
    """Nothing of the data is left, neither in the tables nor in the command log, and `seq` continues."""
    client.execute(SaveUser(User(oder_id="ada", id="u", username="ada")))
    client.execute(SetCurrentUserId("ada"))
    client.execute(SaveRoom(Room(id="r", name="Room", members=[RoomMember(oder_id="ada")])))
    client.execute(save_message("m", "x", "r"))
    client.execute(SaveReaction(Reaction(message_id="elsewhere", oder_id="ada", emoji="👍")))
    client.execute(SaveAttachment(Attachment(id="a", message_id="elsewhere", filename="f", size=1, mime="x/y")))
    client.execute(SaveBan(Ban(room_id="r", oder_id="eve", timestamp=1)))
    client.execute(ClearAllData())
    assert client.ask(GetCurrentUser()) is None
    assert not any(content_rows(transport.store).values())
    rows = all_rows(transport.store)
    assert rows["log_references"] == []
    assert len(rows["commands"]) == transport.store.seq == 8
    with transport.store.read() as snapshot:
        assert snapshot.rows(sql("SELECT type FROM commands WHERE payload IS NOT NULL")) == [("clear-all-data",)]
        assert snapshot.rows(sql("SELECT type FROM commands WHERE length(result) > 0")) == []


def test_ping_and_health_report_on_the_daemon(client: Client, clock: Clock, tmp_path: Path) -> None:
    """`health` has the process, the level, the versions, and whether this version of SQLite is known to lose
    commits.
    """
    directory = (tmp_path / "data").stat()
    assert client.ask(Ping()).pong
    health = client.ask(Health())
    assert health.ready
    assert health.pid == os.getpid()
    assert health.level == PROTOCOL_LEVEL == 1
    storage = health.storage
    assert (storage.engine, storage.version, storage.wal_reset_bug) == ("sqlite", apsw.sqlite_lib_version(), False)
    assert (storage.state, storage.warnings) == ("ok", [])
    assert storage.disk_free_bytes
    assert storage.last_commit_at is None
    client.execute(Initialize())
    assert client.ask(Health()).storage.last_commit_at == clock()
    assert storage.directory == f"{directory.st_dev}:{directory.st_ino}"
