"""Every setting of the daemon, declared once: its name, its type, its default and its help text.

Flags (`--data-dir`) override environment variables (`BACKSCROLL_DATA_DIR`). Those override a TOML file (`data_dir = …`
in the file that `BACKSCROLL_CONFIG` names, or else in `backscroll.toml` in the user's configuration directory). The
file overrides the defaults below. A name that is no setting is an error in each of them.
"""

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args

import platformdirs
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from backscroll.bus.query_cache import BYTES_MAX
from backscroll.bus.stores import ADOPTED_BYTES
from backscroll.handlers.storage import Retention
from backscroll.schema.paths import KEYS_VARIABLE, TOKEN_VARIABLE, default_data_dir

LOCAL_TCP = ("tcp://127.0.0.1:", "tcp://localhost:", "tcp://[::1]:")
ENVIRONMENT_PREFIX = "BACKSCROLL_"
CONFIG_VARIABLE = f"{ENVIRONMENT_PREFIX}CONFIG"
NO_SETTINGS = (CONFIG_VARIABLE, TOKEN_VARIABLE, KEYS_VARIABLE)
POSTGRESQL = ("postgresql://", "postgres://")
"""How addresses of PostgreSQL databases begin."""
EXAMPLE = "postgresql://USER@HOST/DATABASE"
"""What is shown in place of an address that is refused, because there may be a password in it."""
OWN_BACKUPS = "PostgreSQL has its own backups (see README.md, PostgreSQL)"
OWN_DISK = "the server's disk is its operator's concern; `scopes_max` bounds the number of scopes"
ONLY_FILES = {
    "adopted_bytes": "files are brought into it by `backscroll copy`",
    "record": "`backscroll log export` writes the log of a scope",
    "scope_bytes": OWN_DISK,
    "data_bytes": OWN_DISK,
    "reserve_bytes": OWN_DISK,
    "backup_dir": OWN_BACKUPS,
    "backup_ms": OWN_BACKUPS,
    "backups_daily": OWN_BACKUPS,
    "backups_weekly": OWN_BACKUPS,
    "check_ms": "PostgreSQL has its own checks, such as pg_amcheck",
}
"""The settings that mean nothing for data in PostgreSQL, and what there is instead."""
HELP_COLUMN = 30


@dataclass(frozen=True)
class Unit:
    """What the value of a setting is: the word for it in the help, and how its default is written there."""

    metavar: str
    readable: Callable[[Any], str] = str


def readable_path(path: Path | None) -> str:
    """A path with the home directory as `~`."""
    if path is None:
        return "none"
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home directory
        return str(path)
    return str(Path("~") / path.relative_to(home)) if path.is_relative_to(home) else str(path)


def readable_bytes(number: int) -> str:
    """A size in the largest unit that divides it: `16 MiB`."""
    for name, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number and number % size == 0:
            return f"{number // size} {name}"
    return f"{number} bytes"


def readable_ms(number: int) -> str:
    """A time in days or seconds where it is a whole number of them: `7 days`, `60 s`."""
    for name, size in (("days", 86_400_000), ("s", 1_000)):
        if number and number % size == 0:
            return f"{number // size} {name}"
    return f"{number} ms"


DIR, FILE = Unit("DIR", readable_path), Unit("FILE", readable_path)
ADDRESS = Unit("ADDRESS", lambda addresses: ", ".join(addresses) or "a socket in the data directory")
UIDS = Unit("UID", lambda uids: ", ".join(map(str, uids)) or "none")
PLACES = Unit("SCOPE=ADDRESS", lambda places: ", ".join(places) or "none")
COUNT, BYTES, MS = Unit("COUNT", "{:,}".format), Unit("BYTES", readable_bytes), Unit("MS", readable_ms)


