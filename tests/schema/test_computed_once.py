"""What is computed for all threads is computed once."""

import subprocess
import sys
import threading

from backscroll.schema.computed_once import computed_once

DESCRIBE_AT_ONCE = """
import sys, threading
from backscroll.schema.description import describe
sys.setswitchinterval(1e-6)
together, found = threading.Barrier(4), []
def ask():
    together.wait()
    found.append(id(describe()))
threads = [threading.Thread(target=ask) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
assert len(found) == 4 and len(set(found)) == 1, found
"""


def test_threads_get_the_same_value() -> None:
    """A second thread waits for the first one's value, and recursion does not wait for itself."""
    together = threading.Barrier(2)
    computing, proceed = threading.Event(), threading.Event()

    @computed_once
    def compute(number: int) -> list[int]:
        computing.set()
        assert proceed.wait(20)
        return [number, *(compute(number - 1) if number else [])]

    found: list[list[int]] = []

    def ask() -> None:
        together.wait()
        found.append(compute(2))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for each in threads:
        each.start()
    assert computing.wait(20)
    proceed.set()
    for each in threads:
        each.join(20)
    assert found == [[2, 1, 0]] * 2
    assert found[0] is found[1]


def test_clients_may_ask_for_the_description_at_once() -> None:
    """Also when it is computed for the first time, by several threads."""
    ended = subprocess.run([sys.executable, "-c", DESCRIBE_AT_ONCE], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
