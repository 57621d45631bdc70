"""Check the built sidecar as its users have it: on a system without Python, and in a Node application.

`uv run python clients/sidecar/check_sidecar.py`, after `build_sidecar.py`. The system is a root directory that holds
glibc and the unpacked tar file, mounted read-only, and nothing else; to enter it takes root, or user namespaces. The
application is a folder into which npm installs the packed packages without a network; it runs with nothing on its PATH.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from build_sidecar import CLIENT_MANIFEST, NPM_NAME, ROOT, files_in, libraries_in, object_headers, version

BUILT = ROOT / "dist" / "sidecar"
WAIT_SECONDS = 30
RUN_SECONDS = 300
GLIBC = {
    *("ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6"),
    *("libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1"),  # empty since glibc 2.34
}
ENTER = """
mount --rbind /proc "$0/proc"
mount --bind "$0/opt/backscroll" "$0/opt/backscroll"
mount -o remount,bind,ro "$0/opt/backscroll"
if touch "$0/opt/backscroll/new" 2>/dev/null; then echo "the sidecar's directory can be written" >&2; exit 1; fi
exec env -i "$(command -v chroot)" "$0" /usr/bin/backscroll "$@"
"""
DATA = ("--data-dir", "/data/größe")
MESSAGE = {"id": "m1", "roomId": "home", "senderId": "ada", "content": "Good morning 👋", "timestamp": 1767225600000}
APPLICATION = """\
import { open } from "backscroll";
const client = await open("data");
if (process.argv[2] === "save") {
  const message = { id: "m1", roomId: "home", senderId: "ada", content: "Good morning 👋", timestamp: Date.now() };
  await client.saveMessage({ message });
}
const { messages } = await client.getMessagePage({ roomId: "home" });
for (const { senderId, content } of messages) console.log(`${senderId}: ${content}`);
client.close();
"""


def main() -> None:
    """Check what `build_sidecar.py` wrote, and print what was measured."""
    with tempfile.TemporaryDirectory(prefix="backscroll-check-") as temporary:
        check_bare_root(Path(temporary, "root"))
        check_application(Path(temporary))


class BareRoot:
    """A root directory with glibc, the unpacked tar file, and places for data; without Python, a shell, or a PATH."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for place in ("proc", "dev", "data", "tmp", "lib64", "opt/backscroll", "usr/bin"):
            (root / place).mkdir(parents=True)
        (root / "dev" / "null").touch()  # a file in its place, since only root can make a device
        [archive] = BUILT.glob("*.tar.gz")
        run("tar", "--extract", "--file", str(archive), "--strip-components=1", "--directory", f"{root}/opt/backscroll")
        (root / "usr" / "bin" / "backscroll").symlink_to("/opt/backscroll/backscroll")
        self._add_glibc()
        as_root = () if os.geteuid() == 0 else ("--user", "--map-root-user")
        self.enter = ("unshare", *as_root, "--mount", "sh", "-ec", ENTER, str(root))

    def _add_glibc(self) -> None:
        """Copy glibc from this system; the sidecar must need nothing else of it."""
        libraries = libraries_in(self.root / "opt" / "backscroll")
        words = [line.split() for line in object_headers(libraries).splitlines()]
        needed = {each[1] for each in words if each[:1] == ["NEEDED"]} - {file.name for file in libraries}
        assert needed <= GLIBC, f"the sidecar needs more of the system than glibc: {needed - GLIBC}"
        for line in run("ldconfig", "-p").splitlines():
            name, _, path = line.strip().partition(" => ")
            if name.split(" ")[0] in GLIBC and "x86-64" in name:
                copy = self.root / path.lstrip("/")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
                shutil.copy(path, self.root / "lib64")  # where programs look for ld-linux-x86-64.so.2

    def output(self, *words: str) -> str:
        """What a command of the sidecar prints."""
        return run(*self.enter, *words)

    def call(self, operation: str, payload: dict[str, Any]) -> Any:
        return json.loads(self.output("call", operation, json.dumps(payload, ensure_ascii=False), *DATA))

    @contextmanager
    def daemon(self, *flags: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any], float]]:
        """A daemon, its ready line, and after how many seconds it was ready; it is killed if it does not end before."""
        begun = time.monotonic()
        words = [*self.enter, "serve", *DATA, "--log-level", "warning", *flags]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=administrator())
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline() or "null")
            assert ready is not None, f"the daemon ended with exit code {process.wait()}; what it said is above"
            yield process, ready, time.monotonic() - begun
        finally:
            process.kill()
            process.wait(WAIT_SECONDS)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def check_bare_root(directory: Path) -> None:
    """Serve, save, read, be killed, start again, and stop, where there is nothing but glibc."""
    root = BareRoot(directory)
    flags = ("--endpoint", "ipc:///data/socket", "--endpoint", "tcp://127.0.0.1:*")
    with root.daemon(*flags) as (process, ready, seconds):
        assert ready["version"] == version(), ready
        assert ready["pid"] == process.pid, f"{ready}: a signal to {process.pid} would not reach the daemon"
        root.call("save-message", {"message": MESSAGE})
        process.kill()
        process.wait(WAIT_SECONDS)
    with root.daemon(*flags) as (process, _, _):
        [message] = root.call("get-messages", {"roomId": "home"})
        assert message.items() >= MESSAGE.items(), message
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_SECONDS) == 0
    with root.daemon("--exit-with-parent") as (process, _, _):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(WAIT_SECONDS) == 0
    assert root.output("--version").strip() == version()
    for expected, words in (
        ("Good morning", ("demo",)),  # which starts a daemon of its own
        ('"m1"', ("log", "export", *DATA)),
        ("secretKey", ("keys", "create", "laptop", *DATA)),
        ("nothing is damaged", ("check", *DATA)),  # by a process that is this program again
        ("everything of 1 scope", ("backup", "create", "/data/backups", *DATA)),
        ("restored up to command 1", ("restore", "/data/backups", "--into", "/data/again")),
        ("nothing was changed", ("repair", "--data-dir", "/data/again")),
        ("save-message", ("describe",)),
        ("complete", ("completion", "bash")),
    ):
        assert expected in root.output(*words), f"backscroll {' '.join(words)} does not print {expected!r}"
    who = "root" if os.geteuid() == 0 else "a user, in a user namespace"
    sys.stdout.write(f"on a system without Python, as {who}: ready after {seconds:.2f} s\n")


