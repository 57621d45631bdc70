"""Items that are removed by themselves: their texts leave the log, the files and exports; all other texts stay."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backscroll.clients.command_line.main import main
from tests.support.clocks import Clock
from tests.support.local import REPLAYED, Local, bytes_in, check_replay
from tests.support.messages import message_document

Plain = dict[str, Any]
Command = tuple[str, Plain]

MARKER = re.compile(r"<(?:gone|kept)/[a-z0-9 ]+>")


class Texts:
    """Makes texts that occur nowhere else, of an item that will be removed, or of something else."""

    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.kept: set[str] = set()

    def say(self, what: str, *, gone: bool) -> str:
        fate, texts = ("gone", self.gone) if gone else ("kept", self.kept)
        text = f"<{fate}/{what} {len(texts)}>"
        texts.add(text)
        return text


class Case:
    """Commands about items of one kind, and the command that removes one of them. `T` makes their texts."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts

    def said(self) -> list[Command]:
        """Everything that can be said about the item that will be removed, and about others beside it."""
        raise NotImplementedError

    def removal(self) -> Command:
        raise NotImplementedError

    def again(self) -> list[Command]:
        """What is said about an item of the same name after the removal."""
        raise NotImplementedError

    def made(self, name: str, result: Any) -> None:
        """The result of one of the commands."""

    def gone(self, what: str) -> str:
        return self._texts.say(what, gone=True)

    def kept(self, what: str) -> str:
        return self._texts.say(what, gone=False)


class DeleteAttachments(Case):
    """Two files of a message, one of which belonged to another message before."""

    def said(self) -> list[Command]:
        messages = [message_document(each, self.kept("content")) for each in ("m1", "m2")]
        return [
            *(("save-message", {"message": each}) for each in messages),
            ("save-attachment", self._attachment("a1", "m1", self.gone)),
            ("save-attachment", self._attachment("a1", "m1", self.gone)),
            ("save-attachment", self._attachment("a2", "m2", self.gone)),
            ("save-attachment", self._attachment("a2", "m1", self.gone)),
            ("save-attachment", self._attachment("a3", "m2", self.kept)),
            ("save-attachment", self._attachment("a4", "m1", self.kept)),
            ("save-attachment", self._attachment("a4", "m2", self.kept)),
        ]

    def removal(self) -> Command:
        return "delete-attachments-for-message", {"messageId": "m1"}

    def again(self) -> list[Command]:
        return [("save-attachment", self._attachment("a1", "m1", self.kept))]

    def _attachment(self, name: str, message: str, say: Callable[[str], str]) -> Plain:
        fields = ("filename", "mime", "uploaderPeerId", "filePath", "savedPath", "sha256")
        texts = {field: say(field.lower()) for field in fields}
        return {
            "attachment": {"id": name, "messageId": message, "size": 1, "metadata": {say("key"): say("value")}} | texts
        }


class RemoveBan(Case):
    """One person's ban from one room; others are banned there, and the person elsewhere."""

    def said(self) -> list[Command]:
        return [
            ("save-ban", self._ban("r1", "eve", self.gone)),
            ("save-ban", self._ban("r1", "eve", self.gone)),
            ("save-ban", self._ban("r1", "mallory", self.kept)),
            ("save-ban", self._ban("r2", "eve", self.kept)),
            ("save-room", {"room": {"id": "r1", "name": self.kept("room")}}),
        ]

    def removal(self) -> Command:
        return "remove-ban", {"roomId": "r1", "oderId": "eve"}

    def again(self) -> list[Command]:
        return [("save-ban", self._ban("r1", "eve", self.kept))]

    def _ban(self, room: str, person: str, say: Callable[[str], str]) -> Plain:
        texts = {"displayName": say("name"), "reason": say("reason"), "metadata": {"a": [say("metadata")]}}
        return {"ban": {"roomId": room, "oderId": person, "timestamp": 1} | texts}


class RemoveMember(Case):
    """One member of one room, saved alone and in lists, the last of which left it out; others are in the same lists."""

    def said(self) -> list[Command]:
        room = {"id": "r1", "name": self.kept("room"), "topic": self.kept("topic")}
        alone = (self._member("ada", self.kept), self._member("eve", self.gone), self._member("eve", self.gone))
        return [
            ("save-room", {"room": room | {"members": self._members()}}),
            ("save-room", {"room": {"id": "r2", "name": "r", "members": [self._member("eve", self.kept)]}}),
            *(("save-member", {"roomId": "r1", "member": each}) for each in alone),
            ("save-member", {"roomId": "r2", "member": self._member("eve", self.kept)}),
            ("update-room", {"roomId": "r1", "updates": {"members": self._members(), "topic": self.kept("topic")}}),
            ("update-room", {"roomId": "r1", "updates": {"members": [self._member("ada", self.kept)]}}),
        ]

    def removal(self) -> Command:
        return "remove-member", {"roomId": "r1", "oderId": "eve"}

    def again(self) -> list[Command]:
        return [("save-member", {"roomId": "r1", "member": self._member("eve", self.kept)})]

    def _members(self) -> list[Plain]:
        return [self._member("ada", self.kept), self._member("eve", self.gone)]

    def _member(self, name: str, say: Callable[[str], str]) -> Plain:
        texts = {field: say(field.lower()) for field in ("username", "displayName", "avatarUrl", "role")}
        return {"oderId": name, "joinedAt": 1, "metadata": {say("key"): say("value")}} | texts


