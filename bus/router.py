"""The ROUTER sockets, one for each transport, and the replies to clients that do not read.

To the loop they are one: a client's id is its routing id with a byte before it that says which socket it is on. The
same routing id may occur on two of them. What lets peers in is in `handshakes.py`.

A reply that does not fit into the client's pipe, or would exceed the bytes that may be in flight, is put into an outbox
and sent later; a large one that can be had again is refused instead. While a client has an outbox, the daemon starts
nothing more for it, so what one client can make the daemon keep is bounded. Used only by the loop thread.
"""

import contextlib
import errno
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq

from backscroll.bus.connections import cut
from backscroll.bus.failures import BadSettings
from backscroll.bus.gate import CURVE, IPC, TRANSPORTS, Gate
from backscroll.bus.handshakes import Handshakes
from backscroll.bus.in_flight import InFlight, Peer, inode_of
from backscroll.bus.logging import log
from backscroll.schema.limits import FRAME_BYTES_MAX

# Plain integers: combining pyzmq's enums takes as long as sending a frame.
NOBLOCK = int(zmq.NOBLOCK)
NOBLOCK_SNDMORE = int(zmq.NOBLOCK | zmq.SNDMORE)
SRCFD = int(zmq.SRCFD)
USER_ID = "User-Id"
CLOSED = -1  # instead of a descriptor
REPLIES_IN_PIPE_MAX = 1_000  # of one client, inside libzmq
REQUESTS_IN_PIPE_MAX = 256
RECEIVED_BYTES = 256 * 1024  # of one connection, in the kernel
UNREADABLE_MAX = 100  # messages of one connection that are no requests
HANDSHAKE_MS = 10_000
LARGE_BYTES = 64 * 1024  # a reply is not kept if it can be had again
SMALL_FRAME_BYTES_MAX = 255  # larger ones have a longer header
CURVE_BYTES = 33  # that encryption adds to a frame
LINGER_MS = 1_000
ZAP_ENFORCE_DOMAIN = int(zmq.ZAP_ENFORCE_DOMAIN)


class Outbox:
    """The replies that do not fit into a client's pipe, oldest first, and when the client last took one.

    `refused` is the size of the reply that was refused instead of kept.
    """

    def __init__(self, stalled_since: float) -> None:
        self.stalled_since = stalled_since
        self.messages: deque[tuple[Sequence[bytes], bytes]] = deque()
        self.refused = 0


