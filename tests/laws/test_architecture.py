"""The house rules that a machine can read: who imports whom, what is importable where, how long things are."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import ROOT

FOLDERS = ("schema", "handlers", "bus", "clients")
MODULES = sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
FUNCTION_LINES_MAX = 40
MODULE_LINES_MAX = 400

MAY_IMPORT = {
    "schema": {"schema"},
    "handlers": {"schema", "handlers"},
    "bus": {"schema", "handlers", "bus"},
    "clients": {"schema", "clients"},
}
MAY_IMPORT_MORE = {
    Path("clients/python/pytest_plugin.py"): {"bus"},  # a test's client has its store in the test's own process
    Path("clients/command_line/completion.py"): {"bus"},  # it completes the daemon's settings
}
KNOW_PEEWEE = {Path("schema/tables.py"), Path("bus/sqlite/statements.py")}  # and handlers
SQLITE_DRIVERS = {"apsw", "sqlite3"}
KNOW_SQLITE = ("bus/sqlite/", "handlers/sql.py", "schema/migrations/sqlite/")
COMPOSITION_ROOTS = {Path("bus/__main__.py"), Path("bus/inprocess.py")}
"""Where a daemon is put together, and so which store it has is said."""
NEVER_IN_CLIENTS = {
    *("peewee", "playhouse", "pydantic", "pydantic_settings", "structlog", "apsw", "filelock"),
    *("rich", "shtab"),  # the command line imports them when it needs them
}
SQL_WORDS = ("SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "REPLACE INTO ", "CREATE TABLE ", "ALTER TABLE ")

each_module = pytest.mark.parametrize("module", MODULES, ids=str)


def tree(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


def imports(module: Path) -> Iterator[str]:
    """The full names of what a module imports, wherever in it that stands."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def names(module: Path) -> set[str]:
    """The names that a module uses, whatever for."""
    nodes = list(ast.walk(tree(module)))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return attributes | {node.id for node in nodes if isinstance(node, ast.Name)}


