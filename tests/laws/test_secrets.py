"""What is secret or deleted is nowhere: in no file, in no answer but those that need it, and not to be guessed."""

import hashlib
import itertools
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec import Raw

from backscroll.clients.command_line.main import main
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import OPERATIONS
from backscroll.schema.command_log import SALT_BYTES, Noun, canonical, digest_of
from backscroll.schema.operations import Command, Hello, Maintenance, Query
from backscroll.schema.operations.decoding import decode_operation
from backscroll.schema.wire import JSON
from tests.support.clocks import Clock
from tests.support.local import Local, bytes_in
from tests.support.messages import save_payload
from tests.support.peers import Peer
from tests.support.requests import example

Plain = dict[str, Any]
Sent = tuple[str, Plain]

ADMIN = {"get-log", "get-rows", "append-log"} | {
    name for name, each in OPERATIONS.items() if issubclass(each, Maintenance)
}
"""What only an administrator may do; all others must show nothing secret."""
QUERIES = {name for name, each in OPERATIONS.items() if issubclass(each, Query)} - ADMIN
ROOMS, MESSAGES, PEOPLE = ["r0", "r1", "r2"], [f"m{number}" for number in range(6)], ["ada", "bo"]
COMMANDS = 120


class Secrets:
    """Random commands with secrets and deletions, and what must be nowhere after them.

    `gone` are the deleted texts, `tokens` those of sessions, `passwords` the current ones by room; earlier passwords
    are in `gone`. A text is live while the item that it is about exists.
    """

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._seed = seed
        self._number = 0
        self.gone: set[str] = set()
        self.tokens: set[str] = set()
        self.passwords: dict[str, str] = {}
        self._texts: dict[tuple[str, str], set[str]] = {}
        self._room_of: dict[str, str] = {}  # of the messages that have a row
        self._deleted: set[str] = set()
        self._rooms: set[str] = set()

    def next(self) -> Sent:
        """One command, alone or as a batch of one or two; what it deletes is noted as if it succeeded."""
        if self._draw.random() < 0.2:
            members = [self._single() for _ in range(self._draw.choice([1, 2]))]
            return "batch", {"commands": [{"type": name, "payload": payload} for name, payload in members]}
        return self._single()

    def _single(self) -> Sent:
        kinds = {
            self._save_message: 8,
            self._update_message: 4,
            self._reaction: 3,
            self._attachment: 3,
            self._delete_message: 4,
            self._save_room: 3,
            self._update_room: 2,
            self._ban: 2,
            self._lift_ban: 1,
            self._session: 3,
            self._end_session: 1,
            self._clear_room: 1,
            self._delete_room: 1,
        }
        [kind] = self._draw.choices(list(kinds), list(kinds.values()))
        return kind()

    def _new(self, *about: str) -> str:
        """A new text about an item; it is gone at once if that was deleted."""
        self._number += 1
        text = f"<{self._seed} secret {self._number}>"
        if about[0] == "message" and about[1] in self._deleted:
            self.gone.add(text)
        else:
            self._texts.setdefault((about[0], about[1]), set()).add(text)
        return text

    def _forget(self, noun: str, key: str) -> None:
        self.gone |= self._texts.pop((noun, key), set())

    def _existing(self) -> str | None:
        return self._draw.choice(sorted(self._room_of)) if self._room_of else None

    def _save_message(self) -> Sent:
        message_id = self._draw.choice(MESSAGES)
        room = self._room_of.setdefault(message_id, self._draw.choice(ROOMS))
        texts: Plain = {}
        if self._draw.random() < 0.5:
            texts["metadata"] = {"a": self._new("message", message_id)}
        if self._draw.random() < 0.3:
            texts["forwardedFrom"] = {"chat": self._new("message", message_id)}
            texts["mentions"] = [self._new("message", message_id)]
        payload = save_payload(message_id, self._new("message", message_id), room, **texts)
        return "save-message", payload

    def _update_message(self) -> Sent:
        message_id = self._existing()
        if message_id is None or message_id in self._deleted:
            return self._save_message()
        updates = {"content": self._new("message", message_id)}
        if self._draw.random() < 0.3:
            updates["roomId"] = self._room_of[message_id] = self._draw.choice(ROOMS)
        return "update-message", {"messageId": message_id, "updates": updates}

    def _reaction(self) -> Sent:
        message_id = self._existing()
        if message_id is None or message_id in self._deleted:
            return self._save_message()
        emoji = self._new("message", message_id)
        return "save-reaction", {"reaction": {"messageId": message_id, "oderId": "ada", "emoji": emoji}}

    def _attachment(self) -> Sent:
        message_id = self._existing()
        if message_id is None or message_id in self._deleted:
            return self._save_message()
        attachment = {"id": f"a{self._number}", "messageId": message_id, "size": 1, "mime": "a/b"}
        return "save-attachment", {"attachment": attachment | {"filename": self._new("message", message_id)}}

    def _delete_message(self) -> Sent:
        message_id = self._existing()
        if message_id is None:
            return self._save_message()
        self._deleted.add(message_id)
        self._forget("message", message_id)
        return "delete-message", {"messageId": message_id}

    def _password(self, room_id: str) -> str:
        self._number += 1
        if room_id in self.passwords:
            self.gone.add(self.passwords[room_id])
        self.passwords[room_id] = f"<{self._seed} password {self._number}>"
        return self.passwords[room_id]

    def _save_room(self) -> Sent:
        room_id = self._draw.choice(ROOMS)
        self._rooms.add(room_id)
        room = {"id": room_id, "name": self._new("room", room_id), "password": self._password(room_id)}
        return "save-room", {"room": room}

    def _update_room(self) -> Sent:
        if not self._rooms:
            return self._save_room()
        room_id = self._draw.choice(sorted(self._rooms))
        updates = {"topic": self._new("room", room_id), "password": self._password(room_id)}
        return "update-room", {"roomId": room_id, "updates": updates}

    def _ban(self) -> Sent:
        room_id, person = self._draw.choice(ROOMS), self._draw.choice(PEOPLE)
        ban = {"roomId": room_id, "oderId": person, "timestamp": 1, "reason": self._new("ban", f"{room_id} {person}")}
        return "save-ban", {"ban": ban}

    def _lift_ban(self) -> Sent:
        room_id, person = self._draw.choice(ROOMS), self._draw.choice(PEOPLE)
        self._forget("ban", f"{room_id} {person}")
        return "remove-ban", {"roomId": room_id, "oderId": person}

    def _session(self) -> Sent:
        self._number += 1
        token = f"<{self._seed} token of session {self._number}>"
        self.tokens.add(token)
        return "create-session", {"userId": "ada", "durationMs": 10**9, "token": token}

    def _end_session(self) -> Sent:
        return "delete-session", {"token": self._draw.choice(sorted(self.tokens) or ["none"])}

    def _clear_room(self) -> Sent:
        room_id = self._draw.choice(ROOMS)
        self._clear(room_id)
        return "clear-room-messages", {"roomId": room_id}

    def _delete_room(self) -> Sent:
        room_id = self._draw.choice(ROOMS)
        self._clear(room_id)
        self._forget("room", room_id)
        self._rooms.discard(room_id)
        if room_id in self.passwords:
            self.gone.add(self.passwords.pop(room_id))
        for person in PEOPLE:
            self._forget("ban", f"{room_id} {person}")
        return "delete-room", {"roomId": room_id}

    def _clear(self, room_id: str) -> None:
        for message_id in [each for each, room in self._room_of.items() if room == room_id]:
            self._forget("message", message_id)
            del self._room_of[message_id]


