"""The command line: which commands and flags there are. What they do is in other modules, each loaded when it runs."""

import argparse
import io
import runpy
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from backscroll.clients.command_line.exits import EXIT_FAILED, EXIT_USAGE, guarded
from backscroll.clients.command_line.suggestions import did_you_mean

SHELLS = ("bash", "zsh", "fish")
WORKER = "worker"  # what a daemon without a Python of its own starts for work on whole databases
NOUNS = "message, room, member, user, current-user, ban or media"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of the command line; its exit code."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")  # whatever the terminal's code page is
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if words[:1] == ["serve"]:
        return _run_module("backscroll.bus", words)
    if words == [WORKER]:
        return _run_module("backscroll.bus.sqlite.maintenance.worker", words)
    options = _parse(words)
    return guarded(partial(options.run, options))


def _run_module(module: str, words: Sequence[str]) -> int:
    """Run the daemon, or its worker, in this process. It is started as a module, for callers never import the bus."""
    sys.argv = [f"backscroll {words[0]}", *words[1:]]
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_FAILED
    return 0


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows one line for each command, and examples as they were written."""

    def _format_action(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._SubParsersAction):
            return "".join(f"  {command.dest:<10}  {command.help}\n" for command in action._get_subactions())
        return super()._format_action(action)


class Parser(argparse.ArgumentParser):
    """Takes no abbreviated flags; its errors say what is wrong and where the help is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **options)

    def error(self, message: str) -> NoReturn:
        hint = f"Run `{self.prog} --help` for help."
        self.exit(EXIT_USAGE, f"{self.format_usage()}backscroll: {message}\n{hint}\n")

    def refuse(self, word: str) -> NoReturn:
        """Report a word that is no part of this command."""
        if word.startswith("-"):
            flag = word.partition("=")[0]
            self.error(f"unknown flag {flag}{did_you_mean(flag, self._option_string_actions)}")
        self.error(f"unexpected argument {word!r}; put an argument that contains spaces in single quotes")


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """What was typed; exits with 2 where it is wrong, and with 0 after the help or the version."""
    parser = build_parser()
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        parser.error(f"there is no command {words[0]!r}{did_you_mean(words[0], COMMANDS)}")
    options, rest = parser.parse_known_args(words)
    if options.version:
        from importlib.metadata import version

        sys.stdout.write(f"{version('backscroll')}\n")
        parser.exit()
    if options.command is None:
        parser.print_help(sys.stderr)
        parser.exit(EXIT_USAGE)
    if rest and _belongs_at_the_end(rest[0], options):
        setattr(options, options.last, rest.pop(0))
    if rest:
        options.parser.refuse(rest[0])
    return options


def _belongs_at_the_end(word: str, options: argparse.Namespace) -> bool:
    """Whether a word is the optional last argument, which argparse does not take after flags."""
    last = getattr(options, "last", None)
    return last is not None and getattr(options, last) is None and (word == "-" or not word.startswith("-"))


def build_parser() -> Parser:
    """The parser of all commands; the flags of `serve` are in `backscroll.bus.settings`."""
    parser = Parser(
        prog="backscroll",
        description="A storage daemon for chat applications, and commands to talk to it.",
        epilog="New here? Run `backscroll demo`. Each command has its own `--help`.",
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    for name, command in COMMANDS.items():
        added = _add_command(commands, name, command.help, epilog=command.epilog)
        command.add_arguments(added)
    return parser


def _add_command(commands: "argparse._SubParsersAction[Parser]", name: str, text: str, epilog: str = "") -> Parser:
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog)
    command.set_defaults(parser=command)
    return command


