"""Queries that wait, step by step: who is asked again, who is told what, and what holds up nobody else."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backscroll.bus import recent_commits, waiting
from backscroll.bus.dispatch import Seen
from backscroll.bus.processor_share import ProcessorShare
from backscroll.bus.recent_commits import PAIRS_MAX, RecentCommit, RecentCommits, Wanted
from backscroll.bus.stores import Commit, CommittedCommand
from backscroll.bus.waiting import CROWD, MANY_COMMITS, PAUSE_SECONDS_MAX, RUNNING_MAX, STUCK_SECONDS, TICK_SECONDS
from backscroll.handlers.feed import Head, cursor_at
from backscroll.schema.command_log import Change
from backscroll.schema.errors import TooLarge
from backscroll.schema.limits import WAITING_QUERIES_OF_CLIENT_MAX
from tests.support.local import Local
from tests.support.waiters import Waiters


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    with Local(tmp_path / "data") as local:
        yield local


@pytest.fixture
def waiters(local: Local, monkeypatch: pytest.MonkeyPatch) -> Waiters:
    return Waiters(local, monkeypatch)


def gather(waiters: Waiters, number: int = CROWD + 6, room: str | None = None) -> list[str]:
    """Have so many clients wait, each in a room of its own unless one is given; their ids."""
    cursor = waiters.cursor()
    for each in range(number):
        waiters.ask(f"w{each}", cursor, b"client %d" % each, rooms=[room or f"room {each}"])
    waiters.turn()
    assert len(waiters.queries) == number
    return [f"w{each}" for each in range(number)]


# Readers


def test_stuck_readers_hold_up_nobody_for_long(waiters: Waiters) -> None:
    """As when a scope is closed for a while: as many queries as may run at a time are not answered there. Those of
    another scope are, and the first ones when the reader is done.
    """
    cursor, other = waiters.cursor("closed"), waiters.cursor("open")
    for number in range(RUNNING_MAX + 1):
        waiters.ask(f"closed {number}", cursor, scope="closed", limit=number + 1)
    waiters.ask("open", other, scope="open")
    waiters.save(1, scope="closed")
    waiters.note()
    waiters.queries.turn()
    stuck = list(waiters.asked)
    assert len(stuck) == RUNNING_MAX
    waiters.asked.clear()
    waiters.save(2, scope="open")
    assert waiters.turn_until(["open"]) <= STUCK_SECONDS + TICK_SECONDS
    assert waiters.ids("open") == ["m2"]
    waiters.asked.extend(stuck)
    waiters.turn()
    for number in range(RUNNING_MAX + 1):
        assert waiters.ids(f"closed {number}") == ["m1"]


def test_an_error_reaches_only_who_was_asked_for(waiters: Waiters) -> None:
    """One of a group is asked for all of it. The others, and equal queries that came meanwhile, are asked again."""
    cursor = waiters.cursor()
    for name in ("first", "second"):
        waiters.ask(name, cursor, name.encode())
    waiters.save(1)
    waiters.note()
    waiters.queries.turn()
    [first] = waiters.asked
    waiters.asked.clear()
    meanwhile = waiters.receive("meanwhile", cursor, b"another")
    meanwhile.nothing_new = Seen(0, cursor, waiters.local.store())
    waiters.queries.park(meanwhile)
    error = waiters.local.dispatcher.refuse(first, TooLarge("it takes too long"))
    waiters.queries.evaluated(first, error)
    waiters.turn()
    assert waiters.replies.keys() == {"first", "second", "meanwhile"}
    assert waiters.replies["first"]["error"]["code"] == "too-large"
    assert waiters.ids("second") == waiters.ids("meanwhile") == ["m1"]


def test_an_error_of_a_lone_query_leaves_equal_ones(waiters: Waiters) -> None:
    """The group whose only query is answered with an error is not in the way of an equal one that is due."""
    cursor = waiters.cursor()
    waiters.ask("first", cursor)
    waiters.save(1)
    waiters.note()
    waiters.queries.turn()
    [first] = waiters.asked
    waiters.asked.clear()
    meanwhile = waiters.receive("meanwhile", cursor, b"another")
    meanwhile.nothing_new = Seen(0, cursor, waiters.local.store())
    waiters.queries.park(meanwhile)
    waiters.queries.evaluated(first, waiters.local.dispatcher.refuse(first, TooLarge("it takes too long")))
    waiters.turn()
    assert not waiters.replies["first"]["ok"]
    assert waiters.ids("meanwhile") == ["m1"]
    assert len(waiters.queries) == 0
    assert waiters.queries.bytes == 0


# Other histories


def replace(waiters: Waiters, files: Path, copy: Path) -> None:
    """Put a copy in place of the files of scopes, while these are closed."""
    waiters.local.scopes.close_idle(-1)
    shutil.rmtree(files)
    shutil.copytree(copy, files)


@pytest.mark.parametrize("reopened_by", ["a command", "a query"])
def test_a_replaced_file_is_another_history(waiters: Waiters, tmp_path: Path, reopened_by: str) -> None:
    """An older copy is put in place while the scope is closed. A cursor of what was lost has a gap, also where the
    query may wait; one of the copy sleeps and is not asked again and again, until the next commit.
    """
    files, copy = tmp_path / "data" / "scopes", tmp_path / "copy"
    waiters.save(1, 2, 3, scope="ada")
    waiters.local.scopes.close_idle(-1)
    shutil.copytree(files, copy)
    waiters.ask("before", waiters.cursor("ada"), scope="ada")
    waiters.save(4, scope="ada")
    waiters.turn()
    lost = waiters.page("before")["cursor"]
    replace(waiters, files, copy)
    if reopened_by == "a command":
        waiters.save(7, scope="ada")
        waiters.note()
    else:
        waiters.cursor("ada")
    for number in range(2):
        waiters.ask(f"lost {number}", lost, scope="ada")
        waiters.turn()
        assert waiters.page(f"lost {number}")["gap"]
    asked = len(waiters.evaluated)
    waiters.ask("asleep", waiters.page("lost 1")["cursor"], scope="ada")
    for _ in range(10):
        waiters.turn()
        waiters.time.now += 1
    assert len(waiters.evaluated) == asked
    waiters.save(8, scope="ada")
    waiters.turn()
    assert waiters.ids("asleep") == ["m8"]


def test_who_sleeps_while_a_file_is_replaced_is_told(waiters: Waiters, tmp_path: Path) -> None:
    """With the first commit to the copy, also one that its filter leaves out: it gets a gap."""
    files, copy = tmp_path / "data" / "scopes", tmp_path / "copy"
    waiters.save(1, 2, scope="ada")
    waiters.local.scopes.close_idle(-1)
    shutil.copytree(files, copy)
    waiters.save(3, 4, scope="ada")
    waiters.ask("asleep", waiters.cursor("ada"), scope="ada", rooms=["quiet"])
    replace(waiters, files, copy)
    waiters.save(5, scope="ada")
    waiters.turn()
    assert waiters.page("asleep")["gap"]


def test_a_scope_deleted_before_its_query_is_parked(waiters: Waiters) -> None:
    """The query had seen everything of the history that is gone: it does not sleep through the new one."""
    waiters.save(1, scope="ada")
    waiters.ask("known", waiters.cursor("ada"), scope="ada")
    waiters.save(2, 3, scope="ada")
    waiters.turn()
    late = waiters.receive("late", waiters.cursor("ada"), scope="ada")
    assert waiters.queries.prepare(late)
    waiters.local.result("delete-scope", scope="ada")
    waiters.queries.check_scope("ada")
    waiters.queries.park(late)
    waiters.turn()
    assert waiters.page("late")["gap"]


@pytest.mark.parametrize("followed", [True, False])
@pytest.mark.parametrize("asked_reader", [True, False])
def test_what_was_seen_is_of_one_history(waiters: Waiters, asked_reader: bool, followed: bool) -> None:
    """A scope is deleted before its query is parked, and the new history has as many commands as that one had, or more
    that somebody waits for. The query gets a gap, and not a cursor of the new history.
    """
    waiters.save(1, scope="ada")
    waiters.ask("known", waiters.cursor("ada"), scope="ada")
    waiters.save(2, 3, scope="ada")
    waiters.turn()
    late = waiters.receive("late", waiters.cursor("ada"), scope="ada", rooms=["quiet"])
    if asked_reader:
        waiters.local.dispatcher.answer_queries([late])
        assert late.may_wait
    else:
        assert waiters.queries.prepare(late)
    waiters.local.result("delete-scope", scope="ada")
    waiters.queries.check_scope("ada")
    waiters.save(1, scope="ada")
    if followed:
        waiters.ask("other", waiters.cursor("ada"), b"other", scope="ada", rooms=["elsewhere"])
        waiters.save(4, 5, scope="ada")
    waiters.save(2, 3, scope="ada")
    waiters.note()
    waiters.queries.park(late)
    waiters.turn()
    assert waiters.page("late")["gap"]


# Time


def test_news_is_told_however_short_the_wait(waiters: Waiters) -> None:
    """In a crowd a query is parked before it is asked. If its time is over before a reader has answered, it gets the
    page nevertheless, and not an empty one again and again.
    """
    old = waiters.cursor()
    waiters.save(1)
    gather(waiters)
    waiters.ask("short", old, b"short", waitMs=1)
    assert "short" not in waiters.replies
    waiters.time.now += 0.5
    waiters.queries.turn()
    waiters.time.now += 0.5
    waiters.turn()
    assert waiters.ids("short") == ["m1"]


def test_few_are_told_at_once_however_many_commits(waiters: Waiters) -> None:
    """Without a crowd nobody has to share: neither who catches up nor who waits in another scope, however long the
    pages take, and however many commits there are.
    """
    waiters.page_seconds = 1.0
    old, cursor = waiters.cursor(), waiters.cursor("busy")
    waiters.save(1)
    waiters.ask("asleep", waiters.cursor())
    for number in range(2 * MANY_COMMITS):
        waiters.ask(f"watcher {number}", cursor, scope="busy")
        waiters.save(f"b{number}", scope="busy")
        waiters.turn()
        assert waiters.ids(f"watcher {number}") == [f"b{number}"]
        cursor = waiters.page(f"watcher {number}")["cursor"]
        waiters.ask(f"catches up {number}", old)
        assert waiters.ids(f"catches up {number}") == ["m1"]


# Bounds


def check_answered_with_nothing(waiters: Waiters, oldest: str, cursor: str) -> None:
    """Only the oldest is answered, with an empty page."""
    assert list(waiters.replies) == [oldest]
    assert waiters.page(oldest) == {"changes": [], "cursor": cursor, "more": False}


def test_the_oldest_of_a_connection_makes_room(waiters: Waiters) -> None:
    """Those of other connections wait on, even if they are older."""
    cursor = waiters.cursor()
    waiters.ask("other", cursor, b"other")
    for number in range(WAITING_QUERIES_OF_CLIENT_MAX + 1):
        assert waiters.replies == {}
        waiters.ask(f"w{number}", cursor)
    check_answered_with_nothing(waiters, "w0", cursor)


def test_the_oldest_of_all_makes_room(waiters: Waiters, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too many wait; those of one connection have their own bound."""
    monkeypatch.setattr(waiting, "WAITING_QUERIES_MAX", 5)
    cursor = waiters.cursor()
    for number in range(6):
        assert waiters.replies == {}
        waiters.ask(f"w{number}", cursor, b"client %d" % number)
    check_answered_with_nothing(waiters, "w0", cursor)
    assert len(waiters.queries) == 5


