"""The order of messages, and pages of threads, of pinned messages, around a time, and with attachments."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec import to_builtins

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.handlers.pages import SELECTS
from backscroll.schema import (
    Attachment,
    Batch,
    Channel,
    CreateMessage,
    DeleteMessage,
    GetLog,
    GetMessageById,
    GetMessagePage,
    GetMessages,
    GetMessagesByIds,
    Invalid,
    ListMessages,
    Message,
    MessageUpdates,
    NotFound,
    Reaction,
    Room,
    SaveAttachment,
    SaveReaction,
    SaveRoom,
    SaveUser,
    TooLarge,
    UpdateMessage,
    User,
)
from backscroll.schema.limits import INTEGER_MAX, PAGE_ATTACHMENTS_MAX, PAGE_REACTIONS_BYTES_MAX, TEXT_BYTES_MAX
from tests.handlers.test_statements import plan
from tests.support.clocks import Clock
from tests.support.local import REPLAYED, Local, check_replay
from tests.support.messages import message_record, save_message
from tests.support.requests import body, send

NOON = 1_767_268_800_000


def ids(messages: list[Message]) -> list[str]:
    return [each.id for each in messages]


def by_pages(client: Client, limit: int, **of: Any) -> list[str]:
    """The ids of a room or of a part of it, paged backwards from the newest page."""
    found: list[str] = []
    page = client.ask(GetMessagePage("r1", limit=limit, **of))
    while page.messages:
        found = [*ids(page.messages), *found]
        page = client.ask(GetMessagePage("r1", limit=limit, before=page.older_cursor, **of))
    return found


def forwards(client: Client, limit: int, **of: Any) -> list[str]:
    """The same from the oldest message on."""
    page = client.ask(GetMessagePage("r1", limit=1, around_time=0, **of))
    found = ids(page.messages)
    while page.has_newer:
        page = client.ask(GetMessagePage("r1", limit=limit, after=page.newer_cursor, **of))
        found += ids(page.messages)
    return found


# Order


def test_equal_timestamps_keep_the_order_of_a_file(client: Client) -> None:
    """A WhatsApp file with eleven messages in one minute, ids 1 … 11 by line, is read back in the file's order."""
    lines = [str(line) for line in range(1, 12)]
    client.execute(SaveRoom(Room(id="r1", name="r", channels=[Channel(id="c", name="c", type="text")])))
    for line in reversed(lines):
        client.execute(save_message(line, timestamp=NOON, ordinal=int(line), channel_id="c"))
    assert ids(client.ask(GetMessages("r1"))) == lines
    assert ids(client.ask(ListMessages("c", room_id="r1")).messages) == lines[::-1]
    assert ids(client.ask(ListMessages("c", room_id="r1", before="10")).messages) == lines[8::-1]
    for limit in (1, 2, 3, 50):
        assert by_pages(client, limit) == by_pages(client, limit, channel_id="c") == lines
        assert forwards(client, limit) == forwards(client, limit, channel_id="c") == lines
    assert ids(client.ask(GetMessagePage("r1", around="9", limit=4)).messages) == ["7", "8", "9", "10"]


def test_the_order_is_timestamp_ordinal_id(client: Client) -> None:
    """An ordinal may be negative; without one it is 0, and replies leave that out. An update changes the place."""
    places = {
        "z": (1, None),
        "b": (2, -INTEGER_MAX),
        "y": (2, -1),
        "c": (2, None),
        "d": (2, None),
        "a": (2, INTEGER_MAX),
    }
    for message_id, (timestamp, ordinal) in reversed(places.items()):
        more: dict[str, Any] = {} if ordinal is None else {"ordinal": ordinal}
        client.execute(save_message(message_id, timestamp=timestamp, **more))
    assert ids(client.ask(GetMessages("r1"))) == by_pages(client, 2) == forwards(client, 2) == list(places)
    client.execute(UpdateMessage("b", MessageUpdates(ordinal=7)))
    assert by_pages(client, 2) == ["z", "y", "c", "d", "b", "a"]
    client.execute(UpdateMessage("b", MessageUpdates(ordinal=0)))
    assert by_pages(client, 2) == ["z", "y", "b", "c", "d", "a"]


