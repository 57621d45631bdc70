"""Opening the databases that the settings name."""

from collections.abc import Callable
from contextlib import ExitStack, closing

from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.postgresql.connecting import Database
from backscroll.bus.postgresql.scopes import PostgresScopes
from backscroll.bus.settings import Settings
from backscroll.handlers.storage import Retention


def open_scopes(
    settings: Settings, retention: Retention, stack: ExitStack, clock: Callable[[], int] = wall_clock_ms
) -> PostgresScopes:
    """The scopes in the databases that the settings name, until the stack is closed. Raises `CannotOpen`."""
    places = dict(place.split("=", 1) for place in settings.scope_store)
    databases = {
        address: stack.enter_context(
            Database(address, connections=settings.store_connections, wait_ms=settings.lock_wait_ms)
        )
        for address in dict.fromkeys([settings.store, *places.values()])
    }
    scopes = PostgresScopes(
        databases[settings.store],
        {scope: databases[address] for scope, address in places.items()},
        clock=clock,
        retention=retention,
        query_cache_bytes=settings.query_cache_bytes,
        scopes_max=settings.scopes_max,
    )
    return stack.enter_context(closing(scopes))
