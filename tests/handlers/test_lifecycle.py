"""handlers/lifecycle.py: the life of a database, and of the daemon that owns it."""

import os

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
    Message,
    Ping,
    Reaction,
    Room,
    RoomMember,
    SaveAttachment,
    SaveBan,
    SaveMessage,
    SaveReaction,
    SaveRoom,
    SaveUser,
    SetCurrentUserId,
    StorageHealth,
    User,
)
from backscroll.schema.wire import PROTOCOL_LEVEL
from tests.support.sql import sql
from tests.support.tables import all_rows, content_rows


def test_initialize_does_nothing_successfully(client: Client, transport: InProcess) -> None:
    """It is a command like any other: answered null, numbered."""
    assert client.execute(Initialize()) is None
    assert transport.store.seq == 1


def test_clear_all_data_empties_every_table_but_the_commit_number(client: Client, transport: InProcess) -> None:
    """Nothing is left of what was saved, the current user included, nor of it in the command log; seq goes on."""
    client.execute(SaveUser(User(oder_id="ada", id="u", username="ada")))
    client.execute(SetCurrentUserId("ada"))
    client.execute(SaveRoom(Room(id="r", name="Room", members=[RoomMember(oder_id="ada")])))
    client.execute(SaveMessage(Message(id="m", room_id="r", sender_id="ada", content="x", timestamp=1)))
    client.execute(SaveReaction(Reaction(message_id="elsewhere", oder_id="ada", emoji="👍")))
    client.execute(SaveAttachment(Attachment(id="a", message_id="elsewhere", filename="f", size=1, mime="x/y")))
    client.execute(SaveBan(Ban(room_id="r", oder_id="eve", timestamp=1)))
    client.execute(ClearAllData())
    assert client.ask(GetCurrentUser()) is None
    assert not any(content_rows(transport.store.path).values())
    rows = all_rows(transport.store.path)
    assert rows["log_references"] == []
    assert len(rows["commands"]) == transport.store.seq == 8
    with transport.store.read() as snapshot:
        assert snapshot.rows(sql("SELECT type FROM commands WHERE payload IS NOT NULL")) == [("clear-all-data",)]
        assert snapshot.rows(sql("SELECT type FROM commands WHERE length(result) > 0")) == []


def test_ping_and_health_tell_of_the_daemon(client: Client) -> None:
    """Health names the process, the level, the versions, and whether this SQLite can lose commits: it cannot."""
    assert client.ask(Ping()).pong
    health = client.ask(Health())
    assert health.ready
    assert health.pid == os.getpid()
    assert health.level == PROTOCOL_LEVEL == 1
    assert health.storage == StorageHealth(engine="sqlite", version=apsw.sqlite_lib_version(), wal_reset_bug=False)
