"""handlers/arrival.py, aliases.py, renames.py: late, early and repeated events about a message, and renamed messages.

What must hold for all orders is tested in tests/laws/test_arrival.py; here is what it means.
"""

from contextlib import closing
from itertools import permutations
from pathlib import Path
from typing import Any

import apsw
import pytest

from backscroll.clients.python import Client
from backscroll.handlers import message_states
from backscroll.schema import (
    DELETED_TEXT,
    Attachment,
    ClearRoomMessages,
    Command,
    Conflict,
    DeleteAttachmentsForMessage,
    DeleteMessage,
    DeleteMessagesBefore,
    DeleteRoom,
    ForgetDeletions,
    GetAttachmentsForMessage,
    GetLog,
    GetMessageById,
    GetMessagePage,
    GetMessages,
    GetMessagesByIds,
    GetReactionsForMessage,
    GetScopeInfo,
    Invalid,
    Message,
    MessageUpdates,
    NotFound,
    Reaction,
    RemoveReaction,
    RenameMessage,
    SaveAttachment,
    SaveMessage,
    SaveReaction,
    TooLarge,
    UpdateMessage,
)
from backscroll.schema.migrations.sqlite import APPLICATION_ID, migrations
from tests.support.clocks import Clock
from tests.support.local import Local, check_replay, found_in
from tests.support.messages import message_record, save_message, save_payload
from tests.support.sql import sql

T = 1_767_225_600_000
ANY_ORDER = "any-order"
Commands = list[Command[None]]


def save(name: int | str = 1, content: str = "v0", **fields: Any) -> SaveMessage:
    return SaveMessage(message_record(name, content, **fields), arrival=ANY_ORDER)


def edit(message_id: str = "m1", content: str = "v1", **fields: Any) -> UpdateMessage:
    return UpdateMessage(message_id, MessageUpdates(content=content, **fields), arrival=ANY_ORDER)


def delete(message_id: str = "m1") -> DeleteMessage:
    return DeleteMessage(message_id, arrival=ANY_ORDER)


def reaction(message_id: str = "m1", **fields: Any) -> Reaction:
    return Reaction(message_id=message_id, oder_id="bo", emoji="👍", **fields)


def attachment(message_id: str = "m1", **fields: Any) -> Attachment:
    defaults: dict[str, Any] = {"id": "a1", "message_id": message_id, "filename": "cat.png", "size": 1, "mime": "i/p"}
    return Attachment(**(defaults | fields))


def execute(client: Client, *commands: Command[Any]) -> None:
    for command in commands:
        client.execute(command)


def found(client: Client, message_id: str = "m1") -> Message | None:
    return client.ask(GetMessageById(message_id))


def content(client: Client, message_id: str = "m1") -> str:
    message = found(client, message_id)
    assert message is not None
    return message.content


def in_every_order(commands: Commands) -> pytest.MarkDecorator:
    """All orders of commands, as parameters of a test."""
    orders = list(permutations(range(len(commands))))
    return pytest.mark.parametrize("events", [[commands[at] for at in order] for order in orders], ids=map(str, orders))


# The cases


@in_every_order([save(), edit(content="v2", edited_at=T + 2000), edit(edited_at=T + 1000)])
def test_edits_out_of_order(client: Client, events: Commands) -> None:
    """The newest version of a message counts, in whichever order the original and its edits arrive, and how often."""
    execute(client, *events, *events[:2])
    message = found(client)
    assert message is not None
    assert (message.content, message.edited_at) == ("v2", T + 2000)


def test_an_older_revision_changes_nothing(client: Client) -> None:
    """`revision` goes before `editedAt`."""
    execute(client, save(), edit(content="v2", revision=2, edited_at=T), edit(revision=1, edited_at=T + 1))
    assert content(client) == "v2"


def test_edits_of_different_fields_are_both_kept(client: Client) -> None:
    """An edit is a version of the fields in it only."""
    pinned = UpdateMessage("m1", MessageUpdates(metadata={"pinned": True}, revision=1), arrival=ANY_ORDER)
    execute(client, edit(content="v2", revision=2), pinned, save())
    message = found(client)
    assert message is not None
    assert (message.content, message.metadata) == ("v2", {"pinned": True})


