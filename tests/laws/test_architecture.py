"""Rules of the architecture that can be checked: who imports whom, and what is importable where."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from backscroll.schema.tables import TABLES
from tests import ROOT

FOLDERS = ("schema", "handlers", "bus", "clients")
NOT_INSTALLED = (
    "clients/sidecar/",  # scripts that build and check it
    "clients/typescript/",  # whose tools, once installed, bring Python files of their own
)
MODULES = sorted(
    path
    for path in (each.relative_to(ROOT) for folder in FOLDERS for each in (ROOT / folder).rglob("*.py"))
    if not path.as_posix().startswith(NOT_INSTALLED)
)

MAY_IMPORT = {
    "schema": {"schema"},
    "handlers": {"schema", "handlers"},
    "bus": {"schema", "handlers", "bus"},
    "clients": {"schema", "clients"},
}
MAY_IMPORT_MORE = {
    Path("clients/python/pytest_plugin.py"): {"bus"},  # the client of a test has its store in the same process
    Path("clients/command_line/completion.py"): {"bus"},  # it completes the daemon's settings
    Path("clients/command_line/stopped.py"): {"bus"},  # it works on the files of a daemon that is stopped
}
COMPILE_SQL = {Path("bus/sqlite/statements.py"), Path("bus/postgresql/compiling.py")}
KNOW_PEEWEE = {Path("schema/tables.py"), *COMPILE_SQL, Path("bus/__main__.py")}
"""Besides the handlers. The daemon's start only keeps it from importing a driver."""
SQLITE_DRIVERS = {"apsw", "sqlite3"}
POSTGRESQL_DRIVERS = {"psycopg", "psycopg_pool"}
EMPTY_STORE = "backscroll.bus.sqlite.empty_store"
"""What is read of a scope that does not exist, whatever the others are in: a database in memory."""
OWN_TABLES = {"sequence", "blobs", "shared"}
"""What only the store in PostgreSQL writes to: the order of commands, parts of media, and what all daemons share."""
KNOW_SQLITE = ("bus/sqlite/", "handlers/sql.py", "schema/migrations/sqlite/")
COMPOSITION_ROOTS = {Path("bus/__main__.py"), Path("bus/inprocess.py"), Path("clients/command_line/stopped.py")}
"""The modules that choose the store of a daemon, or of its files."""
READ_TABLES_AS_STORED = {Path(f"bus/sqlite/maintenance/{name}.py") for name in ("salvage", "readable_copies")}
"""They read damaged files by what SQLite stores, tables and indexes of any name."""
NEVER_IN_CLIENTS = {
    *("peewee", "playhouse", "pydantic", "pydantic_settings", "structlog", "apsw", "filelock"),
    *POSTGRESQL_DRIVERS,
    *("rich", "shtab"),  # the command line imports them when it needs them
}
SQL_WORDS = ("SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "REPLACE INTO ", "CREATE TABLE ", "ALTER TABLE ")

each_module = pytest.mark.parametrize("module", MODULES, ids=str)


def tree(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


def imports(module: Path) -> Iterator[str]:
    """The full names of everything a module imports, at any place in it."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def names(module: Path) -> set[str]:
    """The names that a module uses in any way."""
    nodes = list(ast.walk(tree(module)))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return attributes | {node.id for node in nodes if isinstance(node, ast.Name)}


def python(code: str) -> str:
    """What a fresh interpreter prints that sees only installed packages."""
    command = [sys.executable, "-I", "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()


def loaded_by(words: str) -> list[str]:
    """The names of all modules that are loaded in a fresh interpreter after a statement."""
    return python(f"{words}; import sys; print(*sys.modules)").split()


@each_module
def test_imports_between_packages_point_one_way(module: Path) -> None:
    """Schema imports no other package, handlers and clients import the schema, the bus imports schema and handlers."""
    ours = {name.split(".")[1] for name in imports(module) if name.startswith("backscroll.")}
    assert ours <= MAY_IMPORT[module.parts[0]] | MAY_IMPORT_MORE.get(module, set())
    assert "backscroll" not in set(imports(module))


@each_module
def test_only_the_command_line_imports_another_client(module: Path) -> None:
    """The command line uses the Python client; apart from that, clients do not import each other."""
    known = {
        "clients/python": {"python"},
        "clients/command_line": {"python", "command_line"},
        "clients/generator": {"generator"},
    }
    ours = {name.split(".")[2] for name in imports(module) if name.startswith("backscroll.clients.")}
    assert ours <= known.get(module.parent.as_posix(), set())


@each_module
def test_modules_import_packages_by_their_full_names(module: Path) -> None:
    """`schema` is imported as `backscroll.schema` only, because other packages use the short name."""
    assert not {name.split(".")[0] for name in imports(module)} & set(FOLDERS)


@each_module
def test_only_tables_and_handlers_import_peewee(module: Path) -> None:
    """SQL is built in one place, so that the store can be replaced."""
    uses_peewee = any(name.split(".")[0] in ("peewee", "playhouse") for name in imports(module))
    assert not uses_peewee or module.parts[0] == "handlers" or module in KNOW_PEEWEE


@each_module
def test_only_the_store_knows_sqlite(module: Path) -> None:
    """Database drivers and the SQLite store are used behind one seam; only the composition roots choose the store."""
    if module.as_posix().startswith(KNOW_SQLITE):
        return
    imported = set(imports(module))
    assert not {name.split(".")[0] for name in imported} & SQLITE_DRIVERS
    assert "SqliteDatabase" not in names(module) | {name.rpartition(".")[2] for name in imported}
    knows_store = any(name.startswith("backscroll.bus.sqlite") for name in imported if EMPTY_STORE not in name)
    assert not knows_store or module in COMPOSITION_ROOTS


@each_module
def test_only_its_store_knows_postgresql(module: Path) -> None:
    """The driver is imported there alone, and the store by the composition roots, only if it is chosen."""
    if module.as_posix().startswith("bus/postgresql/"):
        return
    imported = set(imports(module))
    assert not {name.split(".")[0] for name in imported} & POSTGRESQL_DRIVERS
    knows_store = any(name.startswith("backscroll.bus.postgresql") for name in imported)
    assert not knows_store or module in COMPOSITION_ROOTS


@each_module
def test_only_handlers_contain_sql(module: Path) -> None:
    """No other package contains statements about the tables; stores may ask about what is their own."""
    if module.parts[0] == "handlers" or module in READ_TABLES_AS_STORED:
        return
    for text in ast.walk(tree(module)):
        if isinstance(text, ast.Constant) and isinstance(text.value, str) and text.value.lstrip().startswith(SQL_WORDS):
            about_itself = module.parts[:2] == ("bus", "sqlite") and "FROM sqlite_schema" in text.value
            of_store = module.parts[:2] == ("bus", "postgresql") and not tables_in(text.value) - OWN_TABLES
            assert about_itself or of_store, f"{module}:{text.lineno}: {text.value!r}"


def tables_in(sql: str) -> set[str]:
    """The names of handlers' tables, or of the store's own, in a statement."""
    stored = {table._meta.table_name for table in TABLES}
    return set(re.findall(r"\b(?:FROM|INTO|UPDATE|JOIN) (\w+)", sql)) & stored


@each_module
def test_only_the_daemon_imports_the_tables(module: Path) -> None:
    """Clients and the rest of the schema do not depend on how rows are stored."""
    if module.parts[0] in ("schema", "clients") and module.parts[:2] != ("schema", "migrations"):
        assert not any(
            name.startswith(("backscroll.schema.tables", "backscroll.schema.migrations")) for name in imports(module)
        )


@each_module
def test_every_module_has_a_docstring(module: Path) -> None:
    """Each module begins with a docstring."""
    assert (ast.get_docstring(tree(module)) or "").strip()


def test_wire_and_dispatcher_import_no_sockets() -> None:
    """They do no I/O, so that anything can run them, and use threading only to serialise the making of decoders."""
    for module, allowed in (
        ("schema/wire.py", {"threading"}),
        ("bus/dispatch.py", set()),
        ("clients/python/pending_calls.py", set()),
    ):
        known = {name.split(".")[0] for name in imports(Path(module))}
        assert known & {"zmq", "socket", "threading", "asyncio"} == allowed


def test_client_and_command_line_load_no_daemon_dependencies() -> None:
    """A process that only uses the client or the command line loads none of the daemon's dependencies."""
    for words in (
        "from backscroll.clients.python import AsyncClient, Client",
        "import backscroll.clients.command_line.main",
    ):
        assert not {name.split(".")[0] for name in loaded_by(words)} & NEVER_IN_CLIENTS


def test_client_loads_no_daemon_modules() -> None:
    """Of backscroll a client loads `clients` and `schema` only."""
    loaded = loaded_by("from backscroll.clients.python import AsyncClient, Client")
    ours = {name.split(".")[1] for name in loaded if name.startswith("backscroll.")}
    assert ours == {"clients", "schema"}


def test_the_pytest_plugin_loads_no_dependencies() -> None:
    """Every pytest run where backscroll is installed imports the plugin, so it loads no sockets and no codecs."""
    loaded = loaded_by("import backscroll.clients.python.pytest_plugin")
    assert not {name.split(".")[0] for name in loaded} & {*NEVER_IN_CLIENTS, "zmq", "msgspec", "platformdirs"}
    ours = {name for name in loaded if name.startswith("backscroll.")}
    assert ours == {"backscroll.clients", "backscroll.clients.python", "backscroll.clients.python.pytest_plugin"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_packages_are_importable_under_their_full_names_only(folder: str) -> None:
    """Installing backscroll does not take short names such as `schema`, which is a popular package."""
    print_spec = f"from importlib.util import find_spec; print(find_spec({folder!r}))"
    assert python(print_spec) == "None"
    assert python(f"import backscroll.{folder} as it; print(it.__name__)") == f"backscroll.{folder}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_tests_import_the_installed_packages(folder: str) -> None:
    """The test run does not import the packages from the working directory by their short names."""
    spec = find_spec(folder)
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
    assert not any(str(place).startswith(str(ROOT / folder)) for place in places)