class Settings(BaseSettings):
    """How one daemon runs. Sizes are in bytes, times in milliseconds."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid")

    data_dir: Annotated[Path, DIR] = Field(
        default_factory=default_data_dir,
        description="directory for databases and media files, and for endpoint.json, by which clients find the daemon",
    )
    store: Annotated[str, Unit("ADDRESS", lambda address: address or "files in the data directory")] = Field(
        default="",
        description="PostgreSQL database for the data, postgresql://USER@HOST/DATABASE without a password",
    )
    scope_store: Annotated[tuple[str, ...], NoDecode, PLACES] = Field(
        default=(),
        description="a scope that is in another PostgreSQL database than the others, and which; repeat the flag to name"
        " several",
    )
    store_connections: Annotated[PositiveInt, COUNT] = Field(
        default=16, description="most connections to each PostgreSQL database"
    )
    endpoint: Annotated[tuple[str, ...], NoDecode, ADDRESS] = Field(
        default=(),
        description="address to listen on: ipc:///PATH, tcp://127.0.0.1:PORT, or curve://HOST:PORT for encrypted"
        " connections of clients with listed keys, also from elsewhere; PORT may be * for any free port; repeat the"
        " flag to listen on several",
    )
    allowed_uids: Annotated[tuple[NonNegativeInt, ...], NoDecode, UIDS] = Field(
        default=(),
        description="ids of other users of this machine who may do everything over ipc, at an endpoint with a path that"
        " they can reach, which one in the data directory is not; repeat the flag to name several",
    )
    connections: Annotated[PositiveInt, COUNT] = Field(
        default=2_000,
        description="most connections, or fewer if the limit of open files leaves fewer; further ones are refused",
    )
    exit_with_parent: bool = Field(
        default=False,
        description="stop when standard input is closed or the parent process ends: for daemons run as a child",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe messages to log; debug logs every request"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="format of log lines; auto is console on a terminal and json everywhere else"
    )
    readers: Annotated[PositiveInt, COUNT] = Field(default=8, description="queries that may run at the same time")
    writers: Annotated[PositiveInt, COUNT] = Field(default=4, description="scopes that may be written at the same time")
    chores_ms: Annotated[PositiveInt, MS] = Field(
        default=60_000,
        description="interval between removals of expired sessions, and of media and parts that nothing refers to",
    )
    batch_requests: Annotated[PositiveInt, COUNT] = Field(
        default=512, description="most commands that may share one commit"
    )
    queue_requests: Annotated[PositiveInt, COUNT] = Field(
        default=65_536, description="requests that may wait, of all clients together; further ones are answered busy"
    )
    queue_bytes: Annotated[PositiveInt, BYTES] = Field(
        default=96 * 2**20, description="memory for requests that wait, of all clients together"
    )
    client_requests: Annotated[PositiveInt, COUNT] = Field(
        default=16_384, description="requests of one client that may wait; further ones are answered busy"
    )
    client_bytes: Annotated[PositiveInt, BYTES] = Field(
        default=64 * 2**20, description="memory for requests of one client that wait"
    )
    client_reply_bytes: Annotated[PositiveInt, BYTES] = Field(
        default=16 * 2**20, description="memory for replies that one client has not read; its other requests wait"
    )
    reply_bytes: Annotated[PositiveInt, BYTES] = Field(
        default=64 * 2**20,
        description="memory for replies that are not read yet, of all clients together; when it is full, clients that"
        " have read nothing for a second are disconnected",
    )
    memory_bytes: Annotated[PositiveInt, BYTES] = Field(
        default=216 * 2**20,
        description="memory of the process besides requests and replies that wait; above it, connections with"
        " unfinished messages are cut off, and then silent ones",
    )
    query_cache_bytes: Annotated[NonNegativeInt, BYTES] = Field(
        default=BYTES_MAX,
        description="memory for the cached results of queries, for each open scope; 0 turns the cache off",
    )
    adopted_bytes: Annotated[PositiveInt, BYTES] = Field(
        default=ADOPTED_BYTES,
        description="largest database file that adopt-legacy-database copies, with its write-ahead log",
    )
    command_log: Literal["payloads", "ids-only"] = Field(
        default="payloads",
        description="what the command log keeps: with payloads, commands can be replayed; ids-only is enough to make"
        " retries safe",
    )
    redact_replaced_text: bool = Field(
        default=False,
        description="erase text from the command log as soon as an edit replaces it, of messages, attachments and"
        " metadata of reactions, and not only when they are deleted",
    )
    kept_results: Annotated[NonNegativeInt, COUNT] = Field(
        default=Retention().results,
        description="results of commands kept to answer retries: at least those of the latest COUNT",
    )
    kept_results_ms: Annotated[NonNegativeInt, MS] = Field(
        default=Retention().results_ms, description="how long results are kept to answer retries, at least"
    )
    record: Annotated[Path | None, FILE] = Field(
        default=None,
        description="new file to write each command to as it commits; start with an empty data directory to get a file"
        " that can be replayed",
    )
    scopes_max: Annotated[NonNegativeInt, COUNT] = Field(
        default=10_000, description="scopes besides the default one; further ones are not created; 0 for no bound"
    )
    scope_bytes: Annotated[NonNegativeInt, BYTES] = Field(
        default=0,
        description="rows and media of one scope; with more, only commands that remove are executed; 0 for no bound",
    )
    data_bytes: Annotated[NonNegativeInt, BYTES] = Field(
        default=0,
        description="files of all scopes; with more, only commands that remove are executed; 0 for no bound",
    )
    reserve_bytes: Annotated[NonNegativeInt, BYTES] = Field(
        default=8 * 2**20,
        description="disk space that is kept free, so that data can still be removed when the disk is full; 0 for none",
    )
    backup_dir: Annotated[Path | None, DIR] = Field(
        default=None,
        description="directory for backups, outside of the data directory and better on another disk; with it, backups"
        " are made while the daemon runs",
    )
    backup_ms: Annotated[PositiveInt, MS] = Field(
        default=3_600_000,
        description="interval between backups; the first copies everything, as does one each week, the others what"
        " changed",
    )
    backups_daily: Annotated[PositiveInt, COUNT] = Field(
        default=7, description="days of which the newest backup is kept, with those that it continues"
    )
    backups_weekly: Annotated[NonNegativeInt, COUNT] = Field(
        default=4, description="weeks of which the newest backup of everything is kept, with those that continue it"
    )
    check_ms: Annotated[NonNegativeInt, MS] = Field(
        default=7 * 86_400_000,
        description="interval between checks of all databases and media, in the background; 0 for none",
    )
    query_ms: Annotated[PositiveInt, MS] = Field(
        default=10_000, description="longest time of a query; one that takes longer is answered too-large"
    )
    lock_wait_ms: Annotated[PositiveInt, MS] = Field(
        default=2_000, description="how long a commit waits while another process locks the database"
    )
    stall_ms: Annotated[PositiveInt, MS] = Field(
        default=30_000,
        description="how long replies are kept for a client that does not read them; then it is disconnected",
    )
    drain_ms: Annotated[PositiveInt, MS] = Field(
        default=10_000, description="how long the daemon goes on answering received requests after it was asked to stop"
    )

    @field_validator("endpoint", "allowed_uids", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Let one environment variable name several addresses or users, separated by commas."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("scope_store", mode="before")
    @classmethod
    def _split_places(cls, value: object) -> object:
        """The same for scopes in other databases, in whose addresses there may be commas as well."""
        return re.split(r",(?=[^,=]+=postgres)", value) if isinstance(value, str) else value

    @field_validator("endpoint")
    @classmethod
    def _suitable(cls, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        """Without encryption, only this machine may connect."""
        for endpoint in endpoints:
            if endpoint.startswith("curve://"):
                host, _, port = endpoint.removeprefix("curve://").rpartition(":")
                if not host or not _is_port(port):
                    raise ValueError(f"{endpoint!r} needs a host and a port from 1 to 65535, or * for any free port")
                continue
            if not f"{endpoint}:".startswith(("ipc://", *LOCAL_TCP)):
                raise ValueError(
                    f"{endpoint!r} is neither ipc:///PATH nor tcp:// on 127.0.0.1, localhost or [::1];"
                    " other addresses need curve://HOST:PORT and keys (`backscroll keys --help`)"
                )
            if endpoint.startswith("ipc://") and not endpoint.startswith("ipc:///"):
                raise ValueError(f"{endpoint!r} needs an absolute path, such as ipc:///tmp/backscroll.sock")
            for host in LOCAL_TCP:
                if f"{endpoint}:".startswith(host) and not _is_port(endpoint.removeprefix(host)):
                    raise ValueError(f"{endpoint!r} needs a port from 1 to 65535, or * for any free port")
        return endpoints

    @field_validator("store")
    @classmethod
    def _is_postgresql(cls, store: str) -> str:
        if store and not store.startswith(POSTGRESQL):
            raise ValueError(f"this is no address of a PostgreSQL database, such as {EXAMPLE}")
        return store

    @field_validator("scope_store")
    @classmethod
    def _are_places(cls, places: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for place in places:
            scope, _, address = place.partition("=")
            if not scope or not address.startswith(POSTGRESQL):
                raise ValueError(f"this is not SCOPE={EXAMPLE}")
        if places and not info.data.get("store"):
            raise ValueError("scopes can be in other PostgreSQL databases only if `store` names one for the others")
        return places

    @field_validator("data_dir", "record", "backup_dir", mode="before")
    @classmethod
    def _no_address(cls, path: object) -> object:
        if "://" in str(path):
            raise ValueError("give a path, not an address; the address of a database is the setting `store`")
        return path

    @field_validator("data_dir", "record", "backup_dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        try:
            return None if path is None else path.expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(f"{str(path)!r}: {error} Give a path without `~`.") from error

    @field_validator("backup_dir")
    @classmethod
    def _apart(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        data_dir = info.data.get("data_dir")
        if path is not None and data_dir is not None:
            backups, data = path.resolve(), data_dir.resolve()
            if backups.is_relative_to(data) or data.is_relative_to(backups):
                raise ValueError(f"{str(path)!r} and the data directory may not be inside one another")
        return path

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings  # a daemon reads no .env of whatever directory it starts in
        file = config_file()
        try:
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file)
        except ValueError as error:
            raise ValueError(f"{file} is not valid TOML: {error}") from error


GROUPS: Mapping[str, Sequence[str]] = {
    "data": ["data_dir", "store", "scope_store", "store_connections"],
    "connections": ["endpoint", "allowed_uids", "connections"],
    "process": ["exit_with_parent", "drain_ms", "chores_ms"],
    "logging": ["log_level", "log_format"],
    "command log": ["command_log", "redact_replaced_text", "kept_results", "kept_results_ms", "record"],
    "concurrency": ["readers", "writers", "batch_requests", "lock_wait_ms"],
    "disk": ["scopes_max", "scope_bytes", "data_bytes", "reserve_bytes"],
    "backups and checks": ["backup_dir", "backup_ms", "backups_daily", "backups_weekly", "check_ms"],
    "limits": [
        "queue_requests",
        "queue_bytes",
        "client_requests",
        "client_bytes",
        "adopted_bytes",
        "client_reply_bytes",
        "reply_bytes",
        "memory_bytes",
        "query_cache_bytes",
        "query_ms",
        "stall_ms",
    ],
}
"""The settings as the help shows them: each in one group."""


def _is_port(text: str) -> bool:
    """libzmq takes any number, and binds what is left of it in 16 bits."""
    return text == "*" or (text.isascii() and text.isdigit() and 0 < int(text) < 2**16)


def config_file() -> Path | None:
    """The TOML file that settings are read from, if it exists; one that is named must exist."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named and not Path(named).is_file():
        raise FileNotFoundError(f"{CONFIG_VARIABLE} names {named}, and there is no such file; create it or unset it")
    return Path(named) if named else _default_config_file()


