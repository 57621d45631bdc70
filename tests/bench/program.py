"""A program in another language that does the work of the benchmark, controlled by its standard input."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.work import Page, Work


class Program:
    """Orders and answers are lines of JSON. `given` is the file in which it gets the work."""

    def __init__(self, command: Sequence[str], given: Path) -> None:
        self._given, self._name = given, command[0]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")

    def read_back(self, work: Work) -> list[Page]:
        self.load(work)
        pages: list[Page] = self.order(do="readBack")["pages"]
        return pages

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def load(self, work: Work) -> None:
        self._given.write_bytes(msgspec.json.encode(work._asdict()))
        self.order(do="load", path=str(self._given))

    def order(self, **order: Any) -> dict[str, Any]:
        """Have something done; raises `RuntimeError` if the program has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} has ended; its standard error says why")
        answer: dict[str, Any] = json.loads(line)
        return answer
