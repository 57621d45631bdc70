"""The callers: `Client`, `AsyncClient` and the command line. They import the schema only."""

from backscroll.clients.aio import AsyncClient
from backscroll.clients.client import Client

__all__ = ["AsyncClient", "Client"]
