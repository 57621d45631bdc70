"""ULIDs: 26 characters, unique, and increasing."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backscroll.schema.ulid import UlidGenerator, ulid_after

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
RANDOM_BITS = 80
TIMES = st.integers(0, 2**48 - 2)


def ticking(times: list[int], random: int = 0) -> UlidGenerator:
    """A generator whose clock shows these times in turn, with the same random number each time."""
    clock: Iterator[int] = iter(times)
    return UlidGenerator(lambda: next(clock), lambda _bits: random)


def value(ulid: str) -> int:
    """The number that a ULID writes."""
    number = 0
    for character in ulid:
        number = number * 32 + CROCKFORD.index(character)
    return number


def test_a_ulid_is_26_characters_of_crockfords_alphabet() -> None:
    """A ULID has a fixed length, and none of the letters I, L, O and U."""
    new_id = UlidGenerator()
    for ulid in (new_id() for _ in range(1_000)):
        assert len(ulid) == 26
        assert set(ulid) <= set(CROCKFORD)


@pytest.mark.parametrize(
    ("time", "prefix"),
    [
        (0, "0000000000"),
        (1, "0000000001"),
        (1_469_918_176_385, "01ARYZ6S41"),
        (1_469_922_850_259, "01ARZ3NDEK"),  # the specification's examples
        (2**48 - 1, "7ZZZZZZZZZ"),
    ],
)
def test_a_ulid_begins_with_its_time(time: int, prefix: str) -> None:
    """The first ten characters encode the milliseconds since the epoch."""
    assert ticking([time])().startswith(prefix)


def test_a_ulid_ends_with_its_random_bits() -> None:
    """The other sixteen characters are the random number."""
    assert ticking([0], random=2**RANDOM_BITS - 1)() == "0000000000" + "Z" * 16


@given(TIMES, st.integers(0, 2**RANDOM_BITS - 1))
def test_time_and_random_bits_can_be_decoded(time: int, random: int) -> None:
    """Both numbers can be read back from the text."""
    assert value(ticking([time], random)()) == time << RANDOM_BITS | random


@given(st.lists(TIMES, min_size=2, max_size=20), st.sampled_from([0, 1, 2**RANDOM_BITS - 1]))
def test_ulids_increase_whatever_the_clock_does(times: list[int], random: int) -> None:
    """Within a millisecond, when the clock goes back, and when the random part is full, the next is greater."""
    new_id = ticking(times, random)
    made = [new_id() for _ in times]
    assert made == sorted(set(made))
    assert {len(ulid) for ulid in made} == {26}


def test_a_clock_set_back_does_not_decrease_ulids() -> None:
    """While the clock shows an earlier time, the last ULID is incremented."""
    new_id = ticking([1_000, 999, 5])
    first, second, third = new_id(), new_id(), new_id()
    assert value(second) == value(first) + 1
    assert value(third) == value(first) + 2


@given(st.lists(st.tuples(TIMES, st.integers(0, 2**RANDOM_BITS - 1)), min_size=1, max_size=20))
def test_ulid_after_equals_a_generator_with_the_same_input(drawn: list[tuple[int, int]]) -> None:
    """`ulid_after` depends only on the previous ULID, the time and the random number, and increases like a
    generator.
    """
    last, random = "", 0
    new_id = UlidGenerator(random_bits=lambda _bits: random)
    for time, random in drawn:
        last = ulid_after(last, time, random)
        assert last == new_id(time)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_processes_never_make_the_same_ulid() -> None:
    """Parent and children continue from the same ULID, with the same clock, while another thread makes ULIDs."""
    new_id = UlidGenerator(lambda: 1_000)
    last, ended = new_id(), threading.Event()
    busy = threading.Thread(target=lambda: all(new_id() and not ended.is_set() for _ in iter(int, 1)))
    busy.start()
    made: list[str] = []
    for _ in range(20):
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:
            signal.alarm(10)  # ends a child that waits for a lock for ever
            os.write(write_end, " ".join(new_id() for _ in range(50)).encode())
            os._exit(0)
        os.close(write_end)
        made += [new_id() for _ in range(50)]
        with os.fdopen(read_end, encoding="ascii") as pipe:
            made += pipe.read().split()
        assert os.waitpid(child, 0)[1] == 0
    ended.set()
    busy.join()
    assert len(set(made)) == len(made) == 20 * 100
    assert min(made) > last


def test_a_generator_is_thread_safe() -> None:
    """Each thread sees increasing ULIDs, and no two threads get the same one."""
    new_id = UlidGenerator(lambda: 1_000)
    made: list[list[str]] = [[] for _ in range(8)]

    def make(mine: list[str]) -> None:
        mine.extend(new_id() for _ in range(2_000))

    threads = [threading.Thread(target=make, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in made)
    assert len({ulid for mine in made for ulid in mine}) == 8 * 2_000
