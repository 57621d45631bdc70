"""A process that does nothing but answer: the floor under any daemon that is asked over the same sockets.

The same bytes travel as to and from the daemon, so a page's request is answered with a page. Messages are a key and a
body; the first body under a key is the answer to it and to every later message with that key.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import zmq
from daemon import body_of, page_in
from sockets import Dealer
from work import Jobs, Page, Work, expected_pages

from backscroll.clients.calls import new_id
from backscroll.schema import SaveMessage
from backscroll.schema.wire import MSGPACK, Success

Message = Sequence[bytes]


def serve(endpoint: str) -> None:
    """Answer until the process is ended."""
    answers: dict[bytes, bytes] = {}
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.bind(endpoint)
        while True:
            client, key, body = socket.recv_multipart()
            socket.send_multipart([client, answers.setdefault(key, body)])


class Echo:
    """The echo process, asked by a bare socket."""

    name = "echo, bare socket"
    pipelines = True

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        endpoint = f"ipc://{directory / 'echo.sock'}"
        self._process = subprocess.Popen([sys.executable, __file__, endpoint])
        self._dealer = Dealer(endpoint)

    def jobs(self, work: Work, saves_in_flight: int, reads_in_flight: int) -> Jobs:
        saved = self._teach(b"saved", MSGPACK.encode(Success(new_id(), True, None, 1)))
        saves = [[saved, body_of(SaveMessage(message))] for message in work.messages]
        reads = self._reads(work)
        return Jobs(
            lambda: self._dealer.exchange(saves, saves_in_flight), lambda: self._dealer.exchange(reads, reads_in_flight)
        )

    def read_back(self, work: Work) -> Sequence[Page]:
        return [page_in(answer) for answer in self._dealer.exchange(self._reads(work), 1)]

    def close(self) -> None:
        self._dealer.close()
        self._process.terminate()
        self._process.wait()

    def _reads(self, work: Work) -> list[Message]:
        reads = []
        for page, payloads in zip(work.pages, expected_pages(work), strict=True):
            key = f"{page.room_id} {page.offset}".encode()
            self._teach(key, MSGPACK.encode(Success(new_id(), True, payloads, 1)))
            reads.append([key, body_of(page)])
        return reads

    def _teach(self, key: bytes, answer: bytes) -> bytes:
        """Make `answer` what the process says to `key`, unless it has an answer already."""
        self._dealer.exchange([[key, answer]], 1)
        return key


if __name__ == "__main__":
    serve(sys.argv[1])