def test_ordinal_0_is_left_out_of_replies(transport: InProcess) -> None:
    """Whether it was saved or not; any other is in them. It can be set, not cleared."""
    message = {"roomId": "r1", "content": "x", "timestamp": 1}
    for name, more in (("a", {}), ("b", {"ordinal": 0}), ("c", {"ordinal": 2.0})):
        send(transport, body("save-message", {"message": {"id": name, **message, **more}}))
    found = send(transport, body("get-messages", {"roomId": "r1"}))["result"]
    assert [each.get("ordinal") for each in found] == [None, None, 2]
    refused = send(transport, body("update-message", {"messageId": "c", "updates": {"ordinal": None}}))
    assert refused["error"]["details"]["path"] == "$.payload.updates.ordinal"


@pytest.mark.parametrize(
    ("others", "expected"),
    [({}, 0), ({"0": 0}, 0), ({"zzz": 0}, 1), ({"0": 5}, 5), ({"zzz": 5, "0": 3}, 6), ({"zzz": -3}, 0)],
)
def test_create_message_sorts_last(client: Client, clock: Clock, others: dict[str, int], expected: int) -> None:
    """Also after messages that were imported with the same time, an ordinal or a greater id."""
    client.execute(SaveRoom(Room(id="r1", name="r", channels=[Channel(id="c", name="c", type="text")])))
    client.execute(SaveUser(User(oder_id="ada", id="ada", username="ada")))
    for message_id, ordinal in others.items():
        client.execute(save_message(message_id, timestamp=clock.now, ordinal=ordinal))
    first = client.execute(CreateMessage("c", "ada", "first", room_id="r1"))
    second = client.execute(CreateMessage("c", "ada", "second", room_id="r1"))
    assert first.ordinal == second.ordinal == expected
    assert ids(client.ask(GetMessages("r1")))[-2:] == [first.id, second.id]


# What messages have

EVERYTHING: dict[str, Any] = {
    "sent_at": 3,
    "type": "poll",
    "thread_id": "t1",
    "forwarded_from": {"chat": "secret source"},
    "mentions": ["bob", "eve"],
    "pinned_at": 4,
    "expires_at": 253_402_300_799_999,
}
STAYS_IN_TOMBSTONES = ("sent_at", "type", "thread_id", "expires_at")


def test_all_fields_are_stored_updated_and_cleared(client: Client) -> None:
    """Each can be saved, set by an update, and cleared; replies leave out what is not set."""
    client.execute(save_message(1, **EVERYTHING))
    everything = message_record(1, reactions=[], **EVERYTHING)
    assert client.ask(GetMessageById("m1")) == everything
    cleared: dict[str, Any] = dict.fromkeys(EVERYTHING)
    client.execute(UpdateMessage("m1", MessageUpdates(sender_id=None, **cleared)))
    assert client.ask(GetMessageById("m1")) == message_record(1, sender_id=None, reactions=[])
    client.execute(UpdateMessage("m1", MessageUpdates(sender_id="ada", **EVERYTHING)))
    assert client.ask(GetMessageById("m1")) == everything


def test_a_message_needs_no_sender(transport: InProcess) -> None:
    """A line of the system ("ada joined") has no sender, in requests as in replies."""
    message = {"id": "m1", "roomId": "r1", "content": "ada joined", "timestamp": 1, "type": "system"}
    assert send(transport, body("save-message", {"message": message}))["ok"]
    [found] = send(transport, body("get-messages", {"roomId": "r1"}))["result"]
    assert found == message | {"isDeleted": False, "reactions": []}


def test_a_tombstone_has_no_text_of_the_new_fields(client: Client) -> None:
    """Neither has the log: where it came from and who is mentioned are erased, and it is not pinned any more."""
    client.execute(save_message(1, **EVERYTHING))
    client.execute(UpdateMessage("m1", MessageUpdates(forwarded_from={"chat": "secret source"}, mentions=["secret"])))
    client.execute(DeleteMessage("m1"))
    found = client.ask(GetMessageById("m1"))
    assert found is not None
    assert (found.forwarded_from, found.mentions, found.pinned_at) == (None, None, None)
    assert [getattr(found, name) for name in STAYS_IN_TOMBSTONES] == [EVERYTHING[name] for name in STAYS_IN_TOMBSTONES]
    log = repr(client.ask(GetLog()))
    assert "secret" not in log
    assert "eve" not in log


