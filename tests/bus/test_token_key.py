"""bus/sqlite/token_key.py: the key of a scope, from which session tokens are derived."""

import base64
import stat
from pathlib import Path

import pytest

from backscroll.bus.sqlite.token_key import KEY_BYTES, TokenKey


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scopes" / "default.db-key"


def test_a_token_has_256_bits_as_url_safe_text(path: Path) -> None:
    """It can be used in a URL or a header."""
    token = TokenKey(path).token("request-1", 0)
    assert len(token) == 43
    assert len(base64.urlsafe_b64decode(token + "=")) == 32


def test_tokens_are_deterministic_and_distinct(path: Path) -> None:
    """The same command gets the same token, also after a restart; ids and numbers are never ambiguous when combined."""
    places = [(request_id, number) for request_id in ("a", "b", "1 a", "", "é") for number in (0, 1, 11)]
    secret = TokenKey(path)
    tokens = [secret.token(*place) for place in places]
    assert len(set(tokens)) == len(places)
    again = TokenKey(path)
    assert [again.token(*place) for place in places] == tokens


def test_tokens_differ_between_scopes(tmp_path: Path) -> None:
    """Each scope has a random key."""
    assert len({TokenKey(tmp_path / f"{at}.db-key").token("request-1", 0) for at in range(20)}) == 20


def test_a_key_is_created_on_first_use_and_private(path: Path) -> None:
    """The directory is created too; the key is no part of any token."""
    secret = TokenKey(path)
    assert not path.parent.exists()
    token = secret.token("request-1", 0)
    key = path.read_bytes()
    assert len(key) == KEY_BYTES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert key not in base64.urlsafe_b64decode(token + "=")


def test_a_key_that_is_read_is_kept_in_memory(path: Path) -> None:
    """A scope that is open continues to use its key even if the file is lost."""
    secret = TokenKey(path)
    token = secret.token("request-1", 0)
    path.unlink()
    assert secret.token("request-1", 0) == token


@pytest.mark.parametrize("damage", [b"", b"x" * (KEY_BYTES - 1), b"x" * (KEY_BYTES + 1)], ids=len)
def test_an_invalid_key_file_is_replaced(path: Path, damage: bytes) -> None:
    """A key of the wrong length would make tokens that can be guessed."""
    TokenKey(path).token("request-1", 0)
    path.write_bytes(damage)
    token = TokenKey(path).token("request-1", 0)
    assert len(path.read_bytes()) == KEY_BYTES
    assert TokenKey(path).token("request-1", 0) == token


def test_an_inaccessible_key_is_a_storage_error(path: Path) -> None:
    """No token is made without a key."""
    path.mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        TokenKey(path).token("request-1", 0)
