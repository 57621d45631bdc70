"""Random sequences of all commands against a model of plain dicts: they agree after every step."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from model import Model, Payload, Refused

from backscroll.bus.inprocess import InProcess
from backscroll.schema import OPERATIONS, Command

MESSAGE_IDS, ROOM_IDS, PEOPLE = ["m-1", "m", "é:1"], ["r1", "r-2", "default"], ["ada", "bob", "a-b"]
KEYS, PARTS, UNKNOWN = ["k1", "k2"], ["", "aGVs", "bG8="], "never made"
TIMES = st.integers(0, 5)
STEPS, STEPS_LONG = 40, 200
PAGE = 2


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def some_of(strategy: st.SearchStrategy[Payload], *key: str) -> st.SearchStrategy[list[Payload]]:
    return st.lists(strategy, max_size=3, unique_by=lambda each: tuple(each[name] for name in key))


def known(ids: Callable[[Model], Iterable[str]], *more: str) -> st.SearchStrategy[str]:
    """One of the ids that are in the model now, the daemon's own among them, or of some more."""
    return st.runner().flatmap(lambda machine: st.sampled_from([*more, *ids(machine.model)]))


def ids_in(lists: str) -> Callable[[Model], list[str]]:
    """The ids in all rooms' channels or categories, in the order of their making."""
    return lambda model: list(dict.fromkeys(each["id"] for room in model.rooms.values() for each in room[lists]))


message_ids = known(lambda model: [each for each in model.messages if each not in MESSAGE_IDS][-2:], *MESSAGE_IDS)
room_ids, people = st.sampled_from(ROOM_IDS), st.sampled_from(PEOPLE)
channel_ids, category_ids = known(ids_in("channels"), "a", UNKNOWN), known(ids_in("categories"), "a")
user_ids = known(lambda model: [*model.users, *(each["id"] for each in model.users.values())], UNKNOWN)
tokens = known(lambda model: model.sessions, UNKNOWN)
media_ids = known(lambda model: model.media, UNKNOWN)
part_names = known(lambda model: model.parts, "0" * 64)
metadata = maybe(
    st.dictionaries(st.sampled_from(["a", "b"]), st.integers() | st.text(max_size=3), max_size=2).map(
        lambda each: {key: value % 2**53 if isinstance(value, int) else value for key, value in each.items()}
    )
)
reactions = st.fixed_dictionaries(
    {"messageId": message_ids, "oderId": people, "emoji": st.sampled_from(["👍", "a-b"])},
    optional={"timestamp": maybe(TIMES), "id": st.just("x")},
)
message_fields = {
    "senderName": maybe(st.text(max_size=3)),
    "channelId": maybe(channel_ids),
    "editedAt": maybe(TIMES),
    "metadata": metadata,
    "linkMetadata": metadata,
    "isDeleted": st.sampled_from([False, False, False, True]),
}
channels = st.fixed_dictionaries(
    {"id": st.sampled_from("abc"), "name": st.just("c"), "type": st.just("text"), "position": st.integers(0, 2)},
    optional={"topic": st.text(max_size=3), "categoryId": st.sampled_from("abc")},
)
categories = st.fixed_dictionaries({"id": st.sampled_from("abc"), "name": st.just("k"), "position": st.integers(0, 2)})
members = st.fixed_dictionaries(
    {"oderId": people},
    optional={"joinedAt": TIMES, "username": st.text(max_size=3), "role": st.just("host"), "roleIds": st.just(["x"])},
)
room_fields = {
    "topic": maybe(st.text(max_size=3)),
    "createdAt": maybe(TIMES),
    "isPrivate": maybe(st.booleans()),
    "roles": maybe(st.just([{"id": 1}])),
}
user_fields = {
    "displayName": maybe(st.text(max_size=3)),
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
                "content": st.text(max_size=4),
                "timestamp": TIMES,
            },
            optional=message_fields,
        )
    )
    own = reactions.map(lambda each: each | {"messageId": message["id"]})
    lists = maybe(some_of(own, "oderId", "emoji"))
    return message | draw(st.fixed_dictionaries({}, optional={"reactions": lists}))


