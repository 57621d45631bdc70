"""The changes that handlers declare are the changes that SQLite observes, for every command of the registry.

SQLite's session extension records the net changes of every table while a command is executed. Each of them must be
covered by a declared change, and each declared change must be one of them, or a save of what was stored already.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from backscroll.handlers import changes as declared_by_handlers
from backscroll.schema.operations import OPERATIONS, Command
from tests.support.local import Local
from tests.support.random_commands import RandomCommands
from tests.support.sql import sql

SEED = 20261125
COMMANDS, COMMANDS_LONG = 4_000, 200_000
NOT_DECLARED = {"sequence", "scope", "commands", "log_references", "sessions", "unnamed_media"}
"""Tables that no change is about: internal ones, and sessions, which are not reported."""
NOT_SEEN = {"waiting_edits", "message_aliases", "reaction_removals"}
"""Tables whose rows are not visible: they only decide about what is saved later."""

Change = dict[str, Any]


class Seen(NamedTuple):
    """One thing that SQLite saw change: what, which one and where; `exists` says whether it still does."""

    noun: str
    subject: str
    room: str | None
    exists: bool


class Observer:
    """Records what changes on the connection that writes a scope."""

    def __init__(self, local: Local, connection: apsw.Connection) -> None:
        self._local = local
        self._connection = connection

    @contextlib.contextmanager
    def watch(self, seen: set[Seen]) -> Iterator[None]:
        """Add what changes inside the block to a set."""
        rooms = self._message_rooms()
        session = apsw.Session(self._connection, "main")
        session.attach()
        yield
        after = self._message_rooms()
        for change in apsw.Changeset.iter(session.changeset()):
            seen |= set(self._things(change, rooms, after))
        session.close()

    def _message_rooms(self) -> dict[str, str]:
        with self._local.store().read() as snapshot:
            return dict(snapshot.rows(sql("SELECT id, room_id FROM messages WHERE room_id <> ''")))

    def aliases(self) -> list[tuple[str, str]]:
        """The former ids of messages, and their ids now."""
        with self._local.store().read() as snapshot:
            return [(row[0], row[1]) for row in snapshot.rows(sql("SELECT message_id, target_id FROM message_aliases"))]

    def _things(self, change: Any, before: dict[str, str], after: dict[str, str]) -> Iterator[Seen]:  # noqa: C901  # a table
        """What a change of one row means in the vocabulary of changes."""
        key = change.old if change.old is not None else change.new
        exists = change.op != "DELETE"
        match change.name:
            case "messages":
                yield from self._message(key[0], before, after)
            case "reactions" | "attachments":
                at = 0 if change.name == "reactions" else 1
                for row in (change.old, change.new):
                    if row is not None and isinstance(row[at], str):
                        yield from self._message(row[at], before, after)
                if change.name == "attachments" and change.op == "UPDATE":
                    yield from self._message(self._message_of_attachment(key[0]), before, after)
            case "rooms":
                yield Seen("room", key[0], key[0], exists)
            case "channels" | "categories":
                yield Seen("room", key[0], key[0], self._room_exists(key[0]))
            case "members":
                yield Seen("member", key[1], key[0], exists)
            case "bans":
                yield Seen("ban", key[1], key[0], exists)
            case "users":
                yield Seen("user", key[0], None, exists)
            case "meta":
                yield Seen("current-user", "", None, True)
            case "media" | "media_parts":
                yield Seen("media", key[0], None, exists)
            case name:
                assert name in NOT_DECLARED | NOT_SEEN, name

    def _message(self, message_id: str, before: dict[str, str], after: dict[str, str]) -> Iterator[Seen]:
        if message_id in before and before[message_id] != after.get(message_id):
            yield Seen("message", message_id, before[message_id], False)
        if message_id in after:
            yield Seen("message", message_id, after[message_id], True)

    def _room_exists(self, room_id: str) -> bool:
        with self._local.store().read() as snapshot:
            return bool(snapshot.rows(sql("SELECT 1 FROM rooms WHERE id = :id"), id=room_id))

    def _message_of_attachment(self, attachment_id: str) -> str:
        with self._local.store().read() as snapshot:
            return str(snapshot.rows(sql("SELECT message_id FROM attachments WHERE id = :id"), id=attachment_id)[0][0])


@contextlib.contextmanager
def observed(directory: Path) -> Iterator[tuple[Local, Observer]]:
    """A store whose writing connection is observed: the first that opens the file."""
    opened: list[apsw.Connection] = []

    def note(connection: apsw.Connection) -> None:
        if connection.filename.endswith("default.db"):
            opened.append(connection)

    apsw.connection_hooks.append(note)
    try:
        with Local(directory) as local:
            yield local, Observer(local, opened[0])
    finally:
        apsw.connection_hooks.remove(note)


def problems_of(name: str, changes: list[Change], seen: set[Seen], payload: str) -> list[str]:
    """Where declared changes and seen changes differ.

    A save of what is stored already changes nothing that can be seen, and neither do commands of one batch that undo
    each other; then the command must at least name the thing. A batch may also save a thing and then remove it.
    """
    problems = [f"not declared: {each}" for each in seen if not any(_covers(change, each) for change in changes)]
    for change in changes:
        if any(_covers(change, each) for each in seen) or change.get("kind") in ("cleared", "replaced"):
            continue
        named = change.get("id") or ""
        if name == "batch" and (change["noun"], named) in {(each.noun, each.subject) for each in seen}:
            continue
        may_be_unseen = name == "batch" or change.get("kind", "saved") == "saved"
        if not may_be_unseen or json.dumps(named, ensure_ascii=False)[1:-1] not in payload:
            problems.append(f"not seen: {change}")
    return problems


def _covers(change: Change, seen: Seen) -> bool:
    if change["noun"] != seen.noun:
        return False
    in_room = change.get("roomId") in (None, seen.room)
    match change.get("kind", "saved"):
        case "saved":
            return seen.exists and in_room and (not seen.subject or change.get("id") == seen.subject)
        case "gone":
            return not seen.exists and in_room and change.get("id") == seen.subject
        case "cleared":
            return in_room and (not seen.exists or seen.noun == "current-user")
        case _:
            return in_room


def run(local: Local, observer: Observer, number: int, seed: int) -> tuple[list[str], Counter[str]]:
    """Execute random commands; what was wrong, and how many of each type took effect."""
    commands, problems, executed = RandomCommands(seed), [], Counter[str]()
    for _ in range(number):
        name, payload = commands.next()
        seen: set[Seen] = set()
        with observer.watch(seen):
            reply = local.ask(name, payload)
        if not reply["ok"]:
            if seen:
                problems.append(f"{name} was refused and changed {seen}")
            continue
        executed[name] += 1
        commands.learn(name, payload, reply["result"])
        [entry] = local.result("get-log", {"fromSeq": reply["seq"], "limit": 1})["entries"]
        text = json.dumps(payload, ensure_ascii=False) + json.dumps(entry.get("generated", {}))
        text += " ".join(now for before, now in observer.aliases() if before in text)
        problems += [f"{name} {payload}: {each}" for each in problems_of(name, entry.get("changes", []), seen, text)]
    return problems, executed


def test_declared_changes_are_the_observed_ones(tmp_path: Path, long: bool) -> None:
    """Checked over a random history of every command, alone and in batches, including refused ones."""
    print(f"seed {SEED}")  # noqa: T201  # shown when it fails
    with observed(tmp_path / "data") as (local, observer):
        problems, executed = run(local, observer, COMMANDS_LONG if long else COMMANDS, SEED)
    assert problems[:5] == []
    missing = {name for name, each in OPERATIONS.items() if issubclass(each, Command)} - set(executed)
    assert not missing, "none of these took effect: give each a _draw_… method in tests/support/random_commands.py"


@pytest.mark.parametrize("function", ["saved", "gone", "cleared", "replaced"])
def test_an_undeclared_kind_of_change_is_detected(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where handlers leave out one kind of declaration, the comparison finds it within a short history."""

    def nothing(*_: Any, **__: Any) -> None:
        return None

    monkeypatch.setattr(declared_by_handlers, function, nothing)
    with observed(tmp_path / "data") as (local, observer):
        problems, _ = run(local, observer, 600, SEED)
    assert any("not declared" in each for each in problems)


@pytest.mark.parametrize("noun", ["message", "room", "member", "user", "current-user", "ban", "media"])
def test_an_undeclared_noun_is_detected(noun: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where handlers leave out declarations about one noun, the comparison finds it."""
    for name in ("saved", "gone", "cleared", "replaced"):
        original: Callable[..., None] = getattr(declared_by_handlers, name)

        def some(context: Any, declared: str, *rest: Any, original: Callable[..., None] = original) -> None:
            if declared != noun:
                original(context, declared, *rest)

        monkeypatch.setattr(declared_by_handlers, name, some)
    with observed(tmp_path / "data") as (local, observer):
        problems, _ = run(local, observer, 600, SEED)
    assert any("not declared" in each for each in problems)
