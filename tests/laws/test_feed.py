"""The law of the feed, for every command of the registry: whoever has applied every change holds what queries answer.

A history of random commands is followed by watchers (`tests.support.feed_model`) that ask rarely or often, for long or
short pages, with all kinds of filters. The store is closed and opened, rooms are cleared by and by, messages expire,
and logs are replayed in between.
"""

import itertools
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backscroll.bus.query_cache import QueryCache
from backscroll.handlers import changes as declared_by_handlers
from backscroll.handlers import clearing, feed
from backscroll.handlers.storage import Retention
from backscroll.schema.operations import OPERATIONS, Command
from tests.support.clocks import Clock
from tests.support.feed_model import NOUNS, Differs, State, Watcher, read_state
from tests.support.local import Local
from tests.support.notes import say
from tests.support.random_commands import ROOMS, Drawn, Payload, RandomCommands

COMMANDS, COMMANDS_LONG = 1_000, 18_000
SHORT = 500
SEED = 20261129
CLEARED_ALL = 0.004
DAY_MS = 24 * 60 * 60 * 1000
SMALL = [
    *((clearing, "AT_ONCE", 2), (feed, "COMMANDS_MAX", 5), (feed, "CHANGES_MAX", 4)),
    *((feed, "VALUES_AT_ONCE", 2), (feed, "PAGE_BYTES_MAX", 400)),
]
KINDS = ("saved", "gone", "cleared", "replaced")

Filters = tuple[list[str] | None, list[str] | None]


class Drawing(RandomCommands):
    """Random commands in which what expires does so soon, and of which each type can be asked for."""

    def __init__(self, seed: int, clock: Clock) -> None:
        super().__init__(seed)
        self._clock = clock

    def next(self) -> Drawn:
        return self.of_type("clear-all-data") if self._draw.random() < CLEARED_ALL else super().next()

    def of_type(self, name: str) -> Drawn:
        return name, self._payload(name)

    def _draw_save_message(self) -> Payload:
        payload = super()._draw_save_message()
        if "expiresAt" in payload["message"]:
            payload["message"]["expiresAt"] = self._soon()
        return payload

    def _draw_save_ban(self) -> Payload:
        payload = super()._draw_save_ban()
        payload["ban"] |= self._maybe(expiresAt=self._soon())
        return payload

    def _soon(self) -> int:
        return self._draw.choice([1, self._clock.now + self._draw.randrange(5_000), 10**13])


class Unhurried(Local):
    """A store in which messages of cleared rooms are removed by and by."""

    def settle(self, scope: str) -> None:
        """Nothing is removed yet."""

    def settle_now(self, scope: str) -> None:
        super().settle(scope)


class Scope:
    """One scope of a history, with those who watch it. `executed` counts the commands that took effect."""

    def __init__(self, name: str, commands: Drawing) -> None:
        self.name = name
        self.commands = commands
        self.watchers: list[tuple[Watcher, float]] = []
        self.executed = Counter[str]()
        self.read_at: tuple[int, int] | None = None
        self.read: tuple[int, State, Any] = (0, State(), None)


