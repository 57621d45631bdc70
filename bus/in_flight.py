"""The bytes of replies that libzmq holds, of each client and of all.

The high-water mark of a socket counts messages, and a reply may have megabytes. So large replies are sent without being
copied, with a tracker that tells when they are written. Smaller ones are added up, and the one with which they become
large is tracked for all of them, since a client's replies are written in order. A tracker takes longer than a hundred
pings, so how much is large depends on how many clients there are. Used only by the loop thread.
"""

import os
import time
from collections import deque

from zmq import MessageTracker

from backscroll.bus.connections import BYTES_ACKED, tcp_bytes

TRACKED_BYTES_MIN, TRACKED_BYTES_MAX = 64 * 1024, 2**20
UNTRACKED_BYTES = 16 * 2**20  # of all clients, unless they are more than 256
UNREAD_SECONDS = 1.0  # after which a client that keeps others waiting is cut off
READ_BYTES_MIN = 256 * 1024  # read in that time over tcp, a client is only slow


class Peer:
    """A connection that has sent a message: its descriptor, what it sent, and its replies in flight.

    `handshake` is the number of its handshake. A descriptor is used again for other connections; whether it still
    stands for this one, `inode` tells.
    """

    __slots__ = (
        "acked",
        "bytes",
        "checked",
        "descriptor",
        "handshake",
        "inode",
        "is_cut",
        "progress_at",
        "received",
        "received_at",
        "tracked",
        "unreadable",
        "untracked",
    )

    def __init__(self, descriptor: int, handshake: int = 0) -> None:
        self.descriptor = descriptor
        self.handshake = handshake
        self.inode = inode_of(descriptor)
        self.is_cut = False
        self.checked = 0  # the number of handshakes when it was last known to be the connection of its client
        self.received = 0  # bytes of complete messages, on the wire; not counted over ipc
        self.received_at = 0.0  # when the last one was received
        self.unreadable = 0  # messages that were no requests
        self.untracked = 0  # bytes of replies that no tracker covers
        self.bytes = 0  # of replies that trackers cover
        self.tracked: deque[tuple[MessageTracker, int]] = deque()
        self.acked = 0  # bytes that it had read over tcp at the last look
        self.progress_at = 0.0  # when a tracked reply was last written, or sent with none before it


def inode_of(descriptor: int) -> int:
    """What identifies the open file that a descriptor stands for; 0 if there is none."""
    try:
        return os.fstat(descriptor).st_ino
    except (OSError, OverflowError):
        return 0


class InFlight:
    """The bounds on bytes in flight: `client_bytes` and `all_bytes`. `bytes` is what trackers cover, of all peers.

    Replies of `tracked_bytes` or more have to be tracked. `is_full` is set when a reply has no room because of all
    together; who retries resets it, and calls `settle` before: to look at all peers for each reply takes too long.
    """

    def __init__(self, client_bytes: int, all_bytes: int) -> None:
        self._client_bytes, self._all_bytes = client_bytes, all_bytes
        self._holders: dict[Peer, None] = {}
        self.bytes = 0
        self.tracked_bytes = TRACKED_BYTES_MAX
        self.is_full = False

    def share(self, clients: int) -> None:
        """Divide what need not be tracked among so many clients."""
        self.tracked_bytes = max(TRACKED_BYTES_MIN, min(TRACKED_BYTES_MAX, UNTRACKED_BYTES // clients))

    def has_room(self, peer: Peer, size: int) -> bool:
        """Whether a reply of this size may be sent to a peer. One reply may always be, unless all together are full."""
        if size < self.tracked_bytes:
            return True
        self._settle(peer)
        if peer.bytes and peer.bytes + size > self._client_bytes:
            return False
        if self.bytes and self.bytes + size > self._all_bytes:
            self.is_full = True
            return False
        return True

    def add(self, peer: Peer, tracker: MessageTracker, size: int) -> None:
        """Count a reply that was sent, and the untracked ones before it."""
        if not peer.tracked:
            peer.progress_at = time.monotonic()
            self._holders[peer] = None
        peer.tracked.append((tracker, size))
        peer.untracked = 0
        peer.bytes += size
        self.bytes += size

    def settle(self) -> None:
        """Count off what has been written."""
        for peer in list(self._holders):
            self._settle(peer)

    def longest_unread(self) -> Peer | None:
        """The peer that has read nothing for longest, if that is `UNREAD_SECONDS` or more."""
        self.settle()
        now = time.monotonic()
        for peer in sorted(self._holders, key=lambda each: each.progress_at):
            if now - peer.progress_at < UNREAD_SECONDS:
                return None
            if not peer.is_cut and not self._reads_slowly(peer, now):
                return peer
        return None

    def _reads_slowly(self, peer: Peer, now: float) -> bool:
        """Whether the peer has read a part of a large reply since the last look; only over tcp the kernel tells."""
        acked = tcp_bytes(peer.descriptor, BYTES_ACKED) or 0
        if acked - peer.acked < READ_BYTES_MIN:
            return False
        peer.acked, peer.progress_at = acked, now
        return True

    def _settle(self, peer: Peer) -> None:
        while peer.tracked and peer.tracked[0][0].done:
            _, size = peer.tracked.popleft()
            peer.bytes -= size
            self.bytes -= size
            peer.progress_at = time.monotonic()
            if not peer.tracked:
                self._holders.pop(peer, None)
