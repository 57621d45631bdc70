"""`backscroll token` and `backscroll keys`, and calling a daemon with what they make."""

import json
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backscroll.bus.directory import note_store
from backscroll.clients.python import Client
from backscroll.clients.python.address import Curve
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import CreateToken, Invalid, ListTokens, Unavailable
from backscroll.schema.limits import MILLIS_MAX
from tests.clients.conftest import Run
from tests.support.messages import save_payload
from tests.support.postgresql import Server

StartDaemon = Callable[..., DaemonProcess]


def test_a_token_that_was_created_can_be_used_until_it_is_revoked(
    run: Run, start_on_each_store: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is printed once, works from the environment for its right and scope, and is refused after it was revoked."""
    daemon = start_on_each_store("--endpoint", "tcp://127.0.0.1:*")
    there = ("--data-dir", daemon.data_dir)
    code, out, err = run("token", "create", "bot", "--right", "write", "--scope", "ada", "--expires", "30d", *there)
    assert (code, "only now" in err) == (0, True)
    token = out.strip()
    assert re.fullmatch(r"bot\.[\w-]{43}", token)
    files = [path for path in daemon.data_dir.iterdir() if path.is_file()]
    assert not [path for path in files if token.encode() in path.read_bytes()]
    monkeypatch.setenv("BACKSCROLL_TOKEN", token)
    call = ("call", "save-message", json.dumps(save_payload(1)), "--endpoint", daemon.endpoint)
    assert run(*call, "--scope", "ada")[0] == 0
    code, _, err = run(*call, "--scope", "bob")
    assert code == 1
    assert json.loads(err)["code"] == "forbidden"
    code, _, err = run("call", "get-log", "--endpoint", daemon.endpoint, "--scope", "ada")
    assert json.loads(err)["message"] == "$.type: get-log needs the right 'admin'; the token 'bot' has 'write'"
    monkeypatch.delenv("BACKSCROLL_TOKEN")
    code, out, _ = run("token", "list", *there)
    assert code == 0
    assert re.search(r"^bot +write +ada +\d{4}-", out, re.MULTILINE)
    assert run("token", "revoke", "bot", *there)[0] == 0
    assert "bot" not in run("token", "list", *there)[1]
    monkeypatch.setenv("BACKSCROLL_TOKEN", token)
    code, _, err = run(*call, "--scope", "ada", "--timeout-ms", "500")
    assert code == 1
    assert json.loads(err)["code"] == "unauthenticated"


def test_a_token_in_the_environment_does_not_disturb_work_on_a_data_directory(
    run: Run, start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that name a directory use the token of the daemon that serves it."""
    daemon = start_daemon("--endpoint", "tcp://127.0.0.1:*")
    monkeypatch.setenv("BACKSCROLL_TOKEN", "other.secret")
    there = ("--data-dir", daemon.data_dir)
    assert run("call", "ping", *there)[:2] == (0, '{"pong": true}\n')
    assert run("token", "create", "bot", "--right", "read", *there)[0] == 0
    assert run("log", "verify", *there)[0] == 0


def test_a_daemon_that_refuses_is_not_taken_for_none(
    run: Run, start_daemon: StartDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing is said, and no second daemon is started beside it."""
    daemon = start_daemon("--endpoint", "tcp://127.0.0.1:*")
    file = daemon.data_dir / "endpoint.json"
    ready = json.loads(file.read_text())
    del ready["token"]
    file.write_text(json.dumps(ready))
    code, _, err = run("log", "export", "--data-dir", daemon.data_dir)
    assert (code, "there is no token for" in err) == (1, True)


@pytest.mark.parametrize(
    "words", [("token", "list"), ("token", "revoke", "a"), ("keys", "list"), ("keys", "revoke", "a")], ids=" ".join
)
def test_a_mistyped_directory_stays_empty(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Only what makes a token or a key starts a daemon on a new directory."""
    code, _, err = run(*words, "--data-dir", tmp_path / "none")
    assert (code, "holds no database" in err) == (2, True)
    assert not (tmp_path / "none").exists()


def test_a_token_for_one_scope_exports_and_verifies_its_log(
    run: Run, start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a right on the list of scopes; a scope that does not exist is said not to, and not created."""
    daemon = start_daemon("--endpoint", "tcp://127.0.0.1:*")
    there = ("--data-dir", daemon.data_dir)
    assert run("call", "save-message", json.dumps(save_payload(1)), "--scope", "ada", *there)[0] == 0
    code, out, _ = run("token", "create", "bot", "--right", "admin", "--scope", "ada", "--scope", "bob", *there)
    assert code == 0
    monkeypatch.setenv("BACKSCROLL_TOKEN", out.strip())
    by_tcp = ("--endpoint", daemon.endpoint)
    code, out, _ = run("log", "export", "--scope", "ada", *by_tcp)
    assert (code, len(out.splitlines())) == (0, 2)
    assert run("log", "verify", "--scope", "ada", *by_tcp)[0] == 0
    code, _, err = run("log", "export", "--scope", "bob", *by_tcp)
    assert (code, "there is no scope 'bob'" in err) == (2, True)
    assert json.loads(run("call", "list-scopes", *there)[1]) == ["ada", "default"]


def test_tokens_can_be_made_before_the_first_start(run: Run, tmp_path: Path) -> None:
    """A daemon is started for as long as the command takes, in a new directory too."""
    there = ("--data-dir", tmp_path / "new")
    assert run("token", "create", "reader", "--right", "read", *there)[0] == 0
    assert "reader" in run("token", "list", *there)[1]
    with DaemonProcess(tmp_path / "new") as daemon, Client(daemon.endpoint) as client:
        [token] = client.execute(ListTokens())
    assert (token.name, token.right, token.scopes, token.expires_at) == ("reader", "read", None, None)


def test_creating_says_which_daemon_it_is_for(run: Run, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """On standard error: a new directory is one where the reader's daemon may not look."""
    new = ("--right", "read", "--data-dir", tmp_path / "data")
    code, out, err = run("token", "create", "a", *new)
    assert (code, out.count("\n")) == (0, 1)
    assert f"'a' is for the daemons that will be started in {tmp_path / 'data'}\n" in err
    assert "this directory is new; if your daemon has another, name that with --data-dir" in err
    err = run("keys", "create", "b", "--data-dir", tmp_path / "data")[2]
    assert "no daemon is running there now" in err
    daemon = start_daemon(data_dir=tmp_path / "data")
    assert f"'c' is for the daemon in {tmp_path / 'data'}\n" in run("token", "create", "c", *new)[2]
    there = ("--right", "read", "--endpoint", daemon.endpoint)
    assert f"'d' is for the daemon at {daemon.endpoint}\n" in run("token", "create", "d", *there)[2]


def test_with_a_database_a_daemon_has_to_run(
    run: Run, start_daemon: StartDaemon, postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is created is for all daemons on it. None is started: it would have files, which no daemon looks at."""
    there = ("--data-dir", tmp_path / "data")
    with postgresql.database() as address:
        daemon = start_daemon("--store", address)
        err = run("token", "create", "a", "--right", "read", *there)[2]
        assert f"'a' is for the daemon in {tmp_path / 'data'}, and all others on its database\n" in err
        daemon.stop()
        before = sorted(path.name for path in (tmp_path / "data").iterdir())
        for words in ("token create b --right read", "token list", "keys create b", "keys server", "log export"):
            code, out, err = run(*words.split(), *there)
            assert (code, out) == (2, "")
            assert f"no daemon is running there: run `backscroll serve --store '{address}' --data-dir" in err
        assert sorted(path.name for path in (tmp_path / "data").iterdir()) == before
        monkeypatch.setenv("BACKSCROLL_STORE", address)
        code, out, err = run("token", "create", "b", "--right", "read", "--data-dir", tmp_path / "new")
        assert (code, out) == (2, "")
        assert f"BACKSCROLL_STORE names a database, and no daemon is running in {tmp_path / 'new'}" in err
        assert not (tmp_path / "new").exists()
    monkeypatch.delenv("BACKSCROLL_STORE")
    (tmp_path / "data" / "store.json").unlink()
    start_daemon().stop()
    assert run("token", "list", *there)[0] == 0  # the last daemon had files


def test_how_to_start_the_daemon_is_said_with_its_database(run: Run, tmp_path: Path) -> None:
    """Clients tell the whole command, in words that a shell takes: without its store the daemon would be another."""
    address = "postgresql://backscroll@/chat?host=/run/postgresql&sslmode=disable"
    command = f"`backscroll serve --store '{address}' --data-dir {tmp_path}`"
    note_store(tmp_path, address)
    for words in (["call", "ping"], ["watch"], ["token", "list"]):
        code, out, err = run(*words, "--data-dir", tmp_path)
        assert (code != 0, out, command in err) == (True, "", True), err
    with pytest.raises(Unavailable, match=re.escape(command)):
        Client(data_dir=tmp_path)
    for others in (["replay", "-", "--into", tmp_path], ["copy", tmp_path, tmp_path / "other"]):
        code, out, err = run(*others)
        assert (code != 0, out, "is in PostgreSQL" in err) == (True, "", True), err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store.json"]


@pytest.mark.parametrize("words", ["token list", "token revoke a", "keys list", "keys revoke a", "keys server"])
def test_only_creating_sets_up_a_directory(run: Run, tmp_path: Path, words: str) -> None:
    """Where nothing is stored there is nothing to list or revoke: another directory was meant."""
    code, out, err = run(*words.split(), "--data-dir", tmp_path / "new")
    assert (code, out) == (2, "")
    assert "holds no database; name the data directory of a daemon" in err
    assert not (tmp_path / "new").exists()


def test_expired_tokens_are_marked(run: Run, start_on_each_store: StartDaemon) -> None:
    """They stay in the list until another token is created."""
    daemon = start_on_each_store()
    with Client(daemon.endpoint) as client:
        client.execute(CreateToken.of("new." + "y" * 40, "new", "read", expires_at=MILLIS_MAX))
        client.execute(CreateToken.of("old." + "x" * 40, "old", "read", expires_at=1))
    out = run("token", "list", "--data-dir", daemon.data_dir)[1]
    assert re.findall(r"^(\w+) .*\(expired\)", out, re.MULTILINE) == ["old"]


def test_a_name_that_cannot_be_one_is_explained(run: Run, start_daemon: StartDaemon) -> None:
    """The message says which characters a name may have."""
    there = ("--right", "read", "--data-dir", start_daemon().data_dir)
    code, _, err = run("token", "create", "bad name", *there)
    assert code == 1
    assert "$.payload.name: expected 1 to 64 letters, digits, dots, hyphens or underscores" in err


@pytest.mark.parametrize(("word", "seconds"), [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000)])
def test_a_token_expires_after_the_given_time(run: Run, start_daemon: StartDaemon, word: str, seconds: int) -> None:
    """In seconds, minutes, hours or days."""
    daemon = start_daemon()
    assert run("token", "create", "a", "--right", "read", "--expires", word, "--endpoint", daemon.endpoint)[0] == 0
    with Client(daemon.endpoint) as client:
        [token] = client.execute(ListTokens())
    assert token.expires_at == pytest.approx((time.time() + seconds) * 1000, abs=30_000)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["token", "create", "a", "--right", "read", "--expires", "soon"], "--expires: give a duration such as 30d"),
        (["token", "create", "a", "--right", "read", "--expires", "0d"], "--expires: give a duration such as 30d"),
        (["token", "create", "a"], "--right"),
        (["token", "create", "a", "--right", "root"], "--right"),
        (["token"], "COMMAND"),
        (["keys", "make"], "COMMAND"),
    ],
)
def test_wrong_usage_is_explained(run: Run, tmp_path: Path, words: list[str], says: str) -> None:
    """It exits with 2, and starts no daemon."""
    code, out, err = run(*words, *(("--data-dir", tmp_path / "none") if len(words) > 2 else ()))
    assert (code, out) == (2, "")
    assert says in err
    assert not (tmp_path / "none").exists()


def test_a_client_with_keys_calls_over_curve(
    run: Run, start_on_each_store: StartDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and token come from the environment; the secret key is in the new file alone, which is private."""
    there = ("--data-dir", tmp_path / "data")
    file = tmp_path / "laptop.keys"
    first = start_on_each_store()
    assert run("keys", "create", "laptop", "--to", file, *there)[:2] == (0, "")
    assert file.stat().st_mode & 0o777 == 0o600
    keys = Curve.read(file)
    assert run("keys", "server", *there)[1] == f"{keys.server_key}\n"
    assert keys.public_key in run("keys", "list", *there)[1]
    files = [path for path in (tmp_path / "data").iterdir() if path.is_file()]
    assert not [path for path in files if keys.secret_key.encode() in path.read_bytes()]
    token = run("token", "create", "laptop", "--right", "read", *there)[1].strip()
    first.stop()
    daemon = start_on_each_store("--endpoint", "curve://127.0.0.1:*")
    by_ipc, by_curve = daemon.endpoints
    assert by_ipc.startswith("ipc://")
    call = ("call", "ping", "--endpoint", by_curve, "--timeout-ms", "1000")
    monkeypatch.setenv("BACKSCROLL_TOKEN", token)
    assert "BACKSCROLL_KEYS" in run(*call)[2]
    monkeypatch.setenv("BACKSCROLL_KEYS", str(file))
    assert run(*call)[:2] == (0, '{"pong": true}\n')
    assert run("keys", "revoke", "laptop", *there)[0] == 0
    code, _, err = run(*call)
    assert code == 1
    assert "does not let this user or key connect" in err


def test_keys_are_printed_where_no_file_is_named(run: Run, start_on_each_store: StartDaemon, tmp_path: Path) -> None:
    """As JSON, which is what such a file contains; a file that exists is not replaced, and nothing is listed."""
    there = ("--data-dir", start_on_each_store().data_dir)
    code, out, err = run("keys", "create", "a", *there)
    assert (code, "only now" in err) == (0, True)
    assert sorted(json.loads(out)) == ["publicKey", "secretKey", "serverKey"]
    file = tmp_path / "keys"
    file.write_text(out)
    code, _, err = run("keys", "create", "b", "--to", file, *there)
    assert (code, err) == (2, f"backscroll: --to: {file} exists already; name a new file\n")
    assert file.read_text() == out
    assert run("keys", "create", "a", "--to", tmp_path / "other", *there)[0] == 1
    assert not (tmp_path / "other").exists()
    assert re.findall(r"^(\w+) +\S{40}", run("keys", "list", *there)[1], re.MULTILINE) == ["a"]


def test_keys_that_cannot_be_written_are_not_listed(run: Run, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Otherwise the secret key would be lost. The file is not there either."""
    there = ("--data-dir", start_daemon().data_dir)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        code, out, _ = run("keys", "create", "a", "--to", tmp_path / "keys", *there)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (code, out) == (2, "")
    assert not (tmp_path / "keys").exists()
    assert not re.search(r"^a ", run("keys", "list", *there)[1], re.MULTILINE)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"serverKey": 1}'])
def test_a_file_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    """The error names the file and the command that makes one."""
    (tmp_path / "keys").write_text(text)
    with pytest.raises(Invalid, match="backscroll keys create"):
        Curve.read(tmp_path / "keys")


def test_keys_that_were_not_read_are_refused() -> None:
    """The name of the file in their place is explained, whatever the endpoint."""
    with pytest.raises(Invalid, match=r"Curve\.read\(FILE\)"):
        Client("curve://127.0.0.1:9", token="x", curve="laptop.keys")  # type: ignore[arg-type]


@pytest.mark.parametrize("endpoint", ["127.0.0.1:5555", "tcp://127.0.0.1"])
def test_what_is_no_address_is_refused_with_an_example(endpoint: str) -> None:
    """Also an address whose port is missing."""
    with pytest.raises(Invalid, match=r"such as tcp://127\.0\.0\.1:5555"):
        Client(endpoint, token="x")
