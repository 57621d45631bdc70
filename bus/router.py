"""The ROUTER socket, and the replies to clients that do not read.

A reply that does not fit into the client's pipe is put into an outbox and sent later. While a client has an outbox, the
daemon starts nothing more for it, so what one client can make the daemon keep is bounded. Used only by the loop thread.
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

# Plain integers: combining pyzmq's enums takes as long as sending a frame.
NOBLOCK = int(zmq.NOBLOCK)
NOBLOCK_SNDMORE = int(zmq.NOBLOCK | zmq.SNDMORE)
REPLIES_IN_PIPE_MAX = 1_000  # of one client, inside libzmq
REQUESTS_IN_PIPE_MAX = 1_000
HANDSHAKE_MS = 10_000
LINGER_MS = 1_000


class Outbox:
    """The replies that do not fit into a client's pipe, oldest first, and when the client last took one."""

    def __init__(self, stalled_since: float) -> None:
        self.stalled_since = stalled_since
        self.messages: deque[list[bytes]] = deque()


class RouterSocket:
    """Receives requests and sends replies.

    The callbacks get a client's routing id: `on_pause` when its pipe is full, `on_resume` when its outbox is empty
    again, `on_gone` when it has disconnected or has not read for `stall_ms`.
    """

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
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # so that a full pipe is an error instead of a silent drop
        self.socket.setsockopt(zmq.SNDHWM, REPLIES_IN_PIPE_MAX)
        self.socket.setsockopt(zmq.RCVHWM, REQUESTS_IN_PIPE_MAX)
        self.socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        self.socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        self.socket.setsockopt(zmq.LINGER, LINGER_MS)

    @property
    def pending_replies(self) -> int:
        """The number of replies in outboxes."""
        return sum(len(outbox.messages) for outbox in self.outboxes.values())

    def bind(self, endpoint: str) -> str:
        """Bind one endpoint and return its actual address; raises `BadSettings` if that fails."""
        if endpoint.startswith("ipc://"):
            _refuse_used_path(endpoint)
        # Only if needed: with it, 127.0.0.1 would be reported as [::ffff:127.0.0.1], which not every client accepts.
        self.socket.setsockopt(zmq.IPV6, endpoint.startswith("tcp://["))
        try:
            self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise BadSettings(f"cannot bind {endpoint}: {error.strerror}") from error
        return self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def receive(self) -> list[bytes] | None:
        """The frames of the next message that has arrived, or None."""
        try:
            return self.socket.recv_multipart(NOBLOCK)
        except zmq.Again:
            return None

    def send(self, route: Sequence[bytes], reply: bytes, *, droppable: bool = False) -> None:
        """Send a reply to the client that `route` leads to, or put it into the client's outbox.

        A `droppable` reply, to a request that was not accepted into a lane, is dropped instead.
        """
        client, message = route[0], [*route, reply]
        outbox = self.outboxes.get(client)
        if outbox is None and self._try_send(message):
            return
        if droppable:
            return
        if outbox is None:
            outbox = self.outboxes[client] = Outbox(time.monotonic())
            self._on_pause(client)
        outbox.messages.append(message)

    def retry(self) -> None:
        """Try to send the replies in outboxes. Those of a client that has taken none for too long are dropped."""
        for client, outbox in list(self.outboxes.items()):
            while outbox.messages and self._try_send(outbox.messages[0]):
                outbox.messages.popleft()
                outbox.stalled_since = time.monotonic()
            if not outbox.messages:
                del self.outboxes[client]
                self._on_resume(client)
            elif time.monotonic() - outbox.stalled_since > self._stall_s:
                del self.outboxes[client]
                self._on_gone(client)

    def close(self) -> None:
        self.socket.close()

    def _try_send(self, message: list[bytes]) -> bool:
        """Send a message, or drop it if its client has disconnected. Returns False if the client's pipe is full."""
        *route, reply = message
        try:
            for frame in route:
                self.socket.send(frame, NOBLOCK_SNDMORE)
            self.socket.send(reply, NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            self._on_gone(message[0])
        return True


def _refuse_used_path(endpoint: str) -> None:
    """Raise `BadSettings` if the path is in use: binding would remove a socket in use, or any other file."""
    path = Path(endpoint.removeprefix("ipc://"))
    if not path.exists():
        return
    if not path.is_socket():
        raise BadSettings(f"cannot bind {endpoint}: a file with that name exists. Use another path, or remove it.")
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.setblocking(False)
        if probe.connect_ex(str(path)) in (0, errno.EAGAIN):  # EAGAIN: its queue of new connections is full
            raise BadSettings(f"another process listens on {endpoint}. Stop it, or use another endpoint.")
