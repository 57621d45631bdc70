"""How much free JSON a payload contains, measured before any of it is decoded.

A megabyte of MessagePack can be a million empty lists, each of which takes fifty bytes once decoded. So a large payload
is first decoded into a probe: the records of its type with every free JSON field (`metadata`, `permissions`, …) left
encoded, and all other fields left out.
"""

from functools import cache
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Raw, Struct, UnsetType


@cache
def size_probe_of(record_type: type[Struct]) -> type[Struct] | None:
    """The probe of a record type; None if none of its fields is free JSON."""
    hints = get_type_hints(record_type, include_extras=True)
    names = zip(record_type.__struct_fields__, record_type.__struct_encode_fields__, strict=True)
    kinds = [(wire_name, _in_probe(plain(hints[name]))) for name, wire_name in names]
    fields = [
        (name, Raw, Raw()) if kind is Raw else (name, kind | None, None)  # Raw accepts null, but cannot be in a union
        for name, kind in kinds
        if kind is not None
    ]
    return msgspec.defstruct(f"{record_type.__name__}SizeProbe", fields) if fields else None


def free_json_bytes(probe: Any) -> int:
    """The encoded size of all free JSON in a decoded probe, in bytes."""
    match probe:
        case Raw():
            return len(bytes(probe))
        case list():
            return sum(map(free_json_bytes, probe))
        case Struct():
            return sum(free_json_bytes(getattr(probe, name)) for name in probe.__struct_fields__)
        case _:
            return 0


def plain(hint: Any) -> Any:
    """An annotation without `None`, `UNSET` and limits; a union of several types is returned unchanged."""
    hint = present(hint)
    return plain(get_args(hint)[0]) if get_origin(hint) is Annotated else hint


def present(hint: Any) -> Any:
    """An annotation without `None` and `UNSET`; a union of several types is returned unchanged."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    members = [member for member in get_args(hint) if member not in (NoneType, UnsetType)]
    return members[0] if len(members) == 1 else hint


def _in_probe(hint: Any) -> Any:
    if isinstance(hint, type) and issubclass(hint, Struct):
        return size_probe_of(hint)
    if get_origin(hint) is list and get_args(hint)[0] is not Any:
        item = _in_probe(plain(get_args(hint)[0]))
        return None if item is None else GenericAlias(list, (item,))
    return Raw if get_origin(hint) in (dict, list) else None
