"""Rules that every operation of the registry follows."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.handlers import HANDLERS
from backscroll.schema import AdoptLegacyDatabase, Category, Channel, Room, SaveRoom, SetCurrentUserId, operations
from backscroll.schema.operations import OPERATIONS, Batch, Command, GetTasks, Maintenance, Operation, Query
from backscroll.schema.pages import operations_table
from backscroll.schema.wire import Codec
from tests.support.handlers import handler_of
from tests.support.requests import CODECS, example, in_sensible_order
from tests.support.waiting import wait_until

each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())


def test_operations_and_handlers_correspond_one_to_one() -> None:
    """The registry and the handlers have the same operations; a batch uses the handlers of its commands."""
    assert set(HANDLERS) == set(OPERATIONS) - {Batch.wire_name}


def test_every_operation_class_is_registered() -> None:
    """Every class of an operation is in `OPERATIONS`, and nothing else; the strict subclasses are derived from it."""
    bases = {operations.Operation, operations.Command, operations.Query, operations.Builtin, operations.Maintenance}
    bases |= {operations.Administration, operations.WaitingQuery}
    declared = {each for each in _subclasses(Operation) if each.__module__.startswith("backscroll.")} - bases
    assert {each for each in declared if not each.__struct_config__.forbid_unknown_fields} == set(OPERATIONS.values())


@each_operation
def test_names_are_derived_from_the_class_name(operation: type[Operation[Any]]) -> None:
    """`SaveMessage` is `save-message` on the wire and `save_message` among the handlers."""
    words = re.findall(r"[A-Z][a-z]*", operation.__name__)
    assert "".join(words) == operation.__name__
    assert operation.wire_name == "-".join(words).lower()
    assert OPERATIONS[operation.wire_name] is operation
    if operation is not Batch:
        assert handler_of(operation).__name__ == "_".join(words).lower()


@each_operation
def test_an_operation_is_exported(operation: type[Operation[Any]]) -> None:
    """Callers import every operation from `backscroll.schema`."""
    import backscroll.schema as schema

    assert getattr(schema, operation.__name__) is operation
    assert getattr(operations, operation.__name__) is operation


@each_operation
def test_an_operation_has_one_kind_and_a_reply_type(operation: type[Operation[Any]]) -> None:
    """It is a command, a query or maintenance, and its base class declares the type of its result."""
    assert sum(issubclass(operation, kind) for kind in (Command, Query, Maintenance)) == 1
    assert "reply_type" in vars(operation)


@each_operation
def test_an_operation_has_its_own_docstring(operation: type[Operation[Any]]) -> None:
    """The docstring begins with a sentence, which the documentation shows."""
    assert operation.__doc__
    assert operation.__doc__.split("\n\n")[0].strip().endswith((".", "?"))


@each_operation
@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_the_docstring_example_round_trips(operation: type[Operation[Any]], codec: Codec) -> None:
    """The example in the docstring is a valid payload, and is encoded again as the same JSON."""
    payload = example(operation)
    request = msgspec.convert(payload, operation)
    assert codec.decode(codec.encode(request), operation) == request
    assert msgspec.to_builtins(request) == payload


def test_every_example_gets_a_reply_of_the_declared_type(transport: InProcess, tmp_path: Path) -> None:
    """All examples work on one store in turn, and the client decodes each result as the declared type."""
    client = Client(transport=transport)
    client.execute(SaveRoom(DEFAULT))
    results: dict[str, Any] = {}
    for operation in in_sensible_order():
        payload = _with_real_ids(example(operation), results, tmp_path)
        request: Any = msgspec.convert(payload, operation)
        if operation is AdoptLegacyDatabase:  # into an unused scope
            with InProcess(tmp_path / "new") as new:
                results[operation.wire_name] = Client(transport=new).execute(request)
        else:
            results[operation.wire_name] = client.execute(request)
        wait_until(lambda: client.ask(GetTasks()).running is None)
    empty = [name for name, result in results.items() if name.startswith(("get-", "is-", "list-")) and not result]
    assert empty == ["get-messages"]  # whose example asks for the third page


DEFAULT = Room(
    id="default",
    name="default",
    channels=[Channel(id="general", name="general", type="text")],
    categories=[Category(id="talk", name="Talk")],
)
"""What the examples of channels and categories are about; the daemon makes other ids."""


def _with_real_ids(payload: dict[str, Any], results: dict[str, Any], directory: Path) -> dict[str, Any]:
    """An example with the ids and files that the daemon made in place of those it shows."""
    made: dict[str, Any] = {}
    if "mediaId" in payload:
        made["mediaId"] = results["put-media"].id
    if "path" in payload:
        with InProcess(directory / "legacy") as older:
            Client(transport=older).execute(SetCurrentUserId(payload["userId"]))
        made["path"] = str(directory / "legacy" / "default.db")
    if "directory" in payload:
        made["directory"] = str(directory / "backups")
    return payload | made


def test_the_table_has_a_row_for_each_operation() -> None:
    """Kind, payload and result are readable without the code."""
    table = operations_table()
    assert table.count("\n") == len(OPERATIONS) + 2
    assert "| `get-messages` | query | read | `{roomId, limit=100, offset=0, childLists=true}` | Message[] |" in table
    assert "| `get-room` | query | read | `{roomId, childLists=true}` | Room or null |" in table
    assert "| `save-ban` | command | write | `{ban}` | null |" in table
    assert "| `ping` | built-in | any | `{}` | Pong |" in table
    assert "| `list-scopes` | maintenance | admin | `{limit=null, after=null}` | string[] |" in table
    assert '| `create-category` | command | write | `{name, roomId="default", position=0}` | Category |' in table


def _subclasses(parent: type[Any]) -> set[type[Any]]:
    return {each for child in parent.__subclasses__() for each in (child, *_subclasses(child))}