class DeleteChild(Case):
    """A channel or category, in lists of its room and alone; there are others, and one of its name in another room."""

    noun, field = "", ""
    texts: tuple[str, ...] = ("name",)

    def said(self) -> list[Command]:
        first = {
            "id": "r1",
            "name": self.kept("room"),
            "topic": self.kept("topic"),
            "metadata": {"a": self.kept("free")},
        }
        members = [{"oderId": "ada", "displayName": self.kept("member")}]
        update = {self.field: [self._child("c1", self.gone), self._child("c2", self.kept)], "topic": self.kept("topic")}
        return [
            ("save-room", {"room": first | {self.field: self._children(), "members": members}}),
            ("save-room", {"room": {"id": "r2", "name": "r", self.field: [self._child("c1", self.kept)]}}),
            (f"update-{self.noun}", self._update("c1", "r1", self.gone)),
            (f"update-{self.noun}", self._update("c1", "r2", self.kept)),
            ("update-room", {"roomId": "r1", "updates": update}),
            (f"update-{self.noun}", self._update("c1", "r1", self.gone)),
            (f"update-{self.noun}", self._update("c2", "r1", self.kept)),
            (f"create-{self.noun}", {"roomId": "r1", "name": self.kept("made")}),
            (f"save-{self.noun}", {"roomId": "r1", self.noun: self._child("c1", self.gone)}),
            (f"save-{self.noun}", {"roomId": "r1", self.noun: self._child("c2", self.kept)}),
            (f"save-{self.noun}", {"roomId": "r2", self.noun: self._child("c1", self.kept)}),
        ]

    def removal(self) -> Command:
        return f"delete-{self.noun}", {"roomId": "r1", f"{self.noun}Id": "c1"}

    def again(self) -> list[Command]:
        return [
            ("update-room", {"roomId": "r1", "updates": {self.field: [self._child("c1", self.kept)]}}),
            (f"save-{self.noun}", {"roomId": "r1", self.noun: self._child("c1", self.kept)}),
        ]

    def _children(self) -> list[Plain]:
        return [self._child("c0", self.kept), self._child("c1", self.gone), self._child("c2", self.kept)]

    def _child(self, name: str, say: Callable[[str], str]) -> Plain:
        texts = {field: say(field) for field in self.texts}
        return {"id": name, "metadata": {"a": say("metadata")}} | texts

    def _update(self, name: str, room: str, say: Callable[[str], str]) -> Plain:
        updates = {"metadata": {say("key"): 1}} | {field: say(f"new {field}") for field in self.texts}
        return {f"{self.noun}Id": name, "roomId": room, "updates": updates}


class DeleteChannel(DeleteChild):
    noun, field = "channel", "channels"
    texts = ("name", "topic", "type")


class DeleteMadeChannel(DeleteChannel):
    """A channel whose id the daemon made, and whose name is in the result of its making."""

    channel = ""

    def said(self) -> list[Command]:
        return [
            (
                "save-room",
                {"room": {"id": "r1", "name": self.kept("room"), "channels": [self._child("c2", self.kept)]}},
            ),
            (
                "create-channel",
                {
                    "roomId": "r1",
                    "name": self.gone("made"),
                    "topic": self.gone("made topic"),
                    "type": self.gone("made type"),
                },
            ),
        ]

    def made(self, name: str, result: Any) -> None:
        if name == "create-channel":
            self.channel = result["id"]

    def removal(self) -> Command:
        return "delete-channel", {"roomId": "r1", "channelId": self.channel}

    def again(self) -> list[Command]:
        return [("create-channel", {"roomId": "r1", "name": self.kept("made again")})]


class DeleteCategory(DeleteChild):
    noun, field = "category", "categories"


CASES: list[type[Case]] = [
    *(DeleteAttachments, RemoveBan, RemoveMember),
    *(DeleteChannel, DeleteCategory, DeleteMadeChannel),
]
each_case = pytest.mark.parametrize("case_type", CASES, ids=lambda each: each.__name__)
each_way = pytest.mark.parametrize("batched", [False, True], ids=["alone", "batched"])


@pytest.fixture
def local(tmp_path: Path, clock: Clock) -> Iterator[Local]:
    with Local(tmp_path / "data", clock=clock) as local:
        yield local


def execute(local: Local, case: Case, commands: list[Command], *, batched: bool) -> None:
    if batched:
        members = [{"type": name, "payload": payload} for name, payload in commands]
        for (name, _), result in zip(commands, local.result("batch", {"commands": members}), strict=True):
            case.made(name, result)
        return
    for name, payload in commands:
        case.made(name, local.result(name, payload))


