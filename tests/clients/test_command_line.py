"""The command line: words in; text out for people, JSON for scripts; exit codes."""

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
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema.operations import OPERATIONS
from tests.support.peers import message

StartDaemon = Callable[..., DaemonProcess]
JARGON = ("tuple[", "default factory", "NoneType", "typing", "<class", "lambda")
ESCAPE = "\x1b"
SCOPES = count(1)


class Said(NamedTuple):
    """What a command ended with: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`backscroll …` in this process, with its output in files."""

    def run(*words: str) -> Said:
        capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as end:
            code = int(str(end.code or 0))
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One daemon for all tests here that need no daemon of their own."""
    directory = tmp_path_factory.mktemp("command-line")
    with (directory / "daemon.log").open("w") as log, DaemonProcess(directory / "data", log=log) as daemon:
        yield daemon


@pytest.fixture
def there(daemon: DaemonProcess) -> tuple[str, ...]:
    """The flags that lead to the daemon, and to a scope that nobody else uses."""
    return "--endpoint", daemon.endpoint, "--scope", f"test-{next(SCOPES)}"


@pytest.fixture
def call(there: tuple[str, ...], run: Run) -> Run:
    """`backscroll call …` against a running daemon, in an empty scope."""
    return lambda *words: run("call", *there, *words)


class Terminal(io.StringIO):
    """A stream that says that somebody watches it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Run:
    """`backscroll …` in this process, with its output on a terminal of 100 columns without colour."""
    for name, value in (("COLUMNS", "100"), ("TERM", "xterm-256color"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)

    def run(*words: str) -> Said:
        with monkeypatch.context() as patch:
            out, err = Terminal(), Terminal()
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = main(words)
        return Said(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def call_on_terminal(there: tuple[str, ...], on_terminal: Run) -> Run:
    """`backscroll call …` on a terminal, against a running daemon, in a scope with a message in the room r1."""
    assert on_terminal("call", *there, "save-message", json.dumps(message(1))).code == 0
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
    """The names of all modules that a process has in the end which runs a module with these words."""
    command = [sys.executable, "-c", IMPORTED, module, *words]
    end = subprocess.run(command, capture_output=True, encoding="utf-8", input="", check=True)
    return set(end.stderr.splitlines()[-1].split())


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


# Words and help


@pytest.mark.parametrize("words", [["no-such-command"], ["call"], ["call", "ping", "--no-such-flag"], ["log"]])
def test_wrong_words_exit_with_2_and_usage(words: list[str], run: Run) -> None:
    """The usage is shown on standard error, with where the help is."""
    said = run(*words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("usage: backscroll")
    assert "--help` for help." in said.err


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
def test_a_mistake_is_named_with_what_may_be_meant(words: list[str], hint: str, run: Run) -> None:
    """The message names the word, says what is wrong and what to do."""
    said = run(*words)
    assert (said.code, said.out) == (2, "")
    assert f"backscroll: {hint}" in said.err


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    """On standard error and with exit 2, for nothing was done."""
    said = run()
    assert (said.code, said.out) == (2, "")
    assert all(f"\n  {command} " in said.err for command in COMMANDS)
    assert "backscroll demo" in said.err


def test_version_and_help_exit_with_0(run: Run) -> None:
    """`--version` prints a version and nothing else; `--help` names the commands."""
    said = run("--version")
    assert (said.code, said.err) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", said.out)
    said = run("--help")
    assert (said.code, said.err) == (0, "")
    assert all(f"\n  {command} " in said.out for command in COMMANDS)
    assert run("help") == said
    assert run("help", "log", "verify") == run("log", "verify", "--help")


@pytest.mark.parametrize("command", [*COMMANDS, "log export", "log verify"])
def test_help_is_for_people(command: str) -> None:
    """Every command has a help text, without Python's words for types and defaults."""
    end = backscroll(*command.split(), "--help")
    assert (end.returncode, end.stderr) == (0, "")
    assert end.stdout.startswith(f"usage: backscroll {command} ")
    assert not [word for word in JARGON if word in end.stdout]


# What is imported


@pytest.mark.parametrize("program", [["backscroll.bus"], [COMMAND_LINE, "serve"]])
def test_serve_does_not_import_rich(program: list[str], tmp_path: Path) -> None:
    """A daemon starts without what only the command line needs, however it is started."""
    modules = imported(*program, "--data-dir", str(tmp_path / "data"), "--exit-with-parent")
    assert "backscroll.bus.daemon" in modules
    assert not packages(modules) & {"rich", "shtab", "pygments"}


def test_a_call_in_a_pipe_imports_no_rich(there: tuple[str, ...]) -> None:
    """Scripts do not pay for what people see; nor does the command line load any part of the daemon."""
    modules = imported(COMMAND_LINE, "call", "ping", *there)
    assert f"{COMMAND_LINE}.call" in modules
    assert not packages(modules) & {"rich", "shtab", "apsw", "pydantic", "peewee"}
    assert not {name for name in modules if name.startswith(("backscroll.bus", "backscroll.handlers"))}


def test_the_demo_opens_no_database() -> None:
    """It shows what the daemon says; only the daemon knows SQLite."""
    modules = imported(COMMAND_LINE, "demo")
    assert f"{COMMAND_LINE}.demo" in modules
    assert not packages(modules) & {"apsw", "sqlite3", "peewee"}


# call, for scripts


def test_call_prints_the_result_as_json(call: Run) -> None:
    """In a pipe standard output is the result and nothing else, as it always was."""
    assert call("ping") == (0, '{"pong": true}\n', "")
    assert call("save-message", json.dumps(message(1))) == (0, "null\n", "")
    said = call("get-message-by-id", '{"messageId": "m1"}')
    assert (said.code, json.loads(said.out)["content"], said.err) == (0, "hello", "")
    assert call("ping", "--json") == (0, '{"pong": true}\n', "")


def test_call_takes_its_payload_from_a_file_or_stdin(there: tuple[str, ...], tmp_path: Path) -> None:
    """`@FILE` and `-` stand for the JSON that is there, in any script."""
    text = json.dumps(message(1, "aus der Datei: ∀ 🍵"), ensure_ascii=False)
    (tmp_path / "payload.json").write_text(text, encoding="utf-8")
    assert backscroll("call", "save-message", f"@{tmp_path / 'payload.json'}", *there).returncode == 0
    end = backscroll("call", "get-message-by-id", *there, "-", input='{"messageId": "m1"}')
    assert (end.returncode, json.loads(end.stdout)["content"]) == (0, "aus der Datei: ∀ 🍵")


def test_the_payload_may_come_after_the_flags(there: tuple[str, ...], run: Run) -> None:
    """People type it where they think of it."""
    said = run("call", "get-messages", *there, '{"roomId": "r1"}', "--timeout-ms", "9000")
    assert said == (0, "[]\n", "")


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
    """Standard output stays empty; standard error is the reply's error, for scripts to read."""
    said = call(*words)
    assert (said.code, said.out) == (1, "")
    error = json.loads(said.err)
    assert error["code"] == code
    assert error["message"]


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
    said = run("call", "ping", "--data-dir", str(tmp_path))
    assert said.code == 1
    error = json.loads(said.err)
    assert error["code"] == "unavailable"
    assert f"backscroll serve --data-dir {tmp_path}" in error["message"]


def test_call_waits_as_long_as_it_is_asked_to(tmp_path: Path, run: Run) -> None:
    """No reply within `--timeout-ms` is exit 1, and the message says that the outcome is unknown."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.ROUTER) as silent:
        silent.bind(f"ipc://{tmp_path}/silent.sock")
        said = run("call", "ping", "--endpoint", f"ipc://{tmp_path}/silent.sock", "--timeout-ms", "200")
        assert silent.poll(0)
    context.term()
    error = json.loads(said.err)
    assert (said.code, error["code"]) == (1, "no-reply")
    assert "unknown" in error["message"]


def test_an_address_where_nobody_listens_is_an_error(tmp_path: Path, run: Run) -> None:
    """Exit 1 within the time-out, and an error on standard error."""
    said = run("call", "ping", "--endpoint", f"ipc://{tmp_path}/nobody.sock", "--timeout-ms", "50")
    assert said.code == 1
    assert json.loads(said.err)["code"] in ("no-reply", "unavailable")


@pytest.mark.parametrize("payload", ["{", "", "hello", "{'single': 1}", "@/no/such/file"])
def test_a_payload_that_is_not_json_exits_with_2(payload: str, run: Run) -> None:
    """It is found before anything is sent, and the message says what to do."""
    said = run("call", "ping", payload)
    assert (said.code, said.out) == (2, "")
    assert "no/such/file" in said.err if payload.startswith("@") else "is not JSON" in said.err


# call, for people


def test_a_list_of_records_is_a_table(call_on_terminal: Run) -> None:
    """The fields' names are above the columns, times are readable, and nested lists are counted."""
    said = call_on_terminal("get-messages", '{"roomId": "r1"}')
    assert (said.code, said.err) == (0, "")
    names, row = (line.split() for line in said.out.splitlines())
    assert names == ["id", "roomId", "senderId", "content", "timestamp", "isDeleted", "reactions"]
    assert row == ["m1", "r1", "ada", "hello", *readable("at", 1).split(), "false", "–"]


def test_a_table_that_is_too_wide_is_split(call_on_terminal: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """First what all records share goes below it; where it is still too wide, each record has lines of its own."""
    assert call_on_terminal("save-message", json.dumps(message(2, "good bye " * 9))).code == 0
    monkeypatch.setenv("COLUMNS", "70")
    said = call_on_terminal("get-messages", '{"roomId": "r1"}')
    assert said.out.splitlines()[0].split() == ["id", "content", "timestamp"]
    assert "the same in all: roomId r1, senderId ada, isDeleted false, reactions –" in said.out
    monkeypatch.setenv("COLUMNS", "30")
    lines = call_on_terminal("get-messages", '{"roomId": "r1"}').out.splitlines()
    assert lines[0] == "── 1 of 2"
    assert lines[1].split() == ["id", "m1"]
    assert "── 2 of 2" in lines


def test_one_record_is_names_and_values(call_on_terminal: Run) -> None:
    """Records inside it are named by their path; lists of records have tables with titles."""
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
def test_anything_else_is_plain_text(call_on_terminal: Run, words: list[str], text: str) -> None:
    """Texts, numbers and what there is nothing of: each says what happened."""
    assert call_on_terminal(*words) == (0, text, "")


def test_json_can_be_had_on_a_terminal(call_on_terminal: Run) -> None:
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
    said = call_on_terminal(*words)
    assert (said.code, said.out, said.err.splitlines()) == (1, "", lines)


def test_an_unknown_operation_leads_to_describe(call_on_terminal: Run) -> None:
    """The list of all operations is not printed; the command that prints it is."""
    said = call_on_terminal("get-mesages")
    assert said.code == 1
    assert said.err.startswith("backscroll: unknown-operation at $.type: ")
    assert said.err.endswith("  `backscroll describe` lists the operations\n")
    assert len(said.err.splitlines()) == 2


def test_what_people_wrote_cannot_command_the_terminal(call_on_terminal: Run) -> None:
    """Control characters are spelled out; line breaks and other scripts stay."""
    assert printable("a\x1b[2Jb\x07\x9b\nc\td ∀🍵") == "a\\x1b[2Jb\\x07\\x9b\nc\td ∀🍵"
    assert call_on_terminal("save-message", json.dumps(message(3, "\x1b]0;title\x07"))).code == 0
    assert ESCAPE not in call_on_terminal("get-message-by-id", '{"messageId": "m3"}').out
    assert ESCAPE not in call_on_terminal("delete-message", json.dumps({"messageId": "\x1b[2J"})).err


def test_colour_is_for_terminals_that_want_it(call_on_terminal: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NO_COLOR a terminal gets colour, and with it plain text; a terminal that can nothing gets none either."""
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
    """Times are in UTC, lists are joined or counted, and the rest is as in JSON."""
    assert readable(name, value) == text


# describe

LANGUAGE: dict[str, Any] = {
    "level": 1,
    "operations": {
        "say-hello": {
            "kind": "command",
            "since": 1,
            "summary": "Say hello.",
            "description": "To one `Person`, so many times.",
            "payload": {
                "type": "object",
                "properties": {
                    "person": {"$ref": "#/$defs/Person"},
                    "times": {"type": "integer", "minimum": 1, "maximum": 500, "default": 3},
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
        "Answer": {"type": "object", "properties": {"from": {"$ref": "#/$defs/Person"}}, "required": ["from"]},
        "Unused": {"type": "object"},
    },
}


@pytest.fixture
def small_language(monkeypatch: pytest.MonkeyPatch) -> None:
    """`describe` of a language of two operations."""
    monkeypatch.setattr(describe_command, "describe_language", lambda: LANGUAGE)


def test_describe_lists_all_operations(run: Run) -> None:
    """One line for each, with its kind and its summary, so that grep finds it."""
    said = run("describe")
    assert (said.code, said.err) == (0, "")
    names, *lines = said.out.splitlines()
    assert names.split() == ["operation", "kind", "summary"]
    assert [line.split()[0] for line in lines] == list(OPERATIONS)
    assert {line.split()[1] for line in lines} == {"command", "query", "maintenance", "built-in"}
    assert not any(line.endswith(" ") for line in lines)


@pytest.mark.usefixtures("small_language")
def test_describe_shows_one_operation(run: Run) -> None:
    """Payload with types, presence and limits, the records in it, result, errors, and an example."""
    said = run("describe", "say-hello")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [
        "say-hello  command, since protocol level 1",
        "",
        "Say hello. Replaced by greet.",
        "",
        "To one `Person`, so many times.",
        "",
        "payload",
        "  person  Person   required",
        "  times   integer  default 3  1 to 500",
        "",
        "Person",
        "  name  string  required  at most 9 characters",
        "",
        "result",
        "  Answer or null",
        "",
        "Answer",
        "  from  Person  required",
        "",
        "errors",
        "  not-found  It is not there.",
        "",
        "example",
        """  backscroll call say-hello '{"person": {"name": "Bo'"'"'s 🍵"}}'""",
    ]


@pytest.mark.usefixtures("small_language")
def test_describe_leaves_out_what_is_empty(run: Run) -> None:
    """An operation without fields, description and errors says so in few lines."""
    assert run("describe", "greet").out.split("\n\n") == [
        "greet  query, since protocol level 1",
        "Greet.",
        "payload\n  no fields",
        "result\n  null",
        "example\n  backscroll call greet\n",
    ]


@pytest.mark.usefixtures("small_language")
def test_describe_prints_json(run: Run) -> None:
    """The whole language, or one operation with the definitions that it refers to, by themselves or through others."""
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
    said = run("describe", name)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"backscroll: there is no operation {name!r}{hint}")


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_can_be_described(name: str, run: Run, on_terminal: Run) -> None:
    """Its last line is a command that can be pasted; on a terminal it says the same."""
    lines = run("describe", name).out.splitlines()
    command, call, operation, *payload = shlex.split(lines[-1])
    assert (command, call, operation) == ("backscroll", "call", name)
    assert all(isinstance(json.loads(word), dict) for word in payload)
    said = on_terminal("describe", name)
    assert said.code == 0
    assert lines[-1] in said.out


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
def test_limits_are_put_in_words(schema: dict[str, Any], limits: str) -> None:
    """With their units, and also where a value may be null."""
    assert limits_of(schema) == limits


def test_definitions_are_found_through_others() -> None:
    """Also where they refer to each other, and where one is missing."""
    definitions = {"A": {"items": {"$ref": "#/$defs/B"}}, "B": {"anyOf": [{"$ref": "#/$defs/A"}]}, "C": {}}
    assert definitions_in([{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/missing"}], definitions) == ["A", "B"]


# completion


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_commands_flags_and_operations(shell: str, run: Run) -> None:
    """The script is on standard output, ready to be saved."""
    said = run("completion", shell)
    assert (said.code, said.err) == (0, "")
    for word in ("describe", "get-message-page", "command-log", "ids-only", "against-data-dir"):
        assert word in said.out


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
    ],
)
def test_bash_completes(words: str, completed: str, run: Run) -> None:
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


def test_progress_is_shown_to_people_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written where nobody watches, where colour is not wanted, or beside the results."""
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


def test_serve_is_the_daemon(tmp_path: Path) -> None:
    """`backscroll serve` takes the daemon's flags and ends with its exit codes."""
    end = backscroll("serve", "--data-dir", str(tmp_path / "data"), "--exit-with-parent", input="")
    assert end.returncode == 0
    assert json.loads(end.stdout)["event"] == "ready"
    end = backscroll("serve", "--readers", "none")
    assert (end.returncode, end.stdout) == (2, "")
    assert end.stderr == "backscroll: --readers: give a whole number, such as 8, not 'none'\n"
    (tmp_path / "data" / "default.db").write_bytes(b"garbage" * 1_000)
    assert backscroll("serve", "--data-dir", str(tmp_path / "data")).returncode == 4


def test_the_demo_shows_a_conversation_and_its_rows() -> None:
    """What a newcomer runs first works, leaves nothing behind and shows what it is about."""
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
    assert end.stdout.count("wrong channel, sorry") == 1  # where it is said; it is deleted later


def test_the_demo_ignores_settings_of_its_user(tmp_path: Path) -> None:
    """A daemon that the user's environment describes may be running; the demo has one of its own."""
    environment = {"BACKSCROLL_ENDPOINT": f"ipc://{tmp_path}/own.sock", "BACKSCROLL_COMMAND_LOG": "ids-only"}
    end = backscroll("demo", env=os.environ | environment)
    assert (end.returncode, end.stderr) == (0, "")
    assert "own.sock" not in end.stdout


def test_what_the_demo_suggests_can_be_pasted(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """The commands after the first, which starts a daemon, run in a shell next to it."""
    start_daemon()
    commands = backscroll("demo").stdout.split("6  Now you")[1].splitlines()[2:]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        done = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
