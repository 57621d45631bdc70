"""`backscroll copy`: as somebody uses it who moves from files to PostgreSQL, or back."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.bus.sqlite.whole_scopes import DirectoryPlace
from backscroll.clients.python import Client
from backscroll.schema import GetMessages, PutMediaPart, SaveMessage
from tests.clients.conftest import Run
from tests.support.messages import message_record
from tests.support.postgresql import Server


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory of a stopped daemon with two scopes."""
    directory = tmp_path / "data"
    with InProcess(directory) as transport:
        for scope in ("default", "ada"):
            client = Client(transport=transport, scope=scope)
            for number in range(20):
                client.execute(SaveMessage(message_record(number, room_id=scope)))
    return directory


@pytest.fixture
def database(postgresql: Server) -> Iterator[str]:
    with postgresql.database() as address:
        yield address


def contents(directory: Path, scope: str, store: str = "") -> list[str]:
    with InProcess(directory, store=store) as transport:
        return [each.id for each in Client(transport=transport, scope=scope).ask(GetMessages(scope))]


def test_all_scopes_move_into_a_database_and_back(run: Run, data: Path, tmp_path: Path, database: str) -> None:
    """A line for each scope, with what it has; what is not copied is said."""
    code, out, err = run("copy", data, database)
    assert (code, err) == (0, "")
    number = r"[\d,]+"
    line = rf"{{}}: copied, {number} rows, {number} bytes, [\d.]+ s: read again, equal"
    ada, default, tokens = out.splitlines()
    assert re.fullmatch(line.format("ada"), ada)
    assert re.fullmatch(line.format("default"), default)
    assert tokens.startswith("Access tokens and client keys are not copied")
    again = tmp_path / "again"
    code, out, _ = run("copy", database, again)
    assert (code, "as of the moment when its copy began" in out) == (0, True)
    for scope in ("default", "ada"):
        assert contents(data, scope) == contents(again, scope) == contents(tmp_path / "beside", scope, database)
    assert run("check", "--data-dir", again)[0] == 0


def test_named_scopes_are_copied_and_a_second_time_compared(run: Run, data: Path, tmp_path: Path) -> None:
    """Only those; a directory that is new lacks nothing that a daemon needs."""
    target = tmp_path / "target"
    code, out, _ = run("copy", data, target, "--scope", "ada")
    assert (code, "ada: copied" in out, "default" in out) == (0, True, False)
    code, out, _ = run("copy", data, target, "--scope", "ada", "--scope", "default")
    assert (code, "ada: was there already" in out, "default: copied" in out) == (0, True, True)
    assert len(contents(target, "ada")) == len(contents(target, "default")) == 20


def test_tokens_are_not_copied(run: Run, data: Path, tmp_path: Path) -> None:
    """Who may call is decided where the daemon runs."""
    assert run("token", "create", "bot", "--right", "read", "--data-dir", data)[0] == 0
    assert run("copy", data, tmp_path / "target")[0] == 0
    assert "bot" in run("token", "list", "--data-dir", data)[1]
    assert "bot" not in run("token", "list", "--data-dir", tmp_path / "target")[1]


def test_a_directory_in_use_is_refused(run: Run, data: Path, tmp_path: Path, database: str) -> None:
    """A daemon's files are neither copied nor written while it runs."""
    for words in ((data, database), (database, data)):
        with InProcess(data):
            code, out, err = run("copy", *words)
        assert (code, out, "is using" in err) == (1, "", True)
    assert run("copy", data, tmp_path / "target")[0] == 0


def test_another_state_in_the_target_is_refused(run: Run, data: Path, tmp_path: Path) -> None:
    """Nothing is copied, and the message says which scope it is and what to do."""
    target = tmp_path / "target"
    with InProcess(target) as transport:
        Client(transport=transport, scope="ada").execute(SaveMessage(message_record("other", room_id="ada")))
    code, out, err = run("copy", data, target)
    assert (code, out) == (1, "")
    assert "another state of the scope 'ada'" in err
    assert "--scope" in err
    assert contents(target, "ada") == ["other"]
    assert contents(target, "default") == []