def _default_config_file() -> Path | None:
    """The user's settings file; None for a user without a home directory, as in a container that knows no users."""
    try:
        return platformdirs.user_config_path("backscroll", appauthor=False) / "backscroll.toml"
    except RuntimeError:
        return None


def from_command_line(arguments: Sequence[str]) -> Settings:
    """Read the settings from all sources; exits with 2 for flags that do not exist or lack a value.

    Raises `ValueError` or `OSError` with a message that names the setting where it was given, says what is wrong with
    it and what to do.
    """
    parser = _Parser(prog="backscroll serve", allow_abbrev=False)
    add_settings(parser)
    flags, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(_unknown_flag(unknown[0], parser))
    _refuse_unknown_variables()
    try:
        settings = Settings(**vars(flags))
    except ValidationError as error:
        raise ValueError("; ".join(_problem(each, vars(flags)) for each in error.errors())) from error
    _refuse_those_of_files(settings, vars(flags))
    return settings


def _refuse_those_of_files(settings: Settings, flags: Mapping[str, Any]) -> None:
    """Raise `ValueError` for settings that were given, with whatever value, and do nothing for data in a database."""
    given = [name for name in ONLY_FILES if settings.store and name in settings.model_fields_set]
    if given:
        problems = [f"{_where(name, flags)}: this is only for data in files; {ONLY_FILES[name]}" for name in given]
        raise ValueError("; ".join(problems))


