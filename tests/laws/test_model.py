"""Random sequences of commands, executed on a real store and on a model of plain dicts: both agree after every step."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from backscroll.bus.inprocess import InProcess
from backscroll.schema import OPERATIONS, Command
from tests.support.model import Model, Payload, Refused
from tests.support.stores import in_process
from tests.support.tables import parts_of

MESSAGE_IDS, ROOM_IDS, PEOPLE = ["m-1", "m", "é:1"], ["r1", "r-2", "default"], ["ada", "bob", "a-b"]
KEYS, PARTS, UNKNOWN = ["k1", "k2"], ["", "aGVs", "bG8="], "never made"
TIMES = st.integers(0, 5)
STEPS, STEPS_LONG = 25, 200
PAGE = 2


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def words(max_size: int) -> st.SearchStrategy[str]:
    """Texts as people write them; NUL is `invalid` outside of free JSON."""
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=max_size)


def some_of(strategy: st.SearchStrategy[Payload], *key: str) -> st.SearchStrategy[list[Payload]]:
    return st.lists(strategy, max_size=3, unique_by=lambda each: tuple(each[name] for name in key))


def known(ids: Callable[[Model], Iterable[str]], *more: str) -> st.SearchStrategy[str]:
    """One of the ids that the model has now, including those made by the daemon, or one of `more`."""
    return st.runner().flatmap(lambda machine: st.sampled_from([*more, *ids(machine.model)]))


def ids_in(lists: str) -> Callable[[Model], list[str]]:
    """The ids in the channel or category lists of all rooms, in the order of their creation."""
    return lambda model: list(dict.fromkeys(each["id"] for room in model.rooms.values() for each in room[lists]))


message_ids = known(lambda model: [each for each in model.messages if each not in MESSAGE_IDS][-2:], *MESSAGE_IDS)
room_ids, people = st.sampled_from(ROOM_IDS), st.sampled_from(PEOPLE)
channel_ids, category_ids = known(ids_in("channels"), "a", UNKNOWN), known(ids_in("categories"), "a")
user_ids = known(lambda model: [*model.users, *(each["id"] for each in model.users.values())], UNKNOWN)
tokens = known(lambda model: model.sessions, UNKNOWN)
new_tokens = st.sampled_from([f"the token of session {number}" for number in range(4)])
media_ids = known(lambda model: model.media, UNKNOWN)
part_names = known(lambda model: model.parts, "0" * 64)
metadata = maybe(
    st.dictionaries(st.sampled_from(["a", "b"]), st.integers() | st.text(max_size=3), max_size=2).map(
        lambda each: {key: value % 2**53 if isinstance(value, int) else value for key, value in each.items()}
    )
)
reactions = st.fixed_dictionaries(
    {"messageId": message_ids, "oderId": maybe(people), "emoji": st.sampled_from(["👍", "a-b"])},
    optional={"timestamp": maybe(TIMES), "id": st.just("x"), "metadata": metadata},
).flatmap(
    lambda each: st.sampled_from([{"count": 3}, {"count": 4}] if each["oderId"] is None else [{}]).map(
        lambda more: each | more
    )
)
message_fields = {
    "senderName": maybe(words(3)),
    "channelId": maybe(channel_ids),
    "editedAt": maybe(TIMES),
    "metadata": metadata,
    "linkMetadata": metadata,
    "ordinal": st.integers(-1, 1),
    "sentAt": maybe(TIMES),
    "type": maybe(st.just("call")),
    "threadId": maybe(message_ids),
    "forwardedFrom": metadata,
    "mentions": maybe(st.lists(people, max_size=2)),
    "pinnedAt": maybe(TIMES),
    "expiresAt": maybe(st.just(10**13)),
    "isDeleted": st.sampled_from([False, False, False, True]),
}
channels = st.fixed_dictionaries(
    {
        "id": st.sampled_from("abc"),
        "name": st.just("c"),
        "type": st.sampled_from(["text", "Bühne"]),
        "position": st.integers(0, 2),
    },
    optional={"topic": words(3), "categoryId": st.sampled_from("abc")},
)
categories = st.fixed_dictionaries({"id": st.sampled_from("abc"), "name": st.just("k"), "position": st.integers(0, 2)})
members = st.fixed_dictionaries(
    {"oderId": people},
    optional={"joinedAt": TIMES, "username": words(3), "role": st.just("host"), "roleIds": st.just(["x"])},
)
room_fields = {
    "topic": maybe(words(3)),
    "createdAt": maybe(TIMES),
    "isPrivate": maybe(st.booleans()),
    "roles": maybe(st.just([{"id": 1}])),
}
user_fields = {
    "displayName": maybe(words(3)),
    "pubkey": maybe(st.sampled_from(KEYS)),
    "createdAt": maybe(TIMES),
    "isAdmin": maybe(st.booleans()),
}


@st.composite
def messages(draw: st.DrawFn) -> Payload:
    message = draw(
        st.fixed_dictionaries(
            {
                "id": message_ids,
                "roomId": room_ids,
                "senderId": people,
                "content": words(4),
                "timestamp": TIMES,
            },
            optional=message_fields,
        )
    )
    own = reactions.map(lambda each: each | {"messageId": message["id"]})
    lists = maybe(some_of(own, "oderId", "emoji"))
    return message | draw(st.fixed_dictionaries({}, optional={"reactions": lists}))


PAYLOADS: dict[str, st.SearchStrategy[Payload]] = {
    "save-message": st.fixed_dictionaries({"message": messages()}),
    "update-message": st.fixed_dictionaries(
        {
            "messageId": message_ids,
            "updates": st.fixed_dictionaries({}, optional=message_fields | {"content": words(4), "roomId": room_ids}),
        }
    ),
    "delete-message": st.fixed_dictionaries({"messageId": message_ids}),
    "forget-deletions": st.fixed_dictionaries({"roomId": room_ids}),
    "clear-room-messages": st.fixed_dictionaries({"roomId": room_ids}),
    "delete-messages-before": st.fixed_dictionaries({"roomId": room_ids, "timestamp": TIMES}),
    "delete-expired-messages": st.just({}),
    "save-reaction": st.fixed_dictionaries({"reaction": reactions}),
    "remove-reaction": reactions.map(lambda each: {name: each[name] for name in ("messageId", "oderId", "emoji")}),
    "save-attachment": st.fixed_dictionaries(
        {
            "attachment": st.fixed_dictionaries(
                {
                    "id": st.sampled_from("xyz"),
                    "messageId": message_ids,
                    "filename": words(3),
                },
                optional={
                    "size": TIMES,
                    "mime": st.just("a/b"),
                    "mediaId": maybe(media_ids),
                    "isImage": maybe(st.booleans()),
                    "metadata": metadata,
                },
            )
        }
    ),
    "delete-attachments-for-message": st.fixed_dictionaries({"messageId": message_ids}),
    "save-user": st.fixed_dictionaries(
        {
            "user": st.fixed_dictionaries(
                {"oderId": people, "id": st.sampled_from(["u1", "u2", "ada"]), "username": words(3)},
                optional=user_fields,
            )
        }
    ),
    "update-user": st.fixed_dictionaries(
        {"userId": people | st.just("u1"), "updates": st.fixed_dictionaries({}, optional=user_fields)}
    ),
    "set-current-user-id": st.fixed_dictionaries({"userId": maybe(people)}),
    "save-room": st.fixed_dictionaries(
        {
            "room": st.fixed_dictionaries(
                {"id": room_ids, "name": words(3)},
                optional=room_fields
                | {
                    "channels": maybe(some_of(channels, "id")),
                    "categories": maybe(some_of(categories, "id")),
                    "members": maybe(some_of(members, "oderId")),
                },
            )
        }
    ),
    "update-room": st.fixed_dictionaries(
        {
            "roomId": room_ids,
            "updates": st.fixed_dictionaries(
                {},
                optional=room_fields
                | {
                    "channels": some_of(channels, "id"),
                    "categories": maybe(some_of(categories, "id")),
                    "members": some_of(members, "oderId"),
                },
            ),
        }
    ),
    "delete-room": st.fixed_dictionaries({"roomId": room_ids}),
    "save-ban": st.fixed_dictionaries(
        {
            "ban": st.fixed_dictionaries(
                {"roomId": room_ids, "oderId": people, "timestamp": TIMES},
                optional={"userId": maybe(people), "expiresAt": maybe(TIMES), "reason": words(3)},
            )
        }
    ),
    "remove-ban": st.fixed_dictionaries({"roomId": room_ids, "oderId": people}),
    "create-user": st.fixed_dictionaries({"pubkey": st.sampled_from(KEYS), "displayName": maybe(words(3))}),
    "create-message": st.fixed_dictionaries(
        {"channelId": channel_ids, "authorId": user_ids, "content": words(4)},
        optional={"roomId": room_ids, "replyToId": maybe(message_ids)},
    ),
    "save-member": st.fixed_dictionaries({"roomId": room_ids, "member": members}),
    "remove-member": st.fixed_dictionaries({"roomId": room_ids, "oderId": people}),
    "save-channel": st.fixed_dictionaries({"channel": channels}, optional={"roomId": room_ids}),
    "save-category": st.fixed_dictionaries({"category": categories}, optional={"roomId": room_ids}),
    "create-channel": st.fixed_dictionaries(
        {"name": words(3)},
        optional={
            "roomId": room_ids,
            "type": st.just("voice"),
            "topic": maybe(words(3)),
            "categoryId": maybe(category_ids),
            "position": st.integers(-1, 2),
        },
    ),
    "update-channel": st.fixed_dictionaries(
        {
            "channelId": channel_ids,
            "roomId": room_ids,
            "updates": st.fixed_dictionaries(
                {},
                optional={
                    "name": words(3),
                    "topic": maybe(words(3)),
                    "categoryId": maybe(category_ids),
                    "position": st.integers(-1, 2),
                    "updatedAt": maybe(TIMES),
                    "metadata": metadata,
                },
            ),
        }
    ),
    "delete-channel": st.fixed_dictionaries({"channelId": channel_ids, "roomId": room_ids, "cascade": st.booleans()}),
    "create-category": st.fixed_dictionaries(
        {"name": words(3)}, optional={"roomId": room_ids, "position": st.integers(-1, 2)}
    ),
    "update-category": st.fixed_dictionaries(
        {
            "categoryId": category_ids,
            "roomId": room_ids,
            "updates": st.fixed_dictionaries({}, optional={"name": words(3), "metadata": metadata}),
        }
    ),
    "delete-category": st.fixed_dictionaries({"categoryId": category_ids, "roomId": room_ids}),
    "create-session": st.fixed_dictionaries(
        {"userId": user_ids, "durationMs": TIMES, "token": new_tokens, "readOnly": maybe(st.booleans())}
    ),
    "delete-session": st.fixed_dictionaries({"token": tokens}),
    "delete-expired-sessions": st.just({}),
    "initialize": st.just({}),
    "put-media-part": st.fixed_dictionaries({"data": st.sampled_from(PARTS)}),
    "put-media": st.fixed_dictionaries(
        {
            "parts": st.lists(part_names, min_size=1, max_size=3),
            "mime": st.just("x/y"),
            "uploaderId": maybe(people),
        }
    ),
    "delete-media": st.fixed_dictionaries({"mediaId": media_ids}),
}
"""What commands are given. Of batches, and of what takes everything away, the machine has rules of its own."""


def may_be_batched(name: str) -> bool:
    operation = OPERATIONS[name]
    return issubclass(operation, Command) and not operation.ALONE


members_of_batches = st.sampled_from([name for name in PAYLOADS if may_be_batched(name)]).flatmap(
    lambda name: PAYLOADS[name].map(lambda payload: {"type": name, "payload": payload})
)


class Sent(NamedTuple):
    """A command that was sent, and the reply if it took effect, with its `seq` and its step in the model.

    `subjects` lists what its result is about, as the model has it.
    """

    id: str
    body: bytes
    answer: bytes = b""
    seq: int = 0
    step: int = 0
    subjects: tuple[tuple[str, str, int], ...] = ()


class Conversation(RuleBasedStateMachine):
    """One store and one model that are given the same commands."""

    @initialize()
    def start(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="backscroll-model-"))
        self.model = Model()
        self.seq = 0
        self.calls = 0
        self.sent: list[Sent] = []
        self.transport = self._open()

    def teardown(self) -> None:
        self.transport.close()
        shutil.rmtree(self.directory)

    @rule()
    def reopen(self) -> None:
        """A restart loses nothing."""
        self.transport.close()
        self.transport = self._open()

    @rule(by=st.integers(-1, 2))
    def time_passes(self, by: int) -> None:
        """The clock advances or goes back."""
        self.model.now = max(0, self.model.now + by)

    @rule(commands=st.lists(members_of_batches, min_size=1, max_size=5))
    def batch(self, commands: list[Payload]) -> None:
        """All commands of a batch take effect, or none."""
        self._execute("batch", {"commands": commands})

    @rule(really=st.sampled_from([False, False, True]))
    def clear_all_data(self, really: bool) -> None:
        if really:
            self._execute("clear-all-data", {})

    @precondition(lambda self: self.sent)
    @rule(choose=st.integers(0, 11))
    def retry(self, choose: int) -> None:
        """A command that took effect gets the same reply and is not executed again; one that was refused is tried
        again.
        """
        for done in [each for each in self.sent if each.answer][-20:]:
            answer = self.transport.dispatcher.answer(done.body)
            if self._result_is_dropped(done):
                error = json.loads(answer)["error"]
                assert (error["code"], error["details"]) == ("conflict", {"path": "$.id", "seq": done.seq})
            else:
                assert answer == done.answer
        chosen = self.sent[-1 - choose % len(self.sent)]
        if not chosen.answer:
            self.sent.remove(chosen)
            self._check_reply(chosen, self.transport.dispatcher.answer(chosen.body))

    @precondition(lambda self: self.sent)
    @rule(choose=st.integers(0, 11))
    def use_an_id_again(self, choose: int) -> None:
        """Another command under the id of one that took effect is a conflict and has no effect."""
        sent = self.sent[-1 - choose % len(self.sent)]
        if sent.answer:
            other = {"id": sent.id, "type": "set-current-user-id", "payload": {"userId": "nobody"}}
            error = json.loads(self.transport.dispatcher.answer(json.dumps(other).encode()))["error"]
            assert (error["code"], error["details"]) == ("conflict", {"path": "$.id"})

    def _result_is_dropped(self, sent: Sent) -> bool:
        """Whether something that its result is about was deleted since, or everything was."""
        forgotten = self.model.forgotten
        gone = any(forgotten.get((noun, subject), 0) > step for noun, subject, step in sent.subjects)
        return gone or (self.model.cleared > sent.step and json.loads(sent.answer)["result"] is not None)

    @invariant()
    def replies_agree(self) -> None:
        """Every query returns what the model returns."""
        model = self.model
        assert self._ask("get-all-rooms") == model.get_all_rooms()
        assert self._ask("get-all-attachments") == model.get_all_attachments()
        assert self._ask("get-current-user") == model.get_current_user()
        assert self._ask("list-users") == model.list_users()
        for person in (*PEOPLE, "u1"):
            assert self._ask("get-user", userId=person) == model.get_user(person)
        for key in KEYS:
            assert self._ask("get-user-by-pubkey", pubkey=key) == model.get_user_by_pubkey(key)
        for room_id in ROOM_IDS:
            self._room_agrees(room_id)
        for message_id in [*MESSAGE_IDS, *model.messages][:6]:
            self._message_agrees(message_id)
        for token in [*model.sessions, UNKNOWN]:
            assert self._ask("get-session", token=token) == model.get_session(token)
        self._media_agree()

    def _room_agrees(self, room_id: str) -> None:
        model = self.model
        assert self._ask("get-room", roomId=room_id) == model.get_room(room_id)
        assert self._ask("get-messages", roomId=room_id) == model.get_messages(room_id)
        assert self._ask("get-users-by-room", roomId=room_id) == model.get_users_by_room(room_id)
        assert self._ask("get-bans-for-room", roomId=room_id) == model.get_bans_for_room(room_id)
        assert self._ask("get-members", roomId=room_id) == model.get_members(room_id)
        for person in PEOPLE:
            assert self._ask("get-member", roomId=room_id, oderId=person) == model.get_member(room_id, person)
            banned = self._ask("is-user-banned", userId=person, roomId=room_id)
            assert banned == model.is_user_banned(person, room_id)

        for channel in model.list_of("channels", room_id):
            self._channel_agrees(room_id, channel["id"])
        assert self._ask("list-channels", roomId=room_id) == model.list_of("channels", room_id)
        assert self._ask("list-categories", roomId=room_id) == model.list_of("categories", room_id)
        page = self._ask("get-message-page", roomId=room_id, limit=PAGE)
        cursors = [page.pop(name, None) for name in ("olderCursor", "newerCursor")]
        assert page == model.get_message_page(room_id, PAGE)
        assert all(cursors) == any(cursors) == bool(page["messages"])

    def _channel_agrees(self, room_id: str, channel_id: str) -> None:
        asked = {"channelId": channel_id, "roomId": room_id}
        assert self._ask("get-channel", **asked) == self.model.get_channel(channel_id, room_id)
        assert self._ask("list-messages", **asked, limit=PAGE) == self.model.list_messages(channel_id, room_id, PAGE)

    def _media_agree(self) -> None:
        for media_id, media in self.model.media.items():
            assert self._ask("get-media", mediaId=media_id) == media
            for part in range(media["parts"]):
                fetched = self._ask("get-media-part", mediaId=media_id, part=part)
                assert fetched == self.model.get_media_part(media_id, part)
        assert self._ask("get-media", mediaId=UNKNOWN) is None
        assert set(parts_of(self.transport.store)) == set(self.model.parts)

    def _message_agrees(self, message_id: str) -> None:
        shown = [each for room_id in ROOM_IDS for each in self.model.get_messages(room_id) if each["id"] == message_id]
        assert self._ask("get-message-by-id", messageId=message_id) == (shown[0] if shown else None)
        assert self._ask("get-reactions-for-message", messageId=message_id) == self.model.get_reactions(message_id)
        of_message = [each for each in self.model.get_all_attachments() if each["messageId"] == message_id]
        assert self._ask("get-attachments-for-message", messageId=message_id) == of_message

    def _open(self) -> InProcess:
        return in_process(self.directory, clock=lambda: self.model.now)

    def _body(self, operation: str, payload: Payload) -> tuple[str, bytes]:
        """The next request with its id."""
        self.calls += 1
        return str(self.calls), json.dumps({"id": str(self.calls), "type": operation, "payload": payload}).encode()

    def _execute(self, operation: str, payload: Payload) -> None:
        sent = Sent(*self._body(operation, payload))
        self._check_reply(sent, self.transport.dispatcher.answer(sent.body))

    def _check_reply(self, sent: Sent, answer: bytes) -> None:
        """Compare the reply to a command that had no effect before with what the model makes of it."""
        request, reply = json.loads(sent.body), json.loads(answer)
        self.model.subjects = []
        wanted = self.model.execute(request["type"], request["payload"], reply.get("result"))
        if isinstance(wanted, Refused):
            details = reply["error"]["details"] or {}
            assert (reply["error"]["code"], details.get("index")) == (wanted.code, wanted.member)
            assert wanted.member is None or details["path"].startswith(f"$.payload.commands[{wanted.member}].payload")
            self.sent.append(sent)
        else:
            self.seq += 1
            assert reply == {"id": sent.id, "ok": True, "result": wanted, "seq": self.seq}
            subjects = tuple(self.model.subjects)
            self.sent.append(sent._replace(answer=answer, seq=self.seq, step=self.model.steps, subjects=subjects))

    def _ask(self, operation: str, **payload: Any) -> Any:
        _, body = self._body(operation, payload)
        reply = json.loads(self.transport.dispatcher.answer(body))
        assert reply["seq"] == self.seq
        return reply["result"]


def _rule_of(operation: str) -> Any:
    """The rule that executes a command with any payload."""

    def execute(self: Conversation, payload: Payload) -> None:
        self._execute(operation, payload)

    execute.__name__ = operation.replace("-", "_")
    return rule(payload=PAYLOADS[operation])(execute)


for each in PAYLOADS:
    setattr(Conversation, each.replace("-", "_"), _rule_of(each))


def test_store_and_model_agree_after_every_step(long: bool) -> None:
    """After any sequence of commands every query returns what the model of plain dicts returns."""
    steps = STEPS_LONG if long else STEPS
    run_state_machine_as_test(Conversation, settings=settings(stateful_step_count=steps))
