"""The handlers: one function for each operation, registered with `@handles`.

A command's handler gets the command, the write transaction and the `CommandContext`; a query's handler the query and a
snapshot; a maintenance operation's the operation and the `ScopeAdmin`; a built-in query's the query and the daemon's
`Status`. What a handler returns is the result. If it raises, its changes are undone and the caller gets the error.
"""

from backscroll.handlers.registry import Cached, Handler, Handlers, collect

HANDLERS: Handlers = collect(__name__, __path__)
"""The handlers of all operations, by wire name."""

__all__ = ["HANDLERS", "Cached", "Handler", "Handlers"]
