"""The ROUTER socket alone: replies are kept for clients that do not read, until they read, vanish or stall too long."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
import zmq

from backscroll.bus.access_files import AccessFiles
from backscroll.bus.failures import BadSettings
from backscroll.bus.gate import Gate
from backscroll.bus.handshakes import Handshakes
from backscroll.bus.in_flight import TRACKED_BYTES_MIN, InFlight, inode_of
from backscroll.bus.in_flight import Peer as InFlightPeer
from backscroll.bus.router import REPLIES_IN_PIPE_MAX, RouterSocket
from tests.support.floods import connected, greet, is_admitted
from tests.support.peers import Peer, several
from tests.support.waiting import wait_until

REPLY = b"x" * 20_000
MIB = 2**20
REPLY_BYTES, CLIENT_REPLY_BYTES = 64 * MIB, 16 * MIB


def ignored(_client: bytes) -> None:
    """Ignores a client."""


class Box:
    """A `RouterSocket` at an address, and the callbacks it has made about its clients."""

    def __init__(self, directory: Path, stall_ms: int = 60_000, reply_bytes: int = REPLY_BYTES) -> None:
        self.events: list[tuple[str, bytes]] = []
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        gate = Gate(AccessFiles(directory))
        self.handshakes = Handshakes(self.context, gate)
        self.mail = RouterSocket(
            self.context,
            gate,
            self.handshakes,
            stall_ms=stall_ms,
            client_reply_bytes=CLIENT_REPLY_BYTES,
            reply_bytes=reply_bytes,
            on_pause=lambda client: self.events.append(("pause", client)),
            on_resume=lambda client: self.events.append(("resume", client)),
            on_gone=lambda client: self.events.append(("gone", client)),
        )
        self.endpoint = self.mail.bind(f"ipc://{directory}/mail.sock")

    def receive(self) -> list[bytes]:
        got: list[list[bytes]] = []

        def has_come() -> bool:
            self.handshakes.answer()
            if (frames := self.mail.receive()) is not None:
                got.append(frames)
            return bool(got)

        wait_until(has_come)
        return got[0]

    def admits(self, connection: socket.socket) -> bool:
        self.handshakes.answer()
        return is_admitted(connection)

    def fill(self, route: list[bytes]) -> int:
        """Send replies to a client until one does not fit; the number of replies."""
        sent = 0
        while not self.mail.pending_replies:
            self.mail.send(route, REPLY)
            sent += 1
            assert sent < 10 * REPLIES_IN_PIPE_MAX
        return sent

    def close(self) -> None:
        self.mail.close()
        self.handshakes.socket.close()
        self.context.term()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    yield box
    box.close()


@pytest.fixture
def sleeper(box: Box) -> Iterator[Peer]:
    """A client that does not read unless the test does."""
    with Peer(box.endpoint, queue=1) as peer:
        yield peer


def test_a_message_that_the_loop_has_not_seen_is_unread(box: Box, sleeper: Peer) -> None:
    """Also while the loop's thread still seems to wait for messages, because it gets no processor: only the thread that
    watches the memory runs then, and would take the sender for one that sends nothing.
    """
    box.mail.is_waiting = True
    for _ in range(2):
        sleeper.send(b"body")
        wait_until(lambda: not box.mail.has_read_all)
        box.receive()
        assert box.mail.receive() is None
        wait_until(lambda: not any(each.poll(0) for each in box.mail.sockets) and box.mail.has_read_all)
    box.mail.is_waiting = False
    assert not box.mail.has_read_all


def test_a_reply_has_the_routing_frames_of_its_request(box: Box, sleeper: Peer) -> None:
    """All frames before the body are those of the request."""
    sleeper.send(b"one", b"", b"body")
    *route, body = box.receive()
    assert body == b"body"
    box.mail.send(route, b"reply")
    assert sleeper.frames() == [b"one", b"", b"reply"]
    assert box.events == []
    assert box.mail.receive() is None


def test_unread_replies_are_delivered_in_order_later(box: Box, sleeper: Peer) -> None:
    """Every reply arrives once, however full the pipe was; the client is paused once and resumed once."""
    sleeper.send(b"body")
    route = box.receive()[:-1]
    number = 0
    while box.mail.pending_replies < 50:
        box.mail.send(route, b"%d " % number + REPLY)
        number += 1
    assert box.events == [("pause", route[0])]
    got: list[int] = []

    def all_have_come() -> bool:
        while not sleeper.silent():
            got.append(int(sleeper.frames()[-1].split()[0]))
        box.mail.retry()
        return len(got) == number

    wait_until(all_have_come)
    assert got == list(range(number))
    assert box.mail.pending_replies == 0
    assert box.events == [("pause", route[0]), ("resume", route[0])]


def test_droppable_replies_are_not_kept(box: Box, sleeper: Peer) -> None:
    """Refusals never cost memory."""
    sleeper.send(b"body")
    route = box.receive()[:-1]
    for _ in range(3 * REPLIES_IN_PIPE_MAX):
        box.mail.send(route, REPLY, droppable=True)
    assert box.mail.pending_replies == 0
    box.fill(route)
    box.mail.send(route, REPLY, droppable=True)
    assert box.mail.pending_replies == 1


def test_a_vanished_client_is_reported_at_the_next_reply(box: Box) -> None:
    """The reply is dropped, and the client is reported as gone."""
    with Peer(box.endpoint) as peer:
        peer.send(b"body")
        route = box.receive()[:-1]

    def is_gone() -> bool:
        box.mail.send(route, b"reply")
        return bool(box.events)

    wait_until(is_gone)
    assert box.events == [("gone", route[0])]
    assert box.mail.pending_replies == 0


def test_replies_of_a_vanished_client_are_dropped(box: Box) -> None:
    """What was kept for it is dropped with it."""
    with Peer(box.endpoint, queue=1) as peer:
        peer.send(b"body")
        route = box.receive()[:-1]
        box.fill(route)

    def is_empty() -> bool:
        assert box.mail.receive() is None  # libzmq drops a peer once everything it sent has been read
        box.mail.retry()
        return not box.mail.pending_replies

    wait_until(is_empty)
    assert ("gone", route[0]) in box.events


def test_a_client_that_stalls_too_long_is_given_up(tmp_path: Path) -> None:
    """After the stall time its replies are dropped, what it sent later is not read, and the client is cut off."""
    box = Box(tmp_path, stall_ms=50)
    with Peer(box.endpoint, queue=1) as peer:
        peer.send(b"body")
        route = box.receive()[:-1]
        box.fill(route)
        peer.send(b"later")

        def is_empty() -> bool:
            box.mail.retry()
            return not box.mail.pending_replies

        wait_until(is_empty)
        assert box.events == [("pause", route[0]), ("gone", route[0])]
        wait_until(lambda: box.mail.receive() == [])  # "later" was dropped
    box.close()


def fill_with_repeatable(box: Box, route: list[bytes], reply: bytes) -> int:
    """Send replies that need not be kept until one is refused; the number of those that were sent."""
    sent = 0
    while box.mail.send(route, reply, repeatable=True):
        sent += 1
        assert sent < 10 * REPLIES_IN_PIPE_MAX
    return sent


def test_large_replies_wait_without_being_kept(box: Box, sleeper: Peer) -> None:
    """Their client's budget bounds those in flight; the next is refused, and the client resumed when there is room."""
    sleeper.send(b"body")
    route = box.receive()[:-1]
    sent = fill_with_repeatable(box, route, b"x" * MIB)
    assert CLIENT_REPLY_BYTES // MIB <= sent <= CLIENT_REPLY_BYTES // MIB + 2  # some are in the kernel's buffers
    assert box.events == [("pause", route[0])]
    box.mail.retry()
    assert (box.mail.pending_replies, len(box.events)) == (1, 1)
    for _ in range(sent):
        assert len(sleeper.frames()[-1]) == MIB

    def is_resumed() -> bool:
        box.mail.retry()
        return ("resume", route[0]) in box.events

    wait_until(is_resumed)
    assert box.mail.pending_replies == 0
    assert box.mail.send(route, b"x" * MIB, repeatable=True)


