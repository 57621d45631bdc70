"""One connection to a daemon: a socket that connects once, and tells what becomes of its connection.

ZeroMQ would connect again by itself, without a word. Then what is sent next could overtake what was lost with the old
connection, and one client's requests are to take effect in the order sent. So a `Connection` is for one connection; whoever
owns it makes another one when it is lost, and sends first what was not answered. Knows no request and never waits.
"""

from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from backscroll.schema.errors import Invalid

RECONNECT_MS = 50
"""How long to wait before the next connection after one that was lost or refused."""
FRESH_MS = 10
"""A connection that was heard on so lately is taken to be there still: asking costs more than the rest of sending."""
ATTEMPT_MS = 2_000
"""How long a connection may take before another is tried: ZeroMQ does not tell of every failure."""

A_DAY_MS = 86_400_000
WATCHED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED


class Connection:
    """A DEALER socket with its one connection, and `events`, the socket to pass on to `note` what arrives on.

    First neither `connected` nor `lost`; then one of them, `lost` for good. Of the queues in between nothing is
    bounded: what a client has under way is kept by it in any case, and sending never blocks. Where `context` is one of
    `zmq.asyncio`, so are the sockets.
    """

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        """Begin to connect; raises `Invalid` for what is no address."""
        self.connected = self.lost = False
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.IPV6, 1)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        # As good as never. -1 would be never, but then replies that came before the end could not be read any more.
        self.socket.setsockopt(zmq.RECONNECT_IVL, A_DAY_MS)
        self.events = self.socket.get_monitor_socket(WATCHED)
        try:
            self.socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise Invalid(f"{endpoint!r} is no address to connect to: {error.strerror}") from error

    def has_news(self) -> bool:
        """Whether something became of the connection that was not noted yet."""
        return bool(self.events.get(zmq.EVENTS) & zmq.POLLIN)

    def note(self, event: list[bytes]) -> None:
        """Take in what became of the connection."""
        succeeded = parse_monitor_message(event)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        self.connected = succeeded and not self.lost
        self.lost = not self.connected

    def close(self) -> None:
        if self.socket.closed:
            return
        self.socket.disable_monitor()  # else libzmq keeps its end of `events` until the whole context ends
        self.events.close()
        self.socket.close()