@pytest.mark.parametrize("original", [save(), save_message(content="v0")], ids=["any-order", "plain"])
def test_edit_before_its_message(client: Client, original: SaveMessage) -> None:
    """It waits, out of sight, and is joined with the original, whichever way that is saved."""
    execute(client, edit(edited_at=T + 1000))
    assert found(client) is None
    assert client.ask(GetMessages("r1")) == []
    with pytest.raises(NotFound):
        client.execute(UpdateMessage("m1", MessageUpdates(content="v2")))
    with pytest.raises(NotFound):
        client.execute(DeleteMessage("m1"))
    execute(client, original)
    message = found(client)
    assert message is not None
    assert (message.content, message.edited_at, message.timestamp) == ("v1", T + 1000, 1)


@pytest.mark.parametrize("original", [save(content="secret"), save_message(content="secret")])
def test_deletion_before_its_message(client: Client, original: SaveMessage) -> None:
    """The message is never shown; `any-order` gives its tombstone the place that it would have in any other order."""
    execute(client, delete())
    assert client.execute(GetScopeInfo()).bare_tombstones == 1
    execute(client, original, SaveReaction(reaction()), SaveAttachment(attachment()))
    shown = client.ask(GetMessages("r1"))
    assert [each.content for each in shown] == ([DELETED_TEXT] if original.arrival else [])
    assert client.ask(GetReactionsForMessage("m1")) == []
    assert client.ask(GetAttachmentsForMessage("m1")) == []
    assert client.execute(GetScopeInfo()).bare_tombstones == (0 if original.arrival else 1)


@pytest.mark.parametrize("clear", [ClearRoomMessages("r1"), DeleteRoom("r1")], ids=["clear", "delete"])
@pytest.mark.parametrize("arrival", [None, ANY_ORDER])
def test_late_copy_after_a_cleared_room(client: Client, clear: Command[None], arrival: str | None) -> None:
    """A message that was deleted stays deleted after its room was; what was not deleted may be saved again."""
    late = SaveMessage(message_record(content="secret"), arrival=arrival)
    execute(client, late, save_message(2), DeleteMessage("m1"), clear, late, save_message(2, "again"))
    assert [each.content for each in client.ask(GetMessages("r1"))] == ["again"]
    assert found(client) is None
    execute(client, DeleteMessage("m1"), edit(content="secret"), SaveReaction(reaction()), clear, late)
    assert client.ask(GetMessages("r1")) == []
    assert client.ask(GetReactionsForMessage("m1")) == []
    with pytest.raises(Conflict, match="deleted"):
        client.execute(UpdateMessage("m1", MessageUpdates(content="secret")))


@pytest.mark.parametrize("echo_first", [False, True])
def test_local_id_becomes_the_servers(client: Client, echo_first: bool) -> None:
    """Reactions, attachments and replies follow; both ids lead to one message, and the old one is left nowhere."""
    execute(
        client, save_message("tmp-1", "hello"), SaveReaction(reaction("tmp-1")), SaveAttachment(attachment("tmp-1"))
    )
    execute(client, save_message(2, reply_to_id="tmp-1"))
    echo = save_message("900", "hello", reactions=[Reaction(message_id="900", oder_id="cy", emoji="👍")])
    rename = RenameMessage("tmp-1", "900")
    execute(client, *([echo, rename] if echo_first else [rename, echo]), rename)
    shown = client.ask(GetMessages("r1"))
    assert [(each.id, each.reply_to_id) for each in shown] == [("900", None), ("m2", "900")]
    users = {"bo", "cy"} if echo_first else {"cy"}  # a plain save replaces the reactions, as always
    for either in ("tmp-1", "900"):
        assert found(client, either) == shown[0]
        assert {each.oder_id for each in client.ask(GetReactionsForMessage(either))} == users
        assert [each.message_id for each in client.ask(GetAttachmentsForMessage(either))] == ["900"]
        assert client.ask(GetMessagePage("r1", around=either, limit=1)).messages == shown[:1]