def test_a_reply_larger_than_the_budget_is_sent_alone(box: Box, sleeper: Peer) -> None:
    """It is sent when nothing else of its client is in flight."""
    sleeper.send(b"body")
    route = box.receive()[:-1]
    large = b"x" * (CLIENT_REPLY_BYTES + 1)
    assert box.mail.send(route, large, repeatable=True)
    assert not box.mail.send(route, large, repeatable=True)
    assert len(sleeper.frames()[-1]) == len(large)


def test_the_bytes_of_small_replies_are_counted(box: Box, sleeper: Peer) -> None:
    """Replies that are far fewer than a pipe takes have to wait when their bytes exceed the budget."""
    sleeper.send(b"body")
    route = box.receive()[:-1]
    small = b"x" * (TRACKED_BYTES_MIN - 1)
    sent = 0
    while not box.mail.pending_replies:
        box.mail.send(route, small)
        sent += 1
    assert sent < CLIENT_REPLY_BYTES // len(small) + 20 < REPLIES_IN_PIPE_MAX


def test_clients_that_read_nothing_are_cut_off_for_others(box: Box) -> None:
    """The budget of all is bounded; when it is full, those who keep others waiting lose their connection."""
    number = REPLY_BYTES // CLIENT_REPLY_BYTES + 1
    with several(box.endpoint, number, queue=1) as idle, Peer(box.endpoint) as other:
        for peer in idle:
            peer.send(b"body")
            fill_with_repeatable(box, box.receive()[:-1], b"x" * MIB)
            assert box.mail.in_flight.bytes <= REPLY_BYTES
        other.send(b"body")
        route = box.receive()[:-1]

        def is_sent() -> bool:
            box.mail.retry()
            box.mail.cut_stalled()
            assert box.mail.receive() is None
            return route[0] not in box.mail.outboxes and box.mail.send(route, b"y" * MIB, repeatable=True)

        wait_until(is_sent)
        assert other.frames()[-1] == b"y" * MIB


