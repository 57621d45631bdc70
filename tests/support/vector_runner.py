"""The Python client's runner of the conformance vectors: one JSON line for each vector.

    python -m tests.support.vector_runner DIRECTORY [--only SET] [--write]

`--write` replaces what the vectors expect by what this client and its daemon do, where that is plain data.
"""

import argparse
import asyncio
import hashlib
import itertools
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from backscroll.bus.dispatch import Refused, receive
from backscroll.clients.python import AsyncClient, Client
from backscroll.clients.python.client import ZmqTransport
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.clients.python.pending_calls import Call, open_reply
from backscroll.schema import AppendLog, BackscrollError, GetLog, Internal, Ping
from backscroll.schema.command_log import LogEntry, canonical, digest_of
from backscroll.schema.operations import Command
from backscroll.schema.operations.decoding import decode_operation, operation_type
from backscroll.schema.strict import strict
from backscroll.schema.wire import JSON, MSGPACK, Codec, codec_of, error_of, proof_of
from tests.support.requests import example
from tests.support.retry_machine import played_row, played_sequence
from tests.support.scenarios import Mismatch, play_scenario
from tests.support.vectors import LISTS, Result, Vector, VectorFile, difference, expanded, load, vectors_in, write
from tests.support.zmtp_server import ZmtpServer

TIMEOUT_MS = 10_000
AT = 1_767_225_600_000  # when the commands of the canonical vectors took effect


class Context:
    """What the sets share: a daemon that is started when it is first needed."""

    def __init__(self, stack: ExitStack, timeout_ms: int = TIMEOUT_MS) -> None:
        self._stack = stack
        self.timeout_ms = timeout_ms
        self._daemon: DaemonProcess | None = None
        self._scopes = itertools.count(1)
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backscroll-")))

    @property
    def endpoint(self) -> str:
        if self._daemon is None:
            log = self._stack.enter_context((self.directory / "log").open("w"))
            self._daemon = self._stack.enter_context(DaemonProcess(self.directory / "data", log=log))
        return self._daemon.endpoint

    def new_scope(self) -> str:
        """The name of a scope that was not used yet."""
        return f"scope-{next(self._scopes)}"

    @cached_property
    def log_client(self) -> Client:
        """A client of the scope to whose log all canonical vectors are appended: to make a scope takes a while."""
        return self._stack.enter_context(self.client("canonical"))

    def client(self, scope: str) -> Client:
        return Client(self.endpoint, scope=scope, timeout_ms=self.timeout_ms)


# --- codec ---


def codec_request(vector: Vector) -> Vector:
    """A request vector with what the schema makes of its bytes, encoded again by the client in both encodings."""
    outcomes = [_canonical_or_error(vector["type"], *each) for each in _written(vector)]
    kept = {key: each for key, each in vector.items() if key not in ("canonical", "error")}
    if any(each != outcomes[0] for each in outcomes):
        return kept | {"canonical": f"differs: {outcomes}"}
    if "error" in outcomes[0] and "json" in vector and _can_be_sent(vector["type"], vector["json"]):
        return kept | {"error": "the client sends it, and the daemon accepts it"}
    return kept | outcomes[0]


def _can_be_sent(name: str, text: str) -> bool:
    """Whether an application can make the client send a payload that the daemon does not refuse."""
    try:
        operation = msgspec.convert(json.loads(text), strict(operation_type(name)))
        _received(Call(operation, scope="default", timeout_ms=TIMEOUT_MS).body)
    except (msgspec.ValidationError, BackscrollError):
        return False
    return True


def _written(vector: Vector) -> list[tuple[bytes, Codec]]:
    json_text, packed = vector.get("json"), vector.get("msgpack")
    written = [(json_text.encode(), JSON)] if json_text is not None else []
    return written + ([(bytes.fromhex(packed), MSGPACK)] if packed is not None else [])


def _canonical_or_error(name: str, payload: bytes, codec: Codec) -> Vector:
    try:
        command = _received(codec.encode({"id": "1", "type": name, "payload": Raw(payload)}))
    except BackscrollError as error:
        return {"error": {"code": error.code, "path": (error.details or {}).get("path")}}
    encoded = canonical(command)
    for again in (JSON, MSGPACK):  # what the client sends
        body = Call(command, scope="default", timeout_ms=TIMEOUT_MS, codec=again).body
        assert canonical(_received(body)) == encoded, "the client does not send what it was given"
    return {"canonical": encoded.hex()}