def test_threads_follow_a_renamed_message(client: Client) -> None:
    """What was said in the thread of the local id is in that of the server's, by either id and by an older cursor."""
    execute(client, save_message("tmp-1"), *(save_message(each, thread_id="tmp-1") for each in (2, 3)))
    first = client.ask(GetMessagePage("r1", thread_id="tmp-1", limit=1))
    execute(client, RenameMessage("tmp-1", "900"), save_message(4, thread_id="tmp-1"))
    for either in ("tmp-1", "900"):
        page = client.ask(GetMessagePage("r1", thread_id=either))
        assert [(each.id, each.thread_id) for each in page.messages] == [(f"m{at}", "900") for at in (2, 3, 4)]
        older = client.ask(GetMessagePage("r1", thread_id=either, before=first.older_cursor)).messages
        assert [each.id for each in older] == ["m2"]


def test_messages_by_ids_take_either_id(client: Client) -> None:
    """One that has two ids is listed once, in the place of the first; what is hidden is left out."""
    execute(client, save_message(1), save_message("tmp-1"), RenameMessage("tmp-1", "900"), edit("m5"))
    ids = ["tmp-1", "m5", "m1", "900", "unknown"]
    assert [each.id for each in client.ask(GetMessagesByIds(ids))] == ["900", "m1"]


def test_a_save_in_another_room_is_a_conflict_only_with_what_is_shown(client: Client) -> None:
    """A tombstone swallows it, an edit that waits is joined with it, and a former id leads to the message there is."""
    execute(client, save_message(1), DeleteMessage("m1"), edit("m2"), save_message("tmp-1"))
    execute(client, RenameMessage("tmp-1", "900"))
    execute(client, save_message(1, "secret", "r2"), save(1, "secret", room_id="r2"), save_message(2, "v0", "r2"))
    assert [each.content for each in client.ask(GetMessages("r2"))] == ["v1"]
    for command in (save_message("tmp-1", "new", "r2"), save("900", "new", room_id="r2")):
        with pytest.raises(Conflict, match="room 'r1'") as refused:
            client.execute(command)
        assert refused.value.details == {"path": "$.payload.message.id", "roomId": "r1"}
    assert content(client, "m1") == DELETED_TEXT
    assert content(client, "tmp-1") == "hello"


def test_deletions_survive_a_deletion_by_time(client: Client) -> None:
    """`delete-messages-before` removes tombstones from the room, and no late copy comes back."""
    execute(client, save_message(1), save_message(2), DeleteMessage("m1"))
    assert client.execute(DeleteMessagesBefore("r1", 3)).deleted == 2
    execute(client, save_message(1), save_message(2))
    assert [each.id for each in client.ask(GetMessages("r1"))] == ["m2"]


def test_expiry_waits_for_the_message(tmp_path: Path, clock: Clock) -> None:
    """An edit with `expiresAt` that waits does not expire; its message does as soon as it would be shown."""
    expires_at = clock.now + 5
    late = {"messageId": "m1", "updates": {"expiresAt": expires_at, "editedAt": 5}, "arrival": ANY_ORDER}
    with Local(tmp_path, clock=clock) as local:
        local.result("update-message", late)
        clock.now += 10
        assert local.store().due_at is None
        local.result("save-message", save_payload(1, "secret") | {"arrival": ANY_ORDER})
        assert local.store().due_at == expires_at
        assert local.dispatcher.expire("default") is False
        [message] = local.result("get-messages", {"roomId": "r1"})
        assert message["content"] == DELETED_TEXT


# Changes


@pytest.mark.parametrize(
    "event",
    [
        save(reactions=[reaction(timestamp=1)]),
        edit(),
        edit("m2"),
        delete(),
        delete("m2"),
        SaveReaction(reaction(timestamp=1), arrival=ANY_ORDER),
        RemoveReaction("m1", "bo", "👍", timestamp=1, arrival=ANY_ORDER),
        SaveAttachment(attachment(), arrival=ANY_ORDER),
        SaveAttachment(attachment("m0"), arrival=ANY_ORDER),
    ],
    ids=lambda event: f"{event.wire_name} {getattr(event, 'message_id', '')}",
)
def test_an_event_that_changes_nothing_declares_nothing(client: Client, event: Command[None]) -> None:
    """A duplicate, and an attachment whose stored message is another and stays so."""
    execute(client, save(0), save(1), SaveAttachment(attachment(), arrival=ANY_ORDER), event, event)
    assert client.ask(GetLog()).entries[-1].changes == []


