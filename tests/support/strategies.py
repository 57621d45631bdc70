"""Hypothesis strategies for every record, derived from its annotations so that they stay in step with it.

`documents(Message)` draws what a caller may write on the wire: optional fields absent, null or set, and text of every
kind. `records(Message)` draws the same as typed records.
"""

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from msgspec import UnsetType

from backscroll.schema.limits import ID_BYTES_MAX, JSON_INTEGER_MAX, JSON_INTEGER_MIN, MILLIS_MAX
from backscroll.schema.markers import OneOf, ReplyOnly, marker
from backscroll.schema.records import Message, Reaction, Record

R = TypeVar("R", bound=Record)

TEXT_CHARS_MAX = 24
CHAR_BYTES_MAX = 4
LIST_ITEMS_MAX = 4
MILLIS = 1_767_225_600_000

NASTY_TEXTS = (
    "general",
    "a-b:c-d",
    "a\x01b",
    "👍🏽",
    "👩‍👩‍👧",
    "e\u0301 é",
    "ﬀ ß İ",
    "\u202eoverride",
    "\ufeffmark",
    "\ue000\uffff\U00010000",  # in this order in UTF-8, in another in UTF-16
    "'; DROP TABLE messages; --",
    '" OR 1=1 /*',
    "%_\\",
    '"unclosed NEAR(a b, 2) AND NOT col:x*',
    ":name ?1 $x @y",
    "[Message deleted]",
    "null",
    '{"a": [1]}',
    " ",
    "\r\n\t",
)


def texts(min_size: int = 0, max_size: int = TEXT_CHARS_MAX) -> SearchStrategy[str]:
    """Any Unicode text, often one that some layer might mishandle."""
    whole = st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=min_size, max_size=max_size
    )
    return st.one_of(whole, st.sampled_from(NASTY_TEXTS))


def ids(bytes_max: int = ID_BYTES_MAX) -> SearchStrategy[str]:
    """Ids of any characters, few of them, so that the same ones occur again."""
    return st.one_of(st.sampled_from(["a", "b", "a-b", "a:b"]), texts(1, bytes_max // CHAR_BYTES_MAX))


def integers(least: int, most: int) -> SearchStrategy[int]:
    """Integers between bounds, often the bounds themselves, and often equal times."""
    usual = [value for value in (least, 0, 1, MILLIS, MILLIS + 1, most) if least <= value <= most]
    return st.one_of(st.sampled_from(usual), st.integers(least, most))


def json_values() -> SearchStrategy[Any]:
    """Any value of a free JSON field."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        integers(JSON_INTEGER_MIN, JSON_INTEGER_MAX),
        st.floats(allow_nan=False, allow_infinity=False),
        texts(),
        st.just("a\0b"),  # which only free JSON may hold
    )
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | json_objects(inner), max_leaves=6)


def json_objects(values: SearchStrategy[Any] | None = None) -> SearchStrategy[dict[str, Any]]:
    return st.dictionaries(texts(), json_values() if values is None else values, max_size=3)


def documents(record_type: type[Record]) -> SearchStrategy[dict[str, Any]]:
    """What a caller may write for a record: a JSON object with the names of the wire."""
    hints = get_type_hints(record_type, include_extras=True)
    required: dict[str, SearchStrategy[Any]] = {}
    optional: dict[str, SearchStrategy[Any]] = {}
    for field in msgspec.structs.fields(record_type):
        if marker(hints[field.name], ReplyOnly) is not None:
            continue
        (required if field.required else optional)[field.encode_name] = _of(hints[field.name])
    drawn = st.fixed_dictionaries(required, optional=optional)
    if record_type is Reaction:
        return drawn.map(_with_one_kind_of_reactor)
    return drawn.map(_with_own_reactions) if record_type is Message else drawn


def records(record_type: type[R]) -> SearchStrategy[R]:
    """Typed records."""
    return documents(record_type).map(lambda document: msgspec.convert(document, record_type))


def children(record_type: type[Record], min_size: int = 0) -> SearchStrategy[list[dict[str, Any]]]:
    """A list of documents inside another one, without duplicate keys."""
    most = max(min_size, LIST_ITEMS_MAX)
    return st.lists(documents(record_type), min_size=min_size, max_size=most, unique_by=_key(record_type))


def _with_one_kind_of_reactor(reaction: dict[str, Any]) -> dict[str, Any]:
    """A reaction with either an oderId or a count."""
    if reaction.get("oderId") is not None:
        return {**reaction, "count": None}
    return {**reaction, "count": reaction.get("count") or 1}


def _with_own_reactions(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose reactions have its id, without duplicate keys, and which does not expire."""
    if message.get("expiresAt") is not None:
        message["expiresAt"] = MILLIS_MAX
    if message.get("reactions") is not None:
        own = [{**reaction, "messageId": message["id"]} for reaction in message["reactions"]]
        message["reactions"] = list({(each.get("oderId"), each["emoji"]): each for each in own}.values())
    return message


def _of(hint: Any) -> SearchStrategy[Any]:
    """The strategy for values of an annotation."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return st.one_of(*(_of(member) for member in arguments if member is not UnsetType))
    if origin is Annotated:
        if (known := marker(hint, OneOf)) is not None:
            return st.sampled_from(known.values)
        return _bounded(arguments[0], next(each for each in arguments[1:] if isinstance(each, msgspec.Meta)))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is dict:
        return json_objects()
    simple = {bool: st.booleans, NoneType: st.none}
    return simple[hint]()


def _bounded(hint: Any, meta: msgspec.Meta) -> SearchStrategy[Any]:
    if hint is str:
        return ids(meta.max_length or ID_BYTES_MAX) if meta.min_length else texts()
    if hint is int:
        assert meta.ge is not None
        assert meta.le is not None
        return integers(int(meta.ge), int(meta.le))
    (item,) = get_args(hint)
    if item is Any:
        return st.lists(json_values(), max_size=LIST_ITEMS_MAX)
    if isinstance(item, type) and issubclass(item, Record):
        return children(item)
    return st.lists(_of(item), max_size=LIST_ITEMS_MAX)


def _key(record_type: type[Record]) -> Any:
    names = [f.encode_name for f in msgspec.structs.fields(record_type) if f.name in record_type.KEY]
    return lambda document: tuple(document.get(name) for name in names)
