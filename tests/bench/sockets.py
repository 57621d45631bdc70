"""A DEALER that sends prepared messages: the cost of a client that neither encodes nor decodes."""

from collections.abc import Iterable, Sequence

import zmq

TIMEOUT_MS = 60_000


class Dealer:
    """Sends messages and collects the last frames of their replies."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.rcvtimeo = TIMEOUT_MS
        self._socket.connect(endpoint)

    def exchange(self, messages: Iterable[Sequence[bytes]], in_flight: int) -> list[bytes]:
        """The replies in the order they come; at most `in_flight` messages are in flight at once."""
        socket, sent = self._socket, 0
        answers: list[bytes] = []
        for message in messages:
            if sent - len(answers) >= in_flight:
                answers.append(socket.recv_multipart()[-1])
            socket.send_multipart(message)
            sent += 1
        while len(answers) < sent:
            answers.append(socket.recv_multipart()[-1])
        return answers

    def ask(self, *message: bytes) -> bytes:
        """Send one message and wait for its reply."""
        self.send(*message)
        return self.receive()

    def send(self, *message: bytes) -> None:
        self._socket.send_multipart(message)

    def receive(self) -> bytes:
        return self._socket.recv_multipart()[-1]

    def close(self) -> None:
        self._socket.close()
        self._context.term()
