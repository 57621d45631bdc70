"""Lists of any length, read page by page."""

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from backscroll.clients.python.client import Client
from backscroll.schema.limits import PAGE_ITEMS_MAX
from backscroll.schema.operations import Operation
from backscroll.schema.positions import next_page


def items_of(client: Client, query: Operation[list[Any]], limit: int = PAGE_ITEMS_MAX) -> Iterator[Any]:
    """The items of a list operation that has `limit` and `after`, at most `limit` of them in memory."""
    page: Any = replace(query, limit=limit)
    while items := client.execute(page):
        yield from items
        page = next_page(page, items[-1])
