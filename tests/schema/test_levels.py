"""Protocol levels: the promises of each published level are kept, and a breaking change is detected."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from backscroll.schema.compatibility import compare
from backscroll.schema.description import describe
from backscroll.schema.wire import LOWEST_COMPATIBLE_LEVEL, PROTOCOL_LEVEL
from tests import ROOT

LEVELS = sorted((ROOT / "schema" / "levels").glob("*.json"), key=lambda path: int(path.stem))

Description = dict[str, Any]


def golden(level: int) -> Description:
    """The description of a published level, as it is stored."""
    document: Description = json.loads((ROOT / "schema" / "levels" / f"{level}.json").read_text(encoding="utf-8"))
    return document


def test_every_level_up_to_the_current_one_is_stored() -> None:
    """The description of each published level is in `schema/levels`, under the level's number."""
    assert [int(path.stem) for path in LEVELS] == list(range(1, PROTOCOL_LEVEL + 1))
    assert all(golden(int(path.stem))["level"] == int(path.stem) for path in LEVELS)


@pytest.mark.parametrize("level", range(LOWEST_COMPATIBLE_LEVEL, PROTOCOL_LEVEL + 1))
def test_clients_of_a_published_level_still_work(level: int) -> None:
    """Nothing that a client of that level relies on was removed, renamed, narrowed or made required."""
    breaking, additions = compare(golden(level), describe())
    print(f"new since level {level}: {additions}")  # noqa: T201  # shown with -s
    assert breaking == []


BREACHES: dict[str, Callable[[Description], object]] = {
    "an operation is removed": lambda it: it["operations"].pop("save-message"),
    "an operation changes its kind": lambda it: it["operations"]["get-log"].update(kind="maintenance"),
    "an operation changes its meaning": lambda it: it["operations"]["save-message"].update(meaning=2),
    "an operation needs more": lambda it: it["operations"]["get-room"].update(right="write"),
    "a command may no longer be in a batch": lambda it: it["operations"]["save-ban"].update(batch=False),
    "a payload field is renamed": lambda it: _rename(_payload(it, "get-messages"), "limit", "most"),
    "a payload field changes its type": lambda it: _field(it, "get-messages", "limit").update(type="string"),
    "an optional field becomes required": lambda it: _payload(it, "get-messages")["required"].append("limit"),
    "a new field is required": lambda it: _add(_payload(it, "get-messages"), "sort", required=True),
    "a limit becomes smaller": lambda it: _field(it, "get-messages", "limit").update(maximum=100),
    "a field gets a limit": lambda it: _field(it, "get-rows", "after")["anyOf"][0].update(maxItems=1),
    "a default changes": lambda it: _field(it, "get-messages", "limit").update(default=10),
    "a field may no longer be null": lambda it: _field(it, "set-current-user-id", "userId")["anyOf"].pop(),
    "a request's value is removed": lambda it: it["$defs"]["ChangeInput"]["properties"]["noun"]["enum"].pop(),
    "a record's field is renamed": lambda it: _rename(it["$defs"]["MessageInput"], "content", "text"),
    "a reply's field is renamed": lambda it: _rename(it["$defs"]["Message"], "content", "text"),
    "a reply's field changes its type": lambda it: _reply(it, "Message", "timestamp").update(type="string"),
    "a reply's field is not always there": lambda it: it["$defs"]["Message"]["required"].remove("content"),
    "a result changes": lambda it: it["operations"]["get-messages"].update(result={"$ref": "#/$defs/MessagePage"}),
    "a result may be null": lambda it: it["operations"]["list-users"].update(
        result={"anyOf": [it["operations"]["list-users"]["result"], {"type": "null"}]}
    ),
    "a unit changes": lambda it: _reply(it, "Message", "timestamp").update({"x-unit": "s"}),
    "an error code is removed": lambda it: it["errors"].pop("busy"),
    "an error changes its fault": lambda it: it["errors"]["conflict"].update(fault="daemon"),
    "an error is no longer retryable": lambda it: it["errors"]["busy"].update(retryable="never"),
    "a protocol limit is lowered": lambda it: it["limits"]["textBytes"].update(value=1024),
    "the envelope requires a field": lambda it: it["envelopes"]["request"]["required"].append("scope"),
}