def test_what_cannot_be_copied_is_said(run: Run, data: Path, tmp_path: Path, database: str) -> None:
    """Wrong words exit with 2, what is missing or damaged with 1; the target has nothing of it."""
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "one.txt").touch()
    refused = {
        (data, "mysql://here"): (2, "neither a directory nor an address"),
        (data, data): (2, "cannot be copied into itself"),
        (data, "postgresql://ada:secret@here/chat"): (2, "has a password in it"),
        (data,): (2, "required: TO"),
        (data, tmp_path / "letters"): (1, "neither a data directory nor empty"),
        (tmp_path / "nowhere", database): (1, "not a data directory"),
        (data, database, "--scope", "bo"): (1, "has no scope 'bo'"),
        (data, "postgresql://ada@127.0.0.1:1/chat"): (1, "cannot be used"),
    }
    for words, (expected, what) in refused.items():
        code, out, err = run("copy", *words)
        assert (code, out, what in err) == (expected, "", True), err
        assert "secret" not in err
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_is_made_only_for_what_is_copied(run: Run, data: Path, tmp_path: Path, database: str) -> None:
    """A copy that fails before anything was copied leaves no new directory, and where nothing is to copy it is said."""
    target = tmp_path / "new" / "target"
    assert run("copy", data, target, "--scope", "bo")[0] == 1
    assert run("copy", "postgresql://ada@127.0.0.1:1/chat", target)[0] == 1
    code, out, err = run("copy", database, target)
    assert (code, out, err) == (0, f"Nothing to copy: {database} has no scopes.\n", "")
    assert not (tmp_path / "new").exists()
    assert run("copy", data, target)[0] == 0
    assert len(contents(target, "ada")) == 20


def test_an_interrupted_copy_tells_what_is_done(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each scope has its line as soon as it is copied, and the message says to run it again for the rest."""

    def reading(self: DirectoryPlace, scope: str) -> Any:
        if scope == "default" and (tmp_path / "target" / "scopes").is_dir():
            raise KeyboardInterrupt
        return original(self, scope)

    original = DirectoryPlace.reading
    monkeypatch.setattr(DirectoryPlace, "reading", reading)
    code, out, err = run("copy", data, tmp_path / "target")
    assert (code, "ada: copied" in out, "default" in out) == (130, True, False)
    assert err.endswith("interrupted\nbackscroll: the scopes above are copied; run it again for the rest\n")
    monkeypatch.undo()
    code, out, _ = run("copy", data, tmp_path / "target")
    assert (code, "ada: was there already" in out, "default: copied" in out) == (0, True, True)


def test_damaged_data_are_not_copied(run: Run, data: Path, database: str) -> None:
    """A damaged part of a media ends the copy; the scopes that were copied before it are reported, and stay."""
    with InProcess(data) as transport:
        Client(transport=transport).execute(PutMediaPart(data=b"the bytes of a file"))
    [part] = data.glob("default.media/*/*")
    part.write_bytes(b"other bytes")
    code, out, err = run("copy", data, database)
    assert (code, "ada: copied" in out, "default: copied" in out) == (1, True, False)
    assert f"the part {part.name} of a media is damaged" in err
    assert "backscroll repair" in err
    assert err.endswith("run it again for the rest\n")
    assert contents(data.parent / "beside", "default", database) == []


def test_a_damaged_page_ends_a_copy(run: Run, data: Path, database: str) -> None:
    """What is read from a damaged database is an error, and never copied."""
    damaged = data / "default.db"
    content = bytearray(damaged.read_bytes())
    for at in range(len(content) // 2, len(content), 4096):
        content[at] ^= 1
    damaged.write_bytes(content)
    code, out, err = run("copy", data, database, "--scope", "default")
    assert (code, out, "is damaged" in err) == (1, "", True)