# Reactions


@in_every_order(
    [
        save(),
        SaveReaction(reaction(timestamp=1), arrival=ANY_ORDER),
        RemoveReaction("m1", "bo", "👍", timestamp=2, arrival=ANY_ORDER),
    ]
)
def test_a_removed_reaction_stays_removed(client: Client, events: Commands) -> None:
    """Its removal is later, so a copy that arrives late is not stored; one of a later time is."""
    execute(client, *events, *events)
    assert client.ask(GetReactionsForMessage("m1")) == []
    execute(client, SaveReaction(reaction(timestamp=2), arrival=ANY_ORDER))
    assert client.ask(GetReactionsForMessage("m1")) == []
    execute(client, SaveReaction(reaction(timestamp=3), arrival=ANY_ORDER))
    assert client.ask(GetReactionsForMessage("m1")) == [reaction(timestamp=3)]


def test_a_removal_in_any_order_needs_its_time(client: Client) -> None:
    """Without one it could not be compared; without `arrival` it is not needed."""
    with pytest.raises(Invalid, match=r"\$\.payload\.timestamp"):
        client.execute(RemoveReaction("m1", "bo", "👍", arrival=ANY_ORDER))
    client.execute(RemoveReaction("m1", "bo", "👍"))


def test_reactions_of_a_save_in_any_order_are_added(client: Client) -> None:
    """An older list must not remove what came since; that of another message is refused."""
    execute(client, SaveReaction(reaction(timestamp=1)), save(reactions=[]), save(content="again", reactions=[]))
    assert client.ask(GetReactionsForMessage("m1")) == [reaction(timestamp=1)]
    for command in (save(reactions=[reaction("m2")]), edit(reactions=[reaction("m2")])):
        with pytest.raises(Invalid, match=r"reactions\[0\]\.messageId"):
            client.execute(command)


# Deletions


def test_forget_deletions_lifts_those_of_a_room(client: Client) -> None:
    """In sight and after a clearing, of this room and no other; bare ones stay, since nobody knows their room."""
    execute(client, save_message(1), DeleteMessage("m1"), ClearRoomMessages("r1"), save_message(2), DeleteMessage("m2"))
    execute(client, save_message(3, room_id="r2"), DeleteMessage("m3"), delete("m4"))
    execute(client, ForgetDeletions("r1"), ForgetDeletions("r1"))
    assert client.ask(GetMessages("r1")) == []
    execute(client, *(save_message(each, "back") for each in (1, 2, 4)), save_message(3, "back", room_id="r2"))
    assert [each.id for each in client.ask(GetMessages("r1"))] == ["m1", "m2"]
    assert content(client, "m3") == DELETED_TEXT
    assert client.execute(GetScopeInfo()).bare_tombstones == 1


def test_deleted_text_of_waiting_edits_is_gone(tmp_path: Path) -> None:
    """When its message is deleted, the text of an edit that waited is in no table, no log and no file."""
    late = {"messageId": "m1", "arrival": ANY_ORDER}
    with Local(tmp_path) as local:
        local.result("update-message", late | {"updates": {"content": "wordone", "editedAt": 5}})
        local.result("rename-message", {"messageId": "m1", "newId": "m900"})
        local.result("delete-message", late)
        local.result("update-message", late | {"updates": {"content": "wordtwo", "editedAt": 6}})
        local.result("save-message", save_payload(1, "wordthree") | {"arrival": ANY_ORDER})
        local.result("compact-scope")
        assert local.rows("waiting_edits") == []
        assert [(row["id"], row["content"], row["edited_at"]) for row in local.rows("messages")] == [
            ("m1", "", None),
            ("m900", "", 6),
        ]
        local.replay(local.entries())
        check_replay(local, "replayed")
    assert found_in(tmp_path, "wordone", "wordtwo", "wordthree") == {}


