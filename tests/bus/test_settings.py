"""Settings: where they come from, which source wins, and what is refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from backscroll.bus.settings import Settings, config_file, from_command_line


@pytest.fixture(autouse=True)
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty settings file, named in the environment, that stands for the user's own."""
    file = tmp_path / "backscroll.toml"
    file.write_text("")
    monkeypatch.setenv("BACKSCROLL_CONFIG", str(file))
    return file


def test_flags_stand_over_environment_over_file_over_defaults(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source gives way to the one before it, setting by setting."""
    assert from_command_line([]).readers == 8
    toml.write_text("readers = 2\nstall_ms = 22\n")
    assert from_command_line([]).readers == 2
    monkeypatch.setenv("BACKSCROLL_READERS", "3")
    assert from_command_line([]).readers == 3
    settings = from_command_line(["--readers", "4"])
    assert (settings.readers, settings.stall_ms) == (4, 22)


def test_every_setting_has_a_flag_an_environment_name_and_a_description(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is declared once can be said everywhere."""
    examples = {
        "data_dir": "/tmp/x",
        "endpoint": "ipc:///tmp/x",
        "log_level": "debug",
        "log_format": "json",
        "log": "ids",
    }
    for name, field in Settings.model_fields.items():
        value = examples.get(name, "true" if field.annotation is bool else "7")
        flag = f"--{name.replace('_', '-')}"
        by_flag = from_command_line([flag] if value == "true" else [flag, value])
        with monkeypatch.context() as patch:
            patch.setenv(f"BACKSCROLL_{name.upper()}", value)
            by_environment = from_command_line([])
        assert by_flag == by_environment, name
        assert getattr(by_flag, name) != getattr(from_command_line([]), name), name
        assert field.description, name


def test_endpoints_are_repeated_as_flags_listed_in_files_and_joined_in_the_environment(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several addresses can be given in each way that its source has for lists."""
    both = ("ipc:///tmp/a.sock", "tcp://127.0.0.1:*")
    assert from_command_line(["--endpoint", both[0], "--endpoint", both[1]]).endpoint == both
    toml.write_text(f'endpoint = ["{both[0]}", "{both[1]}"]')
    assert from_command_line([]).endpoint == both
    monkeypatch.setenv("BACKSCROLL_ENDPOINT", " , ".join(both))
    assert from_command_line([]).endpoint == both


@pytest.mark.parametrize(
    "endpoint",
    [
        *("tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://10.0.0.1:5555", "tcp://127.0.0.2:1", "tcp://[::]:1"),
        *("tcp://127.0.0.1", "tcp://127.0.0.1:", "tcp://127.0.0.1:0", "tcp://127.0.0.1:65536", "tcp://127.0.0.1:-1"),
        *("tcp://127.0.0.1:x", "tcp://127.0.0.1:١", "tcp://127.0.0.1:80;10.0.0.1:80", "tcp://127.0.0.1:1:2x"),
        *("ipc://", "ipc://x", "ipc://*", "ipc://@abstract", "inproc://x", "udp://127.0.0.1:1", "", "x"),
    ],
)
def test_only_addresses_of_this_machine_are_taken(endpoint: str) -> None:
    """Requests carry no proof of who sends them, so nothing but loopback and ipc is ever bound."""
    with pytest.raises(ValidationError):
        Settings(endpoint=(endpoint,))


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:1", "tcp://localhost:65535", "tcp://[::1]:*", "ipc:///x y"])
def test_addresses_of_this_machine_are_taken(endpoint: str) -> None:
    """Loopback by its names, with a port or any, and absolute ipc paths."""
    assert Settings(endpoint=(endpoint,)).endpoint == (endpoint,)


def test_a_data_directory_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative path and `~` mean what they mean where the daemon starts."""
    monkeypatch.chdir(tmp_path)
    assert from_command_line(["--data-dir", "x"]).data_dir == tmp_path / "x"
    assert from_command_line(["--data-dir", "~/x"]).data_dir == Path.home() / "x"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("unknown = 1", ValidationError),
        ("readers = 0", ValidationError),
        ("readers = -1", ValidationError),
        ('log_level = "loud"', ValidationError),
        ("readers", ValueError),
        ("\udcff", ValueError),
    ],
)
def test_a_file_with_mistakes_is_refused(toml: Path, text: str, error: type[Exception]) -> None:
    """Keys that do not exist, wrong values and what is no TOML are errors rather than ignored."""
    toml.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises((error, SettingsError)):
        from_command_line([])


def test_a_named_file_has_to_exist_and_an_unnamed_one_has_not(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names a file wants it read."""
    toml.unlink()
    with pytest.raises(FileNotFoundError, match=r"backscroll\.toml"):
        config_file()
    monkeypatch.delenv("BACKSCROLL_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(toml.parent / "none"))
    assert from_command_line([]).readers == 8


def test_settings_cannot_be_changed(toml: Path) -> None:
    """What a daemon was started with holds until it ends."""
    with pytest.raises(ValidationError):
        Settings().readers = 3  # type: ignore[misc]  # what is refused at run time too
