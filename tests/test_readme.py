"""README.md: its examples run as they stand, and its table of operations is the registry's."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from backscroll.clients.process import DaemonProcess

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of README in one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs(start_daemon: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    """Pasted into a file, it saves a message with a reaction and prints them."""
    start_daemon(data_dir=tmp_path / "data")
    script = tmp_path / "example.py"
    script.write_text(blocks("python")[0], encoding="utf-8")
    command = [sys.executable, "-X", "utf8", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "ada Hello! ['👋']\n"


def test_the_javascript_example_is_the_one_that_is_run() -> None:
    """It is the script that test_node.py runs, word for word."""
    assert blocks("js") == [(ROOT / "tests" / "node" / "example.mjs").read_text(encoding="utf-8")]


def test_the_two_commands_are_there() -> None:
    """The demo and the tests each start from nothing but Python."""
    assert "pip install uv && uv run backscroll demo\n" in blocks("sh")
    assert "pip install uv && uv run pytest\n" in blocks("sh")
