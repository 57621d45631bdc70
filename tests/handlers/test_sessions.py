"""handlers/sessions.py: sessions whose tokens their callers make; only hashes are stored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import (
    Conflict,
    CreateSession,
    CreateUser,
    DeleteExpiredSessions,
    DeleteSession,
    GetSession,
    Invalid,
    NotFound,
    SaveUser,
    Session,
    User,
)
from backscroll.schema.limits import INTEGER_MAX
from backscroll.schema.operations.sessions import hash_of
from tests.support.clocks import Clock
from tests.support.local import found_in
from tests.support.requests import body, send
from tests.support.waiting import wait_until


@pytest.fixture
def ada(client: Client) -> str:
    """The oderId of a stored user with another id."""
    client.execute(SaveUser(User(oder_id="ada", id="u1", username="ada")))
    return "ada"


def begin(client: Client, user_id: str, duration_ms: int, *, read_only: bool | None = None) -> tuple[str, Session]:
    """A new session: its token, and the result of the command."""
    command = CreateSession.with_new_token(user_id, duration_ms, read_only=read_only)
    assert command.token is not None
    return command.token, client.execute(command)


def test_a_session_is_found_by_its_token(client: Client, ada: str, clock: Clock) -> None:
    """A query returns the session as `create-session` returned it, until it ends."""
    token, session = begin(client, ada, 60_000)
    assert session == Session(user_id=ada, created_at=clock.now, expires_at=clock.now + 60_000)
    assert client.ask(GetSession(token)) == session
    assert client.ask(GetSession(token[:-1])) is None
    assert client.ask(GetSession(token + "x")) is None


def test_a_session_can_be_created_by_the_hash_of_its_token(client: Client, ada: str) -> None:
    """The daemon need not see the token until it is first used."""
    token = "a token that the daemon does not see"
    session = client.execute(CreateSession(ada, 60_000, token_hash=hash_of(token)))
    assert client.ask(GetSession(token)) == session
    client.execute(DeleteSession(token_hash=hash_of(token)))
    assert client.ask(GetSession(token)) is None


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({}, "$.payload"),
        ({"token": "x" * 22, "tokenHash": "0" * 64}, "$.payload"),
        ({"token": "x" * 21}, "$.payload.token"),
        ({"tokenHash": "0" * 63}, "$.payload.tokenHash"),
    ],
)
def test_a_session_needs_one_long_token_or_hash(transport: InProcess, ada: str, given: Any, path: str) -> None:
    """22 characters carry 128 bits; with fewer, or without a token, a session could be guessed."""
    reply = send(transport, body("create-session", {"userId": ada, "durationMs": 1} | given))
    assert (reply["error"]["code"], reply["error"]["details"]) == ("invalid", {"path": path})
    assert ("exactly one of token and tokenHash" in reply["error"]["message"]) == (path == "$.payload")


def test_a_token_is_used_once(client: Client, ada: str) -> None:
    """A second session with the token of another one is refused, and the first stays as it is."""
    token, session = begin(client, ada, 60_000)
    for again in (CreateSession("u1", 1, token), CreateSession("u1", 1, token_hash=hash_of(token))):
        with pytest.raises(Conflict):
            client.execute(again)
    assert client.ask(GetSession(token)) == session


@pytest.mark.parametrize("read_only", [None, False, True])
def test_read_only_is_stored(client: Client, ada: str, read_only: bool | None) -> None:
    """The daemon stores the flag for the application."""
    token, session = begin(client, ada, 1, read_only=read_only)
    assert session.read_only is read_only
    assert client.ask(GetSession(token)) == session


def test_a_session_needs_a_stored_user(client: Client, ada: str) -> None:
    """An unknown user is not found; a user named by id gets a session under their oderId."""
    with pytest.raises(NotFound) as refused:
        begin(client, "nobody", 1)
    assert refused.value.details == {"path": "$.payload.userId"}
    assert begin(client, "u1", 1)[1].user_id == ada


def test_an_expired_session_is_not_returned(client: Client, ada: str, clock: Clock) -> None:
    """It ends exactly at `expiresAt`, even before its row is removed."""
    token, session = begin(client, ada, 1_000)
    clock.now = session.expires_at - 1
    assert client.ask(GetSession(token)) == session
    for clock.now in (session.expires_at, session.expires_at + 1):
        assert client.ask(GetSession(token)) is None
    clock.now = session.expires_at - 1
    assert client.ask(GetSession(token)) == session, "nothing removed it"


def test_a_session_of_zero_duration_ends_at_once(client: Client, ada: str) -> None:
    """A duration of zero milliseconds is valid."""
    assert client.ask(GetSession(begin(client, ada, 0)[0])) is None


@pytest.mark.parametrize("duration", [-1, INTEGER_MAX, INTEGER_MAX + 1, 0.5, "1", None])
def test_an_out_of_range_duration_is_invalid(transport: InProcess, ada: str, duration: object) -> None:
    """A duration is a whole number of milliseconds, and the end of a session must be a valid time."""
    reply = send(transport, body("create-session", {"userId": ada, "durationMs": duration, "token": "x" * 22}))
    assert (reply["error"]["code"], reply["error"]["details"]) == ("invalid", {"path": "$.payload.durationMs"})


def test_new_tokens_are_distinct_and_long_enough() -> None:
    """They have 256 random bits as URL-safe text."""
    tokens = [CreateSession.with_new_token("ada", 1).token or "" for _ in range(500)]
    assert len({token[:12] for token in tokens}) == len(tokens)
    assert all(len(token) == 43 for token in tokens)


def test_tokens_are_in_no_file_and_no_log_line(start_daemon: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    """Neither the database and its WAL nor the debug log of the daemon has a token."""
    daemon = start_daemon("--log-level", "debug")
    with Client(daemon.endpoint) as client:
        user = client.execute(CreateUser("ed25519:8f3a"))
        tokens = [begin(client, user.oder_id, 60_000)[0] for _ in range(20)]
        assert all(client.ask(GetSession(token)) for token in tokens)
        client.execute(DeleteSession(tokens[0]))
        _hold_none(tmp_path, tokens)
    daemon.stop()
    _hold_none(tmp_path, tokens)


def _hold_none(directory: Path, tokens: list[str]) -> None:
    assert found_in(directory, "ed25519:8f3a"), "all is where we look"
    assert found_in(directory, *tokens) == {}


def test_delete_session_ends_one_session(client: Client, ada: str) -> None:
    """Other sessions of the user continue; deleting is idempotent."""
    (gone, _), (other, session) = (begin(client, ada, 1_000) for _ in range(2))
    for token in (gone, gone, "never was"):
        client.execute(DeleteSession(token))
    assert client.ask(GetSession(gone)) is None
    assert client.ask(GetSession(other)) == session


def test_delete_expired_sessions_counts_removed_sessions(client: Client, ada: str, clock: Clock) -> None:
    """Sessions that end now or earlier are removed and counted; the others stay."""
    begun = [begin(client, ada, duration) for duration in (10, 20, 20, 30)]
    assert client.execute(DeleteExpiredSessions()) == 0
    clock.now += 20
    assert client.execute(DeleteExpiredSessions()) == 3
    assert client.execute(DeleteExpiredSessions()) == 0
    clock.now -= 20
    assert [client.ask(GetSession(token)) for token, _ in begun] == [None, None, None, begun[3][1]]


def test_any_text_can_be_looked_up_as_a_token(client: Client, ada: str) -> None:
    """An unknown token is no session, and too long a text is refused."""
    for token in ("x", "'; DROP TABLE sessions; --", "👍" * 32, "\x01"):
        assert client.ask(GetSession(token)) is None
    for token in ("", "a\0b"):
        with pytest.raises(Invalid):
            client.ask(GetSession(token))


def test_expired_sessions_are_removed_periodically(start_daemon: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    """The daemon removes them from time to time and logs their number; others stay."""
    daemon = start_daemon("--chores-ms", "50")
    with Client(daemon.endpoint) as client:
        user = client.execute(CreateUser("key"))
        token, lasting = begin(client, user.oder_id, 600_000)
        for _ in range(3):
            begin(client, user.oder_id, 0)
        wait_until(lambda: _counted(tmp_path / "daemon.log") == 3)
        assert client.execute(DeleteExpiredSessions()) == 0
        assert client.ask(GetSession(token)) == lasting


def _counted(log: Path) -> int:
    """The number of sessions that the periodic task removed according to the log."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return sum(line.get("delete-expired-sessions", 0) for line in lines if line["event"] == "chores done")
