"""The tests of behaviour that are about data in files, with the reason: `--store postgresql` leaves them out."""

from collections.abc import Mapping
from typing import Final

ONLY_FILES: Final[Mapping[str, str]] = {
    "tests/handlers/test_statements.py": "the plans of SQLite; those of PostgreSQL are in tests/laws/test_postgresql.py",
    "tests/handlers/test_damaged_rows.py": "damage of database files",
    "tests/handlers/test_erased_bytes.py": "bytes in files",
    "tests/handlers/test_message_order.py::test_a_page_searches_the_index_of_its_part": "a plan of SQLite",
    "tests/handlers/test_media.py::test_a_damaged_part_is_not_returned": "the files of parts",
    "tests/handlers/test_media.py::test_a_damaged_part_cannot_become_media": "the files of parts",
    "tests/handlers/test_media.py::test_a_damaged_part_is_repaired_by_putting_it_again": "the files of parts",
    "tests/handlers/test_media.py::test_a_media_with_a_missing_part_is_not_found": "the files of parts",
    "tests/handlers/test_media.py::test_a_download_is_verified_as_a_whole": "the files of parts",
    "tests/handlers/test_media.py::test_orphaned_parts_are_removed_after_a_day": "the files of parts",
    "tests/handlers/test_channels.py::test_times_are_whole_milliseconds_in_every_column": "the types of SQLite's values",
    "tests/handlers/test_lifecycle.py::test_ping_and_health_report_on_the_daemon": "what health says of files",
}
"""By the test's id, or its beginning."""