class RouterSocket:
    """Receives requests and sends replies.

    `gate` has the keys, `handshakes` counts who came in; `watch` is called with each socket before it is bound. The
    callbacks get a client's id: `on_pause` when its replies have to wait, `on_resume` when there is room again,
    `on_gone` when it has disconnected or has not read for `stall_ms`.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        gate: Gate,
        handshakes: Handshakes,
        *,
        stall_ms: int,
        client_reply_bytes: int,
        reply_bytes: int,
        on_pause: Callable[[bytes], None],
        on_resume: Callable[[bytes], None],
        on_gone: Callable[[bytes], None],
        watch: Callable[["zmq.Socket[bytes]"], None] = lambda _: None,
    ) -> None:
        self._stall_s = stall_ms / 1000
        self._on_pause, self._on_resume, self._on_gone = on_pause, on_resume, on_gone
        self.outboxes: dict[bytes, Outbox] = {}
        self.peers: dict[bytes, Peer] = {}  # by client; one for each descriptor that was seen
        self._clients: dict[int, bytes] = {}  # the same clients, by descriptor
        self.in_flight = InFlight(client_reply_bytes, reply_bytes)
        self.all_read_at = 0.0  # when there was no message left to receive
        self.is_waiting = False  # for messages, or for a processor since they have arrived
        self._notices = select.poll() if hasattr(select, "poll") else None  # libzmq's, that the loop has not seen
        self._context = context
        self._gate = gate
        self._handshakes = handshakes  # each may be of a new connection with the routing id of another
        self._watch = watch
        self._sockets: dict[int, zmq.Socket[bytes]] = {}  # by transport
        self._reading: deque[tuple[bytes, zmq.Socket[bytes]]] = deque()  # the same, the next to read from first

    @property
    def sockets(self) -> list["zmq.Socket[bytes]"]:
        """The sockets on which requests arrive."""
        return list(self._sockets.values())

    @property
    def pending_replies(self) -> int:
        """The number of replies in outboxes, or refused until there is room."""
        return sum(len(outbox.messages) or 1 for outbox in self.outboxes.values())

    @property
    def has_read_all(self) -> bool:
        """Whether all that has arrived was received. For the thread that watches the connections."""
        return self.is_waiting and not (self._notices and self._notices.poll(0))

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

    def receive(self) -> list[bytes] | None:
        """The frames of the next message that has arrived, or None. The first frame is the client's id.

        What a connection sent before it was cut off is dropped: then there are no frames.
        """
        for _ in self._sockets:
            transport, socket = self._reading[0]
            try:
                client = transport + socket.recv(NOBLOCK)
            except zmq.Again:
                self._reading.rotate()
                continue
            frames = [client]
            frame = socket.recv(NOBLOCK, copy=False)  # its `more` takes a third of the time of asking the socket
            frames.append(frame.bytes)
            while frame.more:
                frame = socket.recv(NOBLOCK, copy=False)
                frames.append(frame.bytes)
            peer = self.peers.get(client)
            if peer is None or peer.checked != self._handshakes.number:
                peer = self._checked_peer(client, frame)
            if peer.is_cut:
                return []
            _note_received(peer, frames)
            return frames
        self.all_read_at = time.monotonic()
        return None

    def take_turns(self) -> None:
        """Read from another socket next, so that none is kept waiting by one that always has more."""
        self._reading.rotate()

    def send(self, route: Sequence[bytes], reply: bytes, *, droppable: bool = False, repeatable: bool = False) -> bool:
        """Send a reply to the client that `route` leads to, or put it into the client's outbox.

        A `droppable` reply, to a request that was not accepted into a lane, is dropped instead. A large one that is
        `repeatable` is refused: the result is False, and the client is resumed when there is room for it.
        """
        client = route[0]
        outbox = self.outboxes.get(client)
        if outbox is None and self._try_send(route, reply):
            return True
        if droppable:
            return True
        if outbox is None:
            outbox = self.outboxes[client] = Outbox(time.monotonic())
            self._on_pause(client)
        if repeatable and len(reply) >= LARGE_BYTES and self._must_wait(client, outbox, len(reply)):
            outbox.refused = len(reply)
            return False
        outbox.messages.append((route, reply))
        return True

    def count_unreadable(self, client: bytes) -> None:
        """Count a message that is no request. After many of them the connection is cut off: they may be as short as two
        bytes, so that what waits in buffers keeps the loop busy for long after the sender has gone.
        """
        peer = self._peer(client)
        peer.unreadable += 1
        if peer.unreadable == UNREADABLE_MAX:
            log.debug("a connection that sends no requests is cut off", messages=peer.unreadable)
            self._cut(peer)

    def _must_wait(self, client: bytes, outbox: Outbox, size: int) -> bool:
        """Whether the outbox has a reply already, or there is no room for one of this size."""
        return bool(outbox.messages) or not self.in_flight.has_room(self._peer(client), size)

    def retry(self) -> None:
        """Try to send the replies in outboxes. A client that has taken none for too long is cut off, unless it waits
        because others fill the budget of all: what it sent later must not overtake the requests that are dropped.
        """
        self.in_flight.is_full = False
        self.in_flight.settle()
        for client, outbox in list(self.outboxes.items()):
            while outbox.messages and self._try_send(*outbox.messages[0]):
                outbox.messages.popleft()
                outbox.stalled_since = time.monotonic()
            peer = self._peer(client)
            size = peer.untracked + len(outbox.messages[0][-1]) if outbox.messages else outbox.refused
            has_room = self.in_flight.has_room(peer, size)
            others_fill = not has_room and not peer.bytes
            outbox.stalled_since = time.monotonic() if others_fill else max(outbox.stalled_since, peer.progress_at)
            if has_room and not outbox.messages:
                del self.outboxes[client]
                self._on_resume(client)
            elif time.monotonic() - outbox.stalled_since > self._stall_s:
                del self.outboxes[client]
                self._cut(peer)
                self._on_gone(client)

    def close(self) -> None:
        for each in self.sockets:
            each.close()

    def _socket_of(self, scheme: str) -> "zmq.Socket[bytes]":
        """The ROUTER of a transport, which is made for its first endpoint."""
        transport = TRANSPORTS.index(scheme)
        if transport in self._sockets:
            return self._sockets[transport]
        secret_key = self._gate.server_secret_key() if transport == CURVE else b""
        socket = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # so that a full pipe is an error instead of a silent drop
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # else a second connection with a routing id is never read
        socket.setsockopt(zmq.SNDHWM, REPLIES_IN_PIPE_MAX)
        socket.setsockopt(zmq.RCVHWM, REQUESTS_IN_PIPE_MAX)
        socket.setsockopt(zmq.RCVBUF, RECEIVED_BYTES)
        socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._watch(socket)
        socket.setsockopt_string(zmq.ZAP_DOMAIN, scheme)  # a domain makes libzmq ask the ZAP handler
        socket.setsockopt(ZAP_ENFORCE_DOMAIN, 1)
        if secret_key:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, secret_key)
        if self._notices:
            self._notices.register(int(socket.getsockopt(zmq.FD)), select.POLLIN)
        self._sockets[transport] = socket
        self._reading.append((bytes([transport]), socket))
        return socket

    def _try_send(self, route: Sequence[bytes], reply: bytes) -> bool:
        """Send a reply, or drop it if its client has disconnected. Returns False if it has to wait."""
        client, peer = route[0], self._peer(route[0])
        size = peer.untracked + len(reply)
        tracked = size >= self.in_flight.tracked_bytes
        if tracked and not self.in_flight.has_room(peer, size):
            return False
        socket = self._sockets[client[0]]
        try:
            socket.send(client[1:], NOBLOCK_SNDMORE)
            for frame in route[1:]:
                socket.send(frame, NOBLOCK_SNDMORE)
            if not tracked:
                socket.send(reply, NOBLOCK)
                peer.untracked = size
            else:  # once it is written, so are the untracked ones before it
                tracker = socket.send(zmq.Frame(reply, track=True, copy=False), NOBLOCK, copy=False, track=True)
                self.in_flight.add(peer, tracker, size)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            # What it sent may still be in the pipe, and would overtake what waits in its lane and is dropped now.
            peer.is_cut = True
            self._on_gone(client)
        return True

    def _checked_peer(self, client: bytes, frame: zmq.Frame) -> Peer:
        """The connection that a frame came from. Looking up its properties takes longer than a message."""
        checked = self._handshakes.number
        peer = self._peer_of(client, int(frame.get(USER_ID)), int(frame.get(SRCFD)))
        peer.checked = checked
        return peer

    def _peer_of(self, client: bytes, handshake: int, descriptor: int) -> Peer:
        """The client's connection; what an earlier one with the same routing id has left is dropped.

        The message may have waited until after the connection was closed. Then the descriptor stands for nothing, or
        for a connection with a later handshake.
        """
        known = self.peers.get(client)
        if known is not None and known.handshake >= handshake:
            return known
        if known is not None:
            self._clients.pop(known.descriptor, None)
            self.outboxes.pop(client, None)
            self._on_gone(client)
        holder = self.peers.get(self._clients.get(descriptor, b""))
        if holder is not None and holder.handshake > handshake:
            descriptor = CLOSED
        self.peers.pop(self._clients.get(descriptor, b""), None)
        self._clients[descriptor] = client
        peer = self.peers[client] = Peer(descriptor, handshake)
        self.in_flight.share(len(self.peers))
        return peer

    def _peer(self, client: bytes) -> Peer:
        """What is known of a client; nothing, if it has disconnected."""
        return self.peers.get(client) or Peer(CLOSED)

    def cut_stalled(self) -> None:
        """While replies wait because others are not read, cut off the client that has not read for longest."""
        if self.in_flight.is_full and (peer := self.in_flight.longest_unread()) is not None:
            self._cut(peer)

    def _cut(self, peer: Peer) -> None:
        if inode_of(peer.descriptor) == peer.inode:  # else it is closed already
            cut(peer.descriptor)
        peer.is_cut = True


def _note_received(peer: Peer, frames: list[bytes]) -> None:
    """Note when a message was received, and the bytes that it had on the wire, which are to be compared with those that
    the kernel counts: what a peer sent besides is what the daemon may hold. Over ipc the kernel does not count.
    """
    peer.received_at = time.monotonic()
    transport = frames[0][0]
    if transport == IPC:
        return
    around = CURVE_BYTES if transport == CURVE else 0
    for frame in frames[1:]:
        length = len(frame) + around
        peer.received += length + (2 if length <= SMALL_FRAME_BYTES_MAX else 9)


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
