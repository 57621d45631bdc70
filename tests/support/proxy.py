"""A proxy between a client and a daemon that treats connections badly, at moments that a seed decides.

    python -m tests.support.proxy LISTEN TARGET --seed N [--faults 20]

LISTEN and TARGET are `ipc://PATH` or `tcp://HOST:PORT`; port 0 is any free one. It prints one line, `{"endpoint": …}`,
and runs until its standard input ends; then it prints what it did.

It drops, adds and reorders nothing inside a connection: what arrives is always the beginning of what was sent. Each
direction of each connection has a fault of its own after a number of bytes: a *cut*, after exactly so many; a *delay*;
or a *black hole*, after which nothing more is forwarded, in either direction, until the connection is cut a moment
later. After so many faults, the later connections are left alone, so that whatever uses it comes to an end.
"""

import argparse
import json
import random
import socket
import struct
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Literal, NamedTuple, Self

FAULTS = 20
HOLE_SECONDS = (0.005, 0.15)
DELAY_SECONDS = (0.001, 0.03)
LARGEST_BYTES = 200_000
CHUNK_BYTES = 65_536
CONNECT_SECONDS = 5

Kind = Literal["cut", "delay", "black hole"]
KINDS: tuple[Kind, ...] = ("cut", "delay", "black hole")


class Fault(NamedTuple):
    """What happens in one direction after so many bytes. `reset` is how a cut looks: with RST instead of FIN (tcp)."""

    kind: Kind
    after: int
    seconds: float
    reset: bool


def drawn_fault(draw: random.Random) -> Fault:
    """Bytes of every order of magnitude are equally frequent, so also those of the handshake."""
    [kind] = draw.choices(KINDS, (5, 3, 2))
    seconds = draw.uniform(*(HOLE_SECONDS if kind == "black hole" else DELAY_SECONDS))
    return Fault(kind, int(LARGEST_BYTES ** draw.random()), seconds, draw.random() < 0.5)


class Proxy:
    """Forwards connections in threads until the end of the `with` block; `happened` counts the faults by their kind."""

    def __init__(self, listen: str, target: str, *, seed: int, faults: int = FAULTS) -> None:
        self.happened: Counter[str] = Counter()
        self._target = target
        self._seed = seed
        self._faults = faults
        self._listener = _socket_for(listen)
        if listen.startswith("tcp://"):
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(_address_of(listen))
        self._listener.listen()
        port = self._listener.getsockname()[1] if listen.startswith("tcp://") else None
        self.endpoint = listen if port is None else f"{listen.rpartition(':')[0]}:{port}"
        self._lock = threading.Lock()
        self._open: set[_Pair] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        if self.endpoint.startswith("ipc://"):
            Path(self.endpoint.removeprefix("ipc://")).unlink(missing_ok=True)
        with self._lock:
            pairs = list(self._open)
        for pair in pairs:
            pair.cut()
            pair.join()

    def allows_fault(self, kind: str) -> bool:
        """Note a fault that is about to happen; returns False if there were enough."""
        with self._lock:
            if self.happened.total() >= self._faults:
                return False
            self.happened[kind] += 1
            return True

    def drop(self, pair: "_Pair") -> None:
        """A connection has ended."""
        with self._lock:
            self._open.discard(pair)

    def _accept(self) -> None:
        number = 0
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            number += 1
            pair = self._connected(client, number)
            if pair is not None:
                with self._lock:
                    self._open.add(pair)
                pair.start()

    def _connected(self, client: socket.socket, number: int) -> "_Pair | None":
        """A connection to the target for one from a client, which is closed if there is none."""
        daemon = _socket_for(self._target)
        daemon.settimeout(CONNECT_SECONDS)
        try:
            daemon.connect(_address_of(self._target))
        except OSError:
            daemon.close()
            client.close()
            return None
        daemon.settimeout(None)
        faults = [drawn_fault(random.Random(f"{self._seed} {number} {way}")) for way in ("up", "down")]
        return _Pair(self, client, daemon, faults)


class _Pair:
    """A connection from a client and the one to the daemon, with a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, daemon: socket.socket, faults: list[Fault]) -> None:
        self._proxy = proxy
        self._sockets = client, daemon
        self._is_cut = threading.Event()
        self._hole = threading.Event()
        self._running = 2
        self._lock = threading.Lock()
        ways = ((client, daemon, faults[0]), (daemon, client, faults[1]))
        self._threads = [threading.Thread(target=self._forward, args=way, name="proxied") for way in ways]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def cut(self, *, reset: bool = False) -> None:
        """End both connections now."""
        self._is_cut.set()
        for each in self._sockets:
            try:
                if reset and each.family == socket.AF_INET:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it has ended already

    def _forward(self, source: socket.socket, sink: socket.socket, fault: Fault) -> None:
        forwarded, pending = 0, True
        try:
            while data := source.recv(CHUNK_BYTES):
                if pending and forwarded + len(data) >= fault.after:
                    pending = False
                    head, data = data[: fault.after - forwarded], data[fault.after - forwarded :]
                    self._send(sink, head)
                    if self._proxy.allows_fault(fault.kind):
                        self._do(fault)
                self._send(sink, data)
                forwarded += len(data)
        except OSError:
            pass
        finally:
            self.cut()  # the end of one direction is the end of both, as when a process ends
            self._end()

    def _send(self, sink: socket.socket, data: bytes) -> None:
        """Forward bytes, unless the other direction fell into a black hole."""
        while self._hole.is_set() and not self._is_cut.is_set():
            self._is_cut.wait()
        if data:
            sink.sendall(data)

    def _do(self, fault: Fault) -> None:
        if fault.kind == "black hole":
            self._hole.set()
        if fault.kind != "cut":
            self._is_cut.wait(fault.seconds)
        if fault.kind != "delay":
            self.cut(reset=fault.reset)

    def _end(self) -> None:
        with self._lock:
            self._running -= 1
            if self._running:
                return
        for each in self._sockets:
            each.close()
        self._proxy.drop(self)


def _socket_for(endpoint: str) -> socket.socket:
    """A socket of the kind of an endpoint."""
    if not endpoint.startswith(("ipc://", "tcp://")):
        raise ValueError(f"{endpoint!r} is not an address such as ipc:///PATH or tcp://127.0.0.1:0")
    return socket.socket(socket.AF_UNIX if endpoint.startswith("ipc://") else socket.AF_INET)


def _address_of(endpoint: str) -> str | tuple[str, int]:
    scheme, _, rest = endpoint.partition("://")
    host, _, port = rest.rpartition(":")
    return rest if scheme == "ipc" else (host, int(port))


def main() -> int:
    """Run a proxy and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.proxy", description=__doc__.split("\n")[0])
    parser.add_argument("listen", help="ipc://PATH or tcp://HOST:PORT")
    parser.add_argument("target", help="the daemon's endpoint")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--faults", type=int, default=FAULTS, help="after so many, connections are left alone")
    options = parser.parse_args()
    with Proxy(options.listen, options.target, seed=options.seed, faults=options.faults) as proxy:
        sys.stdout.write(json.dumps({"endpoint": proxy.endpoint}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
    sys.stdout.write(json.dumps({"faults": dict(proxy.happened)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
