"""A process that only replies: the floor for any daemon that uses the same sockets.

The same bytes travel as to and from the daemon, so the request of a page is answered with a page. Messages are a key
and a body; the first body under a key is the reply to it and to every later message with that key.
"""

import subprocess
import sys
from pathlib import Path

import zmq

from backscroll.clients.python.pending_calls import new_id
from backscroll.schema import Ping, SaveMessage
from backscroll.schema.wire import MSGPACK, Success
from tests import ROOT
from tests.bench.daemon import body_of, newest, page_in
from tests.bench.measuring import seconds
from tests.bench.sockets import Dealer
from tests.bench.work import Page, Way, Work, expected_pages


def serve(endpoint: str) -> None:
    """Reply until the process is ended."""
    answers: dict[bytes, bytes] = {}
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.bind(endpoint)
        while True:
            client, key, body = socket.recv_multipart()
            socket.send_multipart([client, answers.setdefault(key, body)])


class Echo:
    """The echo process, used by a bare socket."""

    name = "echo"
    file = None

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        endpoint = f"ipc://{directory / 'echo.sock'}"
        self._process = subprocess.Popen([sys.executable, "-m", "tests.bench.echo", endpoint], cwd=ROOT)
        self._dealer = Dealer(endpoint)
        self._dealer.ask(b"saved", MSGPACK.encode(Success(new_id(), True, None, 1)))

    def save(self, work: Work, way: Way) -> float:
        bodies = [[b"saved", body_of(SaveMessage(message))] for message in work.messages]
        return seconds(lambda: self._dealer.exchange(bodies, way.in_flight))

    def read(self, work: Work, way: Way, operation: str) -> float:
        self._teach_pages(work)
        bodies = [[room.encode(), body_of(newest(work, room, operation))] for room in work.visits]
        return seconds(lambda: self._dealer.exchange(bodies, way.in_flight))

    def ping(self, count: int) -> float:
        self._dealer.ask(b"pong", MSGPACK.encode(Success(new_id(), True, {"pong": True}, 1)))
        bodies = [[b"pong", body_of(Ping())] for _ in range(count)]
        return seconds(lambda: self._dealer.exchange(bodies, in_flight=1))

    def read_back(self, work: Work) -> list[Page]:
        self._teach_pages(work)
        return [page_in(self._dealer.ask(room.encode(), b"")) for room in work.rooms]

    def close(self) -> None:
        self._dealer.close()
        self._process.terminate()
        self._process.wait()

    def _teach_pages(self, work: Work) -> None:
        """Store the pages as replies of the process, unless it has them already."""
        for room, page in zip(work.rooms, expected_pages(work), strict=True):
            self._dealer.ask(room.encode(), MSGPACK.encode(Success(new_id(), True, page, 1)))


if __name__ == "__main__":
    serve(sys.argv[1])
