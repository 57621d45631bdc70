"""How clients find a daemon: the default data directory, and the file in it that contains the endpoints."""

import os
from pathlib import Path

import platformdirs

ENDPOINT_FILE = "endpoint.json"
"""A ready daemon writes this file into its data directory: the same JSON object as its ready line."""

TOKEN_VARIABLE = "BACKSCROLL_TOKEN"
"""The environment variable with the token that clients send over tcp."""

KEYS_VARIABLE = "BACKSCROLL_KEYS"
"""The environment variable that names a client's file with the keys for a `curve://` endpoint."""


def default_data_dir() -> Path:
    """The directory named by `BACKSCROLL_DATA_DIR`, or else the platform's directory for user data."""
    named = os.environ.get("BACKSCROLL_DATA_DIR")
    return Path(named).expanduser() if named else platformdirs.user_data_path("backscroll", appauthor=False)
