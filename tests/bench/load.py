"""Another client, in a process of its own, that keeps the daemon busy until it is ended.

    python -m tests.bench.load ENDPOINT import|save|list-users|statement

It prints a first line when it begins, and then after each piece of work how many seconds that took. `import` imports a
history at full rate; `save` saves one message at a time; the others repeat that query.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from backscroll.schema import GetBansForRoom, ListUsers, SaveMessage
from tests import ROOT
from tests.bench.daemon import body_of, check_all_ok
from tests.bench.importing import history, import_messages
from tests.bench.sockets import Dealer
from tests.bench.work import stream

IMPORTED = 20_000  # messages
WATCH_SECONDS = 0.01
QUERIES = {
    "list-users": ListUsers(),
    "statement": GetBansForRoom("load"),
}  # `serving.py` replaces the handler of this one


def work(endpoint: str, kind: str) -> None:
    """Runs for ever."""
    pieces = _imports(endpoint) if kind == "import" else _asked(endpoint, kind)
    for took in pieces:
        print(took, flush=True)


@contextmanager
def load(endpoint: str, kind: str) -> Iterator[list[float]]:
    """Keep the daemon busy for the length of the block; afterwards the list has how long each piece of work took."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
        process = subprocess.Popen([sys.executable, "-m", "tests.bench.load", endpoint, kind], stdout=printed, cwd=ROOT)
        pieces: list[float] = []
        try:
            while not os.fstat(printed.fileno()).st_size:  # it is still being started
                time.sleep(WATCH_SECONDS)
                assert process.poll() is None, "the other client has ended"
            yield pieces
        finally:
            process.terminate()
            process.wait()
            printed.seek(0)
            pieces.extend(float(line) for line in printed.read().splitlines()[1:])


def _imports(endpoint: str) -> Iterator[float]:
    """The same messages again and again, because generating new ones would leave the daemon idle."""
    messages = history(f"load-{os.getpid()}", IMPORTED)
    yield 0.0
    while True:
        yield import_messages(endpoint, messages)


def _asked(endpoint: str, kind: str) -> Iterator[float]:
    """One request after the other, encoded before its clock starts."""
    dealer = Dealer(endpoint)
    yield 0.0
    for message in stream(f"load-{os.getpid()}", ["load"]):
        body = body_of(SaveMessage(message) if kind == "save" else QUERIES[kind])
        started = time.perf_counter()
        answer = dealer.ask(body)
        yield time.perf_counter() - started
        check_all_ok([answer])


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2])