ADDITIONS: dict[str, Callable[[Description], object]] = {
    "an operation": lambda it: it["operations"].update({"juggle-message": it["operations"]["delete-message"]}),
    "an optional payload field": lambda it: _add(_payload(it, "get-messages"), "sort"),
    "a field of a record": lambda it: _add_to_records(it, "MessageInput", "Message"),
    "a request's value": lambda it: it["$defs"]["ChangeInput"]["properties"]["noun"]["enum"].append("stage"),
    "a known value of a reply": lambda it: _reply(it, "Change", "noun")["x-known-values"].append("stage"),
    "an error code": lambda it: it["errors"].update(frozen=it["errors"]["conflict"]),
    "a limit": lambda it: it["limits"].update(pins=it["limits"]["pageItems"]),
}

WIDENINGS: dict[str, Callable[[Description], object]] = {
    "an operation needs less": lambda it: it["operations"]["get-log"].update(right="read"),
    "a larger limit": lambda it: _field(it, "get-messages", "limit").update(maximum=1_000),
    "a field may be null": lambda it: _payload(it, "get-messages")["properties"].update(
        limit={"anyOf": [_field(it, "get-messages", "limit"), {"type": "null"}], "default": 100}
    ),
    "a raised protocol limit": lambda it: it["limits"]["textBytes"].update(value=2**30),
}


@pytest.mark.parametrize("breach", BREACHES.values(), ids=BREACHES)
def test_a_breaking_change_is_detected(breach: Callable[[Description], object]) -> None:
    """Each way of breaking existing clients fails the comparison with the stored level."""
    changed = copy.deepcopy(describe())
    breach(changed)
    assert compare(golden(PROTOCOL_LEVEL), changed).breaking


@pytest.mark.parametrize("addition", ADDITIONS.values(), ids=ADDITIONS)
def test_an_addition_is_compatible_and_listed(addition: Callable[[Description], object]) -> None:
    """Additions are listed by name, and do not count as breaking."""
    changed = copy.deepcopy(describe())
    addition(changed)
    breaking, additions = compare(golden(PROTOCOL_LEVEL), changed)
    assert breaking == []
    assert additions


@pytest.mark.parametrize("widening", WIDENINGS.values(), ids=WIDENINGS)
def test_accepting_more_in_requests_is_compatible(widening: Callable[[Description], object]) -> None:
    """Whatever older clients send stays valid."""
    changed = copy.deepcopy(describe())
    widening(changed)
    assert compare(golden(PROTOCOL_LEVEL), changed).breaking == []


def test_what_fields_mean_may_be_said_in_other_words() -> None:
    """A text that is changed, removed or new is no difference between levels."""
    changed = copy.deepcopy(describe())
    _reply(changed, "Message", "sentAt")["description"] = "Other words."
    del _field(changed, "get-changes", "waitMs")["description"]
    _field(changed, "save-member", "roomId")["description"] = "The room."
    assert compare(describe(), changed) == ([], [])


def _payload(description: Description, operation: str) -> Description:
    payload: Description = description["operations"][operation]["payload"]
    return payload


def _field(description: Description, operation: str, name: str) -> Description:
    field: Description = _payload(description, operation)["properties"][name]
    return field


def _reply(description: Description, record: str, name: str) -> Description:
    field: Description = description["$defs"][record]["properties"][name]
    return field


def _rename(schema: Description, old: str, new: str) -> None:
    schema["properties"][new] = schema["properties"].pop(old)
    schema["required"] = [new if name == old else name for name in schema["required"]]


def _add_to_records(description: Description, *names: str) -> None:
    for name in names:
        _add(description["$defs"][name], "juggledAt")


def _add(schema: Description, name: str, *, required: bool = False) -> None:
    schema["properties"][name] = {"type": "string"}
    if required:
        schema["required"].append(name)


def test_a_record_that_may_be_null_widens_a_request() -> None:
    """A record is recognised where null becomes an alternative to it; in a reply that breaks clients."""
    changed = copy.deepcopy(describe())
    fields = _payload(changed, "save-message")["properties"]
    fields["message"] = {"anyOf": [fields["message"], {"type": "null"}]}
    assert compare(golden(PROTOCOL_LEVEL), changed).breaking == []
    pong = changed["operations"]["ping"]
    pong["result"] = {"anyOf": [pong["result"], {"type": "null"}]}
    assert compare(golden(PROTOCOL_LEVEL), changed).breaking == ["ping result: may now also be null"]
