"""The ROUTER sockets, one for each transport, and the replies to clients that do not read.

To the loop they are one: a client's id is its routing id with a byte before it that says which socket it is on. The
same routing id may occur on two of them. Before libzmq lets a peer in, it asks a ZAP handler, which is a socket here;
without one it also accepts peers that send no greeting, so every web page could send frames in an HTTP request.

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
from backscroll.bus.gate import CURVE, TRANSPORTS, Gate
from backscroll.schema.limits import FRAME_BYTES_MAX

# Plain integers: combining pyzmq's enums takes as long as sending a frame.
NOBLOCK = int(zmq.NOBLOCK)
NOBLOCK_SNDMORE = int(zmq.NOBLOCK | zmq.SNDMORE)
REPLIES_IN_PIPE_MAX = 1_000  # of one client, inside libzmq
REQUESTS_IN_PIPE_MAX = 1_000
HANDSHAKE_MS = 10_000
LINGER_MS = 1_000
ZAP_ADDRESS = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
ZAP_ENFORCE_DOMAIN = int(zmq.ZAP_ENFORCE_DOMAIN)


class Outbox:
    """The replies that do not fit into a client's pipe, oldest first, and when the client last took one."""

    def __init__(self, stalled_since: float) -> None:
        self.stalled_since = stalled_since
        self.messages: deque[list[bytes]] = deque()


class RouterSocket:
    """Receives requests and sends replies.

    `gate` decides who may connect. The callbacks get a client's id: `on_pause` when its pipe is full, `on_resume` when
    its outbox is empty again, `on_gone` when it has disconnected or has not read for `stall_ms`.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        gate: Gate,
        *,
        stall_ms: int,
        on_pause: Callable[[bytes], None],
        on_resume: Callable[[bytes], None],
        on_gone: Callable[[bytes], None],
    ) -> None:
        self._stall_s = stall_ms / 1000
        self._on_pause, self._on_resume, self._on_gone = on_pause, on_resume, on_gone
        self.outboxes: dict[bytes, Outbox] = {}
        self._context = context
        self._gate = gate
        self._sockets: dict[int, zmq.Socket[bytes]] = {}  # by transport
        self._reading: deque[tuple[bytes, zmq.Socket[bytes]]] = deque()  # the same, the next to read from first
        self.handshakes = context.socket(zmq.REP)
        self.handshakes.setsockopt(zmq.LINGER, 0)
        self.handshakes.bind(ZAP_ADDRESS)

    @property
    def sockets(self) -> list["zmq.Socket[bytes]"]:
        """The sockets on which requests arrive."""
        return list(self._sockets.values())

    @property
    def pending_replies(self) -> int:
        """The number of replies in outboxes."""
        return sum(len(outbox.messages) for outbox in self.outboxes.values())

    def bind(self, endpoint: str) -> str:
        """Bind one endpoint and return its actual address; raises `BadSettings` if that fails."""
        scheme, _, address = endpoint.partition("://")
        if scheme == "ipc":
            _refuse_used_path(endpoint)
        socket = self._socket_of(scheme)
        # Only if needed: with it, 127.0.0.1 would be reported as [::ffff:127.0.0.1], which not every client accepts.
        socket.setsockopt(zmq.IPV6, address.startswith("["))
        try:
            socket.bind(endpoint if scheme == "ipc" else f"tcp://{address}")
        except zmq.ZMQError as error:
            raise BadSettings(f"cannot bind {endpoint}: {error.strerror}") from error
        if scheme == "ipc" and self._gate.admits_others:
            Path(address).chmod(0o666)  # the ZAP handler refuses those that are not listed
        return f"{scheme}://{socket.getsockopt_string(zmq.LAST_ENDPOINT).partition('://')[2]}"

    def answer_handshakes(self) -> None:
        """Answer libzmq's questions whether a peer may connect. Until then the peer waits."""
        with contextlib.suppress(zmq.Again):
            while True:
                version, number, domain, address, _, mechanism, *credentials = self.handshakes.recv_multipart(NOBLOCK)
                allowed = version == ZAP_VERSION and self._gate.may_connect(domain, address, mechanism, credentials)
                status = (b"200", b"OK") if allowed else (b"400", b"not allowed to connect")
                self.handshakes.send_multipart([ZAP_VERSION, number, *status, b"", b""], NOBLOCK)

    def receive(self) -> list[bytes] | None:
        """The frames of the next message that has arrived, or None. The first frame is the client's id."""
        for _ in self._sockets:
            transport, socket = self._reading[0]
            try:
                frames = socket.recv_multipart(NOBLOCK)
            except zmq.Again:
                self._reading.rotate()
                continue
            frames[0] = transport + frames[0]
            return frames
        return None

    def take_turns(self) -> None:
        """Read from another socket next, so that none is kept waiting by one that always has more."""
        self._reading.rotate()

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
        for each in (*self.sockets, self.handshakes):
            each.close()

    def _socket_of(self, scheme: str) -> "zmq.Socket[bytes]":
        """The ROUTER of a transport, which is made for its first endpoint."""
        transport = TRANSPORTS.index(scheme)
        if transport in self._sockets:
            return self._sockets[transport]
        secret_key = self._gate.server_secret_key() if transport == CURVE else b""
        socket = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # so that a full pipe is an error instead of a silent drop
        socket.setsockopt(zmq.SNDHWM, REPLIES_IN_PIPE_MAX)
        socket.setsockopt(zmq.RCVHWM, REQUESTS_IN_PIPE_MAX)
        socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.setsockopt(zmq.LINGER, LINGER_MS)
        socket.setsockopt_string(zmq.ZAP_DOMAIN, scheme)  # a domain makes libzmq ask the ZAP handler
        socket.setsockopt(ZAP_ENFORCE_DOMAIN, 1)
        if secret_key:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, secret_key)
        self._sockets[transport] = socket
        self._reading.append((bytes([transport]), socket))
        return socket

    def _try_send(self, message: list[bytes]) -> bool:
        """Send a message, or drop it if its client has disconnected. Returns False if the client's pipe is full."""
        client, *route, reply = message
        socket = self._sockets[client[0]]
        try:
            socket.send(client[1:], NOBLOCK_SNDMORE)
            for frame in route:
                socket.send(frame, NOBLOCK_SNDMORE)
            socket.send(reply, NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            self._on_gone(client)
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
