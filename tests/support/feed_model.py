"""A client of the feed, written from PROTOCOL.md alone: it applies changes to what it holds.

`State` is what there is, by noun, room and id; `read_state` reads it with queries. A `Watcher` asks for changes with
one choice of filters and applies them; where a page says that no more follow, it must hold what queries answer at that
`seq`.
"""

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

from backscroll.schema.command_log import Noun

Plain = dict[str, Any]
Ask = Callable[[str, Plain], Plain]
"""Sends a request, given its operation and payload, and returns its reply."""
Key = tuple[str | None, str]
"""The room, for what is in one, and the id."""

NOUNS: tuple[str, ...] = get_args(Noun)
IN_ROOMS = ("message", "room", "member", "ban")
LIMIT = 500


class Differs(AssertionError):
    """What a watcher holds, or was told, is not what it must be."""


@dataclass
class State:
    """The items of each noun, and the id of the current user."""

    items: dict[str, dict[Key, Any]] = field(default_factory=lambda: {noun: {} for noun in NOUNS})
    current: str | None = None

    def only(self, rooms: Collection[str] | None, nouns: Collection[str]) -> dict[str, dict[Key, Any]]:
        """The items of some nouns, only those in some rooms if these are given."""
        return {
            noun: {key: item for key, item in self.items[noun].items() if rooms is None or key[0] in rooms}
            for noun in nouns
            if noun != "current-user"
        }

    def find_user(self, user_id: str | None) -> Any:
        """A user by oderId, else by id, as `get-user` does."""
        users = self.items["user"]
        by_id = (user for user in users.values() if user["id"] == user_id)
        return None if user_id is None else users.get((None, user_id)) or next(by_id, None)


def read_state(ask: Ask, rooms: Collection[str]) -> tuple[int, State, Any]:
    """What queries answer about the whole scope: its `seq`, the state, and the record of the current user.

    `rooms` are all that may have messages or bans. Read again if anything was changed in between.
    """
    while True:
        seqs: set[int] = set()

        def result(operation: str, payload: Plain, seqs: set[int] = seqs) -> Any:
            reply = ask(operation, payload)
            assert reply["ok"], reply
            seqs.add(reply["seq"])
            return reply["result"]

        state = State()
        state.items["room"] = {(room["id"], room["id"]): without_members(room) for room in result("get-all-rooms", {})}
        for room in rooms:
            state.items["message"] |= {(room, each["id"]): each for each in messages_of(result, room)}
            state.items["member"] |= {(room, each["oderId"]): each for each in members_of(result, room)}
            bans = result("get-bans-for-room", {"roomId": room})
            state.items["ban"] |= {(room, each["oderId"]): each for each in bans}
        state.items["user"] = {(None, each["oderId"]): each for each in result("list-users", {})}
        state.items["media"] = {(None, each["id"]): each for each in result("list-media", {})}
        current = result("get-current-user", {})
        if len(seqs) == 1:
            return seqs.pop(), state, current


def messages_of(result: Callable[[str, Plain], Any], room: str) -> Iterator[Plain]:
    """All messages of a room with their attachments, tombstones too."""
    where: Plain = {}
    while True:
        page = result("get-message-page", {"roomId": room, "limit": LIMIT, "attachments": True} | where)
        yield from page["messages"]
        if not page["hasOlder"]:
            return
        where = {"before": page["olderCursor"]}


def members_of(result: Callable[[str, Plain], Any], room: str) -> list[Plain]:
    found: list[Plain] = result("get-members", {"roomId": room})
    return found


def without_members(room: Plain) -> Plain:
    return {name: value for name, value in room.items() if name != "members"}


