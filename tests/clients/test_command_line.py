"""The command line: text output for people, JSON output for scripts, and exit codes."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zmq

from backscroll.clients.command_line import describe as describe_command
from backscroll.clients.command_line.main import COMMANDS, SHELLS, main
from backscroll.clients.command_line.output import printable, progress
from backscroll.clients.command_line.results import readable
from backscroll.clients.command_line.schemas import definitions_in, limits_of
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema.operations import OPERATIONS, CreateToken
from tests.support.messages import save_payload

StartDaemon = Callable[..., DaemonProcess]
JARGON = ("tuple[", "default factory", "NoneType", "typing", "<class", "lambda")
ESCAPE = "\x1b"
SCOPES = count(1)


class Ended(NamedTuple):
    """The outcome of a command: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`backscroll …` in this process, with its output in files."""

    def run(*words: str) -> Ended:
        capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as end:
            code = int(str(end.code or 0))
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One daemon for all tests of this module that need none of their own."""
    directory = tmp_path_factory.mktemp("command-line")
    with (directory / "daemon.log").open("w") as log, DaemonProcess(directory / "data", log=log) as daemon:
        yield daemon


@pytest.fixture
def there(daemon: DaemonProcess) -> tuple[str, ...]:
    """The flags that select the daemon, and a scope that no other test uses."""
    return "--endpoint", daemon.endpoint, "--scope", f"test-{next(SCOPES)}"