class Conversation(RuleBasedStateMachine):
    """One store and one model, given the same commands."""

    @initialize()
    def start(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="backscroll-model-"))
        self.model = Model()
        self.seq = 0
        self.calls = 0
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
        """Or steps back."""
        self.model.now = max(0, self.model.now + by)

    @rule(message=messages())
    def save_message(self, message: Payload) -> None:
        self._execute("save-message", message=message)

    @rule(
        messageId=message_ids,
        updates=st.fixed_dictionaries(
            {}, optional=message_fields | {"content": st.text(max_size=4), "roomId": room_ids}
        ),
    )
    def update_message(self, messageId: str, updates: Payload) -> None:  # noqa: N803
        self._execute("update-message", messageId=messageId, updates=updates)

    @rule(messageId=message_ids)
    def delete_message(self, messageId: str) -> None:  # noqa: N803
        self._execute("delete-message", messageId=messageId)

    @rule(roomId=room_ids)
    def clear_room_messages(self, roomId: str) -> None:  # noqa: N803
        self._execute("clear-room-messages", roomId=roomId)

    @rule(reaction=reactions)
    def save_reaction(self, reaction: Payload) -> None:
        self._execute("save-reaction", reaction=reaction)

    @rule(reaction=reactions)
    def remove_reaction(self, reaction: Payload) -> None:
        self._execute("remove-reaction", **{name: reaction[name] for name in ("messageId", "oderId", "emoji")})

    @rule(
        attachment=st.fixed_dictionaries(
            {
                "id": st.sampled_from("xyz"),
                "messageId": message_ids,
                "filename": st.text(max_size=3),
                "size": TIMES,
                "mime": st.just("a/b"),
            },
            optional={"isImage": maybe(st.booleans()), "metadata": metadata},
        )
    )
    def save_attachment(self, attachment: Payload) -> None:
        self._execute("save-attachment", attachment=attachment)

    @rule(messageId=message_ids)
    def delete_attachments(self, messageId: str) -> None:  # noqa: N803
        self._execute("delete-attachments-for-message", messageId=messageId)

    @rule(
        user=st.fixed_dictionaries(
            {"oderId": people, "id": st.sampled_from(["u1", "u2", "ada"]), "username": st.text(max_size=3)},
            optional=user_fields,
        )
    )
    def save_user(self, user: Payload) -> None:
        self._execute("save-user", user=user)

    @rule(userId=people | st.just("u1"), updates=st.fixed_dictionaries({}, optional=user_fields))
    def update_user(self, userId: str, updates: Payload) -> None:  # noqa: N803
        self._execute("update-user", userId=userId, updates=updates)

    @rule(userId=maybe(people))
    def set_current_user_id(self, userId: str | None) -> None:  # noqa: N803
        self._execute("set-current-user-id", userId=userId)

    @rule(
        room=st.fixed_dictionaries(
            {"id": room_ids, "name": st.text(max_size=3)},
            optional=room_fields
            | {
                "channels": maybe(some_of(channels, "id")),
                "categories": maybe(some_of(categories, "id")),
                "members": maybe(some_of(members, "oderId")),
            },
        )
    )
    def save_room(self, room: Payload) -> None:
        self._execute("save-room", room=room)

    @rule(
        roomId=room_ids,
        updates=st.fixed_dictionaries(
            {},
            optional=room_fields
            | {
                "channels": some_of(channels, "id"),
                "categories": maybe(some_of(categories, "id")),
                "members": some_of(members, "oderId"),
            },
        ),
    )
    def update_room(self, roomId: str, updates: Payload) -> None:  # noqa: N803
        self._execute("update-room", roomId=roomId, updates=updates)

    @rule(roomId=room_ids)
    def delete_room(self, roomId: str) -> None:  # noqa: N803
        self._execute("delete-room", roomId=roomId)

    @rule(
        ban=st.fixed_dictionaries(
            {"roomId": room_ids, "oderId": people, "timestamp": TIMES},
            optional={"userId": maybe(people), "expiresAt": maybe(TIMES), "reason": st.text(max_size=3)},
        )
    )
    def save_ban(self, ban: Payload) -> None:
        self._execute("save-ban", ban=ban)

    @rule(roomId=room_ids, oderId=people)
    def remove_ban(self, roomId: str, oderId: str) -> None:  # noqa: N803
        self._execute("remove-ban", roomId=roomId, oderId=oderId)

    @rule(pubkey=st.sampled_from(KEYS), display_name=maybe(st.text(max_size=3)))
    def create_user(self, pubkey: str, display_name: str | None) -> None:
        self._execute("create-user", pubkey=pubkey, displayName=display_name)

    @rule(
        fields=st.fixed_dictionaries(
            {"channelId": channel_ids, "authorId": user_ids, "content": st.text(max_size=4)},
            optional={"roomId": room_ids, "replyToId": maybe(message_ids)},
        )
    )
    def create_message(self, fields: Payload) -> None:
        self._execute("create-message", **fields)

    @rule(
        fields=st.fixed_dictionaries(
            {"name": st.text(max_size=3)},
            optional={
                "roomId": room_ids,
                "type": st.just("voice"),
                "topic": maybe(st.text(max_size=3)),
                "categoryId": maybe(category_ids),
                "position": st.integers(-1, 2),
            },
        )
    )
    def create_channel(self, fields: Payload) -> None:
        self._execute("create-channel", **fields)

    @rule(
        channelId=channel_ids,
        roomId=room_ids,
        updates=st.fixed_dictionaries(
            {},
            optional={
                "name": st.text(max_size=3),
                "topic": maybe(st.text(max_size=3)),
                "categoryId": maybe(category_ids),
                "position": st.integers(-1, 2),
                "updatedAt": maybe(TIMES),
                "metadata": metadata,
            },
        ),
    )
    def update_channel(self, channelId: str, roomId: str, updates: Payload) -> None:  # noqa: N803
        self._execute("update-channel", channelId=channelId, roomId=roomId, updates=updates)

    @rule(channelId=channel_ids, roomId=room_ids, cascade=st.booleans())
    def delete_channel(self, channelId: str, roomId: str, cascade: bool) -> None:  # noqa: N803
        self._execute("delete-channel", channelId=channelId, roomId=roomId, cascade=cascade)

    @rule(
        fields=st.fixed_dictionaries(
            {"name": st.text(max_size=3)}, optional={"roomId": room_ids, "position": st.integers(-1, 2)}
        )
    )
    def create_category(self, fields: Payload) -> None:
        self._execute("create-category", **fields)

    @rule(
        categoryId=category_ids,
        roomId=room_ids,
        updates=st.fixed_dictionaries({}, optional={"name": st.text(max_size=3), "metadata": metadata}),
    )
    def update_category(self, categoryId: str, roomId: str, updates: Payload) -> None:  # noqa: N803
        self._execute("update-category", categoryId=categoryId, roomId=roomId, updates=updates)

    @rule(categoryId=category_ids, roomId=room_ids)
    def delete_category(self, categoryId: str, roomId: str) -> None:  # noqa: N803
        self._execute("delete-category", categoryId=categoryId, roomId=roomId)

    @rule(userId=user_ids, duration=TIMES, read_only=maybe(st.booleans()))
    def create_session(self, userId: str, duration: int, read_only: bool | None) -> None:  # noqa: N803
        self._execute("create-session", userId=userId, durationMs=duration, readOnly=read_only)

    @rule(token=tokens)
    def delete_session(self, token: str) -> None:
        self._execute("delete-session", token=token)

    @rule()
    def delete_expired_sessions(self) -> None:
        self._execute("delete-expired-sessions")

    @rule(data=st.sampled_from(PARTS))
    def put_media_part(self, data: str) -> None:
        self._execute("put-media-part", data=data)

    @rule(parts=st.lists(part_names, min_size=1, max_size=3), uploader_id=maybe(people))
    def put_media(self, parts: list[str], uploader_id: str | None) -> None:
        self._execute("put-media", parts=parts, mime="x/y", uploaderId=uploader_id)

    @rule(mediaId=media_ids)
    def delete_media(self, mediaId: str) -> None:  # noqa: N803
        self._execute("delete-media", mediaId=mediaId)

    @rule(really=st.sampled_from([False, False, True]))
    def lifecycle(self, really: bool) -> None:
        self._execute("clear-all-data" if really else "initialize")

    @invariant()
    def answers_agree(self) -> None:
        """Every query gives what the model gives."""
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
        for person in PEOPLE:
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
        files = {path.name for path in self.directory.glob("*.media/*/*")}
        assert files == set(self.model.parts)

    def _message_agrees(self, message_id: str) -> None:
        shown = [each for room_id in ROOM_IDS for each in self.model.get_messages(room_id) if each["id"] == message_id]
        assert self._ask("get-message-by-id", messageId=message_id) == (shown[0] if shown else None)
        assert self._ask("get-reactions-for-message", messageId=message_id) == self.model.get_reactions(message_id)
        of_message = [each for each in self.model.get_all_attachments() if each["messageId"] == message_id]
        assert self._ask("get-attachments-for-message", messageId=message_id) == of_message

    def _open(self) -> InProcess:
        return InProcess(self.directory, clock=lambda: self.model.now)

    def _request(self, operation: str, payload: Payload) -> dict[str, Any]:
        self.calls += 1
        body = json.dumps({"id": str(self.calls), "type": operation, "payload": payload})
        reply: dict[str, Any] = json.loads(self.transport.dispatcher.answer(body.encode()))
        return reply

    def _execute(self, operation: str, **payload: Any) -> None:
        reply = self._request(operation, payload)
        wanted = self.model.execute(operation, payload, reply.get("result"))
        if isinstance(wanted, Refused):
            assert reply["error"]["code"] == wanted.code
        else:
            self.seq += 1
            assert reply == {"id": str(self.calls), "ok": True, "result": wanted, "seq": self.seq}

    def _ask(self, operation: str, **payload: Any) -> Any:
        reply = self._request(operation, payload)
        assert reply["seq"] == self.seq
        return reply["result"]


def test_store_and_model_agree_after_every_step(long: bool) -> None:
    """Whatever is commanded, in whatever order, every query answers what plain dicts would."""
    steps = STEPS_LONG if long else STEPS
    run_state_machine_as_test(Conversation, settings=settings(stateful_step_count=steps))


def test_the_model_knows_every_command() -> None:
    """A command that is added must be added to the model."""
    commands = [operation for operation in OPERATIONS.values() if issubclass(operation, Command)]
    assert [each for each in commands if not hasattr(Model, each.wire_name.replace("-", "_"))] == []
