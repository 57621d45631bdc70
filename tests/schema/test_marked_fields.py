"""Values of fields are checked the same with or without a marker around the annotation."""

from typing import Annotated

import pytest
from msgspec import convert

from backscroll.schema.errors import CallerError
from backscroll.schema.limits import TEXT_BYTES_MAX, Object, Text
from backscroll.schema.markers import Since
from backscroll.schema.records import Record
from backscroll.schema.validation import validate


class Later(Record, frozen=True, kw_only=True):
    """Fields of a later level, annotated in both ways."""

    outside: Annotated[Text | None, Since(2)] = None
    inside: Annotated[Text, Since(2)] | None = None
    free: Annotated[Object | None, Since(2)] = None


@pytest.mark.parametrize("name", ["outside", "inside"])
@pytest.mark.parametrize(("text", "code"), [("\0", "invalid"), ("é" * (TEXT_BYTES_MAX // 2 + 1), "too-large")], ids=len)
def test_texts_of_later_levels_are_checked(name: str, text: str, code: str) -> None:
    """NUL is refused and sizes are in bytes, wherever the marker is."""
    with pytest.raises(CallerError) as refused:
        validate(convert({name: text}, Later), "$")
    assert (refused.value.code, refused.value.details) == (code, {"path": f"$.{name}"})


def test_free_json_of_later_levels_is_checked() -> None:
    """NaN, which JSON cannot represent, is refused."""
    with pytest.raises(CallerError, match=r"^\$\.free\.x: NaN"):
        validate(Later(free={"x": float("nan")}), "$")
