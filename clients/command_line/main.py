"""The command line: `backscroll serve | call | log | replay | demo`. Parses words and prints; the work is elsewhere."""

import argparse
import io
import json
import runpy
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import msgspec

from backscroll.clients.python.client import ZmqTransport
from backscroll.clients.python.pending_calls import DEFAULT_SCOPE, TIMEOUT_MS, find_endpoint, new_id, open_reply
from backscroll.schema.errors import BackscrollError, NoReply
from backscroll.schema.wire import JSON, Envelope, error_body, error_of

EXIT_ERROR_REPLY, EXIT_USAGE = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of the command line; its exit code."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")  # whatever the terminal's code page is
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["serve"]:
        return _serve(words[1:])
    options = _parser().parse_args(words)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _serve(flags: Sequence[str]) -> int:
    """Run the daemon in this process. It is started as a module, for callers never import the bus."""
    sys.argv = ["backscroll serve", *flags]
    try:
        runpy.run_module("backscroll.bus", run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_ERROR_REPLY
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="backscroll", description="A storage daemon for chat applications.")
    parser.add_argument("--version", action="version", version=version("backscroll"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="serve | call | log | replay | demo")
    commands.add_parser("serve", help="run the daemon; `backscroll serve --help` lists its settings")
    demo = commands.add_parser("demo", help="start a daemon, have a small conversation with it, show what it stored")
    demo.set_defaults(run=_demo)
    _add_call(commands.add_parser("call", help="send one request and print its result as JSON"))
    _add_log(commands.add_parser("log", help="write a scope's command log to a file, or check it"))
    _add_replay(commands.add_parser("replay", help="carry out a log file's commands in a fresh data directory"))
    return parser


def _add_call(call: argparse.ArgumentParser) -> None:
    call.add_argument("type", metavar="TYPE", help="the operation, such as get-messages")
    call.add_argument(
        "payload", metavar="PAYLOAD", nargs="?", default="{}", help="a JSON object, @FILE, or - for standard input"
    )
    call.add_argument("--endpoint", help="the daemon's address")
    call.add_argument("--data-dir", type=Path, help="the daemon's data directory, when no endpoint is given")
    call.add_argument("--scope", default=DEFAULT_SCOPE, help="the account")
    call.add_argument("--timeout-ms", type=int, default=TIMEOUT_MS, help="how long to wait for the reply")
    call.set_defaults(run=_call)


def _add_log(log: argparse.ArgumentParser) -> None:
    kinds = log.add_subparsers(dest="kind", required=True, metavar="export | verify")
    export = kinds.add_parser("export", help="print a scope's command log, one JSON object a line")
    export.add_argument("--from", dest="from_seq", type=_seq, default=1, metavar="SEQ", help="the first command")
    export.add_argument("--to", dest="to_seq", type=_seq, metavar="SEQ", help="the last command")
    verify = kinds.add_parser("verify", help="hold a log against its digests and its chain")
    verify.add_argument("file", metavar="FILE", nargs="?", help="an exported log, or - for standard input")
    for parser in (export, verify):
        parser.add_argument("--scope", default=DEFAULT_SCOPE, help="the account")
        parser.add_argument("--endpoint", help="the daemon's address")
        parser.add_argument("--data-dir", type=Path, help="a data directory, with or without a daemon")
    export.set_defaults(run=_on_logs("log_export"))
    verify.set_defaults(run=_on_logs("log_verify"))


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a log, or - for standard input")
    parser.add_argument("--into", type=Path, metavar="DIR", help="a fresh data directory; without it nothing is kept")
    parser.add_argument("--scope", help="only this account's commands")
    parser.add_argument("--until", type=_seq, metavar="SEQ", help="stop after this command")
    parser.add_argument("--at", metavar="TIME", help="stop after this time, in milliseconds or ISO 8601")
    parser.add_argument("--verify", action="store_true", help="compare what comes of it with what is stored elsewhere")
    parser.add_argument("--against-data-dir", type=Path, metavar="DIR", help="with --verify: that data directory")
    parser.add_argument("--against-endpoint", metavar="ENDPOINT", help="with --verify: that daemon")
    parser.set_defaults(run=_on_logs("replay_file"))


def _seq(word: str) -> int:
    if not word.isascii() or not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no number from 1 on")
    return int(word)


def _on_logs(name: str) -> Callable[[argparse.Namespace], int]:
    """The work of this name, loaded once it is wanted: it reads documents, which takes more than a call does."""

    def run(options: argparse.Namespace) -> int:
        from backscroll.clients.command_line import logs as logs_cli

        code: int = getattr(logs_cli, name)(options)
        return code

    return run


def _demo(_options: argparse.Namespace) -> int:
    from backscroll.clients.command_line.demo import demo  # it opens a database file; the others need no driver

    demo(sys.stdout)
    return 0


def _call(options: argparse.Namespace) -> int:
    """Send one request as it was typed; the daemon judges it."""
    try:
        payload = _payload(options.payload)
    except OSError as error:
        sys.stderr.write(f"backscroll: the payload cannot be read: {error}\n")
        return EXIT_USAGE
    except ValueError as error:
        hint = """write an object in single quotes, as in '{"roomId": "home"}'"""
        sys.stderr.write(f"backscroll: the payload is no JSON ({error}): {hint}\n")
        return EXIT_USAGE
    envelope = Envelope(new_id(), options.type, payload, options.scope, deadline_ms=options.timeout_ms)
    try:
        endpoint = find_endpoint(options.endpoint, options.data_dir)
        result = _exchange(endpoint, JSON.encode(envelope), options.timeout_ms)
    except BackscrollError as error:
        sys.stderr.write(JSON.encode(error_body(error)).decode() + "\n")
        return EXIT_ERROR_REPLY
    sys.stdout.write(result + "\n")
    return 0


def _payload(word: str) -> msgspec.Raw:
    """The JSON text that a word stands for, unchanged."""
    if word == "-":
        text = sys.stdin.read()
    elif word.startswith("@"):
        text = Path(word[1:]).read_text(encoding="utf-8")
    else:
        text = word
    json.loads(text)
    return msgspec.Raw(text.encode())


def _exchange(endpoint: str, body: bytes, timeout_ms: int) -> str:
    """The result's JSON; indented for a person at a terminal."""
    with closing(ZmqTransport(endpoint)) as transport:
        transport.send(body, timeout_ms)
        answer = transport.receive(timeout_ms)
    if answer is None:
        raise NoReply(f"no reply within {timeout_ms} ms from {endpoint}: the outcome is unknown")
    reply, _ = open_reply(answer)
    if not reply.ok:
        raise error_of(reply)
    return msgspec.json.format(bytes(reply.result), indent=2 if sys.stdout.isatty() else 0).decode()