def markers_in(value: Any) -> set[str]:
    return set(MARKER.findall(value.decode("latin-1") if isinstance(value, bytes) else repr(value)))


def exported(directory: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The log of a data directory as a file, which is whole."""
    capsys.readouterr()
    assert main(["log", "export", "--data-dir", str(directory)]) == 0
    text = capsys.readouterr().out
    (directory.parent / "log.jsonl").write_text(text, encoding="utf-8")
    assert main(["log", "verify", str(directory.parent / "log.jsonl")]) == 0
    return text


@each_way
@each_case
def test_a_removed_item_leaves_the_log_and_nothing_else_does(
    local: Local, case_type: type[Case], batched: bool
) -> None:
    """Its texts are in no row of any table, and the result that had them is no longer stored. Entries that contained
    none of them are as they were, and digests and chain stay in all.
    """
    texts = Texts()
    case = case_type(texts)
    execute(local, case, case.said(), batched=batched)
    before = local.entries()
    assert markers_in([entry["payload"] for entry in before]) == texts.gone | texts.kept
    execute(local, case, [case.removal()], batched=batched)
    execute(local, case, case.again(), batched=batched)
    after = local.entries()
    assert markers_in([entry["payload"] for entry in after]) == texts.kept
    assert not markers_in(local.tables()) & texts.gone
    for old, new in zip(before, after, strict=False):
        if markers_in(old["payload"]) & texts.gone:
            assert new["redacted"]
            hidden = {"payload": None, "salt": None, "redacted": None}
            assert new | hidden == old | hidden
        else:
            assert new == old


@each_way
@each_case
def test_a_log_with_erased_items_replays_to_the_same_rows(local: Local, case_type: type[Case], batched: bool) -> None:
    """Also where an item of the same name was saved after the removal."""
    case = case_type(Texts())
    execute(local, case, case.said(), batched=batched)
    execute(local, case, [case.removal()], batched=batched)
    execute(local, case, case.again(), batched=batched)
    local.replay(local.entries())
    check_replay(local, REPLAYED)


@each_way
@each_case
def test_a_removed_item_is_stored_nowhere(tmp_path: Path, clock: Clock, case_type: type[Case], batched: bool) -> None:
    """After `compact-scope` no byte of it is in the scope's files or rows; every other text is."""
    texts = Texts()
    case = case_type(texts)
    with Local(tmp_path / "data", clock=clock) as local:
        execute(local, case, case.said(), batched=batched)
        execute(local, case, [case.removal()], batched=batched)
        local.result("compact-scope")
        assert markers_in(b"".join(bytes_in(tmp_path / "data").values())) == texts.kept
    assert markers_in(b"".join(bytes_in(tmp_path / "data").values())) == texts.kept


@each_way
@each_case
def test_a_removed_item_is_in_no_export(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str], case_type: type[Case], batched: bool
) -> None:
    """Every other text is in an exported log, which is whole and replays to the same rows."""
    texts = Texts()
    case = case_type(texts)
    with Local(tmp_path / "data", clock=clock) as local:
        execute(local, case, case.said(), batched=batched)
        execute(local, case, [case.removal()], batched=batched)
    text = exported(tmp_path / "data", capsys)
    assert markers_in(text) == texts.kept
    replay = ["replay", str(tmp_path / "log.jsonl"), "--verify", "--against-data-dir", str(tmp_path / "data")]
    assert main(replay) == 0, capsys.readouterr().err


@pytest.mark.parametrize("case_type", CASES[:-1], ids=lambda each: each.__name__)  # in a batch no id is known yet
def test_what_a_batch_says_and_removes_itself_is_not_stored(local: Local, case_type: type[Case]) -> None:
    """The row of the batch never has the texts of the item."""
    texts = Texts()
    case = case_type(texts)
    execute(local, case, [*case.said(), case.removal(), *case.again()], batched=True)
    assert markers_in([entry["payload"] for entry in local.entries()]) == texts.kept
    assert not markers_in(local.tables()) & texts.gone
    local.replay(local.entries())
    check_replay(local, REPLAYED)


def test_removing_what_is_not_there_erases_nothing(local: Local) -> None:
    """The entries about everything else are as they were."""
    local.result("save-message", {"message": message_document("m1", "<kept/content>")})
    local.result("save-ban", {"ban": {"roomId": "r1", "oderId": "eve", "timestamp": 1, "reason": "<kept/reason>"}})
    before = local.entries()
    local.result("remove-ban", {"roomId": "r1", "oderId": "mallory"})
    local.result("remove-member", {"roomId": "r1", "oderId": "mallory"})
    local.result("delete-attachments-for-message", {"messageId": "m1"})
    assert local.entries()[: len(before)] == before
    local.replay(local.entries())
    check_replay(local, REPLAYED)
