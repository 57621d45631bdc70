"""The checks that a type alone cannot make, each naming its field: bytes of text, free JSON, doubled keys.

msgspec has decoded the record and checked types, required fields and lengths in characters before this
runs. What is checked for a record type is worked out once, from its annotations.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from operator import attrgetter
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from msgspec import UNSET, Meta, Struct

from backscroll.schema.errors import Invalid, TooLarge
from backscroll.schema.limits import FREE_JSON_VALUES_MAX, JSON_DEPTH_MAX, JSON_INTEGER_MAX, JSON_INTEGER_MIN
from backscroll.schema.outline import present

Check = Callable[[Any, str, str], None]
"""Takes the value, its parent's path and its own step from there; the two are joined only for a complaint."""


def validate(record: Struct, parent: str, step: str = "") -> None:
    """Raise `Invalid` or `TooLarge` for the first field of `record`, which lies at `parent + step`."""
    values, checks = _checks(type(record))
    for value, (is_text, field_step, check) in zip(values(record), checks, strict=True):
        if value is None or value is UNSET or (is_text and value.isascii()):
            continue  # characters were counted while it was decoded, and these are bytes
        check(value, parent + step, field_step)


@cache
def _checks(record_type: type[Struct]) -> tuple[Callable[[Struct], Sequence[Any]], list[tuple[bool, str, Check]]]:
    """A function to the values of the fields that need a check, and their checks: whether of text, the step, which."""
    hints = get_type_hints(record_type, include_extras=True)
    wire_names = zip(record_type.__struct_fields__, record_type.__struct_encode_fields__, strict=True)
    found = [(name, f".{wire_name}", _check_for(hints[name])) for name, wire_name in wire_names]
    needed = [(name, step, check) for name, step, check in found if check is not None]
    is_text = [isinstance(check, TextCheck) for _, _, check in needed]
    checks = [(text, step, check) for text, (_, step, check) in zip(is_text, needed, strict=True)]
    return attributes([name for name, _, _ in needed]), checks


def _check_for(hint: Any) -> Check | None:
    """The check that values of this annotation need; None where the type says it all."""
    hint, meta = present(hint), None
    if get_origin(hint) is Annotated:
        hint, meta = get_args(hint)[0], next((m for m in get_args(hint)[1:] if isinstance(m, Meta)), None)
    if hint is str:
        return TextCheck(meta.max_length) if meta is not None and meta.max_length else None
    if isinstance(hint, type) and issubclass(hint, Struct):
        return validate
    if get_origin(hint) is list and get_args(hint)[0] is not Any:
        return _list_check(get_args(hint)[0])
    if get_origin(hint) in (dict, list):
        return _check_json
    return None


class TextCheck:
    """The check of a text's bytes."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max

    def __call__(self, text: str, parent: str, step: str) -> None:
        if not text.isascii() and (size := len(text.encode())) > self._bytes_max:
            raise TooLarge.at(parent + step, f"{size} bytes of text, at most {self._bytes_max} are taken")


def _list_check(item_type: Any) -> Check:
    check_item = _check_for(item_type)
    key = attributes(getattr(item_type, "KEY", ()))
    keyed = bool(getattr(item_type, "KEY", ()))

    def check(items: list[Any], parent: str, step: str) -> None:
        path, seen = parent + step, set()
        for index, item in enumerate(items):
            if check_item is not None:
                check_item(item, path, f"[{index}]")
            if keyed:
                identity = key(item)
                if identity in seen:
                    raise Invalid.at(f"{path}[{index}]", "an item with the same key stands here already")
                seen.add(identity)

    return check


def attributes(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """A function from a record to the values of these fields, at the speed of C."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda record: tuple(getattr(record, name) for name in names)


def _check_json(document: Any, parent: str, step: str) -> None:
    """Only what JSON can carry there and back unchanged, not nested too deeply, and not too many values."""
    values = 0

    def check(value: Any, path: str, depth: int) -> None:
        nonlocal values
        values += 1
        if values > FREE_JSON_VALUES_MAX:
            raise TooLarge.at(parent + step, f"more than {FREE_JSON_VALUES_MAX} values")
        if isinstance(value, dict | list):
            if depth > JSON_DEPTH_MAX:
                raise Invalid.at(path, f"nested deeper than {JSON_DEPTH_MAX} levels")
            for child_step, child in _children(value, path):
                check(child, path + child_step, depth + 1)
        else:
            _check_scalar(value, path)

    check(document, parent + step, 1)


def _children(value: dict[Any, Any] | list[Any], path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield f"[{index}]", item
        return
    for key, item in value.items():
        if not isinstance(key, str):
            raise Invalid.at(path, f"a key of type `{type(key).__name__}`: keys are text")
        yield f".{key}", item


def _check_scalar(value: Any, path: str) -> None:
    match value:
        case bool() | str() | None:
            return
        case int():
            if not JSON_INTEGER_MIN <= value <= JSON_INTEGER_MAX:
                raise Invalid.at(path, "the integer needs more than 64 bits")
        case float():
            if not math.isfinite(value):
                raise Invalid.at(path, "NaN and infinity are no JSON numbers")
        case _:
            raise Invalid.at(path, f"`{type(value).__name__}` is no JSON value")
