"""Where the tests of behaviour keep their data: in files, or in databases, of which each data directory has one.

`pytest --store postgresql` chooses databases. A test opens a data directory as ever, with the address from here.
"""

from contextlib import ExitStack
from pathlib import Path

from tests.support.postgresql import Server, started


class ChosenStore:
    """The databases of a run of the tests; none if the store is files."""

    def __init__(self) -> None:
        self.is_postgresql = False
        self._server: Server | None = None
        self._stack = ExitStack()
        self._databases: dict[Path, ExitStack] = {}
        self._addresses: dict[Path, str] = {}

    @property
    def server(self) -> Server:
        """The server, which is started when it is first needed."""
        if self._server is None:
            self._server = self._stack.enter_context(started())
        return self._server

    def address(self, directory: Path) -> str:
        """The address of the database of a data directory; empty where the store is files."""
        return self.database(directory) if self.is_postgresql else ""

    def database(self, directory: Path) -> str:
        """The address of the database of a data directory, whatever the chosen store is."""
        if directory not in self._addresses:
            stack = self._databases[directory] = ExitStack()
            self._addresses[directory] = stack.enter_context(self.server.database())
        return self._addresses[directory]

    def addresses_below(self, directory: Path) -> list[str]:
        """The addresses of the databases of this data directory, or of those below it."""
        return [address for each, address in self._addresses.items() if each.is_relative_to(directory)]

    def drop_below(self, directory: Path) -> None:
        """Drop the databases of the data directories below this one."""
        for each in [each for each in self._databases if each.is_relative_to(directory)]:
            del self._addresses[each]
            self._databases.pop(each).close()

    def close(self) -> None:
        """Stop the server."""
        self._stack.close()


CHOSEN = ChosenStore()
