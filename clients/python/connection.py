"""One connection to a daemon: a socket that connects only once, and reports the state of its connection.

ZeroMQ would reconnect automatically and silently. Requests sent then could overtake those that were lost with the old
connection, but the requests of a client must take effect in the order sent. So the owner of a `Connection` creates a
new one when it is lost, and first sends the unanswered requests again. This module knows no requests and never blocks.
"""

from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from backscroll.schema.errors import Invalid

RECONNECT_DELAY_MS = 50
"""The delay before the next connection after one that was lost or refused."""
ASSUME_ALIVE_MS = 10
"""How long after receiving a connection is assumed to be alive: to check it takes longer than the rest of sending."""
CONNECT_TIMEOUT_MS = 2_000
"""How long to wait for a connection before trying another one: ZeroMQ does not report every failure."""

A_DAY_MS = 86_400_000
MONITORED_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED


class Connection:
    """A DEALER socket with one connection. Pass what arrives on the socket `events` to `handle_event`.

    At first it is neither `connected` nor `lost`, then one of them; once `lost`, it stays lost. The send queue is
    unbounded, because the client keeps its requests in flight anyway, so sending never blocks. The sockets are
    asynchronous if `context` is one of `zmq.asyncio`.
    """

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        """Start to connect; raises `Invalid` if `endpoint` is not a valid address."""
        self.connected = self.lost = False
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.IPV6, 1)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        # Practically never. With -1, which means never, replies received before the disconnect could not be read.
        self.socket.setsockopt(zmq.RECONNECT_IVL, A_DAY_MS)
        self.events = self.socket.get_monitor_socket(MONITORED_EVENTS)
        try:
            self.socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise Invalid(f"{endpoint!r} is not an address to connect to: {error.strerror}") from error

    def has_event(self) -> bool:
        """Whether there is an event that has not been handled."""
        return bool(self.events.get(zmq.EVENTS) & zmq.POLLIN)

    def handle_event(self, event: list[bytes]) -> None:
        """Update the state of the connection from a monitor event."""
        succeeded = parse_monitor_message(event)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        self.connected = succeeded and not self.lost
        self.lost = not self.connected

    def close(self) -> None:
        if self.socket.closed:
            return
        self.socket.disable_monitor()  # otherwise libzmq keeps its end of `events` open until the context ends
        self.events.close()
        self.socket.close()
