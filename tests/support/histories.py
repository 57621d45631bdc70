"""Random histories of commands, and which texts they wrote about what: for tests of redaction and replay.

A history is a list of steps that is drawn without looking at a store, so that it shrinks well. A `Ref` stands for an id
made by the store, `NEW_TEXT` for a unique text; both are filled in when the history is executed.
"""

import base64
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.support.local import Local, Plain
from tests.support.sql import sql

NEW_TEXT = "<new text>"
TEXT = re.compile(r"text-[-a-z0-9]*\.")
MESSAGES, ROOMS, PEOPLE, CHANNELS, ATTACHMENTS = ["m1", "m2"], ["r1", "default"], ["ada", "bob"], ["c1"], ["a1", "a2"]
PARTS = [base64.b64encode(part).decode() for part in (b"", b"one", b"two")]
PART_NAMES = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
    "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3",
]
HOUR = 3_600_000


Subject = tuple[str, ...]
"""What a text is about: a noun and its key, which for things in a room begins with the room's id."""


class Ref(NamedTuple):
    """The n-th id of a kind that a store made, modulo their number."""

    kind: str
    number: int


class Step(NamedTuple):
    """A command, or another event in the life of a store."""

    name: str
    payload: Any


def _either(fixed: list[str], kind: str) -> st.SearchStrategy[Any]:
    return st.one_of(st.sampled_from(fixed), st.builds(Ref, st.just(kind), st.integers(0, 2)))


times = st.integers(0, 3)
new_text = st.just(NEW_TEXT)
cleared = st.none() | new_text
free = st.none() | st.just({"note": NEW_TEXT})
messages, rooms, people = _either(MESSAGES, "message"), st.sampled_from(ROOMS), _either(PEOPLE, "user")
channels, categories = _either(CHANNELS, "channel"), _either(["k1"], "category")


def _fields(required: Any, **optional: Any) -> st.SearchStrategy[Plain]:
    return st.fixed_dictionaries(required, optional=optional)


def _reaction(message: st.SearchStrategy[Any]) -> st.SearchStrategy[Plain]:
    fields = _fields(
        {"messageId": message, "oderId": st.sampled_from(PEOPLE), "emoji": st.integers(0, 1)}, timestamp=times
    )
    return fields.map(lambda each: each | {"emoji": _Emoji(each["messageId"], each["oderId"], each["emoji"])})


class _Emoji(NamedTuple):
    """One of a few emoji that one person uses on a single message."""

    message: Any
    person: str
    number: int


message_fields: dict[str, Any] = {
    "channelId": st.none() | channels,
    "metadata": free,
    "linkMetadata": free,
    "editedAt": times,
    "ordinal": st.integers(-1, 1),
    "threadId": messages,
    "forwardedFrom": free,
    "mentions": st.just(["bob"]),
    "pinnedAt": times,
    "expiresAt": st.sampled_from([1, 2, 10**13]),
    "isDeleted": st.sampled_from([False, False, False, True]),
}


@st.composite
def _message(draw: st.DrawFn) -> Plain:
    required = {"id": messages, "roomId": rooms, "senderId": st.just("ada"), "content": new_text, "timestamp": times}
    message = draw(_fields(required, **message_fields))
    lists = st.lists(_reaction(st.just(message["id"])), max_size=2, unique_by=lambda each: str(each["emoji"]))
    return message | draw(_fields({}, reactions=lists))


tokens = st.sampled_from([f"the token of session {number}" for number in range(3)])
channel = _fields(
    {"id": st.just("c1"), "name": new_text, "type": st.just("text")},
    topic=cleared,
    metadata=free,
    categoryId=categories,
)
category = _fields({"id": st.just("k1"), "name": new_text}, metadata=free)
member = _fields({"oderId": st.sampled_from(PEOPLE)}, displayName=cleared, username=new_text, role=st.just("host"))
room_fields: dict[str, Any] = {
    "topic": cleared,
    "password": st.none() | st.just("open sesame"),
    "permissions": free,
    "roles": st.just([NEW_TEXT]),
    "maxUsers": times,
    "channels": st.lists(channel, max_size=1),
    "categories": st.lists(category, max_size=1),
    "members": st.lists(member, max_size=2, unique_by=lambda each: str(each["oderId"])),
}


def _user(required: Any) -> st.SearchStrategy[Plain]:
    return _fields(required, displayName=cleared, pubkey=st.sampled_from(["k1", "k2"]), status=cleared)


