"""How a client imports a whole history at full rate."""

import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import msgspec

from backscroll.clients.python import Client
from backscroll.schema import Batch, Message, SaveMessage
from tests.bench.measuring import seconds
from tests.bench.sockets import TIMEOUT_MS
from tests.bench.work import stream

CLI = "import sys; from backscroll.clients.command_line.main import main; sys.exit(main())"
ROOMS = 8
BATCH, IN_FLIGHT = 250, 4


def history(name: str, count: int) -> list[Message]:
    """A number of messages with ids of this name."""
    return list(islice(stream(name, [f"{name}-{number}" for number in range(ROOMS)]), count))


def import_messages(endpoint: str, messages: Sequence[Message]) -> float:
    """Save all of them in batches by one client; the seconds it took."""
    batches = (Batch.of(map(SaveMessage, messages[at : at + BATCH])) for at in range(0, len(messages), BATCH))
    with Client(endpoint, timeout_ms=TIMEOUT_MS) as client:
        return seconds(lambda: deque(client.pipeline(batches, window=IN_FLIGHT), maxlen=0))


def replay_messages(directory: Path, messages: Sequence[Message]) -> float:
    """Replay a log file of the same saves by the command line, start and stop included; the seconds it took."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        log = Path(place) / "commands.jsonl"
        with log.open("wb") as file:
            for message in messages:
                file.write(msgspec.json.encode({"type": "save-message", "payload": SaveMessage(message)}) + b"\n")
        command = [sys.executable, "-c", CLI, "replay", str(log), "--into", str(Path(place) / "data")]
        return seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def save_one_by_one(endpoint: str, messages: Sequence[Message]) -> float:
    """Save each once the one before is on disk; the seconds it took."""
    with Client(endpoint, timeout_ms=TIMEOUT_MS) as client:
        return seconds(lambda: deque(map(client.execute, map(SaveMessage, messages)), maxlen=0))
