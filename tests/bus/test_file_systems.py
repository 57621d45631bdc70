"""File systems that cannot hold an SQLite database: the daemon names the missing ability when it starts.

A network file system is simulated by a small library that makes system calls fail as they do there.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>

static int lock_command(int command) { return command == F_SETLK || command == F_SETLKW; }

static int any_fcntl(const char *name, int fd, int command, void *argument) {
    if (getenv("SHIM_NO_LOCKS") && lock_command(command)) { errno = ENOLCK; return -1; }
    int (*real)(int, int, void *) = dlsym(RTLD_NEXT, name);
    return real(fd, command, argument);
}

int fcntl(int fd, int command, ...) {
    va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest);
    return any_fcntl("fcntl", fd, command, argument);
}

int fcntl64(int fd, int command, ...) {
    va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest);
    return any_fcntl("fcntl64", fd, command, argument);
}

static void *any_mmap(const char *name, void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    if (getenv("SHIM_NO_MMAP") && (flags & MAP_SHARED) && fd >= 0) { errno = ENODEV; return MAP_FAILED; }
    void *(*real)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, name);
    return real(at, size, protection, flags, fd, offset);
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    return any_mmap("mmap", at, size, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    return any_mmap("mmap64", at, size, protection, flags, fd, offset);
}
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="the simulation needs Linux and a C compiler"
)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that is preloaded."""
    directory = tmp_path_factory.mktemp("shim")
    source, library = directory / "shim.c", directory / "shim.so"
    source.write_text(SHIM, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def start(data_dir: Path, shim: Path, *missing: str) -> "subprocess.CompletedProcess[str]":
    """Start a daemon where these abilities are missing; it must exit by itself."""
    environment = {**os.environ, "LD_PRELOAD": str(shim), **dict.fromkeys(missing, "1")}
    command = [sys.executable, "-m", "backscroll.bus", "--data-dir", str(data_dir), "--exit-with-parent"]
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_simulation_with_all_abilities_changes_nothing(shim: Path, tmp_path: Path) -> None:
    """The daemon starts, and stops because its standard input ends."""
    done = start(tmp_path / "data", shim)
    assert done.returncode == 0, done.stderr
    assert '"event": "ready"' in done.stdout


@pytest.mark.parametrize(
    ("missing", "words"),
    [("SHIM_NO_LOCKS", "file locks do not work there"), ("SHIM_NO_MMAP", "cannot be mapped into shared memory there")],
)
def test_a_network_file_system_is_named_at_start(missing: str, words: str, shim: Path, tmp_path: Path) -> None:
    """Exit code 4, with what is missing and what to do, instead of "locked by another process" or "disk I/O error"."""
    done = start(tmp_path / "data", shim, missing)
    assert done.returncode == 4
    assert words in done.stderr
    assert "Name a directory on a local disk" in done.stderr
    assert str(tmp_path / "data") in done.stderr
    assert not (tmp_path / "data" / "default.db").exists()
