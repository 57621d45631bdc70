"""Settings: their sources and precedence, how errors are reported, and what the help shows."""

import pwd
import re
from pathlib import Path
from typing import NoReturn

import pytest
from pydantic import ValidationError

from backscroll.bus.settings import (
    GROUPS,
    ONLY_FILES,
    Settings,
    config_file,
    from_command_line,
    readable_bytes,
    readable_ms,
)
from backscroll.schema.paths import default_data_dir


@pytest.fixture(autouse=True)
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty settings file, named in the environment, in place of the user's own."""
    file = tmp_path / "backscroll.toml"
    file.write_text("")
    monkeypatch.setenv("BACKSCROLL_CONFIG", str(file))
    return file


@pytest.fixture
def shown_help(capsys: pytest.CaptureFixture[str]) -> str:
    """The text of `backscroll serve --help`, with white space collapsed."""
    with pytest.raises(SystemExit) as caught:
        from_command_line(["--help"])
    assert caught.value.code == 0
    said = capsys.readouterr()
    assert not said.err
    return " ".join(said.out.split())


# Where settings come from


def test_flags_override_environment_file_and_defaults(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source overrides the next one for each setting separately."""
    assert from_command_line([]).readers == 8
    toml.write_text("readers = 2\nstall_ms = 22\n")
    assert from_command_line([]).readers == 2
    monkeypatch.setenv("BACKSCROLL_READERS", "3")
    assert from_command_line([]).readers == 3
    settings = from_command_line(["--readers", "4"])
    assert (settings.readers, settings.stall_ms) == (4, 22)


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has a user whom the system does not know, as in a container."""

    def unknown(user: int) -> NoReturn:
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "BACKSCROLL_CONFIG", "BACKSCROLL_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("variable", ["BACKSCROLL_DATA_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME"])
def test_a_directory_replaces_a_home(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A user without a home directory can name directories in the environment."""
    monkeypatch.setenv(variable, "/place")
    named = {"BACKSCROLL_DATA_DIR": "/place", "XDG_DATA_HOME": "/place/backscroll"}.get(variable)
    assert from_command_line([] if named else ["--data-dir", "/x"]).data_dir == Path(named or "/x")


@pytest.mark.usefixtures("homeless")
def test_a_tilde_without_a_home_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is bad usage like any other value that cannot be used."""
    with pytest.raises(ValueError, match=r"^--data-dir: '~/x': .*Give a path without `~`"):
        from_command_line(["--data-dir", "~/x"])
    monkeypatch.setenv("BACKSCROLL_DATA_DIR", "~/x")
    with pytest.raises(FileNotFoundError, match="home directory"):
        default_data_dir()


@pytest.mark.usefixtures("homeless")
def test_a_user_without_a_home_needs_a_data_dir() -> None:
    """Without a home directory there is no settings file; the data directory must be named, and the error says so."""
    assert from_command_line(["--data-dir", "/data"]).data_dir == Path("/data")
    with pytest.raises(FileNotFoundError, match=r"home directory .*; or name a data directory \(--data-dir, "):
        from_command_line([])


def test_every_setting_can_be_given_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that is declared has a flag, an environment variable and a description."""
    examples = {
        "data_dir": "/tmp/x",
        "endpoint": "ipc:///tmp/x",
        "log_level": "debug",
        "log_format": "json",
        "command_log": "ids-only",
        "backups_daily": "8",
        "store": "postgresql:///x",
        "scope_store": "ada=postgresql:///y",
    }
    needed = {"scope_store": ["--store", "postgresql:///x"]}
    for name, field in Settings.model_fields.items():
        value = examples.get(name, "true" if field.annotation is bool else "7")
        flag = f"--{name.replace('_', '-')}"
        others = needed.get(name, [])
        by_flag = from_command_line([*others, flag] if value == "true" else [*others, flag, value])
        with monkeypatch.context() as patch:
            patch.setenv(f"BACKSCROLL_{name.upper()}", value)
            by_environment = from_command_line(others)
        assert by_flag == by_environment, name
        assert getattr(by_flag, name) != getattr(from_command_line(others), name), name
        assert field.description, name


def test_several_endpoints_can_be_given(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a repeated flag, as a list in the file, or separated by commas in the environment."""
    both = ("ipc:///tmp/a.sock", "tcp://127.0.0.1:*")
    assert from_command_line(["--endpoint", both[0], "--endpoint", both[1]]).endpoint == both
    toml.write_text(f'endpoint = ["{both[0]}", "{both[1]}"]')
    assert from_command_line([]).endpoint == both
    monkeypatch.setenv("BACKSCROLL_ENDPOINT", " , ".join(both))
    assert from_command_line([]).endpoint == both


def test_an_address_of_several_servers_is_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commas separate places in the environment, and servers in the address of one place."""
    monkeypatch.setenv("BACKSCROLL_STORE", "postgresql://a,b/chat")
    monkeypatch.setenv("BACKSCROLL_SCOPE_STORE", "big=postgresql://c,d/chat,more=postgresql://e/chat")
    settings = from_command_line([])
    assert settings.scope_store == ("big=postgresql://c,d/chat", "more=postgresql://e/chat")


@pytest.mark.parametrize("name", ONLY_FILES)
def test_settings_of_files_are_refused_with_a_database(name: str, tmp_path: Path, toml: Path) -> None:
    """All that would do nothing there, wherever and with whatever value they are set; the message says why."""
    flag = f"--{name.replace('_', '-')}"
    value = str(tmp_path / "x") if name in ("record", "backup_dir") else "1"
    from_command_line([flag, value])
    with pytest.raises(ValueError, match=f"^{flag}: this is only for data in files; {re.escape(ONLY_FILES[name])}"):
        from_command_line(["--store", "postgresql://h/chat", flag, value])
    toml.write_text(f'{name} = "{value}"')
    with pytest.raises(ValueError, match=f"{name}: this is only for data in files"):
        from_command_line(["--store", "postgresql://h/chat"])


@pytest.mark.parametrize("flag", ["--data-dir", "--record", "--backup-dir"])
def test_an_address_is_no_path(flag: str) -> None:
    """It would become a directory called `postgresql:`; it is not repeated, because it may have a password in it."""
    with pytest.raises(ValueError, match=f"^{flag}: give a path, not an address") as caught:
        from_command_line([flag, "postgresql://ada:secret@h/chat"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "flags",
    [
        ["--store", "postgres:/ada:secret@h/chat"],
        ["--store", "postgresql://h/chat", "--scope-store", "postgresql://ada:secret@h/chat"],
        ["--store", "postgresql://h/chat", "--scope-store", "big=postgres:/ada:secret@h/chat"],
        ["--scope-store", "big=postgresql://ada:secret@h/chat"],
    ],
)
def test_a_refused_address_is_not_repeated(flags: list[str]) -> None:
    """It may have a password in it, and what is said ends up in logs."""
    with pytest.raises(ValueError, match=r"-store: ") as caught:
        from_command_line(flags)
    assert "secret" not in str(caught.value)


def test_a_flag_can_switch_off_what_the_environment_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boolean settings also have a `--no-` flag, so that every source can be overridden."""
    monkeypatch.setenv("BACKSCROLL_EXIT_WITH_PARENT", "true")
    assert from_command_line([]).exit_with_parent
    assert not from_command_line(["--no-exit-with-parent"]).exit_with_parent


def test_a_data_directory_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative path and `~` are resolved where the daemon starts."""
    monkeypatch.chdir(tmp_path)
    assert from_command_line(["--data-dir", "x"]).data_dir == tmp_path / "x"
    assert from_command_line(["--data-dir", "~/x"]).data_dir == Path.home() / "x"


def test_a_named_file_must_exist_an_unnamed_one_need_not(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A settings file that is named in the environment must be there."""
    toml.unlink()
    with pytest.raises(FileNotFoundError, match=r"backscroll\.toml"):
        config_file()
    monkeypatch.delenv("BACKSCROLL_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(toml.parent / "none"))
    assert from_command_line([]).readers == 8


def test_settings_cannot_be_changed() -> None:
    """A daemon keeps the settings it was started with until it ends."""
    with pytest.raises(ValidationError):
        Settings().readers = 3  # type: ignore[misc]  # what is refused at run time too


# What is refused


@pytest.mark.parametrize(
    "endpoint",
    [
        *("tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://10.0.0.1:5555", "tcp://127.0.0.2:1", "tcp://[::]:1"),
        *("tcp://127.0.0.1", "tcp://127.0.0.1:", "tcp://127.0.0.1:0", "tcp://127.0.0.1:65536", "tcp://127.0.0.1:-1"),
        *("tcp://127.0.0.1:x", "tcp://127.0.0.1:١", "tcp://127.0.0.1:80;10.0.0.1:80", "tcp://127.0.0.1:1:2x"),
        *("curve://", "curve://:1", "curve://192.0.2.1", "curve://192.0.2.1:", "curve://192.0.2.1:0", "curve://x:http"),
        *("ipc://", "ipc://x", "ipc://*", "ipc://@abstract", "inproc://x", "udp://127.0.0.1:1", "", "x"),
    ],
)
def test_only_local_addresses_are_accepted(endpoint: str) -> None:
    """Without encryption the daemon listens on loopback addresses and ipc paths only; curve:// needs host and port."""
    with pytest.raises(ValidationError):
        Settings(endpoint=(endpoint,))


@pytest.mark.parametrize(
    "endpoint",
    [
        *("tcp://127.0.0.1:1", "tcp://localhost:65535", "tcp://[::1]:*", "ipc:///x y"),
        *("curve://0.0.0.0:5555", "curve://[::]:1", "curve://127.0.0.1:*", "curve://*:5555"),
    ],
)
def test_suitable_addresses_are_accepted(endpoint: str) -> None:
    """Loopback addresses by any name, with a port or any free one, absolute ipc paths, and any host with CURVE."""
    assert Settings(endpoint=(endpoint,)).endpoint == (endpoint,)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--readers", "many"], "--readers: give a whole number, such as 8, not 'many'"),
        (["--queue-bytes", "1MiB"], "--queue-bytes: give a whole number of bytes, such as 100663296, not '1MiB'"),
        (["--stall-ms", "5s"], "--stall-ms: give a whole number of milliseconds, such as 30000, not '5s'"),
        (["--readers", "0"], "--readers: 0 is too small; the least is 1"),
        (["--kept-results", "-1"], "--kept-results: -1 is too small; the least is 0"),
        (["--allowed-uids", "ada"], "--allowed-uids: give a whole number, such as 1000, not 'ada'"),
        (["--endpoint", "tcp://127.0.0.1"], "--endpoint: 'tcp://127.0.0.1' needs a port from 1 to 65535"),
        (["--endpoint", "127.0.0.1:5555"], "--endpoint: '127.0.0.1:5555' is neither ipc:///PATH nor tcp://"),
        (["--readers", "0", "--writers", "x"], "least is 1; --writers: give"),
    ],
)
def test_an_invalid_value_is_named_with_its_flag(flags: list[str], message: str) -> None:
    """The message names the flag, says what is wrong and what to do; several mistakes are reported together."""
    with pytest.raises(ValueError, match=re.escape(message)):
        from_command_line(flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--log-level", "loud"], "argument --log-level: invalid choice: 'loud' (choose from"),
        (["--log", "ids"], "unknown flag --log"),
        (["--data", "x"], "unknown flag --data; did you mean --data-dir?"),
        (["--datadir=x"], "unknown flag --datadir; did you mean --data-dir?"),
        (["--readers"], "argument --readers: expected one argument"),
        (["./data"], "unexpected argument './data': `backscroll serve` takes flags only"),
    ],
)
def test_an_unknown_flag_exits_with_2_and_a_suggestion(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flags cannot be abbreviated; the message suggests the right one and the help."""
    with pytest.raises(SystemExit) as caught:
        from_command_line(flags)
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"backscroll: {message}")
    assert said.err.endswith("Run `backscroll serve --help` to see all settings.\n")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("BACKSCROLL_READERS", "x", "BACKSCROLL_READERS: give a whole number, such as 8, not 'x'"),
        ("BACKSCROLL_EXIT_WITH_PARENT", "maybe", "BACKSCROLL_EXIT_WITH_PARENT: give true or false, not 'maybe'"),
        ("BACKSCROLL_LOG_LEVEL", "loud", "BACKSCROLL_LOG_LEVEL: give one of debug, info, warning, error, not 'loud'"),
    ],
)
def test_an_invalid_value_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    """Values from the environment are reported under the name of the variable."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=re.escape(message)):
        from_command_line([])


@pytest.mark.parametrize("backups", ["data", "data/backups", "."])
def test_backups_are_not_kept_with_the_data(tmp_path: Path, backups: str) -> None:
    """They would be lost with it: such a directory is refused at the start, not by each backup."""
    flags = ["--data-dir", str(tmp_path / "data"), "--backup-dir", str(tmp_path / backups)]
    with pytest.raises(ValueError, match="may not be inside one another"):
        from_command_line(flags)


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("BACKSCROLL_RAEDERS", "BACKSCROLL_RAEDERS names an unknown setting, 'raeders'; did you mean readers?"),
        ("BACKSCROLL_XYZZY", "BACKSCROLL_XYZZY names an unknown setting, 'xyzzy'; unset it"),
        ("backscroll_xyzzy", "backscroll_xyzzy names an unknown setting, 'xyzzy'; unset it"),
    ],
)
def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, message: str) -> None:
    """A misspelt variable is an error, like an unknown flag, instead of leaving the default in force unnoticed."""
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ValueError, match=re.escape(message)):
        from_command_line([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unknown = 1", ": unknown setting 'unknown'"),
        ("raeders = 1", ": unknown setting 'raeders'; did you mean readers?"),
        ("readers = 0", ": readers: 0 is too small; the least is 1"),
        ('log_level = "loud"', ": log_level: give one of debug, info, warning, error, not 'loud'"),
        ("readers", " is not valid TOML: "),
        ("\udcff", " is not valid TOML: "),
    ],
)
def test_an_invalid_settings_file_is_refused(toml: Path, text: str, message: str) -> None:
    """Unknown keys, invalid values and invalid TOML are errors, which name the file."""
    toml.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=re.escape(f"{toml}{message}")):
        from_command_line([])