@pytest.mark.parametrize("field", [*EVERYTHING, "ordinal"])
def test_a_deleted_message_is_replayed_to_the_same_row(tmp_path: Path, field: str) -> None:
    """Whatever it had besides: the log has nothing of its text any more, and so neither has the tombstone."""
    message = message_record(1, **{field: EVERYTHING.get(field, 7)})
    with Local(tmp_path / "data") as local:
        local.result("save-message", {"message": to_builtins(message)})
        local.result("delete-message", {"messageId": "m1"})
        local.replay(local.entries())
        check_replay(local, REPLAYED)


def test_mentions_are_ids(transport: InProcess) -> None:
    """Each is checked like any id, with its path."""
    message = {"id": "m1", "roomId": "r1", "content": "", "timestamp": 1}
    for mentions, at in (([""], 0), (["ok", "x" * 513], 1), (["ok", 5], 1), (["é" * 300], 0)):
        refused = send(transport, body("save-message", {"message": message | {"mentions": mentions}}))
        assert refused["error"]["details"]["path"] == f"$.payload.message.mentions[{at}]"


def test_ids_may_have_512_bytes(client: Client) -> None:
    """Message ids of mail, room ids of Matrix, emoji `:name:https://…`: everything of a message takes them."""
    mail, room, emoji = f"<{'m' * 198}>", f"!{'r' * 254}", f":party:https://{'e' * 180}"
    for long in ("x" * 512, "é" * 256, "🙂" * 128):
        fields: dict[str, Any] = {"thread_id": long, "mentions": [long], "type": long, "reply_to_id": long}
        message = message_record(long, "hello", long, sender_id=long, channel_id=long, pinned_at=1, **fields)
        client.execute(Batch.of([save_message(mail, "hi", room)]))
        client.execute(SaveReaction(Reaction(message_id=mail, oder_id=long, emoji=emoji)))
        client.execute(save_message(long, "hello", long, sender_id=long, channel_id=long, pinned_at=1, **fields))
        client.execute(SaveReaction(Reaction(message_id=long, oder_id=long, emoji=long)))
        client.execute(SaveAttachment(Attachment(id=long, message_id=long, filename="f", size=1, mime="x/y")))
        for of in (
            {},
            {"channel_id": long},
            {"thread_id": long},
            {"pinned": True},
            {"channel_id": long, "pinned": True},
        ):
            page = client.ask(GetMessagePage(long, child_lists=False, **of))
            assert page.messages == [message]
            assert client.ask(GetMessagePage(long, before=page.older_cursor, **of)).messages == []
        client.execute(DeleteMessage(long))


# Threads, pinned messages, a time


def in_parts(client: Client) -> None:
    """Twelve messages in two channels, threads and rooms; every third is pinned."""
    for at in range(12):
        client.execute(
            save_message(
                at,
                channel_id=f"c{at % 2}",
                thread_id=f"t{at % 4}" if at >= 4 else None,
                pinned_at=100 - at if at % 3 == 0 else None,
            )
        )
        client.execute(save_message(f"other{at}", room_id="r2", thread_id="t0", pinned_at=1))


PARTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"thread_id": "t0"}, ["m4", "m8"]),
    ({"thread_id": "t3"}, ["m7", "m11"]),
    ({"thread_id": "none"}, []),
    ({"pinned": True}, ["m0", "m3", "m6", "m9"]),
    ({"pinned": True, "channel_id": "c0"}, ["m0", "m6"]),
]