@contextmanager
def named(endpoint: str, name: bytes) -> Iterator[Peer]:
    """A client that chooses its routing id, and reads only what the test reads."""
    with Peer(endpoint, queue=1) as peer:
        peer.socket.disconnect(endpoint)
        peer.socket.setsockopt(zmq.ROUTING_ID, name)
        peer.socket.connect(endpoint)
        yield peer


def test_a_second_connection_with_a_routing_id_takes_it_over(box: Box) -> None:
    """It is served, and gets nothing of what the first one has left; that is reported as gone."""
    with named(box.endpoint, b"same") as first:
        first.send(b"of the first")
        route = box.receive()[:-1]
        box.fill(route)
        with named(box.endpoint, b"same") as second:
            second.send(b"of the second")
            assert box.receive() == [*route, b"of the second"]
            assert box.events == [("pause", route[0]), ("gone", route[0])]
            assert box.mail.pending_replies == 0
            box.mail.send(route, b"to the second")
            assert second.frames() == [b"to the second"]
            assert second.silent(50)
            second.send(b"again")
            assert box.receive() == [*route, b"again"]
    assert box.events == [("pause", route[0]), ("gone", route[0])]


def test_a_client_that_was_cut_off_can_be_cut_off_again(tmp_path: Path) -> None:
    """It has reconnected with the same routing id, and again reads nothing."""
    large = b"y" * (CLIENT_REPLY_BYTES // 2)
    box = Box(tmp_path, reply_bytes=CLIENT_REPLY_BYTES)
    with Peer(box.endpoint) as other:
        for _ in range(3):
            with named(box.endpoint, b"same") as idle:
                idle.send(b"body")
                box.mail.retry()  # as in each turn of the loop: what was written is counted off
                fill_with_repeatable(box, box.receive()[:-1], b"x" * MIB)
                other.send(b"body")
                route = box.receive()[:-1]
                assert not box.mail.send(route, large, repeatable=True)

                def is_sent(route: list[bytes]) -> bool:
                    box.mail.retry()
                    box.mail.cut_stalled()
                    box.handshakes.answer()
                    box.mail.receive()
                    return route[0] not in box.mail.outboxes and box.mail.send(route, large, repeatable=True)

                wait_until(partial(is_sent, route), seconds=10)
                assert other.frames()[-1] == large
    box.close()


def test_a_client_that_waits_for_others_is_not_given_up(tmp_path: Path) -> None:
    """However long those that fill the budget of all read nothing."""
    box = Box(tmp_path, stall_ms=50, reply_bytes=CLIENT_REPLY_BYTES)
    large = b"y" * (CLIENT_REPLY_BYTES // 2)
    with Peer(box.endpoint) as other:
        with Peer(box.endpoint, queue=1) as idle:
            idle.send(b"body")
            [idle_id, _] = box.receive()
            fill_with_repeatable(box, [idle_id], b"x" * MIB)
            other.send(b"body")
            [other_id, _] = box.receive()
            assert not box.mail.send([other_id], large, repeatable=True)
            until = time.monotonic() + 0.5

            def is_over() -> bool:
                box.mail.retry()
                return time.monotonic() > until

            wait_until(is_over)
            assert ("gone", other_id) not in box.events

        def is_resumed() -> bool:
            box.mail.receive()
            box.mail.retry()
            return ("resume", other_id) in box.events

        wait_until(is_resumed)
    box.close()


def test_a_slow_tcp_client_is_not_cut_off(tmp_path: Path) -> None:
    """While it reads a reply in parts, for seconds, although others wait for the room."""
    large = b"x" * (32 * MIB)
    box = Box(tmp_path, reply_bytes=len(large))
    endpoint = box.mail.bind("tcp://127.0.0.1:*")
    with Peer(endpoint) as other, closing(connected(endpoint)) as slow:

        def is_let_in() -> bool:
            box.handshakes.answer()
            return is_admitted(slow)

        wait_until(is_let_in)
        slow.sendall(b"\x00\x04body")
        [slow_id, _] = box.receive()
        assert box.mail.send([slow_id], large, repeatable=True)
        other.send(b"body")
        [other_id, _] = box.receive()
        assert not box.mail.send([other_id], large, repeatable=True)
        until = time.monotonic() + 3
        got, next_at = 0, 0.0
        while time.monotonic() < until:
            box.mail.retry()
            box.mail.cut_stalled()
            if time.monotonic() >= next_at:
                next_at = time.monotonic() + 0.1
                part = len(slow.recv(MIB // 4))
                assert part
                got += part
        assert got < len(large)
        assert box.mail.pending_replies == 1
        assert not box.mail.peers[slow_id].is_cut

        def is_cut_off() -> bool:
            box.mail.retry()
            box.mail.cut_stalled()
            return box.mail.peers[slow_id].is_cut

        wait_until(is_cut_off, seconds=5)
    box.close()


def test_that_all_is_full_is_not_forgotten_for_a_smaller_reply() -> None:
    """One that has room does not hide that another has none; who retries begins anew."""
    in_flight = InFlight(client_bytes=100 * MIB, all_bytes=100 * MIB)
    in_flight.add(InFlightPeer(-1), zmq.MessageTracker(threading.Event()), 90 * MIB)
    assert not in_flight.has_room(InFlightPeer(-1), 50 * MIB)
    assert in_flight.has_room(InFlightPeer(-1), 5 * MIB)
    assert in_flight.is_full


def test_the_bytes_that_no_tracker_covers_are_bounded_for_all_clients() -> None:
    """A few clients may have a mebibyte each; many share 16 MiB, and however many there are, each has 64 KiB."""
    in_flight = InFlight(client_bytes=MIB, all_bytes=MIB)
    for clients, each in ((1, MIB), (16, MIB), (64, MIB // 4), (256, MIB // 16), (10_000, MIB // 16)):
        in_flight.share(clients)
        assert in_flight.tracked_bytes == each


def test_a_reply_to_an_unknown_client_is_dropped(box: Box) -> None:
    """An unknown routing id is reported as gone."""
    box.mail.send([b"\0nobody"], b"reply")
    assert box.events == [("gone", b"\0nobody")]


def test_what_a_lost_connection_has_left_is_dropped(box: Box) -> None:
    """Once a reply has found its client gone, requests that wait are dropped; later ones would overtake them."""
    with closing(connected(box.endpoint)) as connection:
        wait_until(partial(box.admits, connection))
        connection.sendall(b"\x00\x01x" * 200)  # all are in the pipe when the end of the stream is read
        client = box.receive()[0]
        connection.shutdown(socket.SHUT_RDWR)

        def is_gone() -> bool:
            box.mail.send([client], b"reply")
            return bool(box.events)

        wait_until(is_gone)
        assert box.events == [("gone", client)]
        assert box.mail.receive() == []


def test_a_live_address_is_refused_and_a_stale_one_replaced(tmp_path: Path, box: Box) -> None:
    """A socket path with a listener is never taken over; one left by a dead process is."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    gate = Gate(AccessFiles(tmp_path))
    handshakes = Handshakes(context, gate)
    second = RouterSocket(
        context,
        gate,
        handshakes,
        stall_ms=1,
        client_reply_bytes=1,
        reply_bytes=1,
        on_pause=ignored,
        on_resume=ignored,
        on_gone=ignored,
    )
    with pytest.raises(BadSettings, match="another process listens"):
        second.bind(box.endpoint)
    second.close()
    handshakes.socket.close()
    context.term()
    box.close()
    path = Path(box.endpoint.removeprefix("ipc://"))
    assert path.is_socket() or not path.exists()
    again = Box(tmp_path)
    with Peer(again.endpoint) as peer:
        peer.send(b"body")
        assert again.receive()[-1] == b"body"
    again.close()


def test_ipv4_loopback_is_announced_as_ipv4(box: Box) -> None:
    """An IPv4 address is not spelled as an IPv6 one, which clients without IPv6 could not use."""
    assert box.mail.bind("tcp://127.0.0.1:*").startswith("tcp://127.0.0.1:")
    assert box.mail.bind("tcp://localhost:*").startswith("tcp://127.0.0.1:")


@contextmanager
def filled_below(descriptor: int) -> Iterator[None]:
    """Have all lower descriptors in use, so that this one is the next to be used once it is free."""
    duplicates = [os.dup(descriptor)]
    while duplicates[-1] < descriptor:
        duplicates.append(os.dup(descriptor))
    os.close(duplicates.pop())
    for duplicate in duplicates:  # of the connection, which would stay open
        os.dup2(0, duplicate)
    yield
    for duplicate in duplicates:
        os.close(duplicate)


def test_what_a_closed_connection_has_left_is_not_taken_for_anothers(box: Box) -> None:
    """Its messages may be received after its descriptor was given to another connection, whose figures stay."""
    gone, other = connected(box.endpoint), socket.socket(socket.AF_UNIX)
    wait_until(partial(box.admits, gone))
    gone.sendall(b"\x00\x01x" * 200)  # more than are received before others arrive
    left = box.receive()[0]
    descriptor = box.mail.peers[left].descriptor
    with filled_below(descriptor), closing(gone), closing(other):
        gone.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: not inode_of(descriptor))
        other.connect(box.endpoint.removeprefix("ipc://"))
        greet(other)
        wait_until(partial(box.admits, other))
        other.sendall(b"\x00\x01x" * 4)
        clients = [box.receive()[0]]
        while clients.count(left) == len(clients):
            clients.append(box.receive()[0])
        found = box.mail.peers[client := clients[-1]]
        assert found.descriptor == descriptor
        while len(clients) < 203:
            clients.append(box.receive()[0])
            assert box.mail.peers[client] is found
