"""Every valid entity is read back in its canonical form.

Canonical means: absent and null fields are left out; the lists that every reply has are there, sorted; deleted messages
are masked; everything else is unchanged, including `1` and `1.0` and the order of keys. SQLite and Python both compare
text by code point.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backscroll.bus.inprocess import InProcess
from backscroll.schema.records import (
    DELETED_TEXT,
    Attachment,
    Ban,
    Category,
    Channel,
    Message,
    Reaction,
    Record,
    Room,
    RoomMember,
    User,
)
from backscroll.schema.wire import Codec
from tests.support.requests import CODECS, result
from tests.support.strategies import children, documents

Document = dict[str, Any]

stored_anew = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
codecs = st.sampled_from(CODECS)


def exactly(value: Any) -> str:
    """The JSON of a value, which distinguishes `1`, `1.0` and `true`, and shows the order of keys."""
    return msgspec.json.encode(value).decode()


def same(stored: Document, expected: Document) -> bool:
    """Whether two entities have the same fields with exactly equal values."""
    first, second = ({name: exactly(each) for name, each in entity.items()} for entity in (stored, expected))
    return first == second


def set_fields(document: Document) -> Document:
    """The fields that are not null."""
    return {name: value for name, value in document.items() if value is not None}


def in_record_order(record_type: type[Record], items: list[Document]) -> list[Document]:
    """Children as replies encode them: set fields only, in the record's order."""
    return [
        {name: item[name] for name in record_type.__struct_encode_fields__ if item.get(name) is not None}
        for item in items
    ]


def absent_first(time: int | None) -> tuple[bool, int]:
    return (time is not None, time or 0)


def sorted_reactions(reactions: list[Document]) -> list[Document]:
    def key(each: Document) -> Any:
        return (absent_first(each.get("timestamp")), each.get("oderId") or "", each["emoji"])

    return in_record_order(Reaction, sorted(reactions, key=key))


def canonical_message(message: Document) -> Document:
    expected = set_fields({"isDeleted": False, **message})
    expected["reactions"] = sorted_reactions(message.get("reactions") or [])
    left_out = [] if expected.get("ordinal") else ["ordinal"]
    if expected["isDeleted"]:
        expected |= {"content": DELETED_TEXT, "reactions": []}
        left_out += ["metadata", "linkMetadata", "forwardedFrom", "mentions", "pinnedAt"]
    return {name: expected[name] for name in expected if name not in left_out}


def canonical_room(room: Document) -> Document:
    def by_position(each: Document) -> Any:
        return (each.get("position", 0), each["id"])

    def by_age(each: Document) -> Any:
        return (absent_first(each.get("joinedAt")), each["oderId"])

    expected = set_fields(room)
    lists: list[tuple[str, type[Record], Callable[[Document], Any]]] = [
        ("channels", Channel, by_position),
        ("categories", Category, by_position),
        ("members", RoomMember, by_age),
    ]
    for name, record_type, key in lists:
        defaults = {} if record_type is RoomMember else {"position": 0}
        children = [{**defaults, **child} for child in room.get(name) or []]
        expected[name] = in_record_order(record_type, sorted(children, key=key))
    if not expected["categories"]:
        del expected["categories"]
    return expected


@stored_anew
@given(documents(Message), codecs)
def test_any_message_is_read_in_canonical_form(transport: InProcess, message: Document, codec: Codec) -> None:
    """Its reactions are sorted, and a deleted message has no text."""
    result(transport, "clear-all-data")
    result(transport, "save-message", {"message": message}, codec)
    expected = canonical_message(message)
    assert same(result(transport, "get-message-by-id", {"messageId": message["id"]}, codec), expected)
    (listed,) = result(transport, "get-messages", {"roomId": message["roomId"]}, codec)
    assert same(listed, expected)
    reactions = result(transport, "get-reactions-for-message", {"messageId": message["id"]}, codec)
    assert exactly(reactions) == exactly(expected["reactions"])


@stored_anew
@given(documents(Room), codecs)
def test_any_room_is_read_in_canonical_form(transport: InProcess, room: Document, codec: Codec) -> None:
    """Channels and members are always there, categories if there are any, each list sorted."""
    result(transport, "clear-all-data")
    result(transport, "save-room", {"room": room}, codec)
    expected = canonical_room(room)
    assert same(result(transport, "get-room", {"roomId": room["id"]}, codec), expected)
    (listed,) = result(transport, "get-all-rooms", codec=codec)
    assert same(listed, expected)


