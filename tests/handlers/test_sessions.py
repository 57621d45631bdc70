"""handlers/sessions.py: tokens that nobody can guess, known to the file by their hash, for as long as they last."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import (
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
from tests.support.clocks import Clock
from tests.support.requests import body, send
from tests.support.waiting import wait_until


@pytest.fixture
def ada(client: Client) -> str:
    """The oderId of a stored user, whose id is another."""
    client.execute(SaveUser(User(oder_id="ada", id="u1", username="ada")))
    return "ada"


def test_a_session_is_found_by_its_token(client: Client, ada: str, clock: Clock) -> None:
    """The reply of its making is what a query gives, until it ends."""
    session = client.execute(CreateSession(ada, 60_000))
    assert session == Session(token=session.token, user_id=ada, created_at=clock.now, expires_at=clock.now + 60_000)
    assert client.ask(GetSession(session.token)) == session
    assert client.ask(GetSession(session.token[:-1])) is None
    assert client.ask(GetSession(session.token + "x")) is None


@pytest.mark.parametrize("read_only", [None, False, True])
def test_read_only_is_kept(client: Client, ada: str, read_only: bool | None) -> None:
    """The daemon keeps what the session may do, for those who ask."""
    session = client.execute(CreateSession(ada, 1, read_only=read_only))
    assert session.read_only is read_only
    assert client.ask(GetSession(session.token)) == session


def test_a_session_is_of_a_stored_user(client: Client, ada: str) -> None:
    """An unknown user is not found; one named by id has the session under the oderId, which is nobody else's."""
    with pytest.raises(NotFound) as refused:
        client.execute(CreateSession("nobody", 1))
    assert refused.value.details == {"path": "$.payload.userId"}
    assert client.execute(CreateSession("u1", 1)).user_id == ada


def test_an_expired_session_is_not_returned(client: Client, ada: str, clock: Clock) -> None:
    """It is over at `expiresAt` itself, before anything removed it."""
    session = client.execute(CreateSession(ada, 1_000))
    clock.now = session.expires_at - 1
    assert client.ask(GetSession(session.token)) == session
    for clock.now in (session.expires_at, session.expires_at + 1):
        assert client.ask(GetSession(session.token)) is None
    clock.now = session.expires_at - 1
    assert client.ask(GetSession(session.token)) == session, "nothing removed it"


def test_a_session_of_no_length_is_over_at_once(client: Client, ada: str) -> None:
    """Zero milliseconds are a length like any other."""
    assert client.ask(GetSession(client.execute(CreateSession(ada, 0)).token)) is None


@pytest.mark.parametrize("duration", [-1, INTEGER_MAX, INTEGER_MAX + 1, 0.5, "1", None])
def test_a_length_that_no_time_can_have_is_invalid(transport: InProcess, ada: str, duration: object) -> None:
    """Lengths are whole milliseconds, and sessions end before time does."""
    reply = send(transport, body("create-session", {"userId": ada, "durationMs": duration}))
    assert (reply["error"]["code"], reply["error"]["details"]) == ("invalid", {"path": "$.payload.durationMs"})


def test_tokens_are_distinct_and_of_at_least_128_bits(client: Client, ada: str) -> None:
    """None comes twice, none shares a beginning with another, and each carries 32 bytes of chance."""
    tokens = [each.token for each in client.pipeline([CreateSession(ada, 1)] * 500)]
    assert len({token[:12] for token in tokens}) == len(tokens)
    for token in tokens:
        assert len(base64.urlsafe_b64decode(token + "=")) * 8 >= 128
    drawn = b"".join(base64.urlsafe_b64decode(token + "=") for token in tokens)
    assert all(drawn.count(value) for value in range(256)), "every byte value is drawn"


def test_a_token_is_in_no_file_of_the_daemons(start_daemon: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    """Neither the database nor its log, nor what the daemon says at its most talkative, lets anybody in."""
    daemon = start_daemon("--log-level", "debug")
    with Client(daemon.endpoint) as client:
        user = client.execute(CreateUser("ed25519:8f3a"))
        tokens = [client.execute(CreateSession(user.oder_id, 60_000)).token for _ in range(20)]
        assert all(client.ask(GetSession(token)) for token in tokens)
        client.execute(DeleteSession(tokens[0]))
        _hold_none(tmp_path, tokens)
    daemon.stop()
    _hold_none(tmp_path, tokens)


def _hold_none(directory: Path, tokens: list[str]) -> None:
    files = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert any(b"ed25519:8f3a" in content for content in files.values()), "the files are where we look"
    for token in tokens:
        secrets = (token.encode(), base64.urlsafe_b64decode(token + "="))
        assert not [path for path, content in files.items() for secret in secrets if secret in content]


def test_a_deleted_session_is_over(client: Client, ada: str) -> None:
    """Others of the same user go on; ending it again, or one that never was, is fine."""
    gone, other = (client.execute(CreateSession(ada, 1_000)) for _ in range(2))
    for token in (gone.token, gone.token, "never was"):
        client.execute(DeleteSession(token))
    assert client.ask(GetSession(gone.token)) is None
    assert client.ask(GetSession(other.token)) == other


def test_delete_expired_sessions_counts_what_is_over(client: Client, ada: str, clock: Clock) -> None:
    """Those that end now or earlier go and are counted; the rest stay."""
    sessions = [client.execute(CreateSession(ada, duration)) for duration in (10, 20, 20, 30)]
    assert client.execute(DeleteExpiredSessions()) == 0
    clock.now += 20
    assert client.execute(DeleteExpiredSessions()) == 3
    assert client.execute(DeleteExpiredSessions()) == 0
    clock.now -= 20
    assert [client.ask(GetSession(each.token)) for each in sessions] == [None, None, None, sessions[3]]


def test_a_token_of_any_characters_can_be_asked_for(client: Client, ada: str) -> None:
    """Whatever somebody presents is no session, and too much of it is refused."""
    for token in ("x", "'; DROP TABLE sessions; --", "👍" * 32, "\x01"):
        assert client.ask(GetSession(token)) is None
    for token in ("", "a\0b"):
        with pytest.raises(Invalid):
            client.ask(GetSession(token))


def test_the_daemon_removes_expired_sessions_by_itself(
    start_daemon: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    """A task does it now and then, and logs how many; those that still run stay."""
    daemon = start_daemon("--chores-ms", "50")
    with Client(daemon.endpoint) as client:
        user = client.execute(CreateUser("key"))
        lasting = client.execute(CreateSession(user.oder_id, 600_000))
        for _ in range(3):
            client.execute(CreateSession(user.oder_id, 0))
        wait_until(lambda: _counted(tmp_path / "daemon.log") == 3)
        assert client.execute(DeleteExpiredSessions()) == 0
        assert client.ask(GetSession(lasting.token)) == lasting


def _counted(log: Path) -> int:
    """How many sessions the log says were removed by the task."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return sum(line.get("delete-expired-sessions", 0) for line in lines if line["event"] == "chores done")
