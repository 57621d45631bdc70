"""The migrations of SQLite database files, in order; append-only.

`0001_initial.sql` creates version 1, and so on. Each migration is committed together with its version number.
"""

from importlib import resources

APPLICATION_ID = 0x62736372
"""`PRAGMA application_id` of backscroll's files: the bytes `bscr`."""


def migrations() -> list[str]:
    """The SQL of every migration; the one at index i upgrades a file from version i to version i + 1."""
    scripts = sorted(
        (entry for entry in resources.files(__package__).iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    for number, script in enumerate(scripts, start=1):
        assert script.name.startswith(f"{number:04}_"), f"migration {script.name} is not number {number}"
    return [script.read_text(encoding="utf-8") for script in scripts]
