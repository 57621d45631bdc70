"""What tests of the command line share."""

from collections.abc import Callable

import pytest

from backscroll.clients.command_line.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`backscroll …` in this process: exit code, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = int(str(end.code or 0))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