@pytest.mark.parametrize("before", [None, "clear-room-messages"], ids=["first", "after a clearing"])
def test_text_of_an_edit_that_deletes_is_gone(tmp_path: Path, before: str | None) -> None:
    """What it says besides is stored nowhere, also if it is nothing but text."""
    reacted = {"messageId": "m1", "oderId": "bo", "emoji": "wordtwo"}
    updates = {"content": "wordone", "isDeleted": True, "reactions": [reacted]}
    with Local(tmp_path) as local:
        if before is not None:
            local.result("save-message", save_payload(1) | {"arrival": ANY_ORDER})
            local.result("delete-message", {"messageId": "m1"})
            local.result(before, {"roomId": "r1"})
        local.result("update-message", {"messageId": "m1", "updates": updates, "arrival": ANY_ORDER})
        local.result("compact-scope")
    assert found_in(tmp_path, "wordone", "wordtwo") == {}


def test_text_under_both_ids_is_erased(tmp_path: Path) -> None:
    """Deleting a renamed message erases the text of both from the log."""
    with Local(tmp_path) as local:
        local.result("save-message", save_payload("tmp-1", "wordone"))
        local.result("save-message", save_payload("900", "wordtwo"))
        local.result("update-message", {"messageId": "tmp-1", "updates": {"content": "wordthree"}})
        local.result("rename-message", {"messageId": "tmp-1", "newId": "900"})
        local.result("update-message", {"messageId": "tmp-1", "updates": {"content": "wordfour"}})
        local.result("delete-message", {"messageId": "tmp-1"})
        local.result("compact-scope")
    assert found_in(tmp_path, "wordone", "wordtwo", "wordthree", "wordfour") == {}


