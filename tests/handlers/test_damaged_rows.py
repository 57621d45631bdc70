"""Rows whose stored JSON is damaged: they are marked, hide nothing else, and are not made worse."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.clocks import Clock
from tests.support.local import Local
from tests.support.messages import message_document, save_payload
from tests.support.sql import sql

BROKEN = '{"half": '


@pytest.fixture
def local(tmp_path: Path, clock: Clock) -> Any:
    """A room with three messages; the metadata of the second is broken on the disk."""
    with Local(tmp_path / "data", clock=clock) as local:
        for number in (1, 2, 3):
            local.result("save-message", save_payload(number, channelId="c1", metadata={"number": number}))
        damage(local, "UPDATE messages SET metadata = ? WHERE id = 'm2'")
        yield local


def damage(local: Local, statement: str) -> None:
    with local.store().write() as transaction:
        transaction.write(sql(statement), (BROKEN,))


def stored_metadata(local: Local) -> list[Any]:
    with local.store().read() as snapshot:
        return [text for (text,) in snapshot.rows(sql("SELECT metadata FROM messages ORDER BY id"))]


@pytest.mark.parametrize(
    ("operation", "payload"),
    [
        ("get-messages", {"roomId": "r1"}),
        ("list-messages", {"roomId": "r1", "channelId": "c1", "limit": 10}),
        ("get-message-page", {"roomId": "r1", "limit": 10}),
    ],
)
def test_a_damaged_message_is_marked_and_hides_no_other(local: Local, operation: str, payload: dict[str, Any]) -> None:
    """Its other fields are returned, and `damaged` names the field that is left out."""
    found = local.result(operation, payload)
    messages = {each["id"]: each for each in (found if isinstance(found, list) else found["messages"])}
    assert [messages[name]["metadata"] for name in ("m1", "m3")] == [{"number": 1}, {"number": 3}]
    assert (messages["m2"]["damaged"], messages["m2"]["content"]) == (["metadata"], "hello")
    assert "metadata" not in messages["m2"]
    assert all("damaged" not in messages[name] for name in ("m1", "m3"))


def test_an_update_does_not_overwrite_a_damaged_field(local: Local) -> None:
    """It is a conflict, and what is left of the text stays on the disk, unless the update sets or clears the field."""
    error = local.ask("update-message", {"messageId": "m2", "updates": {"content": "x"}})["error"]
    assert (error["code"], error["details"]["path"]) == ("conflict", "$.payload.updates")
    assert "'metadata' is damaged" in error["message"]
    assert stored_metadata(local)[1] == BROKEN
    local.result("update-message", {"messageId": "m2", "updates": {"content": "x", "metadata": None}})
    assert stored_metadata(local)[1] is None
    assert "damaged" not in local.result("get-message-by-id", {"messageId": "m2"})


def test_saving_a_damaged_message_again_repairs_it(local: Local) -> None:
    """A save writes the whole record, so nothing of the damaged one is needed."""
    local.result("save-message", {"message": message_document(2, metadata={"number": 2})})
    assert local.result("get-message-by-id", {"messageId": "m2"})["metadata"] == {"number": 2}


def test_damaged_users_and_rooms_are_marked(local: Local) -> None:
    """Every record with JSON columns is read like this, alone and in lists."""
    local.result("save-user", {"user": {"oderId": "ada", "id": "u1", "username": "ada", "metadata": {"a": 1}}})
    local.result("save-room", {"room": {"id": "r1", "name": "r", "metadata": {"a": 1}}})
    for table, operation, payload in (("users", "get-user", {"userId": "u1"}), ("rooms", "get-room", {"roomId": "r1"})):
        damage(local, f"UPDATE {table} SET metadata = ?")
        assert local.result(operation, payload)["damaged"] == ["metadata"]