def python(code: str) -> str:
    """What a fresh interpreter prints that sees nothing but what is installed."""
    command = [sys.executable, "-I", "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()


def loaded_by(words: str) -> list[str]:
    """The names of all modules that a fresh interpreter has after a statement."""
    return python(f"{words}; import sys; print(*sys.modules)").split()


@each_module
def test_arrows_point_one_way(module: Path) -> None:
    """Schema knows nobody, handlers and clients know the schema, the bus knows schema and handlers."""
    ours = {name.split(".")[1] for name in imports(module) if name.startswith("backscroll.")}
    assert ours <= MAY_IMPORT[module.parts[0]] | MAY_IMPORT_MORE.get(module, set())
    assert "backscroll" not in set(imports(module))


@each_module
def test_the_command_line_imports_the_python_client_and_not_the_other_way_round(module: Path) -> None:
    """The command line is a caller like any other, with the Python client; else a client knows itself alone."""
    known = {"clients/python": {"python"}, "clients/command_line": {"python", "command_line"}}
    ours = {name.split(".")[2] for name in imports(module) if name.startswith("backscroll.clients.")}
    assert ours <= known.get(module.parent.as_posix(), set())


@each_module
def test_nobody_imports_the_folders_by_their_own_names(module: Path) -> None:
    """`schema` is `backscroll.schema`; the short name belongs to others."""
    assert not {name.split(".")[0] for name in imports(module)} & set(FOLDERS)


@each_module
def test_only_tables_handlers_and_store_know_peewee(module: Path) -> None:
    """SQL is built in one place, for a store that may be another one day."""
    uses_peewee = any(name.split(".")[0] in ("peewee", "playhouse") for name in imports(module))
    assert not uses_peewee or module.parts[0] == "handlers" or module in KNOW_PEEWEE


@each_module
def test_only_the_store_knows_sqlite(module: Path) -> None:
    """What drives the database, and what it is, is known behind one seam; only where a daemon is put together is it
    chosen."""
    if module.as_posix().startswith(KNOW_SQLITE):
        return
    imported = set(imports(module))
    assert not {name.split(".")[0] for name in imported} & SQLITE_DRIVERS
    assert "SqliteDatabase" not in names(module) | {name.rpartition(".")[2] for name in imported}
    knows_store = any(name.startswith("backscroll.bus.sqlite") for name in imported)
    assert not knows_store or module in COMPOSITION_ROOTS


@each_module
def test_only_handlers_contain_sql(module: Path) -> None:
    """Statements about our tables are nowhere else. The store asks SQLite for what it keeps of a file itself."""
    if module.parts[0] == "handlers":
        return
    for text in ast.walk(tree(module)):
        if isinstance(text, ast.Constant) and isinstance(text.value, str) and text.value.lstrip().startswith(SQL_WORDS):
            about_itself = module.parts[:2] == ("bus", "sqlite") and "FROM sqlite_schema" in text.value
            assert about_itself, f"{module}:{text.lineno}: {text.value!r}"


@each_module
def test_only_the_daemon_imports_the_tables(module: Path) -> None:
    """Neither a client nor the rest of the language needs to know how rows lie."""
    if module.parts[0] in ("schema", "clients"):
        assert not any(
            name.startswith(("backscroll.schema.tables", "backscroll.schema.migrations")) for name in imports(module)
        )


@each_module
def test_a_module_says_what_it_is_for(module: Path) -> None:
    """Every module opens with a docstring."""
    assert (ast.get_docstring(tree(module)) or "").strip()


@each_module
def test_functions_and_modules_are_short(module: Path) -> None:
    """What does not fit on a screen is more than one thing."""
    assert len((ROOT / module).read_text(encoding="utf-8").splitlines()) <= MODULE_LINES_MAX
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{module}:{node.lineno} {node.name} has {length} lines"


def test_the_wire_and_the_dispatcher_know_no_socket() -> None:
    """The core does no I/O, so that anything can run it, and no threads but that decoders are made one by one."""
    for module, allowed in (
        ("schema/wire.py", {"threading"}),
        ("bus/dispatch.py", set()),
        ("clients/python/pending_calls.py", set()),
    ):
        known = {name.split(".")[0] for name in imports(Path(module))}
        assert known & {"zmq", "socket", "threading", "asyncio"} == allowed


def test_a_client_is_light() -> None:
    """A caller's process loads nothing that only the daemon needs, nor does the command line."""
    for words in (
        "from backscroll.clients.python import AsyncClient, Client",
        "import backscroll.clients.command_line.main",
    ):
        assert not {name.split(".")[0] for name in loaded_by(words)} & NEVER_IN_CLIENTS


def test_a_client_loads_no_part_of_the_daemon() -> None:
    """Nor does it load the daemon's own modules."""
    loaded = loaded_by("from backscroll.clients.python import AsyncClient, Client")
    ours = {name.split(".")[1] for name in loaded if name.startswith("backscroll.")}
    assert ours == {"clients", "schema"}


def test_the_pytest_plugin_is_light() -> None:
    """It is imported in every test run of whoever has backscroll installed, used or not: no sockets, no codecs."""
    loaded = loaded_by("import backscroll.clients.python.pytest_plugin")
    assert not {name.split(".")[0] for name in loaded} & {*NEVER_IN_CLIENTS, "zmq", "msgspec", "platformdirs"}
    ours = {name for name in loaded if name.startswith("backscroll.")}
    assert ours == {"backscroll.clients", "backscroll.clients.python", "backscroll.clients.python.pytest_plugin"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_folders_are_importable_under_one_name_only(folder: str) -> None:
    """Installing backscroll takes no name from anybody: a popular package is called `schema`."""
    print_spec = f"from importlib.util import find_spec; print(find_spec({folder!r}))"
    assert python(print_spec) == "None"
    assert python(f"import backscroll.{folder} as it; print(it.__name__)") == f"backscroll.{folder}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_tests_do_not_see_the_folders_either(folder: str) -> None:
    """What these tests import is what an installed backscroll gives, not what lies in the folder they run in."""
    spec = find_spec(folder)
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
    assert not any(str(place).startswith(str(ROOT / folder)) for place in places)
