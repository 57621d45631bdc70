"""Rooms as large as they are: one member costs the same in each, and a million members take no more memory."""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.clients.python.listing import items_of
from backscroll.schema import (
    Batch,
    GetAllRooms,
    GetMember,
    GetMembers,
    GetRoom,
    GetUsersByRoom,
    RemoveMember,
    Room,
    RoomMember,
    RoomUpdates,
    SaveMember,
    SaveRoom,
    UpdateRoom,
)
from backscroll.schema.limits import BATCH_COMMANDS_MAX
from backscroll.schema.positions import MemberPosition
from tests.conftest import StartDaemon
from tests.support.memory import limited_memory
from tests.support.notes import add_note
from tests.support.peers import peak_resident_bytes
from tests.support.tables import all_rows

SMALL, LARGE, HUGE = 10, 2_500, 1_000_000
JOINS = 1_000
ENTRY_BYTES_MAX = 1_000
PEAK_BYTES_MAX = 12 * 1024 * 1024
DAEMON_BYTES_MAX = 250 * 1000 * 1000  # with the default settings it may have 400 MB


def member(number: int) -> RoomMember:
    """A member; ids and times are in different orders, and one time is unset."""
    scattered = number * 7_919 % 1_000_003
    joined_at = None if number == 0 else 1_700_000_000_000 + scattered
    return RoomMember(oder_id=f"u{number}", display_name=f"Person {number}", role="member", joined_at=joined_at)


def fill(client: Client, size: int) -> str:
    """Make a room with so many members, saved in batches; its id."""
    room_id = f"r{size}"
    client.execute(SaveRoom(Room(id=room_id, name="R", topic="t")))
    for first in range(0, size, BATCH_COMMANDS_MAX):
        numbers = range(first, min(size, first + BATCH_COMMANDS_MAX))
        client.execute(Batch.of([SaveMember(room_id, member(each)) for each in numbers]))
    return room_id


# Counted


class Costs(NamedTuple):
    """The statements that SQLite ran, the steps of its virtual machine, and the bytes of the new rows of the log."""

    statements: int
    steps: int
    log_bytes: int


NEWCOMER = RoomMember(oder_id="v", display_name="New", role="member", joined_at=1_700_000_500_000)
OPERATIONS: dict[str, Callable[[str], Any]] = {
    "join": lambda room_id: SaveMember(room_id, NEWCOMER),
    "join again": lambda room_id: SaveMember(room_id, NEWCOMER),
    "leave": lambda room_id: RemoveMember(room_id, "v"),
    "leave again": lambda room_id: RemoveMember(room_id, "v"),
    "get-member": lambda room_id: GetMember(room_id, "u7"),
    "get-members": lambda room_id: GetMembers(room_id, limit=5),
    "get-members after": lambda room_id: GetMembers(
        room_id, limit=5, after=MemberPosition(joined_at=1_700_000_000_000, oder_id="a")
    ),
    "get-users-by-room": lambda room_id: GetUsersByRoom(room_id, limit=5),
    "get-room": lambda room_id: GetRoom(room_id, child_lists=False),
    "get-all-rooms": lambda _: GetAllRooms(child_lists=False, limit=1),
    "update-room": lambda room_id: UpdateRoom(room_id, RoomUpdates(topic="new")),
}


@contextmanager
def counted() -> Iterator[list[int]]:
    """The steps of each statement on connections that are opened inside the block."""
    steps: list[int] = []

    def note(event: dict[str, Any]) -> None:
        steps.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"])

    def trace(connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, note)

    apsw.connection_hooks.append(trace)
    try:
        yield steps
    finally:
        apsw.connection_hooks.remove(trace)


def new_log_bytes(path: Path, before: int) -> int:
    """The bytes of the texts and blobs in the rows of the log after the first ones."""
    return sum(len(value) for row in all_rows(path)["commands"][before:] for value in row if hasattr(value, "__len__"))


def costs_in_room_of(size: int, directory: Path) -> dict[str, Costs]:
    """What each operation costs in a room of this size."""
    found: dict[str, Costs] = {}
    with counted() as steps, InProcess(directory) as transport, Client(transport=transport) as client:
        room_id = fill(client, size)
        for name, operation in OPERATIONS.items():
            rows = len(all_rows(transport.store)["commands"])
            steps.clear()
            client.execute(operation(room_id))
            counts = len(steps), sum(steps)
            found[name] = Costs(*counts, new_log_bytes(transport.store.path, rows))
    return found