BATCHED: dict[str, st.SearchStrategy[Plain]] = {
    "save-message": _fields({"message": _message()}),
    "update-message": _fields(
        {
            "messageId": messages,
            "updates": _fields({}, content=new_text, roomId=rooms, reactions=st.just([]), **message_fields),
        }
    ),
    "delete-message": _fields({"messageId": messages}),
    "clear-room-messages": _fields({"roomId": rooms}),
    "delete-messages-before": _fields({"roomId": rooms, "timestamp": times}),
    "delete-expired-messages": st.just({}),
    "create-message": _fields(
        {"channelId": channels, "authorId": people, "content": new_text}, roomId=rooms, replyToId=messages
    ),
    "save-reaction": _fields({"reaction": _reaction(messages)}),
    "remove-reaction": _reaction(messages).map(
        lambda each: {name: value for name, value in each.items() if name != "timestamp"}
    ),
    "save-attachment": _fields(
        {
            "attachment": _fields(
                {
                    "id": st.sampled_from(ATTACHMENTS),
                    "messageId": messages,
                    "filename": new_text,
                    "size": times,
                    "mime": st.just("a/b"),
                },
                filePath=new_text,
                metadata=free,
            )
        }
    ),
    "delete-attachments-for-message": _fields({"messageId": messages}),
    "save-user": _fields(
        {"user": _user({"oderId": st.sampled_from(PEOPLE), "id": st.just("u1"), "username": new_text})}
    ),
    "update-user": _fields({"userId": people, "updates": _user({})}),
    "set-current-user-id": _fields({"userId": st.none() | st.sampled_from(PEOPLE)}),
    "create-user": _fields({"pubkey": st.sampled_from(["k1", "k2", "k3"])}, displayName=new_text),
    "save-room": _fields({"room": _fields({"id": rooms, "name": new_text}, **room_fields)}),
    "update-room": _fields({"roomId": rooms, "updates": _fields({}, name=new_text, **room_fields)}),
    "delete-room": _fields({"roomId": rooms}),
    "save-ban": _fields(
        {"ban": _fields({"roomId": rooms, "oderId": st.sampled_from(PEOPLE), "timestamp": times}, reason=new_text)}
    ),
    "remove-ban": _fields({"roomId": rooms, "oderId": st.sampled_from(PEOPLE)}),
    "save-member": _fields({"roomId": rooms, "member": member}),
    "remove-member": _fields({"roomId": rooms, "oderId": st.sampled_from(PEOPLE)}),
    "save-channel": _fields({"channel": channel}, roomId=rooms),
    "create-channel": _fields({"name": new_text}, roomId=rooms, topic=cleared, categoryId=categories),
    "update-channel": _fields(
        {"channelId": channels, "updates": _fields({}, name=new_text, topic=cleared, metadata=free)}, roomId=rooms
    ),
    "delete-channel": _fields({"channelId": channels}, roomId=rooms, cascade=st.just(True)),
    "save-category": _fields({"category": category}, roomId=rooms),
    "create-category": _fields({"name": new_text}, roomId=rooms),
    "update-category": _fields({"categoryId": categories, "updates": _fields({}, name=new_text)}, roomId=rooms),
    "delete-category": _fields({"categoryId": categories}, roomId=rooms),
    "create-session": _fields(
        {"userId": people, "durationMs": st.sampled_from([0, 1, HOUR]), "token": tokens}, readOnly=st.booleans()
    ),
    "delete-session": _fields({"token": tokens}),
    "delete-expired-sessions": st.just({}),
    "delete-media": _fields({"mediaId": st.builds(Ref, st.just("media"), st.integers(0, 2))}),
    "initialize": st.just({}),
}
ALONE: dict[str, st.SearchStrategy[Plain]] = {
    "put-media-part": st.one_of(
        _fields({"data": st.sampled_from(PARTS)}), _fields({"sha256": st.sampled_from(PART_NAMES)})
    ),
    "put-media": _fields({"parts": st.lists(st.sampled_from(PART_NAMES), min_size=1, max_size=2), "mime": new_text}),
    "clear-all-data": st.just({}),
}
OTHERS: dict[str, st.SearchStrategy[Any]] = {
    "chores": st.none(),
    "reopen": st.none(),
    "time": st.sampled_from([-1, 1, HOUR, 25 * HOUR]),
}
OFTEN = (
    *("save-message",) * 5,
    *("update-message", "create-message", "save-reaction", "save-attachment", "delete-message") * 2,
    *("put-media-part", "put-media") * 2,
    *("save-room", "create-channel", "create-user", "save-user"),
)
batches = st.lists(
    st.sampled_from([*BATCHED, *OFTEN[:13]]).flatmap(
        lambda name: BATCHED[name].map(lambda payload: {"type": name, "payload": payload})
    ),
    min_size=1,
    max_size=4,
).map(lambda commands: {"commands": commands})
STEPS = BATCHED | ALONE | OTHERS | {"batch": batches}