def _received(body: bytes) -> Command[Any]:
    """The command in a body, as the daemon reads it; raises the error of its refusal."""
    try:
        request = receive(body, [], 0.0)
        request.decode()
    except Refused as refused:
        raise error_of(open_reply(refused.reply)[0]) from None
    assert isinstance(request.operation, Command)
    return request.operation


def codec_reply(vector: Vector) -> Vector:
    """A reply vector with what the client makes of its bytes."""
    outcomes = [_result_or_error(vector["type"], body) for body, _ in _written(vector)]
    kept = {key: each for key, each in vector.items() if key not in ("result", "error", "invalid")}
    same = all(each == outcomes[0] for each in outcomes)
    return kept | (outcomes[0] if same else {"result": f"differs: {outcomes}"})


def _result_or_error(name: str, body: bytes) -> Vector:
    operation = decode_operation(name, Raw(JSON.encode(example(operation_type(name)))), JSON)
    call = Call(operation, scope="default", timeout_ms=TIMEOUT_MS)
    try:
        call.outcome = open_reply(body)
        if call.outcome[0].error is None:
            return {"result": json.loads(JSON.encode(call.result()))}
    except Internal:
        return {"invalid": True}
    error = error_of(call.outcome[0])
    found = {"code": error.code, "fault": error.fault, "retryable": error.retryable, "message": error.message}
    return {"error": found | ({} if error.details is None else {"details": error.details})}


# --- canonical ---


def canonical_vector(vector: Vector, context: Context) -> Vector:
    """A vector with the canonical form of its payloads, and the digest that a daemon has in its log."""
    forms = [_canonical_or_error(vector["type"], text.encode(), JSON) for text in vector["json"]]
    if any(form != forms[0] for form in forms):
        return {**vector, "canonical": f"differs: {forms}"}
    form = bytes.fromhex(forms[0]["canonical"])
    payload = json.loads(vector["json"][0])
    salt = vector["salt"]
    client = context.log_client
    seq = client.ask(GetLog(limit=1)).last_seq + 1
    client.execute(AppendLog([LogEntry(seq=seq, at=AT, id=f"c{seq}", type=vector["type"], payload=payload, salt=salt)]))
    digest = client.ask(GetLog(from_seq=seq)).entries[0].digest
    if digest != digest_of(bytes.fromhex(salt), form).hex():
        digest = f"the log has {digest}"
    return {**vector, "canonical": form.hex(), "digest": digest}


# --- hello ---


def hello_vector(vector: Vector) -> Vector:
    """A vector with the proof that a client expects."""
    token_hash = hashlib.sha256(vector["token"].encode()).digest()
    return {**vector, "proof": proof_of(token_hash, vector["nonce"], vector["endpoints"])}


# --- refusals ---


def refusals(vectors: list[Vector], context: Context) -> Iterator[Vector]:
    """The vectors with the replies of the daemon."""
    with closing(ZmqTransport(context.endpoint)) as transport:
        for vector in vectors:
            yield _refused(vector, partial(_exchange, transport))


def _refused(vector: Vector, exchange: Callable[[bytes], Vector]) -> Vector:
    for request in vector.get("before", []):
        reply = exchange(JSON.encode(request))
        assert reply["ok"], reply
    text = vector.get("json")
    body = bytes.fromhex(vector["hex"]) if text is None else expanded(text, vector.get("expand", {})).encode()
    reply = exchange(body)
    error = reply.get("error", {})
    path = (error.pop("details", None) or {}).get("path")
    return {**vector, "id": reply["id"], "error": error | ({} if path is None else {"path": path})}


def _exchange(transport: ZmqTransport, body: bytes) -> Vector:
    transport.send(body, TIMEOUT_MS)
    answer = transport.receive(TIMEOUT_MS)
    assert answer is not None, "no reply"
    assert codec_of(answer) is codec_of(body), "the reply is in another encoding"
    return codec_of(answer).decode(answer, Vector)