@pytest.mark.parametrize(
    ("name", "record_type"), [("channels", Channel), ("categories", Category), ("members", RoomMember)]
)
@stored_anew
@given(data=st.data())
def test_any_list_of_a_room_is_sorted(
    transport: InProcess, name: str, record_type: type[Record], data: st.DataObject
) -> None:
    """Whatever order a list is written in, it is read in its own order."""
    room = {"id": "r1", "name": "Home", name: data.draw(children(record_type, min_size=3))}
    result(transport, "save-room", {"room": room})
    (listed,) = result(transport, "get-all-rooms")
    for stored in (listed, result(transport, "get-room", {"roomId": "r1"})):
        assert exactly(stored[name]) == exactly(canonical_room(room)[name])


@stored_anew
@given(documents(User), codecs)
def test_any_user_is_read_in_canonical_form(transport: InProcess, user: Document, codec: Codec) -> None:
    """A user is the same by either id, and as the current user."""
    result(transport, "clear-all-data")
    result(transport, "save-user", {"user": user}, codec)
    result(transport, "set-current-user-id", {"userId": user["oderId"]}, codec)
    found = [result(transport, "get-user", {"userId": user[name]}, codec) for name in ("oderId", "id")]
    for stored in [*found, result(transport, "get-current-user", codec=codec)]:
        assert same(stored, set_fields(user))


SIMPLE: list[tuple[type[Record], str, str, str, str]] = [
    (Reaction, "save-reaction", "reaction", "get-reactions-for-message", "messageId"),
    (Attachment, "save-attachment", "attachment", "get-attachments-for-message", "messageId"),
    (Ban, "save-ban", "ban", "get-bans-for-room", "roomId"),
]


@pytest.mark.parametrize(("record_type", "save", "noun", "read", "parent"), SIMPLE, ids=[each[2] for each in SIMPLE])
@stored_anew
@given(data=st.data(), codec=codecs)
def test_other_records_are_read_in_canonical_form(
    transport: InProcess,
    clock: Callable[[], int],
    record_type: type[Record],
    save: str,
    noun: str,
    read: str,
    parent: str,
    data: st.DataObject,
    codec: Codec,
) -> None:
    """Records without children are read as written; a ban while it is in force."""
    document = data.draw(documents(record_type))
    result(transport, "clear-all-data")
    result(transport, save, {noun: document}, codec)
    read_back = result(transport, read, {parent: document[parent]}, codec)
    expected = set_fields(document)
    if expected.get("expiresAt", clock() + 1) <= clock():
        assert read_back == []
    else:
        (stored,) = read_back
        assert same(stored, expected)


@stored_anew
@given(documents(Room), documents(Message), codecs)
def test_saves_are_idempotent(transport: InProcess, room: Document, message: Document, codec: Codec) -> None:
    """A repeated save stores what the first one stored."""
    result(transport, "clear-all-data")
    for _ in range(2):
        result(transport, "save-room", {"room": room}, codec)
        result(transport, "save-message", {"message": message}, codec)
    assert same(result(transport, "get-room", {"roomId": room["id"]}, codec), canonical_room(room))
    assert same(result(transport, "get-message-by-id", {"messageId": message["id"]}, codec), canonical_message(message))


@stored_anew
@given(documents(Message), documents(Message), codecs)
def test_a_save_unsets_omitted_fields_but_not_lists(
    transport: InProcess, first: Document, second: Document, codec: Codec
) -> None:
    """A save replaces the whole message; reactions stay if it has none, and a deleted message stays deleted."""
    second = {**second, "id": first["id"], "roomId": first["roomId"]}
    if second.get("reactions"):
        second["reactions"] = [{**each, "messageId": first["id"]} for each in second["reactions"]]
    result(transport, "clear-all-data")
    result(transport, "save-message", {"message": first}, codec)
    result(transport, "save-message", {"message": second}, codec)
    kept = second if second.get("reactions") is not None else {**second, "reactions": first.get("reactions")}
    expected = canonical_message(first if first.get("isDeleted") else kept)
    assert same(result(transport, "get-message-by-id", {"messageId": first["id"]}, codec), expected)