def test_the_oldest_make_room_for_large_queries(waiters: Waiters, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their sizes are added up; as many of the oldest are answered as it takes, and no more."""
    cursor = waiters.cursor()
    waiters.ask("w0", cursor, rooms=["x" * 400] * 5)
    size = waiters.queries.bytes
    assert size > 2_000
    monkeypatch.setattr(waiting, "WAITING_BYTES_MAX", 3 * size)
    for number in range(1, 3):
        waiters.ask(f"w{number}", cursor, rooms=["x" * 400] * 5)
    assert waiters.queries.bytes == 3 * size
    assert waiters.replies == {}
    waiters.ask("small", cursor)
    check_answered_with_nothing(waiters, "w0", cursor)
    assert 2 * size < waiters.queries.bytes < 3 * size
    waiters.ask("w3", cursor, rooms=["x" * 400] * 5)
    assert list(waiters.replies) == ["w0", "w1"]
    waiters.queries.forget(b"c")
    assert (len(waiters.queries), waiters.queries.bytes) == (0, 0)


# Crowds


def test_everybody_of_a_crowd_is_told(waiters: Waiters) -> None:
    """While there are many commits it takes a while, because commands go first, but it has an end."""
    waiters.page_seconds = 0.005
    names = gather(waiters)
    saved: dict[str, str] = {}
    for number, name in enumerate(names):
        waiters.save(number, room=f"room {number}")
        saved[name] = f"m{number}"
        waiters.turn()
    assert len(waiters.replies) < len(names)
    waited = waiters.turn_until(names)
    assert 1 < waited <= len(names) * waiters.page_seconds / waiting.SHARE + PAUSE_SECONDS_MAX
    for name in names:
        assert waiters.ids(name) == [saved[name]]


def test_who_waits_for_other_rooms_costs_nothing(waiters: Waiters, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand only those are looked at whose room has changed, and equal ones are asked for once."""
    looked_at: list[Wanted] = []
    is_news_for = RecentCommit.is_news_for

    def counted(commit: RecentCommit, wanted: Wanted) -> bool:
        looked_at.append(wanted)
        return is_news_for(commit, wanted)

    monkeypatch.setattr(RecentCommit, "is_news_for", counted)
    cursor = waiters.cursor()
    for number in range(1_000):
        waiters.ask(f"w{number}", cursor, b"client %d" % number, rooms=[f"room {number // 2}"])
    waiters.turn()
    asked = len(waiters.evaluated)
    looked_at.clear()
    waiters.save(1, room="elsewhere")
    waiters.turn()
    assert looked_at == []
    waiters.save(2, room="room 300")
    waiters.turn()
    assert looked_at == [Wanted(None, frozenset({"room 300"}))]
    assert waiters.evaluated[asked:] == ["w600"]
    assert waiters.ids("w600") == waiters.ids("w601") == ["m2"]
    assert len(waiters.replies) == 2


def test_a_change_in_all_rooms_wakes_who_waits_for_one(waiters: Waiters) -> None:
    """It names no room."""
    waiters.save(1)
    waiters.ask("asleep", waiters.cursor(), rooms=["quiet"], nouns=["message"])
    waiters.local.result("clear-all-data")
    waiters.turn()
    [change] = waiters.page("asleep")["changes"]
    assert (change["noun"], change["gone"], "roomId" in change) == ("message", True, False)


def test_what_was_left_out_is_not_looked_at_again(waiters: Waiters) -> None:
    """Whoever is woken is asked about what came after the commits that did not concern it."""
    waiters.ask("asleep", waiters.cursor(), rooms=["quiet"])
    waiters.save(1, 2, 3)
    left_out = waiters.cursor()
    waiters.save("wanted", room="quiet")
    waiters.note()
    waiters.queries.turn()
    [request] = waiters.asked
    assert request.operation.after == left_out
    waiters.turn()
    assert waiters.ids("asleep") == ["wanted"]


# The share of a processor


def test_a_share_is_saved_up_and_then_paused_for() -> None:
    """What is saved may be spent at once. After more, there is a pause until the share has made up for it."""
    now = 100.0
    share = ProcessorShare(0.1, saved_max=0.5, pause_max=3.0, clock=lambda: now)
    share.spend(0.5)
    assert share.is_left()
    share.spend(0.2)
    assert not share.is_left()
    assert share.left_at() == pytest.approx(102)
    now = 101.9
    assert not share.is_left()
    now = 102.1
    assert share.is_left()
    now = 104.1  # two seconds later 0.2 are saved
    share.spend(0.2)
    assert share.is_left()
    share.spend(0.1)
    assert not share.is_left()


def test_a_share_saves_and_pauses_only_so_long() -> None:
    """After an hour there is no more than `saved_max`; after work of an hour a pause of `pause_max`."""
    now = 0.0
    share = ProcessorShare(0.1, saved_max=0.5, pause_max=3.0, clock=lambda: now)
    now = 3_600.0
    share.spend(0.6)
    assert not share.is_left()
    assert share.left_at() == pytest.approx(3_601)
    share.spend(3_600.0)
    assert share.left_at() == pytest.approx(3_603)
    now = share.left_at()
    assert share.is_left()


# The last commits

KEPT = 2  # commits
ROOMS = ["r1", "r2", "r3"]
NOUNS = ["message", "room", "user", "media"]
CHANGES = st.builds(
    lambda noun, room: Change(noun=noun, room_id=room if noun in ("message", "room") else None, id="x"),
    st.sampled_from(NOUNS),
    st.sampled_from([*ROOMS, None]),
)
LARGE = [Change(noun="message", room_id=f"room {number}", id="x") for number in range(PAIRS_MAX + 1)]
HISTORIES = st.lists(
    st.tuples(st.integers(1, 3), st.one_of(st.lists(CHANGES, max_size=4), st.just(LARGE))),
    max_size=12,
)
WANTED = st.builds(
    Wanted,
    st.none() | st.frozensets(st.sampled_from(NOUNS), min_size=1),
    st.none() | st.frozensets(st.sampled_from(ROOMS), min_size=1),
)


def concerns(change: Change, wanted: Wanted) -> bool:
    """Whether a change is news for a filter, as the protocol says it."""
    if wanted.nouns is not None and change.noun not in wanted.nouns:
        return False
    if wanted.rooms is None:
        return True
    return change.noun in ("message", "room") and (change.room_id is None or change.room_id in wanted.rooms)


@given(since=st.integers(0, 3), history=HISTORIES, wanted=WANTED, again=st.randoms(use_true_random=False))
def test_recent_commits_know_what_a_list_of_all_knows(
    since: int, history: list[tuple[int, list[Change]]], wanted: Wanted, again: random.Random
) -> None:
    """No news is certain: then none of the later commits concerns the filter. It is also found, if all later commits
    are known and none of them is too large. Only cursors after one of the known commits are known.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent_commits, "COMMITS_MAX", KEPT)
        check_recent_commits(since, history, wanted, again)


def check_recent_commits(
    since: int, history: list[tuple[int, list[Change]]], wanted: Wanted, again: random.Random
) -> None:
    recent = RecentCommits(None, since)
    commits: list[tuple[int, list[Change]]] = []
    seq = since
    for length, changes in history:
        seq += length
        chain = seq.to_bytes(32)
        commands = [CommittedCommand(seq, 0, "id", "save-message", changes)]
        added = recent.add(Commit("default", seq, chain, commands))
        assert added is not None
        assert recent.last == added.head == Head(seq, chain)
        assert recent.add(Commit("default", again.randint(0, seq), chain, commands)) is None
        commits.append((seq, changes))
    kept = commits[-KEPT:]
    first = commits[-KEPT - 1][0] if len(commits) > KEPT else since
    for at in range(seq + 3):
        later = [changes for committed, changes in commits if committed > at]
        may_have_news = recent.may_have_news(at, wanted)
        if any(concerns(change, wanted) for changes in later for change in changes):
            assert may_have_news, at
        elif first <= at <= seq and LARGE not in later:
            assert not may_have_news, at
        if not first <= at <= seq:
            assert may_have_news, at
        cursor = cursor_at(Head(at, at.to_bytes(32)))
        assert recent.knows(at, cursor) == any(committed == at for committed, _ in kept)
        assert not recent.knows(at, cursor_at(Head(at, b"other" * 5)))


def test_a_commit_of_many_rooms_is_news_for_everybody() -> None:
    """It is not kept which ones they were; one of a few is news for who wants one of them."""
    for number, is_news in ((PAIRS_MAX, False), (PAIRS_MAX + 1, True)):
        recent = RecentCommits(None, 0)
        recent.add(Commit("default", 1, b"c" * 32, [CommittedCommand(1, 0, "id", "x", LARGE[:number])]))
        assert recent.may_have_news(0, Wanted(None, frozenset({"elsewhere"}))) == is_news
        assert recent.may_have_news(0, Wanted(None, frozenset({"room 3"})))
        assert not recent.may_have_news(1, Wanted(None, None))