@pytest.mark.parametrize(("of", "expected"), PARTS, ids=repr)
def test_pages_of_threads_and_of_pinned_messages(client: Client, of: dict[str, Any], expected: list[str]) -> None:
    """They have only these messages, in the order of the room, with exact flags and cursors in both directions."""
    in_parts(client)
    for limit in (1, 2, 50):
        assert by_pages(client, limit, **of) == expected
        assert forwards(client, limit, **of) == expected
    if expected:
        page = client.ask(GetMessagePage("r1", around=expected[-1], limit=1, **of))
        assert (ids(page.messages), page.has_older, page.has_newer) == (expected[-1:], True, False)
        with pytest.raises(Invalid, match="the cursor belongs to another"):
            client.ask(GetMessagePage("r1", before=page.older_cursor))
    with pytest.raises(NotFound):
        client.ask(GetMessagePage("r1", around="m1", **of))


def test_unpinned_and_deleted_messages_are_not_pinned(client: Client) -> None:
    """A tombstone stays in its thread, and is left out if asked."""
    in_parts(client)
    client.execute(UpdateMessage("m3", MessageUpdates(pinned_at=None)))
    client.execute(DeleteMessage("m6"))
    client.execute(DeleteMessage("m8"))
    assert by_pages(client, 5, pinned=True) == ["m0", "m9"]
    assert by_pages(client, 5, thread_id="t0") == ["m4", "m8"]
    assert by_pages(client, 5, thread_id="t0", include_deleted=False) == ["m4"]


@pytest.mark.parametrize("of", [{"channel_id": "c0"}, {"pinned": True}])
def test_a_page_of_a_thread_is_of_nothing_else(client: Client, of: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=r"^\$\.payload\.threadId: "):
        client.ask(GetMessagePage("r1", thread_id="t0", **of))


@pytest.mark.parametrize(
    ("time", "limit", "expected", "older", "newer"),
    [
        (0, 4, "0123", False, True),
        (5, 4, "3456", True, True),
        (6, 4, "4567", True, True),
        (99, 4, "6789", True, False),
        (5, 1, "5", True, True),
    ],
)
def test_a_page_around_a_time(client: Client, time: int, limit: int, expected: str, older: bool, newer: bool) -> None:
    """Half of the page is before the time, the first message at or after it begins the other half."""
    for at in range(10):
        client.execute(save_message(str(at), timestamp=at, ordinal=-at))
    page = client.ask(GetMessagePage("r1", around_time=time, limit=limit))
    assert ("".join(ids(page.messages)), page.has_older, page.has_newer) == (expected, older, newer)


def test_a_time_stands_alone(client: Client) -> None:
    with pytest.raises(Invalid, match="only one of before, after, around and aroundTime"):
        client.ask(GetMessagePage("r1", around_time=1, around="m1"))


@pytest.mark.parametrize("key", SELECTS, ids=lambda key: f"{key[0].__name__} {key[1]} {key[2]}")
def test_a_page_searches_the_index_of_its_part(transport: InProcess, key: tuple[Any, ...]) -> None:
    """So it costs the same in a large room as in a small one, and nothing is sorted."""
    part = key[1]
    index = {"room": "by_room", "channel": "by_channel", "thread": "by_thread"}.get(part, "pinned")
    with apsw.Connection(str(transport.store.path)) as connection:
        steps = plan(connection, SELECTS[key].compiled(_dialect()))
    [step] = [step for step in steps if "t1" in step]  # the others look the room's mark up
    first = "thread_id=? AND room_id=?" if part == "thread" else "room_id=?"
    assert f"USING INDEX messages_{index} ({first}" in step
    assert "timestamp,ordinal,id)" in step


def _dialect() -> Any:
    import peewee

    return peewee.SqliteDatabase(None)


# By ids


def test_messages_by_ids(client: Client) -> None:
    """In the order of the ids, each once; what is not stored is left out, whatever room the others are in."""
    for at in range(5):
        client.execute(save_message(at, room_id=f"r{at % 2}"))
    client.execute(DeleteMessage("m3"))
    wanted = ["m3", "unknown", "m1", "m4", "m1"]
    found = client.ask(GetMessagesByIds(wanted))
    assert found == [client.ask(GetMessageById(each)) for each in ("m3", "m1", "m4")]
    assert client.ask(GetMessagesByIds([])) == []
    assert [each.reactions for each in client.ask(GetMessagesByIds(wanted, child_lists=False))] == [None] * 3


