"""The command log where payloads are missing or partly erased: replays are exact, and pages bounded."""

from pathlib import Path
from typing import Any

import pytest

from backscroll.handlers.storage import Retention
from backscroll.schema.limits import PAGE_BYTES_MAX
from backscroll.schema.records import ERASED_EMOJI
from backscroll.schema.wire import MSGPACK
from tests.support.clocks import Clock
from tests.support.local import REPLAYED, Local, check_replay

ID = "i" * 500


def reaction(emoji: str) -> dict[str, Any]:
    return {"messageId": "m1", "oderId": "bob", "emoji": emoji}


def message(message_id: str, **fields: Any) -> dict[str, Any]:
    return {"message": {"id": message_id, "roomId": ID, "senderId": "a", "content": "", "timestamp": 1} | fields}


@pytest.mark.parametrize("emoji", ["-", "", "?", "\ufffd", ERASED_EMOJI], ids=ascii)
def test_a_replay_never_confuses_an_erased_emoji_with_another(tmp_path: Path, clock: Clock, emoji: str) -> None:
    """Whatever else the user reacted with, the replay of a removed reaction adds and removes nothing."""
    with Local(tmp_path / "data", clock=clock) as local:
        local.result("save-message", message("m1"))
        local.result("save-message", message("m1", reactions=[reaction(emoji or "x")]))
        local.ask("save-reaction", {"reaction": reaction(emoji)})
        local.result("save-reaction", {"reaction": reaction("👍")})
        local.result("remove-reaction", reaction("👍"))
        local.replay(local.entries())
        check_replay(local, REPLAYED)


def test_a_page_of_a_log_without_payloads_is_limited(tmp_path: Path, clock: Clock) -> None:
    """The changes of the commands count for the size of a page, also where no payload is stored."""
    with Local(tmp_path / "data", clock=clock, retention=Retention(payloads=False)) as local:
        for batch in range(6):
            saves = [{"type": "save-message", "payload": message(f"{batch}-{at}-{ID}")} for at in range(1_000)]
            local.result("batch", {"commands": saves})
        page = local.result("get-log", codec=MSGPACK)
        assert 0 < len(page["entries"]) < 6
        assert len(MSGPACK.encode(page)) < PAGE_BYTES_MAX * 1.1
        assert len(local.entries()) == 6


@pytest.mark.parametrize(("name", "code"), [("save message", "unknown-operation"), ("get-messages", "invalid")])
def test_an_entry_without_payload_must_be_of_a_command(tmp_path: Path, clock: Clock, name: str, code: str) -> None:
    """Names of commands have no spaces, so the text that is hashed into the chain is unambiguous."""
    entry = {"seq": 1, "at": 1, "id": "a", "type": name, "redacted": True, "digest": "0" * 64}
    with Local(tmp_path / "data", clock=clock) as local:
        error = local.ask("append-log", {"entries": [entry]})["error"]
        assert (error["code"], error["details"]["path"]) == (code, "$.payload.entries[0].type")


def test_a_generated_id_above_128_bits_is_refused(tmp_path: Path, clock: Clock) -> None:
    """It is no ULID, and the id after it could not be greater."""
    generated = {"ids": ["8" + "Z" * 25]}
    entry = {"seq": 1, "at": 1, "id": "a", "type": "create-user", "redacted": True, "digest": "0" * 64}
    with Local(tmp_path / "data", clock=clock) as local:
        error = local.ask("append-log", {"entries": [entry | {"generated": generated}]})["error"]
        assert (error["code"], error["details"]["path"]) == ("invalid", "$.payload.entries[0].generated.ids[0]")