# The help


def test_the_help_shows_every_setting_in_one_group(shown_help: str) -> None:
    """Each setting is in exactly one group, with its flag and its description."""
    names = [name for group in GROUPS.values() for name in group]
    assert sorted(names) == sorted(Settings.model_fields)
    assert all(f" {group}: --" in shown_help for group in GROUPS)
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in shown_help
        assert " ".join((field.description or "").split()) in shown_help


def test_the_help_shows_values_and_defaults_in_words(shown_help: str) -> None:
    """It shows units instead of types, and defaults as people write them."""
    assert shown_help.startswith("usage: backscroll serve ")
    for words in (
        *("--data-dir DIR", "--endpoint ADDRESS", "--query-cache-bytes BYTES", "--stall-ms MS", "--readers COUNT"),
        *("(default: 16 MiB)", "(default: 60 s)", "(default: 7 days)", "(default: 65,536)", "(default: no)"),
        *("{debug,info,warning,error}", "(default: a socket in the data directory)", "BACKSCROLL_LOG_LEVEL=debug"),
    ):
        assert words in shown_help
    for jargon in ("tuple[", "default factory", "NoneType", "typing", "Path", "JSON string"):
        assert jargon not in shown_help


def test_sizes_and_times_are_readable() -> None:
    """They are shown in the largest unit that divides them."""
    assert [readable_bytes(size) for size in (0, 1000, 1024, 16 * 2**20, 2**30)] == [
        *("0 bytes", "1000 bytes", "1 KiB", "16 MiB", "1 GiB")
    ]
    assert [readable_ms(time) for time in (0, 250, 1_500, 60_000, 172_800_000)] == [
        *("0 ms", "250 ms", "1500 ms", "60 s", "2 days")
    ]
