"""The checks that types alone cannot express: bytes of text, NUL, free JSON, duplicate keys.

Before these run, msgspec has decoded the record and checked types, required fields and lengths in characters. The
checks of a record type are derived from its annotations once.
"""

import math
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from msgspec import Meta, Struct

from backscroll.schema.errors import CallerError, Invalid, TooLarge
from backscroll.schema.limits import FREE_JSON_VALUES_MAX, JSON_DEPTH_MAX, JSON_INTEGER_MAX, JSON_INTEGER_MIN
from backscroll.schema.size_probe import present

Check = Callable[[Any], None]
"""Checks a value that is set; raises `_Wrong`."""

UTF8_BYTES_MAX = 4
"""The maximum size of one character."""


class _Wrong(Exception):
    """A failed check. Its path is built while the exception propagates, so that valid input costs nothing."""

    def __init__(self, error: type[CallerError], problem: str) -> None:
        self.error = error
        self.problem = problem
        self.path = ""


def validate(record: Struct, path: str) -> None:
    """Raise `Invalid` or `TooLarge` for the first invalid field of `record`, which is at `path`."""
    try:
        _record_check(type(record))(record)
    except _Wrong as wrong:
        raise wrong.error.at(path + wrong.path, wrong.problem) from None


@cache
def _record_check(record_type: type[Struct]) -> Check:
    """A function that checks all fields that need a check; it runs for every received record.

    It is compiled from source text, as the standard library does for dataclasses and named tuples, because a loop over
    the fields takes four times as long. Fields that are empty, None or UNSET are skipped.
    """
    hints = get_type_hints(record_type, include_extras=True)
    wire_names = zip(record_type.__struct_fields__, record_type.__struct_encode_fields__, strict=True)
    found = [(name, wire_name, _check_for(hints[name])) for name, wire_name in wire_names]
    needed = [(name, wire_name, check) for name, wire_name, check in found if check is not None]
    names: dict[str, Any] = {f"check_{name}": check for name, _, check in needed} | {"Wrong": _Wrong}
    lines = [
        f"  if (value := record.{name}){_condition(check)}: step = '.{wire_name}'; check_{name}(value)"
        for name, wire_name, check in needed
    ]
    end = [" except Wrong as wrong:", "  wrong.path = step + wrong.path", "  raise"]
    exec("\n".join(["def check(record):", " try:", "  pass", *lines, *end]), names)
    compiled: Check = names["check"]
    return compiled


def _condition(check: Check) -> str:
    """A cheap condition that skips the check for most texts: those that are short or ASCII, and without NUL."""
    if not isinstance(check, TextCheck):
        return ""
    return f" and ('\\0' in value or len(value) > {check.bytes_max // UTF8_BYTES_MAX} and not value.isascii())"


def _check_for(hint: Any) -> Check | None:
    """The check that values of this annotation need, or None."""
    hint, meta = present(hint), None
    while get_origin(hint) is Annotated:  # twice for `Annotated[Text | None, Since(2)]`
        meta = next((each for each in get_args(hint)[1:] if isinstance(each, Meta)), meta)
        hint = present(get_args(hint)[0])
    if hint is str:
        return TextCheck(meta.max_length) if meta is not None and meta.max_length else None
    if isinstance(hint, type) and issubclass(hint, Struct):
        return _record_check(hint)
    if get_origin(hint) is list and get_args(hint)[0] is not Any:
        return _list_check(get_args(hint)[0])
    if get_origin(hint) in (dict, list):
        return _check_json
    return None


class TextCheck:
    """Checks the size of a text in bytes; its characters were counted while decoding."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max

    def __call__(self, text: str) -> None:
        if "\0" in text:
            raise _Wrong(Invalid, "the text contains a NUL character, which is not allowed")
        if not text.isascii() and (size := len(text.encode())) > self.bytes_max:
            raise _Wrong(TooLarge, f"the text has {size} bytes; the limit is {self.bytes_max}")


def _list_check(item_type: Any) -> Check | None:
    check_item = _check_for(item_type)
    if check_item is None:
        return None  # has no key either: the keys of records contain text
    key = attrgetter(*item_type.KEY) if getattr(item_type, "KEY", ()) else None

    def check(items: list[Any]) -> None:
        duplicate = None if key is None or len(items) == 1 else _first_duplicate(list(map(key, items)))
        try:
            for at, item in enumerate(items):
                check_item(item)
                if at == duplicate:
                    raise _Wrong(Invalid, "duplicate key: an earlier item of the list has the same key")
        except _Wrong as wrong:
            wrong.path = f"[{at}]{wrong.path}"
            raise

    return check


def _first_duplicate(keys: list[Any]) -> int | None:
    """The index of the first key that repeats an earlier one."""
    if len(set(keys)) == len(keys):
        return None
    first = {key: at for at, key in reversed(list(enumerate(keys)))}
    return next(at for at, key in enumerate(keys) if first[key] < at)


def _check_json(document: Any) -> None:
    """Check that a document survives a round trip through JSON, and is neither nested too deeply nor too large."""
    values = 0

    def check(value: Any, depth: int) -> None:
        nonlocal values
        values += 1
        if values > FREE_JSON_VALUES_MAX:
            raise _Wrong(TooLarge, f"more than {FREE_JSON_VALUES_MAX} JSON values")
        is_list = isinstance(value, list)
        if not is_list and not isinstance(value, dict):
            _check_scalar(value)
            return
        if depth > JSON_DEPTH_MAX:
            raise _Wrong(Invalid, f"nested deeper than {JSON_DEPTH_MAX} levels")
        for step, child in enumerate(value) if is_list else value.items():
            if not is_list and not isinstance(step, str):
                raise _Wrong(Invalid, "a key is not a string")
            try:
                check(child, depth + 1)
            except _Wrong as wrong:
                if wrong.error is not TooLarge:  # that is about the whole document
                    wrong.path = (f"[{step}]" if is_list else f".{step}") + wrong.path
                raise

    check(document, 1)


def _check_scalar(value: Any) -> None:
    match value:
        case bool() | str() | None:
            return
        case int():
            if not JSON_INTEGER_MIN <= value <= JSON_INTEGER_MAX:
                raise _Wrong(Invalid, "the integer does not fit into 64 bits")
        case float():
            if not math.isfinite(value):
                raise _Wrong(Invalid, "NaN and infinity are not JSON numbers")
        case _:
            raise _Wrong(Invalid, "not a JSON value (binary data or a MessagePack extension)")