steps = st.sampled_from([*STEPS, *OFTEN, "batch", "batch"]).flatmap(
    lambda name: STEPS[name].map(lambda payload: Step(name, payload))
)


def histories(stretches: int) -> st.SearchStrategy[list[Step]]:
    """Histories of several stretches of about five steps, because Hypothesis by itself draws short lists."""
    drawn = st.tuples(*[st.lists(steps, max_size=15)] * stretches)
    return drawn.map(lambda each: [step for stretch in each for step in stretch])


class HistoryRunner:
    """Executes a history on a store, and records which texts were written about what, and what was deleted since.

    `texts` has the subject of each text, as long as that exists: these must be in the log. `unsure` has those of which
    it is not known, because something happened inside a batch. `gone` has those whose subject was deleted after they
    were last written, which must not be anywhere. `accepted` are the commands that took effect, with ids and payloads.
    """

    def __init__(self, local: Local, clock: Any) -> None:
        self.local = local
        self.clock = clock
        self.made: dict[str, list[str]] = {}
        self.texts: dict[str, Subject] = {}
        self.unsure: dict[str, Subject] = {}
        self.gone: set[str] = set()
        self.accepted: list[tuple[str, str, Plain]] = []
        self.done = 0
        self._text_number = 0

    def execute(self, step: Step) -> None:
        if step.name == "time":
            self.clock.now += step.payload
        elif step.name == "chores":
            self._run_chores()
        elif step.name == "reopen":
            self.local.close()
            self.local.__init__(self.local.directory, clock=self.clock)  # type: ignore[misc]
        else:
            self._command(step.name, self._filled_in(step.payload))

    def _run_chores(self) -> None:
        before, rows_before = self._messages(), self._rows()
        self.local.dispatcher.run_chores("default")
        self._note_deleted_messages(before, self._messages())
        self._note_removed_rows(rows_before - self._rows(), [{}])

    def _command(self, name: str, payload: Plain) -> None:
        before, rows_before = self._messages(), self._rows()
        self.done += 1
        reply = self.local.ask(name, payload, f"history-{self.done:06}")
        if not reply["ok"]:
            assert reply["error"]["code"] in ("not-found", "conflict", "invalid"), reply
            return
        self.accepted.append((reply["id"], name, payload))
        commands = payload["commands"] if name == "batch" else [{"type": name, "payload": payload}]
        results = reply["result"] if name == "batch" else [reply["result"]]
        after = self._messages()
        self._note_deleted_messages(before, after)
        for command, result in zip(commands, results, strict=True):
            self._note(command["type"], command["payload"], result)
        self._note_outcome(commands, results, after)
        self._note_removed_rows(rows_before - self._rows(), commands)

    def _note(self, name: str, payload: Plain, result: Any) -> None:
        for subject, about in _parts_of(name, payload, result):
            for text in TEXT.findall(repr(about)):
                self.gone.discard(text)
                self.unsure.pop(text, None)
                self.texts[text] = subject
        if isinstance(result, dict) and name.startswith(("create-", "put-media")):
            kind = name.removeprefix("create-").removeprefix("put-")
            self.made.setdefault(kind, []).append(result.get("id", ""))
        self._note_deleted(name, payload, result)

    def _note_deleted(self, name: str, payload: Plain, result: Any) -> None:
        if name == "delete-room":
            self._forget_room(payload["roomId"])
        elif name in ("delete-channel", "delete-category", "remove-member"):
            self._forget(_subject_of(name, payload, result))
        elif name == "delete-media":
            self._forget(("media", payload["mediaId"]))
        elif name == "clear-all-data":
            for owner in {*self.texts.values(), *self.unsure.values()}:
                self._forget(owner)

    def _note_deleted_messages(self, before: dict[str, bool], after: dict[str, bool]) -> None:
        for message_id, was_deleted in before.items():
            if not was_deleted and after.get(message_id, True):
                self._forget(("message", message_id))

    def _note_outcome(self, commands: list[Plain], results: list[Any], after: dict[str, bool]) -> None:
        """Texts about a tombstone are gone, and texts about a message that did not outlive its batch."""
        executed = [(each["type"], each["payload"], result) for each, result in zip(commands, results, strict=True)]
        deleting = any(name.startswith(("delete-", "clear-")) for name, _, _ in executed)
        for name, payload, result in executed:
            subject = _subject_of(name, payload, result)
            saved = name in ("save-message", "create-message", "update-message")
            message_id = (payload["attachment"] if name == "save-attachment" else payload).get("messageId", subject[-1])
            if subject[0] == "attachment" and after.get(message_id) and len(executed) == 1:
                self._forget(subject, only=set(TEXT.findall(repr(payload))))
            elif subject[0] == "message" and (after.get(subject[1]) or (subject[1] not in after and saved)):
                self._forget(subject)
            elif subject[0] == "message" and deleting and len(executed) > 1:  # it may have been deleted in between
                self._stop_tracking(subject)
            elif name == "put-media" and result["mime"] != payload["mime"]:  # the file was there already
                self._stop_tracking(subject, only=payload["mime"])

    def _note_removed_rows(self, removed: set[Subject], commands: list[Plain]) -> None:
        """Texts of removed attachments and bans are gone; after a batch it is not known exactly which."""
        if len(commands) == 1:
            for subject in removed:
                self._forget(subject)
        else:
            for subject in {each for each in self.texts.values() if each[0] in ("attachment", "ban")}:
                self._stop_tracking(subject)

    def _stop_tracking(self, subject: Subject, only: str = "") -> None:
        for text in [text for text, owner in self.texts.items() if owner == subject and (not only or text == only)]:
            self.unsure[text] = self.texts.pop(text)

    def _forget(self, subject: Subject, only: set[str] | None = None) -> None:
        for known in (self.texts, self.unsure):
            for text in [text for text, owner in known.items() if owner == subject and (only is None or text in only)]:
                del known[text]
                self.gone.add(text)

    def _forget_room(self, room_id: str) -> None:
        for subject in {*self.texts.values(), *self.unsure.values()}:
            if subject[0] in ("room", "channel", "category", "member", "ban") and subject[1] == room_id:
                self._forget(subject)

    def _messages(self) -> dict[str, bool]:
        with self.local.store().read() as snapshot:
            return {row[0]: bool(row[1]) for row in snapshot.rows(sql("SELECT id, is_deleted FROM messages"))}

    def _rows(self) -> set[Subject]:
        """The attachments and bans that exist."""
        attachments = sql("SELECT 'attachment', id FROM attachments")
        bans = sql("SELECT 'ban', room_id, oder_id FROM bans")
        with self.local.store().read() as snapshot:
            return {row for query in (attachments, bans) for row in snapshot.rows(query)}

    def _filled_in(self, value: Any) -> Any:
        if isinstance(value, Ref):
            made = self.made.get(value.kind) or ["none"]
            return made[value.number % len(made)]
        if isinstance(value, _Emoji):
            own = self._filled_in(value.message).lower()
            return f"text-{own}-{value.person}-{value.number}."
        if isinstance(value, dict):
            return {name: self._filled_in(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self._filled_in(each) for each in value]
        if value == NEW_TEXT:
            self._text_number += 1
            return f"text-{self._text_number}."
        return value


CHILDREN = {"channels": ("channel", "id"), "categories": ("category", "id"), "members": ("member", "oderId")}
"""The lists of a room, with the noun and the key of their items."""


def _parts_of(name: str, payload: Plain, result: Any) -> Iterator[tuple[Subject, Any]]:
    """The subjects of a command, each with the fields that are about it."""
    subject = _subject_of(name, payload, result)
    if subject[0] != "room":
        yield subject, payload
        return
    room: Plain = payload.get("room") or payload.get("updates") or payload
    yield subject, {field: value for field, value in room.items() if field not in CHILDREN}
    for field, (noun, key) in CHILDREN.items():
        for child in room.get(field, []):
            yield (noun, subject[1], child[key]), child


def _subject_of(name: str, payload: Plain, result: Any) -> Subject:
    """What the texts in a command are about; for a room, those that are not about its lists."""
    inner: Plain = next(
        (payload[each] for each in ("message", "reaction", "attachment", "room", "ban") if each in payload), {}
    )
    if name == "create-message":
        return "message", result["id"]
    noun = name.partition("-")[2]
    if name in ("save-message", "save-attachment", "save-room"):
        return noun, inner["id"]
    if name in ("update-message", "save-reaction", "remove-reaction"):
        return "message", (inner or payload)["messageId"]
    if name == "update-room":
        return "room", payload["roomId"]
    if name == "put-media":
        return "media", result["id"]
    if name == "save-ban":
        return "ban", inner["roomId"], inner["oderId"]
    if noun == "member":
        return noun, payload["roomId"], payload.get("member", payload)["oderId"]
    if noun in ("channel", "category"):
        made = result["id"] if name.startswith("create-") else payload.get(noun, {}).get("id") or payload[f"{noun}Id"]
        return noun, payload.get("roomId", "default"), made
    return "other", ""


def texts_in(rows: Any) -> Iterator[str]:
    """The texts in rows, in whatever type they are."""
    for row in rows:
        for value in row:
            content = value if isinstance(value, bytes) else str(value).encode()
            yield from TEXT.findall(content.decode("latin-1"))
