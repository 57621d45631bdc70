"""The ZAP handler: libzmq asks it whether a peer may connect, and the peer waits for the answer.

Without one libzmq also takes peers that send no greeting, so every web page could send frames in an HTTP request.
"""

import contextlib

import zmq

from backscroll.bus.gate import Gate

NOBLOCK = int(zmq.NOBLOCK)
ZAP_ADDRESS = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
ANSWERS_MAX = 4


class Handshakes:
    """Answers by what `gate` decides. `number` is how many were answered, increased before the peer gets in.

    The number of a connection's handshake becomes a property of its messages: the user id, which has no other use here.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], gate: Gate) -> None:
        self._gate = gate
        self.number = 0
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ZAP_ADDRESS)

    def answer(self) -> None:
        """Answer what has arrived, but no more than a few, because connections are cut off by the same thread."""
        with contextlib.suppress(zmq.Again):
            for _ in range(ANSWERS_MAX):
                version, number, domain, address, _, mechanism, *credentials = self.socket.recv_multipart(NOBLOCK)
                allowed = version == ZAP_VERSION and self._gate.may_connect(domain, address, mechanism, credentials)
                status = (b"200", b"OK") if allowed else (b"400", b"not allowed to connect")
                self.number += 1
                self.socket.send_multipart([ZAP_VERSION, number, *status, b"%d" % self.number, b""], NOBLOCK)