@pytest.fixture
def call(there: tuple[str, ...], run: Run) -> Run:
    """`backscroll call …` against a running daemon, in an empty scope."""
    return lambda *words: run("call", *there, *words)


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Run:
    """`backscroll …` in this process, with its output on a terminal of 100 columns without colour."""
    for name, value in (("COLUMNS", "100"), ("TERM", "xterm-256color"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)

    def run(*words: str) -> Ended:
        with monkeypatch.context() as patch:
            out, err = Terminal(), Terminal()
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = main(words)
        return Ended(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def call_on_terminal(there: tuple[str, ...], on_terminal: Run) -> Run:
    """`backscroll call …` on a terminal, against a running daemon, in a scope with a message in the room r1."""
    assert on_terminal("call", *there, "save-message", json.dumps(save_payload(1))).code == 0
    return lambda *words: on_terminal("call", *there, *words)


def backscroll(*words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """The installed command, as a person runs it."""
    command = [str(Path(sys.executable).parent / "backscroll"), *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False, **options)


IMPORTED = """
import atexit, runpy, sys
module, *sys.argv[1:] = sys.argv[1:]
atexit.register(lambda: print(*(name for name, module in sys.modules.items() if module), file=sys.stderr))
runpy.run_module(module, run_name="__main__")
"""
COMMAND_LINE = "backscroll.clients.command_line"


def imported(module: str, *words: str) -> set[str]:
    """The names of all modules that are loaded at the end of a process that runs a module with these arguments."""
    command = [sys.executable, "-c", IMPORTED, module, *words]
    end = subprocess.run(command, capture_output=True, encoding="utf-8", input="", check=True)
    return set(end.stderr.splitlines()[-1].split())


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


# Words and help


@pytest.mark.parametrize("words", [["no-such-command"], ["call"], ["call", "ping", "--no-such-flag"], ["log"]])
def test_wrong_arguments_exit_with_2_and_usage(words: list[str], run: Run) -> None:
    """The usage is printed on standard error, with where to find the help."""
    ended = run(*words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("usage: backscroll")
    assert "--help` for help." in ended.err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["serv"], "there is no command 'serv'; did you mean serve?"),
        (["call", "ping", "--scpe", "x"], "unknown flag --scpe; did you mean --scope?"),
        (["call", "ping", "--time", "9"], "unknown flag --time"),
        (["call", "get-room", "{roomId:", "x}"], "unexpected argument 'x}'; put an argument that contains spaces in"),
        (["call", "ping", "--timeout-ms", "soon"], "argument --timeout-ms: give a whole number from 1 on, not 'soon'"),
        (["log", "export", "--form", "3"], "unknown flag --form; did you mean --from"),
        (["completion", "ksh"], "argument SHELL: invalid choice: 'ksh'"),
    ],
)
def test_a_mistake_is_named_with_a_suggestion(words: list[str], hint: str, run: Run) -> None:
    """The message names the argument, says what is wrong and what to do."""
    ended = run(*words)
    assert (ended.code, ended.out) == (2, "")
    assert f"backscroll: {hint}" in ended.err


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    """It is printed on standard error with exit code 2, because nothing was done."""
    ended = run()
    assert (ended.code, ended.out) == (2, "")
    assert all(f"\n  {command} " in ended.err for command in COMMANDS)
    assert "backscroll demo" in ended.err


def test_version_and_help_exit_with_0(run: Run) -> None:
    """`--version` prints a version and nothing else; `--help` names the commands."""
    ended = run("--version")
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", ended.out)
    ended = run("--help")
    assert (ended.code, ended.err) == (0, "")
    assert all(f"\n  {command} " in ended.out for command in COMMANDS)
    assert run("help") == ended
    assert run("help", "log", "verify") == run("log", "verify", "--help")


@pytest.mark.parametrize("command", [*COMMANDS, "log export", "log verify"])
def test_help_has_no_python_jargon(command: str) -> None:
    """Every command has a help text, without Python's words for types and defaults."""
    end = backscroll(*command.split(), "--help")
    assert (end.returncode, end.stderr) == (0, "")
    assert end.stdout.startswith(f"usage: backscroll {command} ")
    assert not [word for word in JARGON if word in end.stdout]


# What is imported


@pytest.mark.parametrize("program", [["backscroll.bus"], [COMMAND_LINE, "serve"]])
def test_serve_does_not_import_rich(program: list[str], tmp_path: Path) -> None:
    """The daemon loads nothing that only the command line needs, however it is started."""
    modules = imported(*program, "--data-dir", str(tmp_path / "data"), "--exit-with-parent")
    assert "backscroll.bus.daemon" in modules
    assert not packages(modules) & {"rich", "shtab", "pygments"}


def test_a_call_in_a_pipe_imports_no_rich(there: tuple[str, ...]) -> None:
    """Scripts do not load what only terminals need, and the command line loads no part of the daemon."""
    modules = imported(COMMAND_LINE, "call", "ping", *there)
    assert f"{COMMAND_LINE}.call" in modules
    assert not packages(modules) & {"rich", "shtab", "apsw", "pydantic", "peewee"}
    assert not {name for name in modules if name.startswith(("backscroll.bus", "backscroll.handlers"))}


def test_the_demo_opens_no_database() -> None:
    """It shows replies of the daemon, and does not use SQLite itself."""
    modules = imported(COMMAND_LINE, "demo")
    assert f"{COMMAND_LINE}.demo" in modules
    assert not packages(modules) & {"apsw", "sqlite3", "peewee"}


# call, for scripts


def test_call_prints_the_result_as_json(call: Run) -> None:
    """In a pipe standard output is the result as JSON and nothing else."""
    assert call("ping") == (0, '{"pong": true}\n', "")
    assert call("save-message", json.dumps(save_payload(1))) == (0, "null\n", "")
    ended = call("get-message-by-id", '{"messageId": "m1"}')
    assert (ended.code, json.loads(ended.out)["content"], ended.err) == (0, "hello", "")
    assert call("ping", "--json") == (0, '{"pong": true}\n', "")


def test_call_takes_its_payload_from_a_file_or_stdin(there: tuple[str, ...], tmp_path: Path) -> None:
    """`@FILE` and `-` read the JSON from there."""
    text = json.dumps(save_payload(1, "aus der Datei: ∀ 🍵"), ensure_ascii=False)
    (tmp_path / "payload.json").write_text(text, encoding="utf-8")
    assert backscroll("call", "save-message", f"@{tmp_path / 'payload.json'}", *there).returncode == 0
    end = backscroll("call", "get-message-by-id", *there, "-", input='{"messageId": "m1"}')
    assert (end.returncode, json.loads(end.stdout)["content"]) == (0, "aus der Datei: ∀ 🍵")


def test_the_payload_may_come_after_the_flags(there: tuple[str, ...], run: Run) -> None:
    """Payload and flags can be given in either order."""
    ended = run("call", "get-messages", *there, '{"roomId": "r1"}', "--timeout-ms", "9000")
    assert ended == (0, "[]\n", "")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["no-such-operation"], "unknown-operation"),
        (["get-messages"], "invalid"),
        (["get-messages", "[]"], "invalid"),
        (["delete-message", '{"messageId": "none"}'], "not-found"),
        (["list-scopes", "--scope", "other"], "forbidden"),
    ],
)
def test_an_error_reply_is_json_with_exit_1(call: Run, words: list[str], code: str) -> None:
    """Standard output stays empty; standard error is the error of the reply."""
    ended = call(*words)
    assert (ended.code, ended.out) == (1, "")
    error = json.loads(ended.err)
    assert error["code"] == code
    assert error["message"]


