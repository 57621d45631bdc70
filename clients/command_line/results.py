"""Results as people read them: a list of records as a table, one record as names and values, anything else as text."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from backscroll.clients.command_line.output import GAP, printable, table

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.padding import Padding

Record = Mapping[str, Any]
Columns = Mapping[str, Sequence[str]]

LONG = 24  # from this width on text is wrapped, at this width at least
TIME_NAME = re.compile(r"at|timestamp|.*(?:At|_at)")
NOTHING = "–"


def show_result(result: Any, out: "Console") -> None:
    """Print a result for people."""
    if _is_records(result):
        out.print(_records(result, out.width))
    elif isinstance(result, dict):
        _show_record(result, out)
    elif isinstance(result, list):
        for item in result or ["no records"]:
            out.print(readable("", item), soft_wrap=True)
    else:
        out.print(readable("", result), soft_wrap=True)


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _show_record(record: Record, out: "Console") -> None:
    """Print the lists of records in a record as tables with titles, and then the other fields."""
    fields = dict(_flat(record))
    for name in [name for name, value in fields.items() if _is_records(value)]:
        out.print(name, style="bold cyan")
        out.print(_records(fields.pop(name), out.width))
        out.print()
    out.print(_fields(fields))


def _records(records: Sequence[Record], width: int) -> "RenderableType":
    """A table; where it would be too wide, one without what is the same in all records; else one after the other."""
    from rich.console import Group
    from rich.text import Text

    names = dict.fromkeys(name for record in records for name in record)
    columns = {printable(name): [readable(name, record.get(name)) for record in records] for name in names}
    if whole := _table(columns, width):
        return whole
    different = {name: cells for name, cells in columns.items() if len(set(cells)) > 1}
    if smaller := _table(different, width):
        same = ", ".join(f"{name} {cells[0]}" for name, cells in columns.items() if name not in different)
        return Group(smaller, Text(f"the same in all: {same}", style="dim"))
    parts: list[RenderableType] = []
    for number, record in enumerate(records, 1):
        parts += [Text(f"── {number} of {len(records)}", style="dim"), _fields(dict(_flat(record)))]
    return Group(*parts)


def _table(columns: Columns, width: int) -> "Padding | None":
    """A table of this width at most; None where words would have to be broken, or where there are no columns."""
    from rich.cells import cell_len

    widths = {name: max(map(cell_len, [name, *map(_stub, cells)])) for name, cells in columns.items()}
    spare = width - sum(widths.values()) - GAP * (len(widths) - 1)
    if spare < 0 or not columns:
        return None
    wanted = {name: max(map(cell_len, [name, *cells])) for name, cells in columns.items()}
    for name in sorted(columns, key=lambda name: wanted[name]):  # the last ones are those of long text, to be wrapped
        more = min(spare, wanted[name] - widths[name])
        widths[name] += more
        spare -= more
    return table(list(columns), list(zip(*columns.values(), strict=True)), widths=widths)


def _stub(cell: str) -> str:
    """Text as wide as a cell must at least be: its longest word, or more for long text."""
    return max([*cell.split(), cell[:LONG] if len(cell) > LONG else ""], key=len, default="")[:LONG]


def _fields(record: Record) -> "Padding":
    """The names and values of one record."""
    from rich.text import Text

    rows = [
        (Text(printable(name), style="bold"), readable(name.rpartition(".")[2], value))
        for name, value in record.items()
    ]
    return table(["", ""], rows)


def _flat(record: Record, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a record, those of records inside it under names such as `queues.commands`."""
    for name, value in record.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def readable(name: str, value: Any) -> str:
    """One value as text; milliseconds whose name says that they are a time are shown as a time in UTC."""
    match value:
        case None | [] | {} if not value:
            return NOTHING
        case bool():
            return "true" if value else "false"
        case int() if TIME_NAME.fullmatch(name):
            return _time(value)
        case str():
            return printable(value)
        case [*items] if _is_records(items):
            return f"{len(items)} items" if len(items) > 1 else "1 item"
        case [*items] if not any(isinstance(item, dict | list) for item in items):
            return ", ".join(readable("", item) for item in items)
        case _:
            return printable(json.dumps(value, ensure_ascii=False))


def _time(milliseconds: int) -> str:
    try:
        text = datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(sep=" ", timespec="milliseconds")
    except (ValueError, OverflowError, OSError):  # a number that is no date in any calendar
        return str(milliseconds)
    return text.removesuffix("+00:00").removesuffix(".000") + "Z"