def _refuse_unknown_variables() -> None:
    """Raise `ValueError` for a variable that is no setting, which would leave the default in force unnoticed."""
    for variable in sorted(os.environ):
        name = variable.upper().removeprefix(ENVIRONMENT_PREFIX).lower()
        if not variable.upper().startswith(ENVIRONMENT_PREFIX) or variable.upper() in NO_SETTINGS:
            continue
        if name not in Settings.model_fields:
            hint = _did_you_mean(name, list(Settings.model_fields)) or "; unset it"
            raise ValueError(f"the environment variable {variable} names an unknown setting, {name!r}{hint}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"backscroll: {message}\nRun `{self.prog} --help` to see all settings.\n")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting to a parser; what is not given is left out of its result."""
    parser.usage = f"{parser.prog} [--data-dir DIR] [--endpoint ADDRESS] [OPTION …]"
    parser.description = "Run the daemon. It prints one line of JSON on standard output when it is ready."
    file = _default_config_file()
    default_file = readable_path(file) if file else "backscroll.toml in the user's configuration folder"
    parser.epilog = (
        f"Only for data in files, and refused with --store: {', '.join(_flag(name) for name in ONLY_FILES)}. "
        f"Each setting can also be an environment variable ({ENVIRONMENT_PREFIX}LOG_LEVEL=debug) or a line of a TOML"
        f' file (log_level = "debug" in {default_file}, or in the file that BACKSCROLL_CONFIG'
        " names). Flags override the environment, and the environment overrides the file. Exit codes: 0 stopped as"
        " asked, 2 wrong settings, 3 another daemon holds the data directory, 4 the database cannot be opened."
    )
    parser.formatter_class = partial(argparse.HelpFormatter, max_help_position=HELP_COLUMN)
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            _add_flag(group, name, Settings.model_fields[name])


def _add_flag(group: Any, name: str, field: FieldInfo) -> None:
    unit = _unit(field)
    options: dict[str, Any] = {
        "dest": name,
        "default": argparse.SUPPRESS,
        "help": f"{field.description} (default: {_readable_default(field)})".replace("%", "%%"),
    }
    if field.annotation is bool:
        options |= {"action": argparse.BooleanOptionalAction}
    elif choices := _choices(field):
        options |= {"choices": choices}
    else:
        options |= {"metavar": unit.metavar, "action": "append" if unit in (ADDRESS, UIDS, PLACES) else "store"}
    group.add_argument(_flag(name), **options)


def _readable_default(field: FieldInfo) -> str:
    try:
        return _unit(field).readable(field.get_default(call_default_factory=True))
    except FileNotFoundError:  # of a user without a home directory
        return "none"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _unit(field: FieldInfo) -> Unit:
    plain = Unit("", lambda value: {False: "no", True: "yes"}.get(value, str(value)))
    return next((each for each in field.metadata if isinstance(each, Unit)), plain)


def _choices(field: FieldInfo) -> tuple[str, ...]:
    """The values of a setting that takes one of a few words."""
    return get_args(field.annotation) if _unit(field).metavar == "" else ()


def _unknown_flag(word: str, parser: argparse.ArgumentParser) -> str:
    if not word.startswith("-"):
        return f"unexpected argument {word!r}: `{parser.prog}` takes flags only"
    flag = word.partition("=")[0]
    return f"unknown flag {flag}{_did_you_mean(flag, [_flag(name) for name in Settings.model_fields])}"


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches  # for mistakes alone

    close = get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _problem(error: Any, flags: Mapping[str, Any]) -> str:
    """What pydantic says of one setting, in words: where it was given, what is wrong, and what to do."""
    name, value, kind = str(error["loc"][0]), error["input"], error["type"]
    if kind == "extra_forbidden":
        return f"{config_file()}: unknown setting {name!r}{_did_you_mean(name, list(Settings.model_fields))}"
    where, field = _where(name, flags), Settings.model_fields[name]
    if kind == "value_error":
        return f"{where}: {error['ctx']['error']}"
    if kind in ("greater_than", "greater_than_equal"):
        return f"{where}: {value} is too small; the least is {error['ctx'].get('ge', 1)}"
    if kind == "literal_error":
        return f"{where}: give one of {', '.join(_choices(field))}, not {value!r}"
    if kind.startswith("bool"):
        return f"{where}: give true or false, not {value!r}"
    if kind.startswith("int"):
        unit = {"BYTES": "bytes", "MS": "milliseconds"}.get(_unit(field).metavar)
        wanted = f"a whole number of {unit}" if unit else "a whole number"
        return f"{where}: give {wanted}, such as {field.default or 1000}, not {value!r}"
    return f"{where}: {error['msg']}"


def _where(name: str, flags: Mapping[str, Any]) -> str:
    """Where a setting was given: its flag, its environment variable, or its place in the file."""
    if name in flags:
        return _flag(name)
    variable = f"{ENVIRONMENT_PREFIX}{name}".upper()
    if variable in {each.upper() for each in os.environ}:
        return variable
    return f"{config_file()}: {name}"