def test_messages_by_ids_are_bounded(client: Client) -> None:
    """At most 500 ids, and messages that fit into a reply: a shorter list would look as if the others did not exist."""
    with pytest.raises(TooLarge, match=r"^\$\.payload\.messageIds"):
        client.ask(GetMessagesByIds([f"m{at}" for at in range(501)]))
    for at in range(10):
        client.execute(save_message(at, "x" * TEXT_BYTES_MAX))
    with pytest.raises(TooLarge, match="ask for fewer at once"):
        client.ask(GetMessagesByIds([f"m{at}" for at in range(10)]))
    assert len(client.ask(GetMessagesByIds([f"m{at}" for at in range(5)]))) == 5


# Attachments


def attach(client: Client, message_id: str, number: int = 1, filename: str = "f") -> list[Attachment]:
    made = [
        Attachment(id=f"{message_id}-{at:05}", message_id=message_id, filename=filename, size=1, mime="x/y")
        for at in range(number)
    ]
    for first in range(0, number, 1_000):
        client.execute(Batch.of([SaveAttachment(each) for each in made[first : first + 1_000]]))
    return made


ASKING: list[Callable[[Client, bool], list[Message]]] = [
    lambda client, childs: client.ask(GetMessagePage("r1", child_lists=childs, attachments=True)).messages,
    lambda client, childs: client.ask(GetMessagesByIds(["m0", "m1", "m2"], child_lists=childs, attachments=True)),
    lambda client, childs: [
        found
        for at in range(3)
        if (found := client.ask(GetMessageById(f"m{at}", child_lists=childs, attachments=True)))
    ],
]


@pytest.mark.parametrize("ask", ASKING)
def test_messages_with_their_attachments(client: Client, ask: Callable[[Client, bool], list[Message]]) -> None:
    """On request each has its list, in the order of ids, empty if there are none; else they are left out."""
    for at in range(3):
        client.execute(save_message(at))
    two, one = attach(client, "m0", 2), attach(client, "m2")
    client.execute(DeleteMessage("m2"))
    assert one
    assert [each.attachments for each in ask(client, True)] == [two, [], []]
    assert [(each.attachments, each.reactions) for each in ask(client, False)] == [(two, None), ([], None), ([], None)]
    assert [each.attachments for each in client.ask(GetMessagePage("r1")).messages] == [None] * 3
    late = Attachment(id="late", message_id="m1", filename="f", media_id="media")
    client.execute(SaveAttachment(late))
    assert [each.attachments for each in ask(client, True)] == [two, [late], []], "no cached page is returned"


def test_attachments_cannot_be_saved_in_a_message(transport: InProcess) -> None:
    """They are in replies only; `save-attachment` saves them."""
    message = {"id": "m1", "roomId": "r1", "content": "", "timestamp": 1, "attachments": []}
    refused = send(transport, body("save-message", {"message": message}))
    assert refused["error"]["details"]["path"] == "$.payload.message.attachments"


def test_a_page_with_many_attachments_is_shorter(client: Client) -> None:
    """With the reactions they are bounded in bytes, and in number; a message with more says what to ask instead."""
    for at in range(4):
        client.execute(save_message(at))
        attach(client, f"m{at}", 1, "x" * (PAGE_REACTIONS_BYTES_MAX * 2 // 5))
    page = client.ask(GetMessagePage("r1", limit=4, attachments=True))
    assert ids(page.messages) == ["m2", "m3"]
    assert page.has_older
    assert by_pages(client, 4, attachments=True) == ["m0", "m1", "m2", "m3"]
    attach(client, "m1", 3, "y" * (PAGE_REACTIONS_BYTES_MAX * 2 // 5))
    with pytest.raises(TooLarge, match="get-attachments-for-message"):
        client.ask(GetMessageById("m1", attachments=True))


def test_a_message_with_too_many_attachments(client: Client) -> None:
    """Ten thousand small ones fit, one more does not."""
    client.execute(save_message(0))
    client.execute(save_message(1))
    attach(client, "m0", PAGE_ATTACHMENTS_MAX)
    assert len(client.ask(GetMessagePage("r1", attachments=True)).messages) == 2
    attach(client, "m1")
    assert ids(client.ask(GetMessagePage("r1", attachments=True)).messages) == ["m1"]