def test_one_member_costs_the_same_in_a_room_of_any_size(tmp_path: Path) -> None:
    """SQLite takes the same statements and steps to join, leave, and read one member, a page, or the room itself; a
    join or leave takes less than a kilobyte of the log.
    """
    small = costs_in_room_of(SMALL, tmp_path / "small")
    large = costs_in_room_of(LARGE, tmp_path / "large")
    for name in OPERATIONS:
        assert large[name].statements == small[name].statements, name
        assert large[name].steps == small[name].steps, name
        assert abs(large[name].log_bytes - small[name].log_bytes) < len("r2500" * 4), name
        assert large[name].log_bytes < ENTRY_BYTES_MAX, name


def test_members_in_batches_and_pages_need_bounded_memory(tmp_path: Path) -> None:
    """It depends on the size of a batch and of a page, not on that of the room."""
    with InProcess(tmp_path / "data") as transport, Client(transport=transport) as client:
        fill(client, SMALL)
        with limited_memory(PEAK_BYTES_MAX):
            room_id = fill(client, LARGE)
            seen = sum(1 for _ in items_of(client, GetMembers(room_id), limit=500))
    assert seen == LARGE


# Measured


def milliseconds(client: Client, operations: Iterable[Any]) -> list[float]:
    """How long each of these took, shortest first."""
    taken = []
    for each in operations:
        start = time.perf_counter()
        client.execute(each)
        taken.append((time.perf_counter() - start) * 1_000)
    return sorted(taken)


def works(room_id: str, size: int) -> dict[str, list[Any]]:
    """Joins and leaves of newcomers, leaves of members that a batch saved, and reading."""
    new = [f"v{at}" for at in range(JOINS)]
    old = random.Random(1).sample(range(size), min(size, JOINS))
    page = GetMembers(room_id, limit=500, after=MemberPosition(joined_at=1, oder_id="a"))
    return {
        "join": [SaveMember(room_id, RoomMember(oder_id=each, display_name="New", joined_at=1)) for each in new],
        "leave": [RemoveMember(room_id, each) for each in new],
        "leave of one saved in a batch": [RemoveMember(room_id, f"u{each}") for each in old],
        "get-room without lists": [GetRoom(room_id, child_lists=False)] * 100,
        "get-members": [page] * 100,
    }


def test_a_member_leaves_a_huge_room(tmp_path: Path, long: bool, request: pytest.FixtureRequest) -> None:
    """Members join and leave one by one; in the long form it is a room of a million, and the times are noted."""
    size = HUGE if long else LARGE
    medians: dict[tuple[int, str], float] = {}
    with InProcess(tmp_path / "data") as transport, Client(transport=transport) as client:
        for each in (SMALL, size):
            room_id = fill(client, each)
            for name, operations in works(room_id, each).items():
                taken = milliseconds(client, operations if long else operations[:20])
                medians[each, name] = taken[len(taken) // 2]
        last = client.ask(GetMembers(room_id, limit=1, after=MemberPosition(joined_at=2, oder_id="a")))
        assert len(last) == 1
        assert client.ask(GetMember(room_id, last[0].oder_id)) == last[0]
    if long:
        figures = [f"{room:>9} members: {name}: median {taken:.3f} ms" for (room, name), taken in medians.items()]
        add_note(request.config.stash, "huge rooms", "\n".join(figures))
        for name in ("join", "leave", "get-room without lists"):
            assert medians[size, name] < 2 * medians[SMALL, name] + 0.5, name


def test_the_memory_of_a_daemon_does_not_grow_with_members(
    start_daemon: StartDaemon, long: bool, request: pytest.FixtureRequest
) -> None:
    """Members are saved in batches and read in pages, a million in the long form."""
    size = HUGE if long else 10 * LARGE
    daemon = start_daemon()
    with Client(daemon.endpoint) as client:
        room_id = fill(client, size)
        saved = peak_resident_bytes(daemon.process.pid)
        assert sum(1 for _ in items_of(client, GetMembers(room_id), limit=500)) == size
        assert sum(1 for _ in items_of(client, GetUsersByRoom(room_id), limit=500)) == size
        read = peak_resident_bytes(daemon.process.pid)
    if long:
        figures = f"{saved >> 20} MiB after saving, {read >> 20} MiB after reading"
        add_note(request.config.stash, "memory of a daemon with a million members", figures)
    assert read < DAEMON_BYTES_MAX
