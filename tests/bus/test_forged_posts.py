"""What web pages can send: an HTTP POST to the tcp endpoint is never read as requests, and harms no other client.

A page may POST `text/plain` to any address without asking. Its body can be frames of ZMTP/1.0, in which a peer sends no
greeting: a sled of small frames, in which the headers' accidental lengths come to an end, and then a request.
"""

import base64
import json
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import GetLog, GetUserByPubkey, Ping
from tests.support.peers import is_alive
from tests.support.requests import fresh_id

StartDaemon = Callable[..., DaemonProcess]
SEED = 20261125
POSTS, POSTS_LONG = 60, 1_000
SLED = 2  # as a length, as flags (no more frames) and as a byte of a body: a frame at any alignment
SLEDS = 12
READ_SECONDS = 2.0
CHROMIUM_PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGE_POSTS = 60

CHROMIUM = """\
POST /{path} HTTP/1.1\r
Host: 127.0.0.1:{port}\r
Connection: keep-alive\r
Content-Length: {length}\r
sec-ch-ua-platform: "Linux"\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r
sec-ch-ua: "Chromium";v="142", "Not_A Brand";v="99"\r
Content-Type: text/plain\r
sec-ch-ua-mobile: ?0\r
Accept: */*\r
Origin: http://127.0.0.1:8000\r
Sec-Fetch-Site: same-site\r
Sec-Fetch-Mode: no-cors\r
Sec-Fetch-Dest: empty\r
Referer: http://127.0.0.1:8000/\r
Accept-Encoding: gzip, deflate, br, zstd\r
Accept-Language: en-US,en;q=0.9\r
\r
"""
FIREFOX = """\
POST /{path} HTTP/1.1\r
Host: 127.0.0.1:{port}\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r
Accept: */*\r
Accept-Language: en-US,en;q=0.5\r
Accept-Encoding: gzip, deflate, br, zstd\r
Referer: http://127.0.0.1:8000/\r
Content-Type: text/plain;charset=UTF-8\r
Content-Length: {length}\r
Origin: http://127.0.0.1:8000\r
Connection: keep-alive\r
Sec-Fetch-Dest: empty\r
Sec-Fetch-Mode: no-cors\r
Sec-Fetch-Site: same-site\r
Priority: u=4\r
\r
"""
CURL = """\
POST /{path} HTTP/1.1\r
Host: 127.0.0.1:{port}\r
User-Agent: curl/8.14.1\r
Accept: */*\r
Content-Type: text/plain\r
Content-Length: {length}\r
\r
"""
HEADERS = {"chromium": CHROMIUM, "firefox": FIREFOX, "curl": CURL}


def frame(content: bytes) -> bytes:
    """The last frame of a message in ZMTP/1.0: length, flags, bytes. No flag is 0: a length must not be."""
    length = len(content) + 1
    return (bytes([length]) if length < 255 else b"\xff" + length.to_bytes(8, "big")) + bytes([SLED]) + content


def forged_body(pubkey: str, token: str | None = None) -> bytes:
    """A request after sleds of many lengths, for it must begin where one of their frames ends."""
    request = {"id": fresh_id(), "type": "create-user", "payload": {"pubkey": pubkey}}
    if token is not None:
        request["auth"] = token
    request_frame = frame(json.dumps(request).encode())
    lengths = random.Random(pubkey).choices(range(300, 330), k=SLEDS)
    return b"".join(bytes([SLED]) * length + request_frame for length in lengths)


def post(port: int, headers: str, path: str, content: bytes) -> None:
    """Send a POST and read until the daemon closes the connection, or has nothing to say."""
    head = headers.format(path=path, port=port, length=len(content))
    with closing(socket.create_connection(("127.0.0.1", port))) as connection, suppress(ConnectionError, TimeoutError):
        connection.settimeout(READ_SECONDS)
        connection.sendall(head.encode() + content)
        while connection.recv(65536):
            pass


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> DaemonProcess:
    return start_daemon("--endpoint", "tcp://127.0.0.1:*")


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[Client]:
    with Client(data_dir=daemon.data_dir) as client:
        yield client


@pytest.mark.parametrize("browser", HEADERS)
def test_a_forged_post_is_not_executed(daemon: DaemonProcess, client: Client, browser: str, long: bool) -> None:
    """With any path none is executed, not even with the right token, and a client is served between any two."""
    draw = random.Random(f"{SEED} {browser}")
    port = int(daemon.endpoint.rpartition(":")[2])
    number = POSTS_LONG if long else POSTS
    for at in range(number):
        path = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz0123456789/?=&-", k=draw.randint(1, 200)))
        post(port, HEADERS[browser], path, forged_body(f"{browser} {at}", draw.choice((None, daemon.token))))
        assert client.ask(Ping()).pong
    executed = [at for at in range(number) if client.ask(GetUserByPubkey(f"{browser} {at}")) is not None]
    print(f"{browser}: {len(executed)} of {number} executed")  # noqa: T201  # shown with -s, and when a test fails
    assert executed == []
    assert client.ask(GetLog()).last_seq == 0
    assert is_alive(daemon.process.pid)


PAGE = """\
<!doctype html><title>running</title><script>
const port = new URLSearchParams(location.search).get("port");
const body = Uint8Array.from(atob(BODY), (each) => each.charCodeAt(0));
const after = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const post = (path) => fetch(`http://127.0.0.1:${port}/${path}`, {
  method: "POST", mode: "no-cors", headers: { "Content-Type": "text/plain" }, body, signal: AbortSignal.timeout(500),
}).catch(() => 0);
const talk = () => new Promise((resolve) => {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/`);
  socket.onopen = () => socket.send(body);
  socket.onclose = resolve;
  setTimeout(resolve, 500);
});
(async () => {
  for (let at = 0; at < POSTS; at += 1) await post("x".repeat(at));
  for (let at = 0; at < 5; at += 1) await talk();
  await fetch("/done", { method: "POST" });
})();
</script>
"""


@pytest.mark.skipif(CHROMIUM_PROGRAM is None, reason="Chromium is not installed")
def test_a_page_in_chromium_is_not_executed(daemon: DaemonProcess, client: Client, tmp_path: Path) -> None:
    """Neither by fetch nor by WebSocket, from another origin on this machine."""
    done = threading.Event()
    content = base64.b64encode(forged_body("chromium itself", daemon.token)).decode()
    page = PAGE.replace("BODY", json.dumps(content)).replace("POSTS", str(PAGE_POSTS))

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(page.encode())

        def do_POST(self) -> None:
            self._reply(b"")
            done.set()

        def _reply(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        threading.Thread(target=site.serve_forever).start()
        port = daemon.endpoint.rpartition(":")[2]
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        command = [str(CHROMIUM_PROGRAM), *flags, f"http://127.0.0.1:{site.server_port}/?port={port}"]
        with (tmp_path / "chromium.log").open("w") as log:
            browser = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            assert done.wait(120), (tmp_path / "chromium.log").read_text()
        finally:
            browser.terminate()
            browser.wait()
            site.shutdown()
    assert client.ask(GetUserByPubkey("chromium itself")) is None
    assert client.ask(GetLog()).last_seq == 0
