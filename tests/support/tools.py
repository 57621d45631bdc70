"""Programs that some tests need and not every machine has, such as `node`."""

import os
import shutil
from typing import NoReturn

import pytest


def tool_path(name: str) -> str:
    """The path of a program; the test is skipped without it, or fails where `CI` is set."""
    return shutil.which(name) or cannot_run(f"{name} is not installed")


def cannot_run(reason: str) -> NoReturn:
    """Skip the test, or fail it where `CI` is set, so that CI never leaves it out silently."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