class History:
    """Random histories of some scopes, with `watchers` each, in a store that is closed and opened again at random."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        *,
        scopes: int = 2,
        watchers: int = 5,
        retention: Retention | None = None,
    ) -> None:
        self.clock = Clock()
        self.draw = random.Random(seed)
        self.compared = 0
        self._directory, self._retention = directory, retention
        self._ids = itertools.count(1)
        self._copies = itertools.count(1)
        self._filters = all_filters(self.draw)
        self._local = self._open()
        self.scopes = [Scope(f"scope-{number}", Drawing(seed + number, self.clock)) for number in range(scopes)]
        for scope in self.scopes:
            scope.watchers = [self._first_watcher(scope), *(self._next_watcher(scope) for _ in range(watchers - 1))]

    def run(self, number: int) -> None:
        """Execute so many commands, and at the end those of each type that has not taken effect."""
        for _ in range(number):
            scope = self.draw.choice(self.scopes)
            self.execute(scope, *scope.commands.next())
            self._disturb(scope)
            self._watch(scope)
        for scope in self.scopes:
            self._execute_missing(scope)
            self.check(scope)

    def execute(self, scope: Scope, name: str, payload: Payload) -> None:
        reply = self.ask(scope.name, name, payload)
        if reply["ok"]:
            scope.executed[name] += 1
            scope.commands.learn(name, payload, reply["result"])

    def check(self, scope: Scope) -> None:
        """Every watcher of a scope holds what queries answer."""
        for watcher, _ in scope.watchers:
            watcher.catch_up()
            self.compare(scope, watcher)

    def check_replay(self, scope: Scope) -> None:
        """Replay the log into a scope of its own, whose feed leads to the same state."""
        self._local.settle_now(scope.name)
        copy = Scope(f"copy-{next(self._copies)}", scope.commands)
        self._local.replay(self._local.entries(scope.name), copy.name, at_once=self.draw.choice([20, 100, 400]))
        watcher = self.watcher(copy, name=f"of the replay of {scope.name}")
        watcher.catch_up()
        for each in (copy, scope):
            _, state, current = read_state(self._asker(each), ROOMS)
            watcher.compare(watcher.seq, state, current, self.clock.now)
        assert self.ask(copy.name, "delete-scope", {})["ok"]

    def ask(self, scope: str, operation: str, payload: Payload) -> dict[str, Any]:
        return self._local.ask(operation, payload, f"request-{next(self._ids):08}", scope=scope)

    def watcher(self, scope: Scope, **choice: Any) -> Watcher:
        """A watcher of a scope that has not asked yet; `choice` as for `Watcher`."""
        return Watcher(self._asker(scope), self.draw, **choice)

    def close(self) -> None:
        self._local.close()

    def _open(self) -> Unhurried:
        return Unhurried(self._directory, clock=self.clock, retention=self._retention)

    def _disturb(self, scope: Scope) -> None:
        """Sometimes time passes, messages of cleared rooms are removed, or the store is closed and opened."""
        if self.draw.random() < 0.1:
            self.clock.now += self.draw.randrange(2_000)
        if self.draw.random() < 0.2:
            self._local.dispatcher.remove_cleared(scope.name)
        if self.draw.random() < 0.004:
            self.clock.now += self.draw.choice([DAY_MS, 2 * DAY_MS])
            self._local.dispatcher.run_chores(scope.name)
        if self.draw.random() < 0.006:
            self._local.close()
            self._local = self._open()
        if self.draw.random() < 0.002:
            assert self.ask(scope.name, "compact-scope", {})["ok"]

    def _watch(self, scope: Scope) -> None:
        """Some of the watchers ask, and sometimes one of them makes room for another."""
        for watcher, eagerness in scope.watchers:
            if self.draw.random() < eagerness:
                watcher.step()
                if watcher.complete:
                    watcher.read_named()
                    self.compare(scope, watcher)
        if len(scope.watchers) > 1 and self.draw.random() < 0.02:
            at = self.draw.randrange(1, len(scope.watchers))
            watcher, _ = scope.watchers[at]
            watcher.catch_up()
            self.compare(scope, watcher)
            scope.watchers[at] = self._next_watcher(scope)

    def _first_watcher(self, scope: Scope) -> tuple[Watcher, float]:
        """The one that follows everything from the beginning to the end."""
        return self.watcher(scope, name=f"first of {scope.name}"), 0.2

    def _next_watcher(self, scope: Scope) -> tuple[Watcher, float]:
        """One with the next filters, from the beginning of the log or, more often, from now on."""
        rooms, nouns = next(self._filters)
        values, limit = self.draw.random() < 0.7, self.draw.choice([1, 7, 500, None])
        watcher = self.watcher(scope, rooms=rooms, nouns=nouns, values=values, limit=limit)
        if self.draw.random() < 0.8:
            watcher.start_now(ROOMS, lambda: self._execute_some(scope))
        return watcher, self.draw.choice([0.5, 0.1, 0.02])

    def _execute_some(self, scope: Scope) -> None:
        for _ in range(self.draw.randrange(3)):
            self.execute(scope, *scope.commands.next())

    def _execute_missing(self, scope: Scope) -> None:
        for name in set(scope.commands.names) - set(scope.executed):
            for _ in range(200):
                self.execute(scope, *scope.commands.of_type(name))
                self._watch(scope)
                if scope.executed[name]:
                    break

    def compare(self, scope: Scope, watcher: Watcher) -> None:
        if scope.read_at != (watcher.seq, self.clock.now):
            scope.read = read_state(self._asker(scope), ROOMS)
            scope.read_at = (scope.read[0], self.clock.now)
        assert scope.read[0] == watcher.seq, "nobody else executes commands"
        watcher.compare(*scope.read, self.clock.now)
        self.compared += 1

    def _asker(self, scope: Scope) -> Callable[[str, Payload], dict[str, Any]]:
        return lambda operation, payload: self.ask(scope.name, operation, payload)


def every_filter() -> list[Filters]:
    """Every choice of rooms and nouns."""
    return list(itertools.product([None, *some_of(ROOMS)], [None, *some_of(NOUNS)]))


def all_filters(draw: random.Random) -> Iterator[Filters]:
    """Every choice of rooms and nouns, in random order, again and again."""
    while True:
        every = every_filter()
        yield from draw.sample(every, len(every))


def some_of(things: list[str] | tuple[str, ...]) -> Iterator[list[str]]:
    for number in range(1, len(things) + 1):
        yield from map(list, itertools.combinations(things, number))


@pytest.mark.parametrize(
    ("seed", "retention", "small"),
    [
        (20261126, Retention(), False),
        (20261127, Retention(redact_replaced=True), True),
        (20261128, Retention(payloads=False), True),
    ],
    ids=["everything", "redacted", "ids-only"],
)
def test_watchers_hold_what_queries_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, retention: Retention, small: bool, long: bool
) -> None:
    """Whatever they watch, and however often they ask: whenever no more changes follow, they hold the state.

    With small bounds pages end for all the reasons that they can, and rooms of a few messages are cleared by and by.
    """
    say(f"seed {seed}")
    for module, name, value in SMALL if small else ():
        monkeypatch.setattr(module, name, value)
    history = History(tmp_path / "data", seed, retention=retention)
    for _ in range(2):
        history.run((COMMANDS_LONG if long else COMMANDS) // 2)
        if retention.payloads:
            history.check_replay(history.draw.choice(history.scopes))
    history.close()
    every = {name for name, each in OPERATIONS.items() if issubclass(each, Command)}
    missing = every - set(sum((scope.executed for scope in history.scopes), Counter()))
    assert not missing, "none of these took effect: give each a _draw_… method in tests/support/random_commands.py"
    assert history.compared > COMMANDS / 5
    say(f"{sum(scope.executed.total() for scope in history.scopes)} commands, {history.compared} comparisons")


@pytest.mark.parametrize("values", [True, False])
def test_every_filter_leads_to_the_filtered_state(tmp_path: Path, values: bool, long: bool) -> None:
    """From the first command of the log on, for each choice of rooms and nouns (in the short form for some)."""
    say(f"seed {SEED}")
    history = History(tmp_path / "data", SEED, scopes=1, watchers=1)
    history.run(SHORT // 2)
    [scope] = history.scopes
    number = len(every_filter()) if long else 60
    for rooms, nouns in itertools.islice(all_filters(history.draw), number):
        watcher = history.watcher(scope, rooms=rooms, nouns=nouns, values=values)
        watcher.catch_up()
        history.compare(scope, watcher)
    history.close()


# What must not pass


def without(monkeypatch: pytest.MonkeyPatch, is_left_out: Callable[[str, str, str], bool]) -> None:
    """Let handlers leave out some of their declarations, given the kind, the noun, and where it is declared.

    The query cache evicts by declarations, so it must not answer then.
    """
    monkeypatch.setattr(QueryCache, "get", lambda *_: None)
    for kind in KINDS:
        original: Callable[..., None] = getattr(declared_by_handlers, kind)

        def declare(
            context: Any, noun: str, *rest: Any, kind: str = kind, original: Callable[..., None] = original
        ) -> None:
            if not is_left_out(kind, noun, caller()):
                original(context, noun, *rest)

        monkeypatch.setattr(declared_by_handlers, kind, declare)


def caller() -> str:
    """The file and the line of the handler that declares a change."""
    frame = sys._getframe(2)
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def is_detected(directory: Path, number: int, seeds: int = 1) -> bool:
    """Whether a watcher of a short history does not hold what queries answer."""
    for seed in range(SEED, SEED + seeds):
        history = History(directory / str(seed), seed, scopes=1, watchers=8)
        try:
            history.run(number)
        except Differs:
            return True
        finally:
            history.close()
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_kind_of_change_is_detected(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where handlers leave out one kind of declaration, some watcher differs within a short history."""
    without(monkeypatch, lambda declared, _noun, _where: declared == kind)
    assert is_detected(tmp_path, SHORT)


@pytest.mark.parametrize("noun", NOUNS)
def test_a_missing_noun_is_detected(noun: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where handlers leave out declarations about one noun, some watcher differs within a short history."""
    without(monkeypatch, lambda _kind, declared, _where: declared == noun)
    assert is_detected(tmp_path, SHORT)


def test_each_declaration_that_is_missing_is_detected(tmp_path: Path, long: bool) -> None:
    """Where handlers leave out the declarations of one kind and noun in one place, some watcher differs.

    In the short form these are only a few of the places.
    """
    places: set[tuple[str, str, str]] = set()

    def note(kind: str, noun: str, where: str) -> bool:
        places.add((kind, noun, where))
        return False

    with pytest.MonkeyPatch.context() as patch:
        without(patch, note)
        assert not is_detected(tmp_path / "all", SHORT)
    every = sorted(places)
    undetected = []
    for number, place in enumerate(every if long else random.Random(SEED).sample(every, 2)):
        with pytest.MonkeyPatch.context() as patch:
            without(patch, lambda *declared, place=place: declared == place)
            if not is_detected(tmp_path / str(number), SHORT, seeds=8):
                undetected.append(place)
    assert undetected == []