def _lazily(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """A function of this package, whose module is loaded when it is called."""

    def run(options: argparse.Namespace) -> int:
        code: int = getattr(import_module(f"backscroll.clients.command_line.{module}"), function)(options)
        return code

    return run


def _add_no_arguments(_serve: Parser) -> None:
    pass


def _add_call(call: Parser) -> None:
    call.add_argument("type", metavar="TYPE", help="operation, such as get-messages; `backscroll describe` lists them")
    call.add_argument("payload", metavar="PAYLOAD", nargs="?", help="JSON object, @FILE, or - for standard input")
    _add_daemon(call, "data directory of the daemon")
    call.add_argument("--timeout-ms", type=_count, metavar="MS", help="how long to wait for the reply (default: 5 s)")
    call.add_argument(
        "--json", action="store_true", help="print JSON even on a terminal; a pipe or file always gets JSON"
    )
    call.set_defaults(run=_lazily("call", "call"), last="payload")


def _add_daemon(parser: Parser, data_dir: str, *, scope: bool = True) -> None:
    default = "default: BACKSCROLL_DATA_DIR, or else the usual place for data of this user"
    parser.add_argument("--data-dir", type=_path, metavar="DIR", help=f"{data_dir} ({default})")
    parser.add_argument("--endpoint", metavar="ADDRESS", help="address of the daemon, instead of a data directory")
    if scope:
        parser.add_argument("--scope", metavar="NAME", help="scope, which is an account (default: default)")


def _add_describe(describe: Parser) -> None:
    describe.add_argument("operation", metavar="OPERATION", nargs="?", help="operation to describe (default: list all)")
    describe.add_argument("--json", action="store_true", help="print JSON, with payloads and results as JSON Schema")
    describe.set_defaults(run=_lazily("describe", "describe"), last="operation")


def _add_log(log: Parser) -> None:
    kinds = log.add_subparsers(dest="kind", required=True, title="commands", metavar="COMMAND")
    export = _add_command(kinds, "export", "print the command log of a scope, one JSON object per line")
    export.add_argument("--from", dest="from_seq", type=_count, default=1, metavar="SEQ", help="first command")
    export.add_argument("--to", dest="to_seq", type=_count, metavar="SEQ", help="last command")
    verify = _add_command(kinds, "verify", "check a log against its digests and its chain of hashes")
    verify.add_argument(
        "file", metavar="FILE", nargs="?", help="exported log, or - for standard input (default: the scope's own log)"
    )
    for parser, run in ((export, "log_export"), (verify, "log_verify")):
        _add_daemon(parser, "data directory, whether or not a daemon is running in it")
        parser.set_defaults(run=_lazily("logs", run))
    verify.set_defaults(last="file")


def _add_replay(replay: Parser) -> None:
    replay.add_argument("file", metavar="FILE", help="exported or hand-written log, or - for standard input")
    replay.add_argument("--into", type=_path, metavar="DIR", help="fresh data directory (default: keep nothing)")
    replay.add_argument("--scope", metavar="NAME", help="only the commands of this scope")
    replay.add_argument("--until", type=_count, metavar="SEQ", help="stop after this command")
    replay.add_argument("--at", metavar="TIME", help="stop after this time, in ISO 8601 or milliseconds since 1970")
    replay.add_argument("--verify", action="store_true", help="compare the resulting rows with those stored elsewhere")
    replay.add_argument(
        "--against-data-dir", type=_path, metavar="DIR", help="with --verify: compare with this directory"
    )
    replay.add_argument("--against-endpoint", metavar="ADDRESS", help="with --verify: compare with this daemon")
    replay.set_defaults(run=_lazily("replay", "replay_file"))


def _add_check(check: Parser) -> None:
    _add_daemon(check, "data directory, whether or not a daemon is running in it", scope=False)
    check.add_argument("--scope", metavar="NAME", help="only this scope (default: all)")
    check.set_defaults(run=_lazily("check", "check"))


def _add_backup(backup: Parser) -> None:
    kinds = backup.add_subparsers(dest="kind", required=True, title="commands", metavar="COMMAND")
    create = _add_command(kinds, "create", "make a backup: everything, or what changed since the one before")
    create.add_argument("--scope", metavar="NAME", help="only this scope (default: all)")
    create.add_argument("--full", action="store_true", help="copy everything in any case")
    listed = _add_command(kinds, "list", "list the backups in a directory")
    verify = _add_command(kinds, "verify", "prove that a backup is whole, without restoring it")
    for parser, run in ((create, "create"), (listed, "list"), (verify, "verify")):
        parser.add_argument(
            "directory",
            type=_path,
            metavar="DIR",
            nargs="?",
            help="directory of the backups (default: the daemon's --backup-dir)",
        )
        _add_daemon(parser, "data directory, whether or not a daemon is running in it", scope=False)
        parser.set_defaults(run=_lazily("backups", f"backup_{run}"))
    verify.add_argument("name", metavar="NAME", nargs="?", help="name of the backup (default: the newest)")


def _add_restore(restore: Parser) -> None:
    restore.add_argument("directory", type=_path, metavar="DIR", help="directory of the backups")
    restore.add_argument(
        "--into", type=_path, required=True, metavar="DIR", help="data directory: a fresh one, or one without a daemon"
    )
    restore.add_argument("--backup", metavar="NAME", help="name of the backup (default: the newest)")
    restore.add_argument("--scope", metavar="NAME", help="only this scope (default: all)")
    restore.add_argument("--until", type=_count, metavar="SEQ", help="the state after this command of the scope")
    restore.add_argument("--at", metavar="TIME", help="the state at this time, in ISO 8601 or milliseconds since 1970")
    restore.set_defaults(run=_lazily("stopped", "restore"))


def _add_repair(repair: Parser) -> None:
    repair.add_argument("--data-dir", type=_path, metavar="DIR", help="data directory without a running daemon")
    repair.add_argument("--scope", metavar="NAME", help="only this scope (default: all that are damaged)")
    repair.add_argument("--backups", type=_path, metavar="DIR", help="directory of backups to take from what is lost")
    repair.set_defaults(run=_lazily("stopped", "repair"))


def _add_copy(copy: Parser) -> None:
    place = "data directory without a running daemon, or postgresql://USER@HOST/DATABASE"
    copy.add_argument("source", metavar="FROM", help=place)
    copy.add_argument("target", metavar="TO", help="the same; a directory may be new")
    copy.add_argument(
        "--scope", action="append", metavar="NAME", help="only this scope; repeat it for several (default: all)"
    )
    copy.set_defaults(run=_lazily("stopped", "copy"))


def _add_watch(watch: Parser) -> None:
    _add_daemon(watch, "data directory of the daemon")
    watch.add_argument(
        "--after",
        default="now",
        metavar="CURSOR",
        help="what changed after this cursor, or `start` for the whole history (default: now)",
    )
    watch.add_argument("--room", action="append", metavar="ID", help="only in this room; repeat it for several")
    watch.add_argument(
        "--noun", action="append", metavar="NOUN", help=f"only of this kind: {NOUNS}; repeat it for several"
    )
    watch.add_argument("--no-values", action="store_true", help="print which items changed, and not what they are now")
    watch.set_defaults(run=_lazily("watch", "watch"))


def _add_token(token: Parser) -> None:
    kinds = token.add_subparsers(dest="kind", required=True, title="commands", metavar="COMMAND")
    create = _add_command(kinds, "create", "make a token and print it, once")
    create.add_argument("name", metavar="NAME", help="name, which the command log shows for its commands")
    rights = ("read", "write", "admin")
    create.add_argument("--right", choices=rights, required=True, help="what it may do; each includes those before it")
    create.add_argument(
        "--scope", action="append", metavar="NAME", help="only in this scope; repeat it for several (default: in all)"
    )
    create.add_argument("--expires", metavar="DURATION", help="such as 30d, 12h or 90m (default: never)")
    listed = _add_command(kinds, "list", "list the tokens")
    revoke = _add_command(kinds, "revoke", "refuse a token from now on")
    revoke.add_argument("name", metavar="NAME", help="name of the token")
    for parser, run in ((create, "token_create"), (listed, "token_list"), (revoke, "token_revoke")):
        _add_daemon(parser, "data directory, whether or not a daemon is running in it", scope=False)
        parser.set_defaults(run=_lazily("access", run))


def _add_keys(keys: Parser) -> None:
    kinds = keys.add_subparsers(dest="kind", required=True, title="commands", metavar="COMMAND")
    create = _add_command(kinds, "create", "make a client's key pair and print it, once")
    create.add_argument("name", metavar="NAME", help="name of the client")
    create.add_argument("--to", metavar="FILE", help="write the keys into this new file instead of printing them")
    listed = _add_command(kinds, "list", "list the clients' public keys")
    revoke = _add_command(kinds, "revoke", "let no more connections in with a key")
    revoke.add_argument("name", metavar="NAME", help="name of the client")
    server = _add_command(kinds, "server", "print the daemon's public key")
    for parser, run in ((create, "create"), (listed, "list"), (revoke, "revoke"), (server, "server")):
        _add_daemon(parser, "data directory, whether or not a daemon is running in it", scope=False)
        parser.set_defaults(run=_lazily("access", f"keys_{run}"))


def _add_demo(demo: Parser) -> None:
    demo.set_defaults(run=_lazily("demo", "demo"))


def _add_completion(completion: Parser) -> None:
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
    completion.set_defaults(run=_lazily("completion", "completion"))


def _path(word: str) -> Path:
    if "://" in word:
        raise argparse.ArgumentTypeError("give a path, not an address")
    return Path(word)


def _count(word: str) -> int:
    if not word.isascii() or not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"give a whole number from 1 on, not {word!r}")
    return int(word)