@pytest.mark.parametrize(("name", "is_close"), [("list-userz", True), ("xyzzy", False)])
def test_known_operations_are_listed_where_none_is_close(call: Run, name: str, *, is_close: bool) -> None:
    """One suggestion is enough; without one, the error lists them all."""
    error = json.loads(call(name).err)
    assert ("did you mean 'list-users'?" in error["message"]) == is_close
    assert ("known" in error["details"]) != is_close


def test_a_refused_token_of_the_environment_is_named(
    start_daemon: StartDaemon, on_terminal: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller may have forgotten that the variable is set."""
    daemon = start_daemon("--endpoint", "tcp://127.0.0.1:*")
    with Client(data_dir=daemon.data_dir) as client:
        client.execute(CreateToken.of("bot.secret", "bot", "read"))
    monkeypatch.setenv("BACKSCROLL_TOKEN", "bot.secret")
    refused = on_terminal("call", "list-tokens", "--endpoint", daemon.endpoint)
    assert "the token 'bot' has 'read'\n  the token is that in BACKSCROLL_TOKEN\n" in refused.err
    monkeypatch.setenv("BACKSCROLL_TOKEN", "bot.wrong")
    refused = on_terminal("call", "ping", "--endpoint", daemon.endpoint, "--timeout-ms", "500")
    assert "the token is that in BACKSCROLL_TOKEN\n" in refused.err


def test_call_finds_the_daemon_by_its_data_directory(
    start_daemon: StartDaemon, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `--data-dir`, or by `BACKSCROLL_DATA_DIR`, through the `endpoint.json` in it."""
    start_daemon()
    assert run("call", "ping", "--data-dir", str(tmp_path / "data")).code == 0
    monkeypatch.setenv("BACKSCROLL_DATA_DIR", str(tmp_path / "data"))
    assert run("call", "ping") == (0, '{"pong": true}\n', "")


def test_without_a_daemon_call_says_how_to_start_one(tmp_path: Path, run: Run) -> None:
    """Exit 1, and a message that names the directory and the command."""
    ended = run("call", "ping", "--data-dir", str(tmp_path))
    assert ended.code == 1
    error = json.loads(ended.err)
    assert error["code"] == "unavailable"
    assert f"backscroll serve --data-dir {tmp_path}" in error["message"]


def test_call_waits_for_the_given_timeout(tmp_path: Path, run: Run) -> None:
    """No reply within `--timeout-ms` exits with 1, and the message says that the outcome is unknown."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.ROUTER) as silent:
        silent.bind(f"ipc://{tmp_path}/silent.sock")
        ended = run("call", "ping", "--endpoint", f"ipc://{tmp_path}/silent.sock", "--timeout-ms", "200")
        assert silent.poll(0)
    context.term()
    error = json.loads(ended.err)
    assert (ended.code, error["code"]) == (1, "no-reply")
    assert "unknown" in error["message"]


def test_an_unbound_address_is_an_error(tmp_path: Path, run: Run) -> None:
    """It exits with 1 within the timeout, with an error on standard error."""
    ended = run("call", "ping", "--endpoint", f"ipc://{tmp_path}/nobody.sock", "--timeout-ms", "50")
    assert ended.code == 1
    assert json.loads(ended.err)["code"] in ("no-reply", "unavailable")


@pytest.mark.parametrize("payload", ["{", "", "hello", "{'single': 1}", "@/no/such/file"])
def test_a_payload_that_is_not_json_exits_with_2(payload: str, run: Run) -> None:
    """It is refused before anything is sent, and the message says what to do."""
    ended = run("call", "ping", payload)
    assert (ended.code, ended.out) == (2, "")
    assert "no/such/file" in ended.err if payload.startswith("@") else "is not JSON" in ended.err


def test_unencodable_arguments_of_call_exit_with_2(tmp_path: Path, run: Run) -> None:
    """JSON that is nested too deeply, and a scope that is not valid UTF-8, are refused without a traceback."""
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000 + "]" * 100_000)
    ended = run("call", "ping", f"@{deep}")
    assert (ended.code, ended.out) == (2, "")
    assert "is not JSON" in ended.err
    ended = run("call", "ping", "--scope", "\udcff")
    assert (ended.code, ended.out) == (2, "")
    assert "valid UTF-8" in ended.err


# call, for people


def test_a_list_of_records_is_a_table(call_on_terminal: Run) -> None:
    """Field names are above the columns, times are readable, and nested lists are counted."""
    ended = call_on_terminal("get-messages", '{"roomId": "r1"}')
    assert (ended.code, ended.err) == (0, "")
    names, row = (line.split() for line in ended.out.splitlines())
    assert names == ["id", "roomId", "senderId", "content", "timestamp", "isDeleted", "reactions"]
    assert row == ["m1", "r1", "ada", "hello", *readable("at", 1).split(), "false", "–"]


def test_a_table_that_is_too_wide_is_split(call_on_terminal: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that all records share are moved below it; if it is still too wide, each record is printed separately."""
    assert call_on_terminal("save-message", json.dumps(save_payload(2, "good bye " * 9))).code == 0
    monkeypatch.setenv("COLUMNS", "70")
    ended = call_on_terminal("get-messages", '{"roomId": "r1"}')
    assert ended.out.splitlines()[0].split() == ["id", "content", "timestamp"]
    assert "the same in all: roomId r1, senderId ada, isDeleted false, reactions –" in ended.out
    monkeypatch.setenv("COLUMNS", "30")
    lines = call_on_terminal("get-messages", '{"roomId": "r1"}').out.splitlines()
    assert lines[0] == "── 1 of 2"
    assert lines[1].split() == ["id", "m1"]
    assert "── 2 of 2" in lines


def test_one_record_is_a_list_of_names_and_values(call_on_terminal: Run) -> None:
    """Nested records are named by their path; lists of records are tables with titles."""
    lines = [line.split() for line in call_on_terminal("get-scope-info").out.splitlines()]
    assert {"scope", "bytes"} <= {line[0] for line in lines}
    assert ["rows.messages", "1"] in lines
    lines = [line.split() for line in call_on_terminal("get-rows", '{"table": "messages"}').out.splitlines()]
    assert lines[0] == ["rows"]
    assert lines[-1] == ["key", "id"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["is-user-banned", '{"roomId": "r1", "userId": "ada"}'], "false\n"),
        (["batch", '{"commands": [{"type": "initialize"}, {"type": "initialize"}]}'], "–\n–\n"),
        (["get-messages", '{"roomId": "empty"}'], "no records\n"),
        (["get-message-by-id", '{"messageId": "none"}'], "nothing found\n"),
        (["delete-message", '{"messageId": "m1"}'], "done (seq 2)\n"),
        (["compact-scope"], "done\n"),
    ],
)
def test_other_results_are_plain_text(call_on_terminal: Run, words: list[str], text: str) -> None:
    """Texts, numbers, and messages about missing results."""
    assert call_on_terminal(*words) == (0, text, "")


