"""Decoding of integers that were written as floats without a fraction (`1767225600000.0`), as some programs write all.

Used only after strict decoding has refused a float, so that other requests cost nothing more.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct

from backscroll.schema.errors import Invalid
from backscroll.schema.strict import loose

S = TypeVar("S", bound=Struct)


def is_integral_float(error: Exception) -> bool:
    """Whether msgspec refused a float where an integer is expected."""
    return isinstance(error, msgspec.ValidationError) and "got `float`" in str(error) and "`int" in str(error)


def decode_integral_floats(
    body: bytes | Raw, decode: Callable[[bytes | Raw, Any], Any], as_type: type[Struct], to_type: type[S], path: str
) -> S:
    """Decode a body, which is at `path`, as `as_type` with floats for integers, and convert it to `to_type`.

    Raises `Invalid` for a float with a fraction, and one of `DECODE_ERRORS` for everything else.
    """
    return msgspec.convert(_with_integers(decode(body, loose(as_type)), path), to_type)


def _with_integers(record: Struct, path: str) -> dict[str, Any]:
    """The fields of a loosely decoded record, with floats converted to integers; free JSON keeps its floats."""
    names = zip(record.__struct_fields__, record.__struct_encode_fields__, strict=True)
    fields = ((wire_name, getattr(record, name)) for name, wire_name in names)
    return {name: _with_integer(value, f"{path}.{name}") for name, value in fields if value is not UNSET}


def _with_integer(value: Any, path: str) -> Any:
    if isinstance(value, float):
        if not value.is_integer():
            raise Invalid.at(path, "expected integer, got number with a fraction")
        return int(value)
    if isinstance(value, Struct):
        return _with_integers(value, path)
    if isinstance(value, list) and any(isinstance(item, Struct) for item in value):
        return [_with_integers(item, f"{path}[{index}]") for index, item in enumerate(value)]
    return value
