"""The `…Updates` records correspond to their entities; and how records are encoded."""

from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st
from msgspec import UNSET, UnsetType

from backscroll.schema import records as module
from backscroll.schema.markers import ReplyOnly, marker
from backscroll.schema.operations import CreateSession, DeleteSession, GetSession, SaveRoom, UpdateRoom
from backscroll.schema.records import (
    Category,
    CategoryUpdates,
    Channel,
    ChannelUpdates,
    Message,
    MessageUpdates,
    Reaction,
    Record,
    Room,
    RoomUpdates,
    User,
    UserUpdates,
)
from backscroll.schema.strict import strict
from backscroll.schema.validation import validate
from backscroll.schema.wire import Codec
from tests.support.requests import CODECS
from tests.support.strategies import records

ENTITIES = [
    (Message, MessageUpdates),
    (User, UserUpdates),
    (Room, RoomUpdates),
    (Channel, ChannelUpdates),
    (Category, CategoryUpdates),
]
RECORDS = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Record)]
WITH_DEFAULTS_FOR_LISTS = {"reactions", "channels", "members"}
"""Optional in a save, where absent means untouched, but a list in every reply: there is nothing to clear."""

entities = pytest.mark.parametrize(("entity", "updates"), ENTITIES, ids=lambda each: each.__name__)


def members(hint: Any) -> set[Any]:
    """The alternatives of an annotation."""
    return set(get_args(hint)) if get_origin(hint) in (Union, UnionType) else {hint}


def hints(record_type: type[Record]) -> dict[str, Any]:
    every = get_type_hints(record_type, include_extras=True)
    return {name: every[name] for name in record_type.__struct_fields__}


def test_every_updates_record_is_covered() -> None:
    """`ENTITIES` lists every record whose name ends in `Updates`."""
    assert {each for each in RECORDS if each.__name__.endswith("Updates")} == {updates for _, updates in ENTITIES}


@entities
def test_updates_have_the_entitys_fields_without_its_key(entity: type[Record], updates: type[Record]) -> None:
    """Every field but the key can be updated, under the same name."""
    from_daemon = {name for name, hint in hints(entity).items() if marker(hint, ReplyOnly) is not None}
    assert from_daemon == {"damaged"} | ({"attachments"} if entity is Message else set())
    rest = [name for name in entity.__struct_fields__ if name not in {*entity.KEY, *from_daemon}]
    assert sorted(updates.__struct_fields__) == sorted(rest)
    assert _wire_names(updates).items() <= _wire_names(entity).items()


@entities
def test_updates_have_the_entitys_types(entity: type[Record], updates: type[Record]) -> None:
    """Every field can be left out or set; exactly the optional ones can be cleared with null."""
    for name, hint in hints(updates).items():
        entity_hint = members(hints(entity)[name])
        clearable = NoneType in entity_hint and name not in WITH_DEFAULTS_FOR_LISTS
        expected = (entity_hint - {NoneType}) | {UnsetType} | ({NoneType} if clearable else set())
        assert members(hint) == expected, name


@entities
def test_an_empty_update_is_encoded_as_an_empty_object(entity: type[Record], updates: type[Record]) -> None:
    """Every field is absent by default, and absent fields are not encoded."""
    empty = updates()
    assert all(getattr(empty, name) is UNSET for name in updates.__struct_fields__)
    assert msgspec.json.encode(empty) == b"{}"


@entities
@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_null_is_distinct_from_absent(entity: type[Record], updates: type[Record], codec: Codec) -> None:
    """`null` is encoded and decoded as `None`, and not as absent."""
    clearable = [name for name, hint in hints(updates).items() if NoneType in members(hint)]
    cleared = updates(**dict.fromkeys(clearable))
    assert codec.decode(codec.encode(cleared), updates) == cleared
    assert len(codec.decode(codec.encode(cleared), dict[str, Any])) == len(clearable)


@pytest.mark.parametrize("record_type", RECORDS, ids=lambda each: each.__name__)
def test_a_records_key_is_required(record_type: type[Record]) -> None:
    """The fields named in `KEY` are required, except the oderId of reactions of users whom nobody names."""
    required = {field.name for field in msgspec.structs.fields(record_type) if field.required}
    assert set(record_type.KEY) - required == ({"oder_id"} if record_type is Reaction else set())


@pytest.mark.parametrize("record_type", RECORDS, ids=lambda each: each.__name__)
def test_a_record_has_its_own_docstring(record_type: type[Record]) -> None:
    """Every record class has a docstring."""
    assert record_type.__doc__


STORED = [each for each in RECORDS if each.KEY]


@pytest.mark.parametrize("record_type", STORED, ids=lambda each: each.__name__)
@hypothesis.given(data=st.data())
def test_any_record_survives_the_wire(record_type: type[Record], data: st.DataObject) -> None:
    """A record is decoded as it was encoded; its encoding is valid and leaves out unset fields."""
    record = data.draw(records(record_type))
    validate(record, "$")
    for codec in CODECS:
        body = codec.encode(record)
        assert codec.decode(body, record_type) == record
        assert None not in codec.decode(body, dict[str, Any]).values()


def _wire_names(record_type: type[Record]) -> dict[str, str]:
    return dict(zip(record_type.__struct_fields__, record_type.__struct_encode_fields__, strict=True))


SECRET = "bm90IGEgcmVhbCB0b2tlbg"


@pytest.mark.parametrize(
    "operation",
    [
        CreateSession("ada", 1, SECRET),
        DeleteSession(SECRET),
        GetSession(SECRET),
        SaveRoom(Room(id="r1", name="r", password=SECRET)),
        UpdateRoom("r1", RoomUpdates(password=SECRET)),
    ],
    ids=lambda operation: operation.wire_name,
)
def test_secrets_are_not_shown(operation: Any) -> None:
    """A `repr` gets into logs, tracebacks and the output of tests; the daemon's stricter classes have none either."""
    kind: Any = type(operation)
    received = msgspec.convert(msgspec.to_builtins(operation), strict(kind))
    for each in (operation, received):
        assert "=..." in repr(each)
        assert SECRET not in f"{each!r} {each.__rich_repr__()}"


def test_other_fields_are_shown() -> None:
    """As msgspec shows them; a secret that is not set is shown as such."""
    assert repr(GetSession("")) == "GetSession(token=...)"
    assert repr(DeleteSession(token_hash="0")) == "DeleteSession(token=None, token_hash='0')"
    assert repr(UpdateRoom("r1", RoomUpdates(name="x"))).startswith(
        "UpdateRoom(room_id='r1', updates=RoomUpdates(name='x'"
    )
