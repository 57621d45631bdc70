"""The ROUTER socket, and what to do with clients that do not take their replies.

A reply that does not fit the client's pipe is kept here and tried again; while any is kept, the daemon starts nothing
more for that client, so what one client can make us keep is bounded. Owned by the daemon's loop thread.
"""

import contextlib
import errno
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq

from backscroll.bus.failures import BadSettings
from backscroll.schema.limits import FRAME_BYTES_MAX

# Plain numbers: pyzmq adds up its own flags as enums, which takes as long as sending does.
NOW = int(zmq.NOBLOCK)
MORE_TO_COME = int(zmq.NOBLOCK | zmq.SNDMORE)
REPLIES_IN_PIPE_MAX = 1_000  # of one client, inside libzmq
REQUESTS_IN_PIPE_MAX = 1_000
HANDSHAKE_MS = 10_000
LINGER_MS = 1_000


class Outbox:
    """The replies that one client has not taken, oldest first, and since when."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.messages: deque[list[bytes]] = deque()


class RouterSocket:
    """Requests in, replies out. `on_pause`, `on_resume` and `on_gone` are told of clients by routing id."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        stall_ms: int,
        on_pause: Callable[[bytes], None],
        on_resume: Callable[[bytes], None],
        on_gone: Callable[[bytes], None],
    ) -> None:
        self._stall_s = stall_ms / 1000
        self._on_pause, self._on_resume, self._on_gone = on_pause, on_resume, on_gone
        self.outboxes: dict[bytes, Outbox] = {}
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # so that a full pipe is an error and not a silent drop
        self.socket.setsockopt(zmq.SNDHWM, REPLIES_IN_PIPE_MAX)
        self.socket.setsockopt(zmq.RCVHWM, REQUESTS_IN_PIPE_MAX)
        self.socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        self.socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        self.socket.setsockopt(zmq.LINGER, LINGER_MS)

    @property
    def pending_replies(self) -> int:
        """How many replies wait for clients to read."""
        return sum(len(kept.messages) for kept in self.outboxes.values())

    def bind(self, endpoint: str) -> str:
        """Bind one endpoint and return its actual address; raises `BadSettings` where that cannot be."""
        if endpoint.startswith("ipc://"):
            _refuse_taken_path(endpoint)
        # Only where it is asked for: it would announce 127.0.0.1 as [::ffff:127.0.0.1], which not every client takes.
        self.socket.setsockopt(zmq.IPV6, endpoint.startswith("tcp://["))
        try:
            self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise BadSettings(f"cannot bind {endpoint}: {error.strerror}") from error
        return self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def receive(self) -> list[bytes] | None:
        """The frames of the next message that has arrived, or None."""
        try:
            return self.socket.recv_multipart(NOW)
        except zmq.Again:
            return None

    def send(self, route: Sequence[bytes], reply: bytes, *, droppable: bool = False) -> None:
        """Send a reply back the way its request came, or keep it while the client does not read.

        A `droppable` one, which answers a request that we did not take in, is not kept.
        """
        client, message = route[0], [*route, reply]
        kept = self.outboxes.get(client)
        if kept is None and self._sent(message):
            return
        if droppable:
            return
        if kept is None:
            kept = self.outboxes[client] = Outbox(time.monotonic())
            self._on_pause(client)
        kept.messages.append(message)

    def retry(self) -> None:
        """Offer kept replies again; a client that has taken none for too long is forgotten."""
        for client, kept in list(self.outboxes.items()):
            while kept.messages and self._sent(kept.messages[0]):
                kept.messages.popleft()
                kept.since = time.monotonic()
            if not kept.messages:
                del self.outboxes[client]
                self._on_resume(client)
            elif time.monotonic() - kept.since > self._stall_s:
                del self.outboxes[client]
                self._on_gone(client)

    def close(self) -> None:
        self.socket.close()

    def _sent(self, message: list[bytes]) -> bool:
        """Whether the message is off our hands: taken, or its client is no more. False when the pipe is full."""
        *route, reply = message
        try:
            for frame in route:
                self.socket.send(frame, MORE_TO_COME)
            self.socket.send(reply, NOW)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            self._on_gone(message[0])
        return True


def _refuse_taken_path(endpoint: str) -> None:
    """Binding an ipc path removes what lies there: a socket that somebody listens on, or any other file."""
    path = Path(endpoint.removeprefix("ipc://"))
    if not path.exists():
        return
    if not path.is_socket():
        raise BadSettings(f"cannot bind {endpoint}: a file of that name exists. Name another path, or remove it")
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.setblocking(False)
        if probe.connect_ex(str(path)) in (0, errno.EAGAIN):  # EAGAIN: its queue of new connections is full
            raise BadSettings(f"another process listens on {endpoint}")
