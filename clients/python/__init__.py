"""The Python clients, `Client` and `AsyncClient`, and `Curve`, the keys for `curve://`. They import only the schema.

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

__all__ = ["AsyncClient", "Client", "Curve"]

_MODULES = {
    "AsyncClient": "backscroll.clients.python.asyncio_client",
    "Client": "backscroll.clients.python.client",
    "Curve": "backscroll.clients.python.address",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_MODULES[name]), name)
    return value
