"""A DEALER that carries ready-made messages: what a client costs when it neither encodes nor decodes."""

from collections.abc import Sequence

import zmq

TIMEOUT_MS = 60_000


class Dealer:
    """Sends messages and collects their answers."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.rcvtimeo = TIMEOUT_MS
        self._socket.connect(endpoint)

    def exchange(self, messages: Sequence[Sequence[bytes]], in_flight: int) -> list[bytes]:
        """The answers in the order they come; at most `in_flight` messages are under way at once."""
        socket, answers = self._socket, []
        for number, message in enumerate(messages):
            if number >= in_flight:
                answers.append(socket.recv())
            socket.send_multipart(message)
        while len(answers) < len(messages):
            answers.append(socket.recv())
        return answers

    def close(self) -> None:
        self._socket.close()
        self._context.term()
