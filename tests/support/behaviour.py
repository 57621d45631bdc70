"""The tests of behaviour: what a daemon promises whatever its data is in. `pytest --store postgresql` runs them."""

from collections.abc import Mapping
from typing import Final

BEHAVIOUR: Final = (
    "tests/handlers/",
    *(f"tests/laws/test_{name}.py" for name in ("arrival", "clearing", "corpus", "feed", "model", "random_replay")),
    "tests/laws/test_secrets.py",
    *(
        f"tests/bus/test_{name}.py"
        for name in (
            *("batch_failures", "client_order", "clearing", "expiry", "fairness", "feed", "lanes", "limits", "order"),
            *("query_cache", "raw_streams", "retries", "rights", "scope_removal", "waiting"),
        )
    ),
    *(
        f"tests/clients/test_{name}.py"
        for name in ("client_order", "client_retries", "feed", "followers", "python_clients", "watch_command")
    ),
)
"""The beginnings of their ids. All other tests are of one store, of no store, or of both already."""

ONLY_FILES: Final[Mapping[str, str]] = {
    "tests/handlers/test_statements.py": "the plans of SQLite; PostgreSQL's are in tests/laws",
    "tests/handlers/test_damaged_rows.py": "damage of database files",
    "tests/handlers/test_erased_bytes.py": "bytes in files",
    "tests/handlers/test_message_order.py::test_a_page_searches_the_index_of_its_part": "a plan of SQLite",
    "tests/handlers/test_media.py::test_a_damaged_part_is_not_returned": "the files of parts",
    "tests/handlers/test_media.py::test_a_damaged_part_cannot_become_media": "the files of parts",
    "tests/handlers/test_media.py::test_a_damaged_part_is_repaired_by_putting_it_again": "the files of parts",
    "tests/handlers/test_media.py::test_a_media_with_a_missing_part_is_not_found": "the files of parts",
    "tests/handlers/test_media.py::test_a_download_is_verified_as_a_whole": "the files of parts",
    "tests/handlers/test_media.py::test_orphaned_parts_are_removed_after_a_day": "the files of parts",
    "tests/handlers/test_channels.py::test_times_are_whole_milliseconds_in_every_column": "types of values in SQLite",
    "tests/handlers/test_scopes.py::test_file_names_of_scopes_are_safe_on_every_file_system": "files of scopes",
    "tests/handlers/test_scopes.py::test_scope_info_counts_only_its_own_scope": "the bytes of files",
    "tests/handlers/test_scopes.py::test_the_default_scope_can_be_deleted": "files of scopes",
    "tests/handlers/test_scopes.py::test_a_scope_refuses_the_file_of_another_scope": "files of scopes",
    "tests/handlers/test_scopes.py::test_an_older_file_is_migrated_on_adoption": "adopted files",
    "tests/handlers/test_scopes.py::test_only_the_current_user_can_adopt_a_legacy_file": "adopted files",
    "tests/handlers/test_scopes.py::test_a_legacy_file": "adopted files",
    "tests/handlers/test_scopes.py::test_a_path_without_a_file_is_not_found": "adopted files",
    "tests/handlers/test_scopes.py::test_files_in_the_data_directory_cannot_be_adopted": "adopted files",
    "tests/handlers/test_scopes.py::test_only_older_databases_can_be_adopted": "adopted files",
    "tests/handlers/test_scopes.py::test_one_file_is_copied_at_a_time": "adopted files",
    "tests/handlers/test_scopes.py::test_a_database_that_was_analysed_can_be_adopted": "adopted files",
    "tests/handlers/test_scopes.py::test_others_are_served_while_a_large_file": "adopted files",
    "tests/handlers/test_scopes.py::test_a_copy_ends_when_the_daemon_stops": "adopted files",
    "tests/handlers/test_scopes.py::test_adopting_a_legacy_file_includes_its_wal": "adopted files",
    "tests/handlers/test_media.py::test_two_clients_can_transfer_a_large_file_at_once": "the files of parts",
    "tests/handlers/test_chat_server.py::test_migrations_make_the_same_schema_in_memory_and_on_disk": "SQLite's schema",
    "tests/handlers/test_chat_server.py::test_the_schema_is_made_by_migrations": "SQLite's schema",
    "tests/handlers/test_chat_server.py::test_queries_are_answered_during_a_commit": "another connection to the file",
    "tests/handlers/test_chat_server.py::test_a_new_daemon_creates_its_database_and_is_healthy": "the database file",
    "tests/handlers/test_chat_server.py::test_the_data_directory_is_created_on_the_first_start": "the database file",
    "tests/handlers/test_lifecycle.py::test_ping_and_health_report_on_the_daemon": "what health says of files",
    "tests/handlers/test_arrival.py::test_a_file_without_versions": "files of earlier versions",
    "tests/handlers/test_arrival.py::test_damaged_versions": "damage of database files",
    "tests/handlers/test_attachments.py::test_names_of_removed_attachments": "a log of files is exported",
    "tests/handlers/test_command_log.py::test_a_full_disk_fails": "a disk without room",
    "tests/handlers/test_command_log.py::test_a_kill_during_compaction": "files that are compacted",
    "tests/handlers/test_command_log.py::test_compaction_is_busy": "files that are compacted",
    "tests/handlers/test_command_log.py::test_compaction_on_a_full_disk": "files that are compacted",
    "tests/handlers/test_command_log.py::test_deleting_a_scope_removes_files": "files that are compacted",
    "tests/handlers/test_erased_items.py::test_a_removed_item_is_in_no_export": "a log of files is exported",
    "tests/handlers/test_replay.py::test_verify_uses_a_running_daemon": "`backscroll replay` makes files",
    "tests/handlers/test_replay.py::test_a_stale_endpoint_file": "`backscroll replay` makes files",
    "tests/handlers/test_replay.py::test_an_invalid_line": "`backscroll replay` makes files",
    "tests/handlers/test_replay.py::test_a_replay_can_end": "`backscroll replay` makes files",
    "tests/handlers/test_replay.py::test_the_end_of_a_replay_applies": "`backscroll replay` makes files",
    "tests/handlers/test_replay.py::test_replay_writes_each_line": "`backscroll replay` makes files",
    "tests/handlers/test_replay.py::test_a_recording": "recordings are made with files only",
    "tests/bus/test_client_order.py::test_a_commit_that_fails_leaves_n_free": "a disk without room",
    "tests/bus/test_client_order.py::test_a_damaged_newest_row": "damage of database files",
    "tests/bus/test_client_order.py::test_unreadable_rows": "damage of database files",
    "tests/bus/test_fairness.py::test_an_operation_on_a_scope_holds_up_no_other": "files that are closed to others",
    "tests/bus/test_feed.py::test_a_closed_scope_holds_up_only_who_watches_it": "files that are closed to others",
    "tests/bus/test_feed.py::test_a_token_revoked_before_its_query_waits": "files that are closed to others",
    "tests/bus/test_limits.py::test_a_limit_is_enforced_as_the_page_says[pathChars]": "adopted files",
    "tests/bus/test_order.py::test_a_command_waits_for_a_short_lock": "locks of files; tests/bus has those of rows",
    "tests/bus/test_order.py::test_commands_are_busy_while": "locks of files; tests/bus has those of rows",
    "tests/bus/test_retries.py::test_a_retry_after_a_kill_gets_the_committed_reply": "a kill between steps of the disk",
    "tests/bus/test_retries.py::test_a_kill_at_any_write_of_a_commit_is_atomic": "a kill between steps of the disk",
    "tests/bus/test_retries.py::test_errors_of_the_daemon_are_not_stored": "a disk without room",
    "tests/bus/test_retries.py::test_retries_work_in_a_file_without_an_older_log": "files of earlier versions",
    "tests/bus/test_waiting.py::test_a_replaced_file": "files that are replaced; tests/bus has replaced databases",
    "tests/bus/test_waiting.py::test_who_sleeps_while_a_file_is_replaced": "files that are replaced",
    "tests/clients/test_python_clients.py::test_a_locked_file_is_busy": "locks of files; tests/bus has those of rows",
    "tests/laws/test_secrets.py::test_recordings_and_exports_have_no_secrets": "recordings are made with files only",
}
"""Those of them that are about data in files, with the reason; by the test's id, or its beginning."""