def questions() -> Iterator[Sent]:
    """Every query that needs no administrator, about everything that the random commands are about."""
    yield from (("get-changes", {"limit": 500, "nouns": [noun]}) for noun in get_args(Noun))
    for room in ROOMS:
        yield from ((name, {"roomId": room}) for name in ("get-messages", "get-message-page", "get-room"))
        yield from ((name, {"roomId": room}) for name in ("get-bans-for-room", "get-users-by-room", "list-channels"))
        yield from ((name, {"roomId": room}) for name in ("list-categories", "get-members"))
        yield from (("get-member", {"roomId": room, "oderId": person}) for person in PEOPLE)
        yield "get-channel", {"roomId": room, "channelId": "general"}
        yield "list-messages", {"roomId": room, "channelId": "general"}
        yield from (("is-user-banned", {"roomId": room, "userId": person}) for person in PEOPLE)
    for message_id in MESSAGES:
        yield "get-message-by-id", {"messageId": message_id}
        yield "get-reactions-for-message", {"messageId": message_id}
        yield "get-attachments-for-message", {"messageId": message_id}
    yield "get-messages-by-ids", {"messageIds": MESSAGES, "attachments": True}
    for name in (
        "get-all-rooms",
        "get-all-attachments",
        "list-media",
        "list-users",
        "get-current-user",
        "ping",
        "health",
        "describe",
        "get-tasks",
    ):
        yield name, {}
    yield from (("get-user", {"userId": person}) for person in PEOPLE)
    yield "get-user-by-pubkey", {"pubkey": "k"}
    yield "hello", example(Hello)
    yield "get-media", {"mediaId": "none"}
    yield "get-media-part", {"mediaId": "none"}