class Watcher:
    """Follows the feed of a scope. `rooms` and `nouns` are its filters, None for all; `limit` says how large pages are.

    Without values it reads what changed, not always at once.
    """

    def __init__(
        self,
        ask: Ask,
        draw: random.Random,
        *,
        rooms: Collection[str] | None = None,
        nouns: Collection[str] | None = None,
        values: bool = True,
        limit: int | None = None,
        name: str = "",
    ) -> None:
        self.name = name or f"rooms={rooms} nouns={nouns} values={values} limit={limit}"
        self.rooms, self.nouns, self.values = rooms, nouns, values
        self.state = State()
        self.cursor: str | None = None
        self.seq = 0
        """That of the last page."""
        self.last = 0
        """The `seq` of the last change."""
        self.complete = False
        """Whether the last page said that no more follow."""
        self.knows_current = True
        """Whether it can know the id of the current user; `get-current-user` does not say it if that is not stored."""
        self._limit = limit
        self._ask = ask
        self._draw = draw
        self._to_read: dict[tuple[str, str | None, str | None], None] = {}  # noun, room, id: in their order

    def start_now(self, rooms: Collection[str], meanwhile: Callable[[], None] = lambda: None) -> None:
        """Begin in the middle: take a cursor, then read all there is. `meanwhile` is called between the two."""
        reply = self._ask("get-changes", {"after": "now"} | self._filters())
        assert reply["ok"], reply
        self._check(reply["result"]["changes"] == [] and not reply["result"]["more"], reply)
        self.cursor = reply["result"]["cursor"]
        meanwhile()
        _, read, current = read_state(self._ask, rooms)
        self.state.items |= read.only(self.rooms, self.watched)
        self.state.current, self.knows_current = current and current["oderId"], current is not None
        self.seq = self.last = reply["seq"]

    @property
    def watched(self) -> list[str]:
        """The nouns that this watcher hears of."""
        return [noun for noun in self.nouns or NOUNS if self.rooms is None or noun in IN_ROOMS]

    def payload(self, **more: Any) -> Plain:
        """The next question."""
        limit = self._limit or self._draw.choice([1, 2, 3, 10, 100, LIMIT])
        where = {} if self.cursor is None else {"after": self.cursor}
        return {"limit": limit} | where | self._filters() | more

    def step(self) -> Plain:
        """Ask for a page and apply it."""
        reply = self._ask("get-changes", self.payload())
        self.take(reply)
        return reply

    def take(self, reply: Plain) -> None:
        """Apply a page."""
        assert reply["ok"], reply
        page = reply["result"]
        self._check(not page.get("gap"), "a gap")
        self._check(reply["seq"] >= self.seq, f"a page as of {reply['seq']} after one as of {self.seq}")
        for change in page["changes"]:
            self._check(self.last <= change["seq"] <= reply["seq"], f"{change} after {self.last}")
            self.last = change["seq"]
            self.apply(change)
        self.cursor, self.seq, self.complete = page["cursor"], reply["seq"], not page["more"]
        if self._draw.random() < 0.5:
            self.read_named()

    def catch_up(self) -> int:
        """Ask until no more changes follow; the `seq` of the last page."""
        asked = 0
        while True:
            self.step()
            asked += 1
            self._check(asked < 100_000, "there is no end")
            if self.complete:
                self.read_named()
                return self.seq

    def apply(self, change: Plain) -> None:
        """Apply a change, as PROTOCOL.md says."""
        noun, room, item_id = change["noun"], change.get("roomId"), change.get("id")
        gone, value = change.get("gone", False), change.get("value")
        self._check(noun in self.watched, f"{change} is not of its nouns")
        everywhere = item_id is None and room is None
        self._check(self.rooms is None or everywhere or room in self.rooms, f"{change} is in none of its rooms")
        self._check(value is None or (self.values and not gone and item_id is not None), change)
        if noun == "current-user":
            self._check((item_id is None) == gone, change)
            self.state.current, self.knows_current = item_id, True
        elif item_id is None:
            self._check(gone or not self.values, f"{change} leaves open what there is")
            if gone:
                self._clear(noun, room, change.get("channelId"))
            else:
                self._to_read[noun, room, None] = None
        elif gone:
            self._to_read.pop((noun, room, item_id), None)
            self.state.items[noun].pop((room, item_id), None)
        elif value is None:
            self._to_read[noun, room, item_id] = None
        else:
            self._check(identity(noun, value, room) == (room, item_id), change)
            self._to_read.pop((noun, room, item_id), None)
            self.state.items[noun][room, item_id] = value

    def _clear(self, noun: str, room: str | None, channel: str | None) -> None:
        """All items of a noun are gone: everywhere, in a room, or in one of its channels."""
        for key, item in list(self.state.items[noun].items()):
            if room in (None, key[0]) and (channel is None or item.get("channelId") == channel):
                del self.state.items[noun][key]
        if channel is None:
            for named in [each for each in self._to_read if each[0] == noun and room in (None, each[1])]:
                del self._to_read[named]

    def read_named(self) -> None:
        """Read what changes named without saying what it is now."""
        for noun, room, item_id in list(self._to_read):
            items = self.state.items[noun]
            if item_id is None:
                for key in [key for key in items if key[0] == room]:
                    del items[key]
                assert room is not None
                read = messages_of if noun == "message" else members_of
                items |= {identity(noun, each, room): each for each in read(self._result, room)}
                continue
            items.pop((room, item_id), None)
            found = self._read_one(noun, room, item_id)
            if found is not None and identity(noun, found, room) == (room, item_id):
                items[room, item_id] = found
        self._to_read = {}

    def _read_one(self, noun: str, room: str | None, item_id: str) -> Any:
        match noun:
            case "message":
                return self._result("get-message-by-id", {"messageId": item_id, "attachments": True})
            case "room":
                found = self._result("get-room", {"roomId": item_id})
                return found and without_members(found)
            case "member":
                return self._result("get-member", {"roomId": room, "oderId": item_id})
            case "user":
                return self._result("get-user", {"userId": item_id})
            case "media":
                return self._result("get-media", {"mediaId": item_id})
            case _:
                bans = self._result("get-bans-for-room", {"roomId": room})
                return next((ban for ban in bans if ban["oderId"] == item_id), None)

    def compare(self, seq: int, state: State, current: Any, now: int) -> None:
        """Compare what this watcher holds with what queries answer, if both are as of the same `seq`."""
        assert self.complete
        if seq != self.seq or self._to_read:
            return
        held, wanted = self.state.only(self.rooms, self.watched), state.only(self.rooms, self.watched)
        if "ban" in held:
            held["ban"] = {key: ban for key, ban in held["ban"].items() if in_force(ban, now)}
        for noun, items in wanted.items():
            for key in items.keys() | held[noun].keys():
                have, want = held[noun].get(key), items.get(key)
                self._check(have == want, f"{noun} {key} at {seq} is\n  {have}\ninstead of\n  {want}")
        if "current-user" in self.watched and self.knows_current:
            self._check(state.find_user(self.state.current) == current, f"not {self.state.current!r} but {current}")

    def _filters(self) -> Plain:
        filters = {"rooms": self.rooms, "nouns": self.nouns}
        given: Plain = {name: list(chosen) for name, chosen in filters.items() if chosen is not None}
        return given if self.values else given | {"values": False}

    def _result(self, operation: str, payload: Plain) -> Any:
        reply = self._ask(operation, payload)
        assert reply["ok"], reply
        return reply["result"]

    def _check(self, holds: object, problem: object) -> None:
        if not holds:
            raise Differs(f"{self.name}: {problem}")


def identity(noun: str, value: Plain, room: str | None) -> Key:
    """The room and the id of a record."""
    match noun:
        case "message":
            return value["roomId"], value["id"]
        case "room":
            return value["id"], value["id"]
        case "member":
            return room, value["oderId"]
        case "ban":
            return value["roomId"], value["oderId"]
        case "user":
            return None, value["oderId"]
        case _:
            return None, value["id"]


def in_force(ban: Plain, now: int) -> bool:
    return ban.get("expiresAt") is None or bool(ban["expiresAt"] > now)