def check_application(directory: Path) -> None:
    """Install both packages into an empty folder, without a network; save a message, and read it after a kill."""
    application, packed, nothing = (directory / name for name in ("application", "packed", "nothing"))
    for each in (application, packed, nothing):
        each.mkdir()
    offline = ("--offline", "--no-audit", "--no-fund", "--cache", f"{directory}/cache")
    for package in (CLIENT_MANIFEST.parent, BUILT / "npm"):
        run("npm", "pack", "--silent", str(package), "--pack-destination", str(packed))
    tarballs = sorted(packed.glob("*.tgz"))
    run("npm", "install", *offline, *map(str, tarballs), directory=application)
    (application / "application.mjs").write_text(APPLICATION, encoding="utf-8")
    assert run("npx", "--offline", "backscroll", "--version", directory=application).strip() == version()
    node = shutil.which("node") or sys.exit("node is needed")
    for words in (("save",), ()):
        printed = run(node, "application.mjs", *words, directory=application, path=str(nothing))
        pid = json.loads((application / "data" / "endpoint.json").read_text(encoding="utf-8"))["pid"]
        program = Path(f"/proc/{pid}/exe").readlink()
        kill(pid)
        assert printed == "ada: Good morning 👋\n", printed
        assert program == application / "node_modules" / NPM_NAME / "backscroll" / "backscroll", program
    files = list(files_in(application / "node_modules"))
    size = sum(file.stat().st_size for file in files)
    downloaded = sum(file.stat().st_size for file in tarballs)
    sys.stdout.write(
        f"npm install brings {len(files)} files, {size / 1e6:.1f} MB, from {downloaded / 1e6:.1f} MB of packages\n"
    )


def run(*words: str, directory: Path | None = None, path: str | None = None) -> str:
    """What a program prints; its errors are shown."""
    environment = administrator() if path is None else {"PATH": path}
    return subprocess.run(
        words, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=RUN_SECONDS
    ).stdout


def administrator() -> dict[str, str]:
    """This process's environment, with the programs of administrators on the PATH."""
    return os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


def kill(pid: int) -> None:
    """Kill a process that is not a child of this one, and wait until it has ended."""
    deadline = time.monotonic() + WAIT_SECONDS
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


if __name__ == "__main__":
    main()