def test_json_output_on_a_terminal(call_on_terminal: Run) -> None:
    """With `--json` the result is indented JSON, and an error is JSON too."""
    assert call_on_terminal("ping", "--json").out == '{\n  "pong": true\n}\n'
    assert json.loads(call_on_terminal("get-messages", "--json").err)["code"] == "invalid"


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ["delete-message", '{"messageId": "m9"}'],
            ["backscroll: not-found at $.payload.messageId: there is no message 'm9'"],
        ),
        (
            ["batch", '{"commands": [{"type": "delete-message", "payload": {"messageId": "m9"}}]}'],
            [
                "backscroll: not-found at $.payload.commands[0].payload.messageId: there is no message 'm9'",
                "  index: 0",
            ],
        ),
        (
            ["get-messages", '{"roomId": 1}'],
            [
                "backscroll: invalid at $.payload.roomId: expected string, got integer",
                "  `backscroll describe get-messages` shows its payload",
            ],
        ),
    ],
)
def test_an_error_reply_is_text_on_a_terminal(call_on_terminal: Run, words: list[str], lines: list[str]) -> None:
    """Its code, the path of the field and what is wrong, then its details and what to do."""
    ended = call_on_terminal(*words)
    assert (ended.code, ended.out, ended.err.splitlines()) == (1, "", lines)


