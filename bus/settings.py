"""Every setting of the daemon, its default and its names, declared once.

Flags (`--data-dir`) stand over environment variables (`BACKSCROLL_DATA_DIR`), those over a TOML file
(`data_dir = …` in the file that `BACKSCROLL_CONFIG` names, or else `backscroll.toml` in the user's
configuration folder), and those over the defaults here.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from backscroll.bus.query_cache import BYTES_MAX
from backscroll.handlers.storage import Retention
from backscroll.schema.paths import default_data_dir

LOCAL_TCP = ("tcp://127.0.0.1:", "tcp://localhost:", "tcp://[::1]:")


class Settings(BaseSettings):
    """How one daemon runs. Sizes in bytes, times in milliseconds."""

    model_config = SettingsConfigDict(
        env_prefix="BACKSCROLL_",
        frozen=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_prog_name="backscroll serve",
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    data_dir: Path = Field(default_factory=default_data_dir, description="the directory that holds everything")
    endpoint: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="an address to bind, ipc://PATH or tcp://127.0.0.1:PORT (PORT may be *); may be repeated"
    )
    exit_with_parent: bool = Field(False, description="stop when standard input ends or the parent dies")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug shows a line for each request"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: for people on a terminal, else JSON"
    )
    readers: PositiveInt = Field(8, description="how many queries may run at once")
    writers: PositiveInt = Field(4, description="how many scopes may be written at once")
    chores_ms: PositiveInt = Field(60_000, description="how often expired sessions and orphaned media are removed")
    batch_requests: PositiveInt = Field(512, description="how many commands one commit takes at most")
    queue_requests: PositiveInt = Field(65_536, description="how many requests may wait, of all clients")
    queue_bytes: PositiveInt = Field(256 * 2**20, description="how many bytes of requests may wait, of all clients")
    client_requests: PositiveInt = Field(16_384, description="how many requests of one client may wait")
    client_bytes: PositiveInt = Field(64 * 2**20, description="how many bytes of one client's requests may wait")
    query_cache_bytes: NonNegativeInt = Field(
        BYTES_MAX,
        description="how many bytes of answers are kept for each open scope, until what they tell of changes",
    )
    log: Literal["full", "ids"] = Field(
        "full", description="what the command log keeps: whole payloads, or only what makes retries harmless"
    )
    results: NonNegativeInt = Field(Retention().results, description="how many results are kept for retries, at least")
    results_ms: NonNegativeInt = Field(
        Retention().results_ms, description="how long results are kept for retries, at least"
    )
    record: Path | None = Field(
        None,
        description="a file to make, into which commands are written as they commit; to replay it, begin with it",
    )
    lock_wait_ms: PositiveInt = Field(2_000, description="how long a commit waits for another process's lock")
    stall_ms: PositiveInt = Field(30_000, description="how long replies are kept for a client that does not read")
    drain_ms: PositiveInt = Field(10_000, description="how long stopping waits for requests already received")

    @field_validator("endpoint", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Let one environment variable name several addresses, with commas between."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("endpoint")
    @classmethod
    def _only_local(cls, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        """Requests carry no proof of who sends them, so only this machine may connect."""
        for endpoint in endpoints:
            if not endpoint.startswith(("ipc://", *LOCAL_TCP)):
                raise ValueError(f"{endpoint!r} is neither ipc://PATH nor tcp:// on 127.0.0.1, localhost or [::1]")
            if endpoint.startswith("ipc://") and not endpoint.startswith("ipc:///"):
                raise ValueError(f"{endpoint!r} needs an absolute path")
            for host in LOCAL_TCP:
                if endpoint.startswith(host) and not _is_port(endpoint.removeprefix(host)):
                    raise ValueError(f"{endpoint!r} needs a port from 1 to 65535, or *")
        return endpoints

    @field_validator("data_dir", "record")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings  # a daemon reads no .env of whatever folder it starts in
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())


def _is_port(text: str) -> bool:
    """libzmq takes any number, and binds what is left of it in 16 bits."""
    return text == "*" or (text.isascii() and text.isdigit() and 0 < int(text) < 2**16)


def config_file() -> Path:
    """The TOML file that settings are read from, where it exists; one that is named has to."""
    named = os.environ.get("BACKSCROLL_CONFIG")
    if named and not Path(named).is_file():
        raise FileNotFoundError(f"BACKSCROLL_CONFIG names {named}, and there is no such file")
    return Path(named) if named else platformdirs.user_config_path("backscroll", appauthor=False) / "backscroll.toml"


def from_command_line(arguments: Sequence[str]) -> Settings:
    """Read the settings; raises pydantic's ValidationError, and exits with 2 on flags that do not exist."""
    return Settings(_cli_parse_args=list(arguments))  # type: ignore[call-arg]  # a parameter of BaseSettings.__init__
