"""`describe`: the whole protocol as data, consistent with what the daemon does, and the pages generated from it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import Describe
from backscroll.schema.description import describe
from backscroll.schema.errors import ERRORS
from backscroll.schema.limits import LIMITS
from backscroll.schema.operations import OPERATIONS
from backscroll.schema.pages import PART, PARTS, generate
from backscroll.schema.records import StoredRecord
from tests import ROOT
from tests.support.messages import message_document
from tests.support.requests import body, send
from tests.support.schemas import input_validator, validator

PAGES = [ROOT / "README.md", ROOT / "schema" / "PROTOCOL.md"]

each_operation = pytest.mark.parametrize("name", OPERATIONS)


def test_a_running_daemon_describes_itself(start_daemon: Any) -> None:
    """`describe` over the wire gives the description of the daemon's own level."""
    daemon: DaemonProcess = start_daemon()
    with Client(daemon.endpoint) as client:
        assert client.ask(Describe()) == describe()
        assert daemon.ready["level"] == describe()["level"]


def test_every_operation_error_and_limit_is_described() -> None:
    """Nothing of the protocol is missing, and everything names the level since which it exists."""
    described = describe()
    assert list(described["operations"]) == list(OPERATIONS)
    assert list(described["errors"]) == list(ERRORS)
    assert list(described["limits"]) == list(LIMITS)
    levels = [each["since"] for each in (*described["operations"].values(), *described["errors"].values())]
    assert all(1 <= level <= described["level"] for level in levels)


def test_the_schemas_are_json_schema_2020_12() -> None:
    """Every definition, payload, result and envelope is a valid schema whose references resolve."""
    described = describe()
    schemas = [*described["$defs"].values(), *described["envelopes"].values()]
    for operation in described["operations"].values():
        schemas += [operation["payload"], operation["result"]]
    for schema in schemas:
        jsonschema_rs.meta.validate({"$schema": described["$schema"], **schema})
        jsonschema_rs.Draft202012Validator({**schema, "$defs": described["$defs"]})


@each_operation
def test_the_example_is_valid_by_the_schema(name: str) -> None:
    """The example of an operation is valid, and with a misspelt field it is not."""
    example = describe()["operations"][name]["example"]
    assert input_validator(name).is_valid(example)
    assert not input_validator(name).is_valid({**example, "mispelt": 1})


@each_operation
def test_schema_and_daemon_refuse_the_same_payloads(name: str, transport: InProcess) -> None:
    """For each payload field both refuse a value of another type, and a missing value exactly where it is required."""
    payload = describe()["operations"][name]["payload"]
    example = describe()["operations"][name]["example"]
    for field, schema in payload["properties"].items():
        wrong = {**example, field: {"no": "such"} if schema.get("type") != "object" and "$ref" not in schema else 5}
        missing = {key: value for key, value in example.items() if key != field}
        assert input_validator(name).is_valid(wrong) is _is_accepted(name, wrong, transport), (name, field)
        if field in payload["required"]:
            assert not input_validator(name).is_valid(missing)
            assert not _is_accepted(name, missing, transport), (name, field)


def _is_accepted(name: str, payload: dict[str, Any], transport: InProcess) -> bool:
    reply = send(transport, body(name, payload))
    return (
        reply["ok"]
        or reply["error"]["code"] not in ("invalid", "too-large")
        or not any(word in reply["error"]["message"] for word in ("expected", "required", "unknown field"))
    )


def test_reply_records_have_a_schema_of_their_own() -> None:
    """Fields that a reply always has are required, unset ones are left out, and unknown ones are allowed."""
    message = message_document("m", "", isDeleted=False)
    assert validator({"$ref": "#/$defs/Message"}).is_valid(message)
    assert validator({"$ref": "#/$defs/Message"}).is_valid({**message, "ofALaterLevel": 1})
    assert not validator({"$ref": "#/$defs/Message"}).is_valid({**message, "isDeleted": None})
    del message["isDeleted"]
    assert not validator({"$ref": "#/$defs/Message"}).is_valid(message)
    assert "damaged" in StoredRecord.__struct_encode_fields__
    assert not validator({"$ref": "#/$defs/MessageInput"}).is_valid({**message, "damaged": ["metadata"]})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_parts_of_pages_are_up_to_date(page: Path) -> None:
    """Otherwise: python -m backscroll.schema"""
    text = page.read_text(encoding="utf-8")
    assert generate(text) == text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_pages_lead_to_headings(page: Path) -> None:
    """A link to a section names one that exists, on this page or on another one."""
    for target, section in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        other = page.parent / target if target else page
        titles = re.findall(r"^#+ (.+)$", other.read_text(encoding="utf-8"), re.MULTILINE)
        assert section in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles], section


def test_every_generated_part_is_on_a_page() -> None:
    """Each generated table is shown on some page."""
    shown = {part["name"] for page in PAGES for part in PART.finditer(page.read_text(encoding="utf-8"))}
    assert shown == set(PARTS)


def test_the_generator_updates_pages_but_no_broken_level(tmp_path: Path) -> None:
    """It brings the pages of a checkout up to date; a stored level that would be broken stays, and the reason is
    printed.
    """
    (tmp_path / "schema" / "levels").mkdir(parents=True)
    for page in PAGES:
        stale = PART.sub(r"\1\3", page.read_text(encoding="utf-8"))
        (tmp_path / page.relative_to(ROOT)).write_text(stale, encoding="utf-8")
    command = [sys.executable, "-m", "backscroll.schema", str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == ""
    for page in PAGES:
        assert (tmp_path / page.relative_to(ROOT)).read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
    level = tmp_path / "schema" / "levels" / f"{describe()['level']}.json"
    stored = level.read_text(encoding="utf-8").replace('"pong"', '"pang"')
    level.write_text(stored, encoding="utf-8")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pang was removed or renamed" in done.stderr
    assert level.read_text(encoding="utf-8") == stored