class _CommandLine(NamedTuple):
    """One command of the command line."""

    help: str
    add_arguments: Callable[[Parser], None]
    epilog: str = ""


COMMANDS = {
    "serve": _CommandLine("run the daemon", _add_no_arguments),
    "call": _CommandLine(
        "send one request to the daemon and print the result",
        _add_call,
        """\
examples:
  backscroll call get-messages '{"roomId": "home", "limit": 50}'
  backscroll call save-message @message.json --data-dir ./data
  echo '{"roomId": "home"}' | backscroll call get-messages - | jq length

exit codes:
  0 for a result, 1 for an error or no reply, 2 for wrong usage
""",
    ),
    "describe": _CommandLine(
        "list the operations, or show what one takes and returns",
        _add_describe,
        """\
examples:
  backscroll describe
  backscroll describe save-message
  backscroll describe --json > language.json
""",
    ),
    "log": _CommandLine(
        "export or verify the command log of a scope",
        _add_log,
        """\
examples:
  backscroll log export --data-dir ./data > commands.jsonl
  backscroll log verify commands.jsonl
  backscroll log verify --data-dir ./data
""",
    ),
    "replay": _CommandLine(
        "execute an exported log in a fresh data directory",
        _add_replay,
        """\
examples:
  backscroll replay commands.jsonl --into ./again --until 120
  backscroll replay commands.jsonl --verify --against-data-dir ./data
""",
    ),
    "check": _CommandLine(
        "check that databases and media are whole",
        _add_check,
        """\
It reads every page, checks the command log with its chain, executes the log again and compares the rows, and compares
media with their hashes. The daemon goes on serving meanwhile.

exit codes:
  0 if all is well, 1 if something is damaged or could not be checked
""",
    ),
    "backup": _CommandLine(
        "make, list or verify backups",
        _add_backup,
        """\
examples:
  backscroll backup create /media/disk/backups --data-dir ./data
  backscroll backup list /media/disk/backups --data-dir ./data
  backscroll backup verify /media/disk/backups --data-dir ./data
""",
    ),
    "restore": _CommandLine(
        "make a data directory from a backup",
        _add_restore,
        """\
examples:
  backscroll restore /media/disk/backups --into ./data
  backscroll restore /media/disk/backups --into ./yesterday --at 2026-11-25T18:00:00Z

What is in the data directory before is set aside and not deleted.
""",
    ),
    "repair": _CommandLine(
        "save what can be saved of damaged databases",
        _add_repair,
        """\
examples:
  backscroll repair --data-dir ./data --backups /media/disk/backups

Stop the daemon before. The damaged files are set aside and not deleted. The report says what became of each scope, what
to do now, and then the details; all of them are in report.txt beside the files that were set aside.

exit codes:
  0 if nothing was lost, 1 if something was lost or could not be repaired
""",
    ),
    "copy": _CommandLine(
        "copy scopes between data directories and PostgreSQL databases",
        _add_copy,
        """\
examples:
  backscroll copy ./data postgresql://backscroll@db.example/chat
  backscroll copy postgresql://backscroll@db.example/chat ./again --scope ada

Everything of a scope is copied: all rows, the command log with its chain, and media; but no access tokens and no keys.
Then both sides are read again and compared. A scope that TO has already must be the same. An interrupted copy leaves no
half of a scope: run it again.

Daemons may go on using a PostgreSQL database meanwhile. What they write to a scope after its copy was begun is not
copied: to move a scope, stop them first.

exit codes:
  0 if all is copied and equal, 1 if something could not be copied, 2 for wrong usage
""",
    ),
    "watch": _CommandLine(
        "print what changes in a scope, one JSON object per line",
        _add_watch,
        """\
examples:
  backscroll watch --room home --data-dir ./data
  backscroll watch --noun message --noun room --no-values | jq .id
  backscroll watch --after start | head -1

Only the last line of each page has a `cursor`: store that, and go on there with --after. A line {"gap":true,"cursor":…}
means that the scope has another history now: read everything anew. It goes on until it is interrupted, and waits while
the daemon is gone.
""",
    ),
    "token": _CommandLine(
        "create, list or revoke tokens for calls over tcp",
        _add_token,
        """\
examples:
  backscroll token create bot --right write --scope ada --expires 30d --data-dir ./data
  BACKSCROLL_TOKEN=bot.… backscroll call list-users --endpoint tcp://127.0.0.1:5555 --scope ada
  backscroll token revoke bot --data-dir ./data
""",
    ),
    "keys": _CommandLine(
        "create, list or revoke keys for encrypted connections (CURVE)",
        _add_keys,
        """\
examples:
  backscroll keys create laptop --to laptop.keys --data-dir ./data
  backscroll serve --data-dir ./data --endpoint curve://0.0.0.0:5555
  BACKSCROLL_KEYS=laptop.keys BACKSCROLL_TOKEN=bot.… backscroll call list-users --endpoint curve://192.0.2.1:5555
""",
    ),
    "demo": _CommandLine("start a daemon, talk to it, and show what it stored", _add_demo),
    "completion": _CommandLine(
        "print a completion script for bash, zsh or fish",
        _add_completion,
        """\
to install it, in a directory that exists:
  bash  backscroll completion bash > ~/.local/share/bash-completion/completions/backscroll
  zsh   backscroll completion zsh > ~/.zfunc/_backscroll, with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  fish  backscroll completion fish > ~/.config/fish/completions/backscroll.fish
""",
    ),
}
