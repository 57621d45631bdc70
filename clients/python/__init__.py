"""The Python clients, `Client` and `AsyncClient`; `Curve`, the keys for `curve://`; `Watched` and `FeedGap`, what their
`watch` and `changes` give and raise. They import only the schema.

The exception is `pytest_plugin`, which also imports the bus to run a store in the process of a test.

The classes are loaded when they are first used, because pytest imports `pytest_plugin` from here in every test run
where backscroll is installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backscroll.clients.python.address import Curve
    from backscroll.clients.python.asyncio_client import AsyncClient
    from backscroll.clients.python.client import Client
    from backscroll.clients.python.feed import FeedGap, Watched

__all__ = ["AsyncClient", "Client", "Curve", "FeedGap", "Watched"]

_MODULES = {
    "AsyncClient": "backscroll.clients.python.asyncio_client",
    "Client": "backscroll.clients.python.client",
    "Curve": "backscroll.clients.python.address",
    "FeedGap": "backscroll.clients.python.feed",
    "Watched": "backscroll.clients.python.feed",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_MODULES[name]), name)
    return value