def test_every_query_is_asked() -> None:
    """A new one must be added to `questions`; `get-session` is asked with each token."""
    assert {name for name, _ in questions()} | {"get-session"} == QUERIES


def found(secrets: set[str], text: bytes) -> set[str]:
    return {each for each in secrets if each.encode() in text}


def check_files(directory: Path, secrets: Secrets) -> None:
    for name, content in bytes_in(directory).items():
        assert not found(secrets.gone | secrets.tokens, content), name


def test_secrets_and_deleted_texts_are_nowhere(long: bool) -> None:
    """After random commands: in no file, in no answer to a reader or writer, and no token or password in the log.

    Retries of all commands, and commands as the log shows them, are among the answers.
    """
    for seed in range(200 if long else 20):
        with tempfile.TemporaryDirectory() as directory:
            _check_history(Path(directory) / "data", seed)


def _check_history(directory: Path, seed: int) -> None:
    secrets, clock, sent = Secrets(seed), Clock(), []
    with Local(directory, clock=clock) as local:
        local.result("save-user", {"user": {"oderId": "ada", "id": "u", "username": "ada"}})
        for number in range(COMMANDS):
            name, payload = secrets.next()
            reply = local.ask(name, payload, f"sent-{number:05}")
            assert reply["ok"], (seed, name, payload, reply)
            assert not found(secrets.tokens, repr(reply).encode())
            sent.append((name, payload, f"sent-{number:05}"))
            clock.now += 1_000
        assert len(secrets.gone) > COMMANDS / 10, "much is deleted"
        assert secrets.tokens
        local.result("compact-scope")
        check_files(directory, secrets)
        answers = [local.ask(name, payload) for name, payload in questions()]
        answers += [local.ask("get-session", {"token": token}) for token in sorted(secrets.tokens)]
        answers += [local.ask(*each) for each in sent]
        log = local.entries()
        commands = [each for each in log if each.get("payload") is not None]
        answers += [local.ask(each["type"], each["payload"], each["id"]) for each in commands]
        for answer in answers:
            assert not found(secrets.gone | secrets.tokens, repr(answer).encode()), (seed, answer)
        passwords = set(secrets.passwords.values())
        assert found(passwords, repr(answers).encode()) == passwords, "those who read a room get its password"
        assert not found(secrets.gone | secrets.tokens | passwords, repr(log).encode()), seed
        local.result("compact-scope")
    check_files(directory, secrets)


