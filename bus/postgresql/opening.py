"""Opening the databases that the settings name."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing

import msgspec

from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.failures import CannotOpen
from backscroll.bus.postgresql.access import AccessDatabase
from backscroll.bus.postgresql.connecting import Database
from backscroll.bus.postgresql.scopes import PostgresScopes
from backscroll.bus.settings import Settings
from backscroll.handlers.storage import Retention

ELSEWHERE = "elsewhere"  # the row of `shared` with the names of the scopes that are in other databases


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
    stack.enter_context(closing(scopes))
    _check_places(databases[settings.store], scopes.access, places, settings.store)
    return scopes


def _check_places(database: Database, shared: AccessDatabase, places: Mapping[str, str], here: str) -> None:
    """Raise `CannotOpen` if another daemon has had scopes in other databases, which these settings do not name.

    Or else each daemon would have a scope of this name of its own. The names are in `shared`.
    """
    elsewhere = {scope for scope, address in places.items() if address != here}
    known = _names(shared.read(ELSEWHERE).get(ELSEWHERE))
    if missing := sorted(known - places.keys()):
        raise CannotOpen(
            f"{database.name}: other daemons have these scopes in other databases: {', '.join(missing)}. Name all "
            "places with --scope-store, as they do; one that was moved back here as SCOPE= and the address of --store."
        )
    if elsewhere != known:
        noted = msgspec.json.encode(sorted(elsewhere))
        shared.change(ELSEWHERE, lambda _: noted)


def _names(document: bytes | None) -> set[str]:
    return msgspec.json.decode(document, type=set[str]) if document else set()
