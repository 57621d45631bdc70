"""The work: one plain function for each operation, registered by `@handles` beside it.

A command's function gets the command, the write transaction and the command's context; a query's the query and a
snapshot; that of an operation about a whole scope the `ScopeAdmin`; a built-in query's what the daemon knows of itself.
What it returns is the result; what it raises is rolled back and becomes the error reply.
"""

from backscroll.handlers.registry import Cached, Handler, Handlers, collect

HANDLERS: Handlers = collect(__name__, __path__)
"""The handlers of all operations, by wire name."""

__all__ = ["HANDLERS", "Cached", "Handler", "Handlers"]
