"""bus/secret.py: the key of a scope, from which tokens are worked out."""

import base64
import stat
from pathlib import Path

import pytest

from backscroll.bus.sqlite.token_key import KEY_BYTES, TokenKey


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scopes" / "default.db-key"


def test_a_token_is_256_bits_as_text(path: Path) -> None:
    """It stands in a URL or a header as it is."""
    token = TokenKey(path).token("request-1", 0)
    assert len(token) == 43
    assert len(base64.urlsafe_b64decode(token + "=")) == 32


def test_a_command_gets_the_same_token_again_and_every_other_gets_another(path: Path) -> None:
    """Over a restart too. Neither parts of ids nor numbers run into one another."""
    places = [(request_id, number) for request_id in ("a", "b", "1 a", "", "é") for number in (0, 1, 11)]
    secret = TokenKey(path)
    tokens = [secret.token(*place) for place in places]
    assert len(set(tokens)) == len(places)
    again = TokenKey(path)
    assert [again.token(*place) for place in places] == tokens


def test_another_scope_gives_other_tokens(tmp_path: Path) -> None:
    """Each key is drawn anew."""
    assert len({TokenKey(tmp_path / f"{at}.db-key").token("request-1", 0) for at in range(20)}) == 20


def test_a_key_is_made_when_it_is_first_needed_and_for_its_owner_alone(path: Path) -> None:
    """With the directory it lies in; it is no part of any token."""
    secret = TokenKey(path)
    assert not path.parent.exists()
    token = secret.token("request-1", 0)
    key = path.read_bytes()
    assert len(key) == KEY_BYTES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert key not in base64.urlsafe_b64decode(token + "=")


def test_a_key_that_is_read_is_kept_in_memory(path: Path) -> None:
    """Who loses the file while a scope is open goes on with the key, as long as that is."""
    secret = TokenKey(path)
    token = secret.token("request-1", 0)
    path.unlink()
    assert secret.token("request-1", 0) == token


@pytest.mark.parametrize("damage", [b"", b"x" * (KEY_BYTES - 1), b"x" * (KEY_BYTES + 1)], ids=len)
def test_what_is_no_key_is_replaced_by_one(path: Path, damage: bytes) -> None:
    """A key of the wrong length was never one of ours, and would make tokens that can be guessed."""
    TokenKey(path).token("request-1", 0)
    path.write_bytes(damage)
    token = TokenKey(path).token("request-1", 0)
    assert len(path.read_bytes()) == KEY_BYTES
    assert TokenKey(path).token("request-1", 0) == token


def test_a_key_that_cannot_be_read_or_made_is_an_error_of_the_disk(path: Path) -> None:
    """No token is made without one."""
    path.mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        TokenKey(path).token("request-1", 0)