def test_waiting_edits_are_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused until an original arrives; more edits of the same messages are not."""
    monkeypatch.setattr(message_states, "WAITING_MESSAGES_MAX", 2)
    execute(client, edit("m1"), edit("m2"), edit("m2", "v2", edited_at=T))
    with pytest.raises(TooLarge, match="wait"):
        client.execute(edit("m3"))
    execute(client, save(1), edit("m3"))
    assert content(client) == "v1"


def test_a_save_in_any_order_takes_no_id_of_another_room(client: Client) -> None:
    """It is a `conflict` that names the room, whichever is newer, but not for a late copy of what an edit moved."""
    execute(client, save(edited_at=T - 1))
    for other in (save(room_id="r2"), save(room_id="r2", edited_at=T - 1), save(room_id="r2", revision=1)):
        with pytest.raises(Conflict, match="in room 'r1'"):
            client.execute(other)
    execute(client, edit(room_id="r3", edited_at=T), save())
    assert [each.content for each in client.ask(GetMessages("r3"))] == ["v1"]
    assert client.ask(GetMessages("r1")) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"*": 1}', '{"*": [1]}'])
def test_damaged_versions_are_as_if_there_were_none(tmp_path: Path, text: str) -> None:
    """A message then has the versions that its row has, and edits that waited are lost; nothing else is."""
    late = {"updates": {"content": "v1", "editedAt": 5}, "arrival": ANY_ORDER}
    with Local(tmp_path) as local:
        local.result("save-message", save_payload(1, "v0") | {"arrival": ANY_ORDER})
        for message_id in ("m1", "m2", "m3"):
            local.result("update-message", late | {"messageId": message_id})
        with local.store().write() as transaction:
            transaction.write(sql("UPDATE messages SET field_versions = ?1 WHERE id = 'm1'"), (text,))
            transaction.write(sql("UPDATE waiting_edits SET fields = ?1 WHERE message_id = 'm2'"), (text,))
        for number in (1, 2, 3):
            local.result("save-message", save_payload(number, "v0") | {"arrival": ANY_ORDER})
        assert [each["content"] for each in local.result("get-messages", {"roomId": "r1"})] == ["v1", "v0", "v1"]


def test_a_file_without_versions_is_migrated_to_equal_answers(tmp_path: Path) -> None:
    """Messages and tombstones of a file from before are answered as they were, and joined with events by their rows."""
    path = tmp_path / "default.db"
    with closing(apsw.Connection(str(path))) as old:
        old.execute(migrations()[0])
        old.pragma("application_id", APPLICATION_ID)
        old.pragma("user_version", 1)
        old.execute("UPDATE sequence SET closed = 1")
        for row in (("m1", "v1", 0, 5), ("m2", "", 1, None)):
            columns = "id, room_id, sender_id, timestamp, content, is_deleted, edited_at"
            old.execute(f"INSERT INTO messages ({columns}) VALUES (?1, 'r1', 'ada', 1, ?2, ?3, ?4)", row)
    with Local(tmp_path) as local:
        assert [each["content"] for each in local.result("get-messages", {"roomId": "r1"})] == ["v1", DELETED_TEXT]
        for edited_at in (4, 6):
            late = {"messageId": "m1", "updates": {"content": f"v{edited_at}", "editedAt": edited_at}}
            local.result("update-message", late | {"arrival": ANY_ORDER})
            expected = "v1" if edited_at == 4 else "v6"
            assert local.result("get-message-by-id", {"messageId": "m1"})["content"] == expected
        local.result("clear-room-messages", {"roomId": "r1"})
        local.result("save-message", save_payload(2, "secret"))
        assert local.result("get-messages", {"roomId": "r1"}) == []


# Renames


def test_every_command_takes_either_id(client: Client) -> None:
    """An alias may be there before any message, and may lead to another alias."""
    execute(client, RenameMessage("b", "c"), RenameMessage("a", "b"), save_message("a", "one"))
    execute(client, SaveReaction(reaction("a")), SaveAttachment(attachment("b")))
    execute(client, UpdateMessage("a", MessageUpdates(content="two", reactions=[reaction("a", timestamp=5)])))
    assert found(client, "c") == message_record("c", "two", reactions=[reaction("c", timestamp=5)])
    execute(client, RemoveReaction("b", "bo", "👍"), DeleteAttachmentsForMessage("a"))
    execute(client, SaveMessage(message_record("a", "three", reactions=[reaction("a")])))
    assert [each.id for each in client.ask(GetMessages("r1"))] == ["c"]
    assert client.ask(GetReactionsForMessage("a")) == [reaction("c")]
    assert client.ask(GetAttachmentsForMessage("b")) == []
    execute(client, save_message("reply", reply_to_id="a"), DeleteMessage("a"))
    assert content(client, "a") == DELETED_TEXT
    reply = found(client, "reply")
    assert reply is not None
    assert reply.reply_to_id == "c"


@pytest.mark.parametrize("newer", ["tmp-1", "900"])
def test_the_newer_of_two_renamed_messages_counts(client: Client, newer: str) -> None:
    """Where both are stored, the greater revision or time of edit decides, also between plain commands."""
    execute(client, save_message("tmp-1", "old"), save_message("900", "old"))
    execute(client, UpdateMessage(newer, MessageUpdates(content="new", edited_at=T)), RenameMessage("tmp-1", "900"))
    assert content(client, "900") == "new"


@pytest.mark.parametrize("deleted", ["tmp-1", "900"])
def test_a_renamed_message_stays_deleted(client: Client, deleted: str) -> None:
    """Where one of the two was deleted, both are, in sight or after a clearing."""
    execute(client, save_message(deleted), DeleteMessage(deleted), ClearRoomMessages("r1"))
    execute(client, RenameMessage("tmp-1", "900"), save_message("tmp-1"), save_message("900"))
    assert client.ask(GetMessages("r1")) == []
    execute(client, ForgetDeletions("r1"), save_message("tmp-1"))
    assert [each.id for each in client.ask(GetMessages("r1"))] == ["900"]


def test_renames_that_contradict_are_refused(client: Client) -> None:
    """A cycle, a second new id, one id twice, and messages of different rooms; nothing is changed."""
    execute(client, RenameMessage("a", "b"), RenameMessage("b", "c"), RenameMessage("a", "c"), RenameMessage("a", "b"))
    for refused in (RenameMessage("c", "a"), RenameMessage("a", "d")):
        with pytest.raises(Conflict, match="renamed"):
            client.execute(refused)
    with pytest.raises(Invalid, match="newId"):
        client.execute(RenameMessage("a", "a"))
    execute(client, save_message(1), save_message(2, room_id="r2"))
    with pytest.raises(Conflict, match=r"'r1'.*'r2'"):
        client.execute(RenameMessage("m1", "m2"))
    assert content(client, "m1") == content(client, "m2") == "hello"