def test_recordings_and_exports_have_no_secrets(
    start_daemon: Callable[..., DaemonProcess], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a real daemon: neither the file of `--record`, nor its log lines, nor what an administrator exports."""
    secrets = Secrets(7)
    daemon = start_daemon("--record", str(tmp_path / "recorded.jsonl"), "--log-level", "debug")
    with Peer(daemon.endpoint) as peer:
        assert peer.ask("save-user", {"user": {"oderId": "ada", "id": "u", "username": "ada"}})["ok"]
        for _ in range(COMMANDS):
            assert peer.ask(*secrets.next())["ok"]
    passwords = {each for each in secrets.gone if "password" in each} | set(secrets.passwords.values())
    daemon.stop()
    assert main(["log", "export", "--data-dir", str(tmp_path / "data")]) == 0
    exported = capsys.readouterr().out.encode()
    assert b"create-session" in exported
    files = bytes_in(tmp_path) | {"exported": exported}
    assert any(b"create-session" in content for name, content in files.items() if name == "recorded.jsonl")
    for name, content in files.items():
        kept = set(secrets.passwords.values()) if name.startswith("data/") else set()
        assert not found(secrets.tokens | passwords - kept, content), name


# Guessing a deleted text

PINS = [f"PIN {number:04}" for number in range(10_000)]
RIGHT = "PIN 4711"


def pin_commands(pin: str) -> list[tuple[Sent, Sent]]:
    """Commands that save the PIN, each with the one that deletes it."""
    room = {"id": "r9", "name": pin}
    ban = {"roomId": "r1", "oderId": "eve", "timestamp": 1, "reason": pin}
    message = ("save-message", save_payload("m1", pin))
    batch = {"commands": [{"type": "save-message", "payload": save_payload("m2", pin)}]}
    return [
        (message, ("delete-message", {"messageId": "m1"})),
        (("batch", batch), ("delete-message", {"messageId": "m2"})),
        (("save-room", {"room": room}), ("delete-room", {"roomId": "r9"})),
        (("save-ban", {"ban": ban}), ("remove-ban", {"roomId": "r1", "oderId": "eve"})),
    ]


@pytest.mark.parametrize("number", range(len(pin_commands(""))))
def test_a_deleted_pin_cannot_be_guessed(tmp_path: Path, number: int, long: bool) -> None:
    """Not from its digest, with any salt that the log still has, and not by sending guesses under the logged id: every
    answer is the same. Before the deletion, the same attack finds the PIN at once.
    """
    saving, deleting = pin_commands(RIGHT)[number]
    guesses = [pin_commands(pin)[number][0] for pin in PINS]
    with Local(tmp_path / "data", clock=Clock()) as local:
        local.result("save-message", save_payload("m0", "another message, with its salt"))
        local.result(*saving, "saved")
        before = local.entries()[1]
        payloads = [canonical_of(*guess) for guess in guesses]
        assert attack(before["digest"], payloads, [bytes.fromhex(before["salt"])]) == [RIGHT]
        local.result(*deleting)
        local.result("compact-scope")
        log = local.entries()
        [entry] = [each for each in log if each["id"] == "saved"]
        assert (entry["redacted"], entry.get("salt"), entry["digest"]) == (True, None, before["digest"])
        salts = [bytes.fromhex(each["salt"]) for each in log if each.get("salt")]
        salts += [b"", bytes(SALT_BYTES), hashlib.sha256(b"saved").digest()[:SALT_BYTES]]
        assert attack(entry["digest"], payloads, salts) == []
        step = 1 if long else 97
        tried = [*guesses[::step], saving]
        answers = {repr(local.ask(*guess, "saved")) for guess in tried}
        assert len(answers) == 1
        assert before["salt"].encode() not in b"".join(bytes_in(local.directory).values())
        raw = bytes.fromhex(before["salt"])
        assert not [name for name, content in bytes_in(local.directory).items() if raw in content]


def canonical_of(name: str, payload: Plain) -> bytes:
    command = decode_operation(name, Raw(JSON.encode(payload)), JSON)
    assert isinstance(command, Command)
    return canonical(command)


def attack(digest: str, payloads: list[bytes], salts: list[bytes]) -> list[str]:
    """The PINs whose digest with one of the salts is this one."""
    tried = itertools.product(zip(PINS, payloads, strict=True), salts)
    return [pin for (pin, payload), salt in tried if digest_of(salt, payload).hex() == digest]
