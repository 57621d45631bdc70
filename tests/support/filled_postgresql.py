"""Rows of every table for many scopes in a PostgreSQL database, made by the server itself: a million take a minute."""

from typing import Any, Final

import psycopg

MESSAGES_PER_ROOM: Final = 100
ROWS: Final = {
    "sequence (scope, seq, last_id, results_from, log_from)": "SELECT {scope}, {messages}, '', 1, 1",
    "meta": "SELECT {scope}, 'key' || i, 'value' FROM generate_series(1, 10) i",
    "cleared_rooms (scope, room_id, until)": "SELECT {scope}, 'cleared' || i, i FROM generate_series(1, 3) i",
    "messages (scope, id, room_id, sender_id, content, timestamp, channel_id, is_deleted, has_rare, ordinal,"
    " reply_to_id, thread_id, pinned_at, expires_at, origin_seq, written)": (
        "SELECT {scope}, 'm' || i, CASE WHEN i % 100 = 99 THEN '' ELSE 'r' || i / 100 END, 'u' || i % 50,"
        " 'This is message ' || i || repeat(' and so on', 5), i, CASE WHEN i % 100 = 99 THEN 'r' || i / 100"
        " WHEN i % 2 = 0 THEN 'c' || i % 4 END, (i % 33 = 0 OR i % 100 = 99)::integer, (i % 10 = 0)::integer, i % 3,"
        " CASE WHEN i % 7 = 0 THEN 'm' || i - 1 END, CASE WHEN i % 10 = 0 THEN 'm' || i - i % 1000 END,"
        " CASE WHEN i % 20 = 0 THEN i END, CASE WHEN i % 50 = 0 THEN i END, i, i * 1024"
        " FROM generate_series(0, {messages} - 1) i"
    ),
    "waiting_edits": "SELECT {scope}, 'w' || i, '{{}}' FROM generate_series(1, {messages} / 100) i",
    "message_aliases": "SELECT {scope}, 'a' || i, 'm' || i FROM generate_series(1, {messages} / 100) i",
    "reactions (scope, message_id, oder_id, emoji, timestamp, origin_seq)": (
        "SELECT {scope}, 'm' || i, 'u' || j, '+', CASE WHEN j > 1 THEN i END, i"
        " FROM generate_series(0, {messages} - 1, 4) i, generate_series(0, 3) j"
    ),
    "reaction_removals": "SELECT {scope}, 'm' || i, 'u9', '+', i FROM generate_series(0, {messages} - 1, 10) i",
    "attachments (scope, id, message_id, filename, media_id)": (
        "SELECT {scope}, 'f' || i, 'm' || i, 'file', CASE WHEN i % 20 = 0 THEN 'media' || i / 20 END"
        " FROM generate_series(0, {messages} - 1, 10) i"
    ),
    "users (scope, oder_id, id, username, created_at, pubkey)": (
        "SELECT {scope}, 'u' || i, 'id' || i, 'name', CASE WHEN i % 2 = 0 THEN i END, 'key' || i"
        " FROM generate_series(1, {messages} / 10) i"
    ),
    "rooms (scope, id, name, created_at)": (
        "SELECT {scope}, 'r' || i, 'name', CASE WHEN i % 2 = 0 THEN i END"
        " FROM generate_series(0, {messages} / 100 - 1) i"
    ),
    "channels (scope, room_id, id, name, type, position, category_id)": (
        "SELECT {scope}, 'r' || i, 'c' || j, 'name', 'text', j, 'k' || j % 2"
        " FROM generate_series(0, {messages} / 100 - 1) i, generate_series(0, 4) j"
    ),
    "categories (scope, room_id, id, name, position)": (
        "SELECT {scope}, 'r' || i, 'k' || j, 'name', j"
        " FROM generate_series(0, {messages} / 100 - 1) i, generate_series(0, 4) j"
    ),
    "members (scope, room_id, oder_id, joined_at)": (
        "SELECT {scope}, 'r' || i, 'u' || j, CASE WHEN j % 2 = 0 THEN j END"
        " FROM generate_series(0, {messages} / 100 - 1) i, generate_series(1, 40) j"
    ),
    "bans (scope, room_id, oder_id, timestamp, user_id)": (
        "SELECT {scope}, 'r' || i, 'u' || j, j, 'id' || j"
        " FROM generate_series(0, {messages} / 100 - 1) i, generate_series(1, 10) j"
    ),
    "sessions (scope, token_hash, user_id, created_at, expires_at)": (
        "SELECT {scope}, md5(i::text), 'u' || i, i, i FROM generate_series(1, {messages} / 10) i"
    ),
    "media (scope, id, sha256, mime, size, created_at)": (
        "SELECT {scope}, 'media' || i, md5(i::text), 'x/y', 1, i FROM generate_series(0, {messages} / 20 - 1) i"
    ),
    "media_parts": (
        "SELECT {scope}, 'media' || i, j, md5(i || '.' || j)"
        " FROM generate_series(0, {messages} / 20 - 1) i, generate_series(0, 1) j"
    ),
    "unnamed_media": "SELECT {scope}, 'media' || i, i FROM generate_series(0, {messages} / 20 - 1, 4) i",
    "commands (scope, seq, id, type, at, payload, facts, result, chain)": (
        "SELECT {scope}, i, 'request' || i, 'save-message', i, '\\x01', '\\x01', NULL, '\\x01'"
        " FROM generate_series(1, {messages}) i"
    ),
    "log_references": (
        "SELECT {scope}, noun, '', letter || i, i, 0, 31 FROM generate_series(0, {messages} - 1) i,"
        " (VALUES ('message', 'm'), ('attachment', 'f'), ('ban', 'u')) AS v (noun, letter)"
    ),
    "blobs": (
        "SELECT {scope}, md5(i::text), '\\x0102', i FROM generate_series(1, {messages} / 10) i"
    ),
    "shared": "SELECT '', 'key' || {number}, '{{}}'",
}  # fmt: skip
"""By the table and the columns that are given: what is inserted into it for a scope. Ids count from 0."""


def fill(connection: "psycopg.Connection[Any]", *, scopes: int, messages: int) -> None:
    """Fill an empty database, as a superuser, with scopes `s0`, `s1` … of so many messages each."""
    for number in range(scopes):
        for table, rows in ROWS.items():
            text = rows.format(scope=f"'s{number}'", messages=messages, number=number)
            connection.execute(f"INSERT INTO {table} {text}")
    connection.execute("VACUUM ANALYZE")