def test_an_unknown_operation_error_points_to_describe(call_on_terminal: Run) -> None:
    """The list of all operations is not printed, but the command that prints it is."""
    ended = call_on_terminal("get-mesages")
    assert ended.code == 1
    assert ended.err.startswith("backscroll: unknown-operation at $.type: ")
    assert ended.err.endswith("  `backscroll describe` lists the operations\n")
    assert len(ended.err.splitlines()) == 2


def test_control_characters_are_escaped_on_a_terminal(call_on_terminal: Run) -> None:
    """Line breaks and other scripts are kept."""
    assert printable("a\x1b[2Jb\x07\x9b\nc\td ∀🍵") == "a\\x1b[2Jb\\x07\\x9b\nc\td ∀🍵"
    assert call_on_terminal("save-message", json.dumps(save_payload(3, "\x1b]0;title\x07"))).code == 0
    assert ESCAPE not in call_on_terminal("get-message-by-id", '{"messageId": "m3"}').out
    assert ESCAPE not in call_on_terminal("delete-message", json.dumps({"messageId": "\x1b[2J"})).err


def test_colour_is_used_on_capable_terminals_only(call_on_terminal: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR, or on a dumb terminal, the output is plain text."""
    assert ESCAPE not in call_on_terminal("ping").out
    monkeypatch.delenv("NO_COLOR")
    assert ESCAPE in call_on_terminal("ping").out
    assert ESCAPE in call_on_terminal("get-messages").err
    monkeypatch.setenv("TERM", "dumb")
    assert ESCAPE not in call_on_terminal("ping").out


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("timestamp", 1767225600000, "2026-01-01 00:00:00Z"),
        ("editedAt", 1767225600001, "2026-01-01 00:00:00.001Z"),
        ("created_at", 0, "1970-01-01 00:00:00Z"),
        ("at", 2**53 - 1, "9007199254740991"),
        ("size", 1767225600000, "1767225600000"),
        ("x", None, "–"),
        ("x", [], "–"),
        ("x", 0, "0"),
        ("x", False, "false"),
        ("x", "", ""),
        ("x", ["a", 1, True], "a, 1, true"),
        ("x", [{"a": 1}], "1 item"),
        ("x", [{"a": 1}, {}], "2 items"),
        ("x", [[1]], "[[1]]"),
        ("x", {"a": "é"}, '{"a": "é"}'),
    ],
)
def test_values_are_readable(name: str, value: Any, text: str) -> None:
    """Times are in UTC, lists are joined or counted, and other values are as in JSON."""
    assert readable(name, value) == text


# describe

LANGUAGE: dict[str, Any] = {
    "level": 1,
    "operations": {
        "say-hello": {
            "kind": "command",
            "right": "write",
            "since": 1,
            "summary": "Say hello.",
            "description": "To one `Person`, so many times.",
            "payload": {
                "type": "object",
                "properties": {
                    "person": {"$ref": "#/$defs/Person"},
                    "times": {
                        "description": "How often.",
                        "type": "integer",
                        "minimum": 1,
                        "maximum": 500,
                        "default": 3,
                    },
                },
                "required": ["person"],
            },
            "result": {"anyOf": [{"$ref": "#/$defs/Answer"}, {"type": "null"}]},
            "errors": ["not-found"],
            "replacedBy": "greet",
            "example": {"person": {"name": "Bo's 🍵"}},
        },
        "greet": {
            "kind": "query",
            "right": "read",
            "since": 1,
            "summary": "Greet.",
            "description": "",
            "payload": {"type": "object", "properties": {}},
            "result": {"type": "null"},
            "errors": [],
            "example": {},
        },
    },
    "errors": {"not-found": {"fault": "caller", "retryable": "never", "since": 1, "summary": "It is not there."}},
    "limits": {},
    "$defs": {
        "Person": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}}, "required": ["name"]},
        "Answer": {
            "type": "object",
            "properties": {"from": {"$ref": "#/$defs/Person", "description": "Who answers."}},
            "required": ["from"],
        },
        "Unused": {"type": "object"},
    },
}


@pytest.fixture
def small_language(monkeypatch: pytest.MonkeyPatch) -> None:
    """The description of a protocol with two operations."""
    monkeypatch.setattr(describe_command, "describe_language", lambda: LANGUAGE)


def test_describe_lists_all_operations(run: Run) -> None:
    """One line for each, with its kind and its summary, which can be searched with grep."""
    ended = run("describe")
    assert (ended.code, ended.err) == (0, "")
    names, *lines = ended.out.splitlines()
    assert names.split() == ["operation", "kind", "summary"]
    assert [line.split()[0] for line in lines] == list(OPERATIONS)
    assert {line.split()[1] for line in lines} == {"command", "query", "maintenance", "built-in"}
    assert not any(line.endswith(" ") for line in lines)


@pytest.mark.usefixtures("small_language")
def test_describe_shows_one_operation(run: Run) -> None:
    """Payload with types, presence, limits and meaning, the records in it, result, errors, and an example."""
    ended = run("describe", "say-hello")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "say-hello  command, right write, since protocol level 1",
        "",
        "Say hello. Replaced by greet.",
        "",
        "To one `Person`, so many times.",
        "",
        "payload",
        "  person  Person   required",
        "  times   integer  default 3  1 to 500. How often.",
        "",
        "Person",
        "  name  string  required  at most 9 characters",
        "",
        "result",
        "  Answer or null",
        "",
        "Answer",
        "  from  Person  required  Who answers.",
        "",
        "errors",
        "  not-found  It is not there.",
        "",
        "example",
        """  backscroll call say-hello '{"person": {"name": "Bo'"'"'s 🍵"}}'""",
    ]


@pytest.mark.usefixtures("small_language")
def test_describe_omits_empty_sections(run: Run) -> None:
    """An operation without fields, description and errors takes few lines."""
    assert run("describe", "greet").out.split("\n\n") == [
        "greet  query, right read, since protocol level 1",
        "Greet.",
        "payload\n  no fields",
        "result\n  null",
        "example\n  backscroll call greet\n",
    ]


@pytest.mark.usefixtures("small_language")
def test_describe_prints_json(run: Run) -> None:
    """The whole protocol, or one operation with all definitions that it refers to, directly or indirectly."""
    assert json.loads(run("describe", "--json").out) == LANGUAGE
    described = json.loads(run("describe", "say-hello", "--json").out)
    assert described.pop("name") == "say-hello"
    assert list(described.pop("$defs")) == ["Person", "Answer"]
    assert described == LANGUAGE["operations"]["say-hello"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("get-mesages", "; did you mean get-messages or "), ("xyz", "; `backscroll describe` lists them")],
)
def test_an_unknown_operation_exits_with_2(name: str, hint: str, run: Run) -> None:
    """The closest names are suggested."""
    ended = run("describe", name)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"backscroll: there is no operation {name!r}{hint}")


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_can_be_described(name: str, run: Run, on_terminal: Run) -> None:
    """The last line is a command that can be pasted; on a terminal the text is the same."""
    lines = run("describe", name).out.splitlines()
    command, call, operation, *payload = shlex.split(lines[-1])
    assert (command, call, operation) == ("backscroll", "call", name)
    assert all(isinstance(json.loads(word), dict) for word in payload)
    ended = on_terminal("describe", name)
    assert ended.code == 0
    assert lines[-1] in ended.out


@pytest.mark.parametrize(
    ("schema", "limits"),
    [
        ({"type": "string", "minLength": 1, "maxLength": 1024}, "1 to 1,024 characters"),
        ({"type": "string", "pattern": "^a$", "maxLength": 64}, "at most 64 characters, matches ^a$"),
        ({"type": "string", "x-known-values": ["text", "voice"]}, "known values: text, voice"),
        ({"type": "integer", "minimum": 0, "maximum": 2**53 - 1}, "0 to 2^53-1"),
        ({"type": "integer", "minimum": 1 - 2**53, "maximum": 2**53 - 1}, "-(2^53-1) to 2^53-1"),
        ({"type": "integer", "minimum": 1}, "at least 1"),
        ({"type": "integer", "minimum": 0, "x-unit": "ms since 1970"}, "ms since 1970"),
        ({"type": "array", "maxItems": 1000}, "at most 1,000 items"),
        ({"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}]}, "at most 9 characters"),
        ({}, ""),
    ],
)
def test_limits_are_described_in_words(schema: dict[str, Any], limits: str) -> None:
    """With their units, also where a value may be null."""
    assert limits_of(schema) == limits


def test_indirect_definitions_are_found() -> None:
    """Also where they refer to each other, and where one is missing."""
    definitions = {"A": {"items": {"$ref": "#/$defs/B"}}, "B": {"anyOf": [{"$ref": "#/$defs/A"}]}, "C": {}}
    assert definitions_in([{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/missing"}], definitions) == ["A", "B"]


# completion


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_commands_flags_and_operations(shell: str, run: Run) -> None:
    """The script is on standard output, ready to be saved."""
    ended = run("completion", shell)
    assert (ended.code, ended.err) == (0, "")
    for word in ("describe", "get-message-page", "command-log", "ids-only", "against-data-dir"):
        assert word in ended.out


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("d", "describe demo"),
        ("call get-room", "get-room"),
        ("describe save-r", "save-reaction save-room"),
        ("serve --log-", "--log-level --log-format"),
        ("serve --command-log ''", "payloads ids-only"),
        ("log ''", "export verify"),
        ("completion ''", "bash zsh fish"),
        ("watch --noun m", "message member media"),
    ],
)
def test_bash_completion_works(words: str, completed: str, run: Run) -> None:
    """The script works in a real shell."""
    script = run("completion", "bash").out + (
        f"COMP_WORDS=(backscroll {words})\n"
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n"
        "$(complete -p backscroll | sed 's/.*-F \\([^ ]*\\).*/\\1/') backscroll \"${COMP_WORDS[COMP_CWORD]}\"\n"
        'echo "${COMPREPLY[*]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, encoding="utf-8", check=False)
    assert done.stdout.strip() == completed, done.stderr


# progress


def test_progress_is_shown_on_terminals_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written to files, without colour, or together with results."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with progress("working", 10) as advance:
        advance(5, "half")
    assert capsys.readouterr() == ("", "")
    for environment, shown in ({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False):
        with monkeypatch.context() as patch:
            terminal = Terminal()
            patch.setattr(sys, "stderr", terminal)
            for name, value in environment.items():
                patch.setenv(name, value)
            with progress("working", 10) as advance:
                advance(5, "half a loaf")
                print("result")  # noqa: T201
        assert all((word in terminal.getvalue()) is shown for word in ("working", "50%", "half a loaf"))
        assert capsys.readouterr() == ("result\n", "")


# serve and demo


def test_serve_runs_the_daemon(tmp_path: Path) -> None:
    """`backscroll serve` takes the flags of the daemon and exits with its codes."""
    end = backscroll("serve", "--data-dir", str(tmp_path / "data"), "--exit-with-parent", input="")
    assert end.returncode == 0
    assert json.loads(end.stdout)["event"] == "ready"
    end = backscroll("serve", "--readers", "none")
    assert (end.returncode, end.stdout) == (2, "")
    assert end.stderr == "backscroll: --readers: give a whole number, such as 8, not 'none'\n"
    (tmp_path / "data" / "default.db").write_bytes(b"garbage" * 1_000)
    assert backscroll("serve", "--data-dir", str(tmp_path / "data")).returncode == 4


def test_the_demo_shows_a_conversation_and_its_rows() -> None:
    """It succeeds and leaves no files."""
    end = backscroll("demo")
    assert (end.returncode, end.stderr) == (0, "")
    for piece in (
        *("1  Start a daemon", "2  Send commands", "3  Ask for", "4  Kill the daemon", "5  Look at", "6  Now you"),
        *("It is ready at", "Good morning!", "Then we leave at eleven. (edited)", "🍵", "[Message deleted]"),
        *("backscroll serve --data-dir ./data\n", "backscroll describe\n"),
    ):
        assert piece in end.stdout
    for table in ("rooms", "channels", "members", "messages", "reactions"):
        assert f"\n   {table}\n" in end.stdout
    assert end.stdout.count("wrong channel, sorry") == 1  # where it is ended; it is deleted later


def test_the_demo_ignores_environment_settings(tmp_path: Path) -> None:
    """It uses a daemon of its own, even if the environment describes another one."""
    environment = {"BACKSCROLL_ENDPOINT": f"ipc://{tmp_path}/own.sock", "BACKSCROLL_COMMAND_LOG": "ids-only"}
    end = backscroll("demo", env=os.environ | environment)
    assert (end.returncode, end.stderr) == (0, "")
    assert "own.sock" not in end.stdout


def test_commands_suggested_by_the_demo_work(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """The commands after the first, which starts a daemon, run in a shell next to it."""
    start_daemon()
    commands = backscroll("demo").stdout.split("6  Now you")[1].splitlines()[2:]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        done = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_all_failures_of_a_batch_are_shown(call_on_terminal: Run) -> None:
    """The first in the first line, the others in one line each."""
    commands = [{"type": "delete-message", "payload": {"messageId": "none"}}, {"type": "sing"}, {"type": "initialize"}]
    ended = call_on_terminal("batch", json.dumps({"commands": commands}))
    assert ended.code == 1
    assert "not-found at $.payload.commands[0].payload.messageId: there is no message 'none'" in ended.err
    assert "  unknown-operation at $.payload.commands[1].type: there is no operation 'sing'" in ended.err
    assert "failures" not in ended.err


@pytest.mark.parametrize(
    "words",
    [
        "replay - --into",
        "replay - --verify --against-data-dir",
        "call ping --data-dir",
        "watch --data-dir",
        "check --data-dir",
        "token create a --right read --data-dir",
        "keys create a --data-dir",
        "backup list",
        "restore",
        "restore backups --into",
        "repair --data-dir",
        "repair --backups",
        "log verify --data-dir",
    ],
)
def test_an_address_is_no_directory(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """No directory called `postgresql:` is made; the address is not repeated, because it may have a password in it."""
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*words.split(), "postgresql://ada:secret@here/chat")
    assert (code, out) == (2, "")
    assert "give a path, not an address" in err
    assert "secret" not in err
    assert not list(tmp_path.iterdir())


def test_an_address_in_the_environment_is_no_directory(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for the variable that names the data directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKSCROLL_DATA_DIR", "postgresql://ada:secret@here/chat")
    code, out, err = run("token", "create", "a", "--right", "read")
    assert (code, out, "is an address, not a path" in err, "secret" in err) == (2, "", True, False)
    assert not list(tmp_path.iterdir())
