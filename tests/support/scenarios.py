"""Plays the scenarios of `schema/vectors/scenarios.json` with the Python client on a real daemon."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msgspec import Raw

from backscroll.clients.python import Client
from backscroll.schema import BackscrollError, Command, Maintenance, Query
from backscroll.schema.operations.decoding import decode_operation
from backscroll.schema.wire import JSON

Step = dict[str, Any]
Bound = dict[str, Any]
Connect = Callable[[str], Client]
"""A new client, given what is appended to the name of the scenario's scope."""

KEYS = {"type", "id", "payload", "scope", "meanwhile", "result", "error"}


class Mismatch(Exception):
    """A reply is not the expected one."""


def play_scenario(steps: list[Step], connect: Connect) -> None:
    """Do the steps; raises `Mismatch` at the first reply that is not as expected."""
    bound: Bound = {}
    with connect("") as client:
        for number, step in enumerate(steps):
            try:
                _play(step, client, connect, bound)
            except Mismatch as error:
                raise Mismatch(f"steps[{number}] ({step['type']}): {error}") from None


def _play(step: Step, client: Client, connect: Connect, bound: Bound) -> None:
    if unknown := set(step) - KEYS:
        raise Mismatch(f"unknown keys {sorted(unknown)}")
    if "scope" in step:
        with connect(step["scope"]) as elsewhere:
            _compare(step, _reply(step, elsewhere, bound), bound)
        return
    if "meanwhile" not in step:
        _compare(step, _reply(step, client, bound), bound)
        return
    with ThreadPoolExecutor(1) as thread, connect("") as other:
        waiting = thread.submit(_reply, step, client, bound)
        for inner in step["meanwhile"]:
            _compare(inner, _reply(inner, other, bound), bound)
        _compare(step, waiting.result(), bound)


def _reply(step: Step, client: Client, bound: Bound) -> Step:
    """What a step leads to: its result as JSON, or its error."""
    try:
        payload = Raw(JSON.encode(_filled(step.get("payload", {}), bound)))
        operation = decode_operation(step["type"], payload, JSON)
        if isinstance(operation, Query):
            result = client.ask(operation)
        else:
            assert isinstance(operation, Command | Maintenance)
            result = client.execute(operation, request_id=step.get("id"))
    except BackscrollError as error:
        details = {key: each for key, each in (error.details or {}).items() if key != "path"}
        path = (error.details or {}).get("path")
        return {"error": {"code": error.code, "path": path, "details": details}}
    return {"result": json.loads(JSON.encode(result))}


def _filled(value: Any, bound: Bound) -> Any:
    """A payload with what its placeholders stand for."""
    if isinstance(value, dict):
        return {key: _filled(each, bound) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, bound) for each in value]
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    return value[1:] if value.startswith("$$") else bound[value]


def _compare(step: Step, reply: Step, bound: Bound) -> None:
    if "error" not in step:
        if "result" not in reply:
            raise Mismatch(f"expected a result, got {json.dumps(reply)}")
        _match(step.get("result"), reply["result"], "result", bound)
        return
    error = reply.get("error")
    if error is None:
        raise Mismatch(f"expected the error {step['error']['code']}, got {json.dumps(reply)}")
    for key, expected in step["error"].items():
        _match(expected, error[key], f"error.{key}", bound)


def _match(expected: Any, actual: Any, where: str, bound: Bound) -> None:
    """Raise `Mismatch` if a value is not what is expected; placeholders take what is there the first time."""
    if expected == "$any":
        return
    if isinstance(expected, str) and expected.startswith("$"):
        expected = expected[1:] if expected.startswith("$$") else bound.setdefault(expected, actual)
    for inner, found, place in _parts(expected, actual, where):
        _match(inner, found, place, bound)


def _parts(expected: Any, actual: Any, where: str) -> Iterator[tuple[Any, Any, str]]:
    """The values inside a map or list, with what is there; raises `Mismatch` if the values themselves differ."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        if expected.keys() != actual.keys():
            raise Mismatch(f"{where}: expected the keys {sorted(expected)}, got {sorted(actual)}")
        yield from ((each, actual[key], f"{where}.{key}") for key, each in expected.items())
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            raise Mismatch(f"{where}: expected {len(expected)} items, got {len(actual)}: {json.dumps(actual)}")
        pairs = zip(expected, actual, strict=True)
        yield from ((each, found, f"{where}[{number}]") for number, (each, found) in enumerate(pairs))
    elif json.dumps(expected) != json.dumps(actual):  # as JSON, where true is not 1
        raise Mismatch(f"{where}: expected {json.dumps(expected)}, got {json.dumps(actual)}")