def _with_pattern(vector: Vector, expected: Vector) -> Vector:
    """A vector whose message is the expected pattern if that matches."""
    message = vector["error"]["message"]
    pattern = expected.get("error", {}).get("message")
    if pattern is None or not re.fullmatch(pattern, message, re.DOTALL):
        pattern = re.sub(r"([\\.^$*+?{}\[\]|()])", r"\\\1", message)
    return {**vector, "error": {**vector["error"], "message": pattern}}


# --- the sets ---


def actual(name: str, content: VectorFile, context: Context) -> Iterator[tuple[Vector, Vector]]:
    """Each vector of a set whose expectation is plain data, and what it is here."""
    if name == "refusals":
        vectors = content["vectors"]
        for vector, found in zip(vectors, refusals(vectors, context), strict=True):
            yield vector, _with_pattern(found, vector)
        return
    for which, vector in vectors_in(content, name):
        plays: dict[str, Callable[[Vector], Vector]] = {
            "requests": codec_request,
            "replies": codec_reply,
            "vectors": hello_vector if name == "hello" else partial(canonical_vector, context=context),
            "table": partial(played_row, states=content.get("states", {})),
            "sequences": played_sequence,
        }
        try:
            yield vector, plays[which](vector)
        except (BackscrollError, AssertionError, KeyError, ValueError) as error:
            yield vector, {"failed": repr(error)}


def play_zmtp(vector: Vector, context: Context) -> str:
    """Play a vector of `zmtp.json` with both clients; returns what was not as expected."""
    return _played_zmtp(vector, context, _ping) or _played_zmtp(vector, context, _ping_asynchronously)


def _played_zmtp(vector: Vector, context: Context, ping: Callable[[str, int], None]) -> str:
    path = context.directory / "z"
    path.unlink(missing_ok=True)
    with ZmtpServer(path, vector["connections"]) as server:
        try:
            ping(server.endpoint, context.timeout_ms)
        except BackscrollError as error:
            return f"{server.end()}; the client: {error}"
        return server.end()


def _ping(endpoint: str, timeout_ms: int) -> None:
    with Client(endpoint, timeout_ms=timeout_ms) as client:
        client.ask(Ping())


def _ping_asynchronously(endpoint: str, timeout_ms: int) -> None:
    async def ping() -> None:
        async with AsyncClient(endpoint, timeout_ms=timeout_ms) as client:
            await client.ask(Ping())

    asyncio.run(ping())


def run_scenario(vector: Vector, context: Context) -> str:
    scope = context.new_scope()
    try:
        play_scenario(vector["steps"], lambda suffix: context.client(scope + suffix))
    except (Mismatch, KeyError) as error:
        return str(error)
    return ""


def results(directory: Path, name: str, context: Context) -> Iterator[Result]:
    """The results of all vectors of a set."""
    content = load(directory, name)
    if name in ("zmtp", "scenarios"):
        play = play_zmtp if name == "zmtp" else run_scenario
        for vector in content["vectors"]:
            why = play(vector, context)
            yield Result(name, vector["name"], not why, why)
        return
    for vector, found in actual(name, content, context):
        why = difference(vector, found)
        yield Result(name, vector["name"], not why, why)


def rewrite(directory: Path, names: list[str]) -> None:
    """Replace what the vectors expect by what is the case."""
    with ExitStack() as stack:
        context = Context(stack)
        for name in names:
            if name in ("zmtp", "scenarios"):
                continue
            content = load(directory, name)
            for vector, found in list(actual(name, content, context)):
                assert "failed" not in found, (vector["name"], found)
                vector.clear()
                vector.update(found)
            write(directory, name, content)


def main() -> int:
    """Print the results and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.vector_runner", description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", choices=LISTS, help="one set instead of all")
    parser.add_argument("--write", action="store_true", help="write what is the case into the files")
    options = parser.parse_args()
    names = [options.only] if options.only else list(LISTS)
    if options.write:
        rewrite(options.directory, names)
        return 0
    with ExitStack() as stack:
        context = Context(stack)
        for name in names:
            for result in results(options.directory, name, context):
                sys.stdout.write(json.dumps(result._asdict()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
