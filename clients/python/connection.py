"""One connection to a daemon: a socket that connects only once, and reports the state of its connection.

ZeroMQ would reconnect automatically and silently. Requests sent then could overtake those that were lost with the old
connection, but the requests of a client must take effect in the order sent. So the owner of a `Connection` creates a
new one when it is lost, and first sends the unanswered requests again. This module never blocks.

Over tcp, whatever listens on the port may be another program, after a daemon was killed. So the daemon first proves
with `hello` that it knows the token and is bound to this port; until then, neither token nor requests are sent.
"""

import hashlib
import hmac
import secrets
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from backscroll.clients.python.address import Address, Curve
from backscroll.schema.decode_errors import DECODE_ERRORS
from backscroll.schema.errors import BackscrollError, Invalid, Unauthenticated, Unavailable
from backscroll.schema.limits import FRAME_BYTES_MAX
from backscroll.schema.operations import Hello
from backscroll.schema.replies import Proof
from backscroll.schema.ulid import UlidGenerator
from backscroll.schema.wire import MSGPACK, Envelope, ReceivedError, Reply, proof_of, with_auth

RECONNECT_DELAY_MS = 50
"""The delay before the next connection after one that was lost or refused."""
ASSUME_ALIVE_MS = 10
"""How long after receiving a connection is assumed to be alive: to check it takes longer than the rest of sending."""
CONNECT_TIMEOUT_MS = 2_000
"""How long to wait for a connection before trying another one: ZeroMQ does not report every failure."""

CODE_CHARS_MAX = 64
"""So much of an error code is quoted: whoever sent it may be anybody."""

A_DAY_MS = 86_400_000
REFUSED_EVENTS = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
MONITORED_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | REFUSED_EVENTS

_new_id = UlidGenerator()


class Connection:
    """A DEALER socket with one connection. Pass what arrives on the socket `events` to `handle_event`, and what arrives
    on `socket` before it is `greeted` to `handle_greeting`; after that it is replies.

    At first it is neither `connected` nor `lost`, then one of them; once `lost`, it stays lost. `problem` is the error
    to raise then, if it is known why. The send queue is unbounded, because the client keeps its requests in flight
    anyway, so sending never blocks. The sockets are asynchronous if `context` is one of `zmq.asyncio`.
    """

    def __init__(self, context: zmq.Context[Any], address: Address) -> None:
        """Start to connect; raises `Invalid` if it is not a valid address, or if its keys are none."""
        self.connected = self.lost = self.greeted = False
        self.problem: BackscrollError | None = None
        self._endpoint, self._token, curve = address
        # Over CURVE the key proves who the daemon is.
        self._nonce = secrets.token_hex(16) if self._token is not None and curve is None else None
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.IPV6, 1)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        # The connection to whatever sends a larger frame is lost: it is no reply, and would fill the memory.
        self.socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        # Practically never. With -1, which means never, replies received before the disconnect could not be read.
        self.socket.setsockopt(zmq.RECONNECT_IVL, A_DAY_MS)
        self.events = self.socket.get_monitor_socket(MONITORED_EVENTS)
        if curve is not None:
            self._use_keys(curve)
        try:
            self.socket.connect(self._endpoint.replace("curve://", "tcp://", 1))
        except zmq.ZMQError as error:
            self.close()
            raise Invalid(
                f"{self._endpoint!r} is not an address to connect to, such as tcp://127.0.0.1:5555 or ipc:///PATH:"
                f" {error.strerror}"
            ) from error

    def _use_keys(self, curve: Curve) -> None:
        try:
            self.socket.setsockopt(zmq.CURVE_SERVERKEY, curve.server_key.encode())
            self.socket.setsockopt(zmq.CURVE_PUBLICKEY, curve.public_key.encode())
            self.socket.setsockopt(zmq.CURVE_SECRETKEY, curve.secret_key.encode())
        except (zmq.ZMQError, UnicodeEncodeError) as error:
            self.close()
            raise Invalid(
                f"the keys for {self._endpoint} are not CURVE keys: make them with `backscroll keys create`"
            ) from error

    def send(self, body: bytes) -> None:
        """Send a request, with the token if the connection needs one."""
        self.socket.send(body if self._token is None else with_auth(body, self._token))

    def has_event(self) -> bool:
        """Whether there is an event that has not been handled."""
        return bool(self.events.get(zmq.EVENTS) & zmq.POLLIN)

    def handle_event(self, event: list[bytes]) -> None:
        """Update the state of the connection from a monitor event."""
        kind = parse_monitor_message(event)["event"]
        if kind != zmq.EVENT_HANDSHAKE_SUCCEEDED or self.lost:
            self.connected, self.lost = False, True
            if kind & REFUSED_EVENTS:
                problem = f"the daemon at {self._endpoint} does not let this user or key connect"
                self.problem = Unavailable(f"{problem}; nothing was sent")
        elif self._nonce is None:
            self.connected = self.greeted = True
        else:
            hello = Hello(self._nonce, self._token_name())
            self.socket.send(MSGPACK.encode(Envelope(_new_id(), hello.wire_name, hello)))

    def handle_greeting(self, body: bytes) -> None:
        """Update the state from the first message that arrived: it must prove that the daemon knows the token."""
        try:
            reply = MSGPACK.decode(body, Reply[Proof])
        except DECODE_ERRORS:
            reply = Reply(None, False)
        self.connected = not self.lost and reply.ok and self._is_proven(reply.result)
        self.greeted, self.lost = self.connected, not self.connected
        if self.lost:
            self.problem = self._refused(reply.error)

    def _refused(self, error: ReceivedError | None) -> BackscrollError:
        """The error for a greeting without a proof; `error` is what was answered instead, if anything."""
        if error is not None and error.code == "unauthenticated":
            return Unauthenticated(
                f"the daemon at {self._endpoint} does not know the token {self._token_name()!r}: it was revoked, has"
                " expired, or is for another daemon; nothing was sent"
            )
        answer = "" if error is None else f" and answered {error.code[:CODE_CHARS_MAX]!r}"
        return Unavailable(
            f"whatever answers at {self._endpoint} did not prove that it knows the token{answer}: it is another"
            " program, or the token is wrong or for another daemon; nothing was sent"
        )

    def _is_proven(self, proof: object) -> bool:
        """Whether a result is a proof about this token, this connection's nonce, and a daemon bound to this port."""
        if not isinstance(proof, Proof) or self._token is None or self._nonce is None:
            return False
        expected = proof_of(hashlib.sha256(self._token.encode()).digest(), self._nonce, proof.endpoints)
        ports = {endpoint.rpartition(":")[2] for endpoint in proof.endpoints}
        return hmac.compare_digest(expected.encode(), proof.proof.encode()) and (
            self._endpoint.rpartition(":")[2] in ports
        )

    def _token_name(self) -> str | None:
        """The name in a token such as `bot.q8Jx…`; the start token has none."""
        return (self._token or "").rpartition(".")[0] or None

    def close(self) -> None:
        if self.socket.closed:
            return
        self.socket.disable_monitor()  # otherwise libzmq keeps its end of `events` open until the context ends
        self.events.close()
        self.socket.close()
