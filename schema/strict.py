"""The stricter subclasses of records and operations that the daemon decodes requests into.

The public classes are tolerant because clients decode replies into them: a reply of a later level may have more fields
and values. Requests must not, or a misspelt field would be silently dropped. `strict(Message)` is a `Message` that
refuses unknown fields, values not listed in `OneOf`, and fields that only the daemon sets. A field that was sent with
its default value becomes identical to the default, so that it is encoded as if it had been left out.

`loose(Message)` is for requests with integers written as floats (`1767225600000.0`); see `integral_floats.py`.
"""

from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, force_setattr

from backscroll.schema.computed_once import computed_once
from backscroll.schema.markers import OneOf, ReplyOnly, marker

S = TypeVar("S", bound=Struct)

SPELLED_OUT = {bool: False, int: 0}
"""The defaults that replies always include, by the factory that marks them. Requests may leave them out."""


@computed_once
def strict(record_type: type[S]) -> type[S]:
    """The subclass that requests are decoded into."""
    return _subclass(record_type, _strict_hint)


@computed_once
def loose(record_type: type[S]) -> type[S]:
    """A subclass like the strict one, but with integers decoded as floats and without their limits."""
    return _subclass(record_type, _loose_hint)


def _subclass(record_type: type[S], change: Callable[[Any], Any]) -> type[S]:
    hints = get_type_hints(record_type, include_extras=True)
    fields = msgspec.structs.fields(record_type)
    changed = [(each, hints[each.name], change(hints[each.name])) for each in fields]
    redefined = [
        _definition(field, new) for field, old, new in changed if new != old or field.default_factory in SPELLED_OUT
    ]
    subclass = msgspec.defstruct(
        record_type.__name__,
        redefined,
        bases=(record_type,),
        module=record_type.__module__,
        namespace=_namespace(record_type, fields),
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
    )
    return cast(type[S], subclass)


def _definition(field: FieldInfo, hint: Any) -> tuple[Any, ...]:
    if field.required:
        return field.name, hint
    if field.default_factory in SPELLED_OUT:
        return field.name, hint, SPELLED_OUT[field.default_factory]
    if field.default is not NODEFAULT:
        return field.name, hint, field.default
    return field.name, hint, msgspec.field(default_factory=field.default_factory)


def _namespace(record_type: type[Struct], fields: tuple[FieldInfo, ...]) -> dict[str, Any]:
    """msgspec leaves out a field whose value *is* its default, so equal strings are replaced by the default object."""
    defaults = [(each.name, each.default) for each in fields if isinstance(each.default, str)]
    namespace: dict[str, Any] = {"__doc__": record_type.__doc__}
    if defaults:

        def use_defaults(self: Struct) -> None:
            for name, default in defaults:
                if getattr(self, name) == default:
                    force_setattr(self, name, default)

        namespace["__post_init__"] = use_defaults
    return namespace


def _strict_hint(hint: Any) -> Any:
    if marker(hint, ReplyOnly) is not None:
        return None
    if (known := marker(hint, OneOf)) is not None:
        return Literal[known.values]
    return _rebuilt(hint, _strict_hint, strict)


def _loose_hint(hint: Any) -> Any:
    if hint is int or (get_origin(hint) is Annotated and get_args(hint)[0] is int):
        return float
    return _rebuilt(hint, _loose_hint, loose)


def _rebuilt(hint: Any, change: Callable[[Any], Any], variant: Callable[[Any], Any]) -> Any:
    """The annotation with its parts changed: element types by `change`, records by `variant`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner = change(arguments[0])
        return hint if inner == arguments[0] else Annotated[inner, *arguments[1:]]
    if origin in (Union, UnionType):
        return Union[tuple(change(member) for member in arguments)]  # noqa: UP007  # made at run time
    if origin is list:
        return list[change(arguments[0])]  # type: ignore[misc]  # made at run time
    return variant(hint) if isinstance(hint, type) and issubclass(hint, Struct) else hint
