"""`backscroll call`: send one request as it was typed, and show the reply: to people as text, to scripts as JSON."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from backscroll.clients.command_line.exits import EXIT_FAILED, EXIT_USAGE, complain
from backscroll.clients.command_line.output import console, printable
from backscroll.clients.command_line.results import readable, show_result
from backscroll.clients.python.client import ZmqTransport
from backscroll.clients.python.pending_calls import TIMEOUT_MS, new_id, open_reply
from backscroll.schema.errors import (
    BackscrollError,
    Forbidden,
    Invalid,
    NoReply,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownOperation,
)
from backscroll.schema.operations import OPERATIONS, Command, Maintenance
from backscroll.schema.paths import TOKEN_VARIABLE
from backscroll.schema.wire import DEFAULT_SCOPE, JSON, Envelope, Reply, error_body, error_of

EXAMPLE = """'{"roomId": "home"}'"""


def call(options: argparse.Namespace) -> int:
    """Send one request; the daemon validates it."""
    try:
        payload = _payload("{}" if options.payload is None else options.payload)
    except OSError as error:
        return complain(f"cannot read the payload: {error}", EXIT_USAGE)
    except (ValueError, RecursionError) as error:
        return complain(f"the payload is not JSON: {error}; quote it like {EXAMPLE}", EXIT_USAGE)
    scope = DEFAULT_SCOPE if options.scope is None else options.scope
    timeout_ms = options.timeout_ms or TIMEOUT_MS
    try:
        body = JSON.encode(Envelope(new_id(), options.type, payload, scope, deadline_ms=timeout_ms))
    except UnicodeEncodeError:
        return complain("the operation and the scope must be valid UTF-8", EXIT_USAGE)
    try:
        reply = _exchange(ZmqTransport(options.endpoint, options.data_dir), body, timeout_ms)
    except BackscrollError as error:
        _show_error(error, options)
        return EXIT_FAILED
    _show_result(reply, options)
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


def _exchange(transport: ZmqTransport, body: bytes, timeout_ms: int) -> Reply[Any]:
    """The reply to a request; raises the error that it is, or `NoReply`."""
    with closing(transport):
        transport.send(body, timeout_ms)
        answer = transport.receive(timeout_ms)
    if answer is None:
        raise NoReply(f"no reply within {timeout_ms} ms from {transport.endpoint}: the outcome is unknown")
    reply, _ = open_reply(answer)
    if not reply.ok:
        raise error_of(reply)
    return reply


def _show_result(reply: Reply[Any], options: argparse.Namespace) -> None:
    watched = sys.stdout.isatty()
    if options.json or not watched:
        sys.stdout.write(msgspec.json.format(bytes(reply.result), indent=2 if watched else 0).decode() + "\n")
        return
    out = console(sys.stdout)
    result = json.loads(bytes(reply.result))
    if result is not None:
        show_result(result, out)
        return
    operation = OPERATIONS.get(options.type)
    if operation is not None and issubclass(operation, Command | Maintenance):
        out.print(f"done (seq {reply.seq})" if issubclass(operation, Command) else "done")
    else:
        out.print("nothing found", style="dim")


def _show_error(error: BackscrollError, options: argparse.Namespace) -> None:
    if options.json or not sys.stderr.isatty():
        if error.details and "did you mean" in error.message:
            error.details.pop("known", None)
        sys.stderr.write(JSON.encode(error_body(error)).decode() + "\n")
        return
    out = console(sys.stderr)
    out.print(f"backscroll: {printable(_headline(error))}", style="red", soft_wrap=True)
    for line in _details(error, options.type):
        out.print(f"  {printable(line)}", soft_wrap=True)


def _headline(error: BackscrollError) -> str:
    """The code, the path of the field if there is one, and what is wrong with it."""
    path = str((error.details or {}).get("path", ""))
    problem = error.message.removeprefix(f"{path}: ") if path else error.message
    return f"{error.code} at {path}: {problem}" if path else f"{error.code}: {problem}"


def _details(error: BackscrollError, operation: str) -> Iterator[str]:
    """What else the error says, and what can be done about it."""
    for name, value in (error.details or {}).items():
        if name not in ("path", "known", "level", "failures"):  # which the first line says
            yield f"{name}: {readable(name, value)}"
    yield from map(str, error.failures[1:])  # of a batch; the first line says the first
    if isinstance(error, Forbidden | Unauthenticated | Unavailable) and "the token" in error.message:
        if os.environ.get(TOKEN_VARIABLE):
            yield f"the token is that in {TOKEN_VARIABLE}"
    elif isinstance(error, UnknownOperation):
        yield "`backscroll describe` lists the operations"
    elif isinstance(error, Invalid | TooLarge) and operation in OPERATIONS:
        yield f"`backscroll describe {operation}` shows its payload"
    elif error.retryable:
        yield "the same request may succeed later"
