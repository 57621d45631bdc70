"""Rows whose stored JSON is damaged: they are marked, hide nothing else, and are not made worse."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from backscroll.bus.query_cache import QueryCache
from backscroll.schema.operations import OPERATIONS
from backscroll.schema.tables import CONTENT, Json
from backscroll.schema.wire import JSON
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
def test_one_damaged_row_is_marked_and_hides_no_other(local: Local, operation: str, payload: dict[str, Any]) -> None:
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


# --- every JSON column ---

Plain = dict[str, Any]

COLUMNS = {
    "messages": {
        "link_metadata": "linkMetadata",
        "metadata": "metadata",
        "forwarded_from": "forwardedFrom",
        "mentions": "mentions",
    },
    "reactions": {"metadata": "metadata"},
    "attachments": {"metadata": "metadata"},
    "users": {"metadata": "metadata"},
    "rooms": {
        "permissions": "permissions",
        "roles": "roles",
        "role_assignments": "roleAssignments",
        "channel_permissions": "channelPermissions",
        "metadata": "metadata",
    },
    "channels": {"metadata": "metadata"},
    "categories": {"metadata": "metadata"},
    "members": {"role_ids": "roleIds", "metadata": "metadata"},
    "bans": {"metadata": "metadata"},
}
KEYS = {"reactions": "oder_id", "users": "oder_id", "members": "oder_id", "bans": "oder_id"}
EACH_COLUMN = [(table, column) for table, columns in COLUMNS.items() for column in columns]
LISTS = ("roles", "role_assignments", "channel_permissions", "role_ids")
DAMAGE = ['{"half": ', "", "nonsense", '{"a": 1} {"b": 2}', "5", '"text"', "NaN", "\x01"]
READ: list[tuple[str, Plain]] = [
    ("get-messages", {"roomId": "rooms 2"}),
    ("get-message-page", {"roomId": "rooms 2"}),
    ("list-messages", {"roomId": "rooms 2", "channelId": "channels 2"}),
    *(("get-message-by-id", {"messageId": f"messages {number}"}) for number in (1, 2)),
    ("get-reactions-for-message", {"messageId": "messages 3"}),
    ("get-all-attachments", {}),
    ("get-attachments-for-message", {"messageId": "messages 2"}),
    ("list-users", {}),
    ("get-user", {"userId": "users 2"}),
    ("get-user-by-pubkey", {"pubkey": "key 2"}),
    ("get-users-by-room", {"roomId": "rooms 2"}),
    ("get-members", {"roomId": "rooms 2"}),
    ("get-member", {"roomId": "rooms 2", "oderId": "members 2"}),
    ("get-current-user", {}),
    ("get-all-rooms", {}),
    ("get-room", {"roomId": "rooms 2"}),
    ("list-channels", {"roomId": "rooms 2"}),
    ("get-channel", {"roomId": "rooms 2", "channelId": "channels 2"}),
    ("list-categories", {"roomId": "rooms 2"}),
    ("get-bans-for-room", {"roomId": "rooms 2"}),
    ("is-user-banned", {"roomId": "rooms 2", "userId": "bans 2"}),
]


def free(table: str, number: int) -> Plain:
    return {"metadata": {"of": f"{table} {number}"}}


def children(table: str, key: str, **fields: Any) -> list[Plain]:
    return [{key: f"{table} {number}", **free(table, number), **fields} for number in (1, 2, 3)]


@pytest.fixture
def full(tmp_path: Path, clock: Clock) -> Iterator[Local]:
    """Three of everything that has a JSON column, with a value in each."""
    lists = {"roles": [1], "roleAssignments": [{"a": 1}], "channelPermissions": [[]]}
    with Local(tmp_path / "data", clock=clock) as local:
        local.store().query_cache = QueryCache(0)  # rows are changed without its knowing
        for number in (1, 2, 3):
            room: Plain = {
                "id": f"rooms {number}",
                "name": "r",
                "permissions": {"a": 1},
                **lists,
                **free("rooms", number),
            }
            if number == 2:
                room["channels"] = children("channels", "id", name="c", type="text")
                room["categories"] = children("categories", "id", name="k")
                room["members"] = children("members", "oderId", roleIds=["x"])
            user = {"oderId": f"users {number}", "id": "u", "username": "u", "pubkey": f"key {number}"}
            more: Plain = {"linkMetadata": {"a": 1}, "forwardedFrom": {"a": 1}, "mentions": ["x"]}
            message = message_document(f"messages {number}", room_id="rooms 2", channelId="channels 2", **more)
            attachment = {
                "id": f"attachments {number}",
                "messageId": "messages 2",
                "filename": "f",
                "size": 1,
                "mime": "a/b",
            }
            ban = {"roomId": "rooms 2", "oderId": f"bans {number}", "timestamp": number}
            local.result("save-room", {"room": room})
            local.result("save-user", {"user": user | free("users", number)})
            local.result("save-message", {"message": message | free("messages", number)})
            local.result("save-attachment", {"attachment": attachment | free("attachments", number)})
            local.result("save-ban", {"ban": ban | free("bans", number)})
            reaction = {"messageId": "messages 3", "oderId": f"reactions {number}", "emoji": "+"}
            local.result("save-reaction", {"reaction": reaction | free("reactions", number)})
        local.result("set-current-user-id", {"userId": "users 2"})
        yield local


def replies(local: Local) -> list[Any]:
    """What every query returns; each reply is of the declared type."""
    found = []
    for name, payload in READ:
        result = local.result(name, payload)
        JSON.decode(JSON.encode(result), OPERATIONS[name].reply_type)
        found.append(result)
    return found


def marked(value: Any, table: str, wire_name: str) -> Any:
    """A reply as it has to be when this field of the second row of a table is damaged."""
    if isinstance(value, list):
        return [marked(each, table, wire_name) for each in value]
    if not isinstance(value, dict):
        return value
    changed = {name: marked(each, table, wire_name) for name, each in value.items()}
    if (value.get("metadata") or {}).get("of") == f"{table} 2":
        del changed[wire_name]
        changed["damaged"] = [wire_name]
    return changed


def damage_second(local: Local, table: str, column: str, text: str) -> None:
    key = KEYS.get(table, "id")
    with local.store().write() as transaction:
        assert transaction.write(sql(f"UPDATE {table} SET {column} = ?1 WHERE {key} = ?2"), (text, f"{table} 2")) == 1


def test_every_json_column_is_in_these_tests() -> None:
    """A column that is added must be added here."""
    columns = {
        table._meta.table_name: {name for name, field in table._meta.fields.items() if isinstance(field, Json)}
        for table in CONTENT
    }
    expected = {table: set(columns) for table, columns in COLUMNS.items()} | {"meta": {"value"}}
    expected |= {"waiting_edits": {"fields"}, "messages": expected["messages"] | {"field_versions"}}  # test_arrival.py
    assert {table: names for table, names in columns.items() if names} == expected


@pytest.mark.parametrize(("table", "column"), EACH_COLUMN, ids=[f"{table}.{column}" for table, column in EACH_COLUMN])
def test_a_damaged_column_marks_its_record_alone(full: Local, table: str, column: str) -> None:
    """Whatever its text is now: `damaged` names the field in every reply with the record, and all else is as it was."""
    before, rows_before = replies(full), full.rows(table)
    expected = marked(deepcopy(before), table, COLUMNS[table][column])
    assert expected != before
    wrong_kind = ["{}", "[1]"] if column in ("role_ids", "mentions") else ["{}"] if column in LISTS else ["[]"]
    for text in [*DAMAGE, *wrong_kind]:
        damage_second(full, table, column, text)
        assert replies(full) == expected, text
        rows = full.rows(table)
        changed = [(row, old) for row, old in zip(rows, rows_before, strict=True) if row != old]
        assert [{name for name in old if row[name] != old[name]} for row, old in changed] == [{column}]


def test_the_current_user_can_be_set_again_when_its_row_is_damaged(full: Local) -> None:
    """Only the query for it is answered `storage`; what is stored of the users is still there."""
    before = replies(full)
    with full.store().write() as transaction:
        transaction.write(sql("UPDATE meta SET value = ?"), (BROKEN,))
    for (name, payload), expected in zip(READ, before, strict=True):
        if name == "get-current-user":
            assert full.code(name, payload) == "storage"
        else:
            assert full.result(name, payload) == expected
    full.result("set-current-user-id", {"userId": "users 2"})
    assert replies(full) == before
