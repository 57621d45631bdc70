"""Where a daemon and its clients meet: the data directory, and the file in it that names the endpoints."""

import os
from pathlib import Path

import platformdirs

ENDPOINT_FILE = "endpoint.json"
"""Written into the data directory by a daemon that is ready: the same JSON object as its ready line."""


def default_data_dir() -> Path:
    """`BACKSCROLL_DATA_DIR`, or else the usual place of this system's user."""
    named = os.environ.get("BACKSCROLL_DATA_DIR")
    return Path(named).expanduser() if named else platformdirs.user_data_path("backscroll", appauthor=False)
