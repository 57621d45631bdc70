"""The proof of a copy finds every damage and every page of another moment, and nothing wrong with what is whole."""

import itertools
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest
from hypothesis import given, settings

from backscroll.bus.progress import Stopped
from backscroll.bus.sqlite.maintenance.findings import PROBLEMS_MAX, PROBLEMS_MAX_OF_STEP, Findings
from backscroll.bus.sqlite.maintenance.proof import Proof, prove
from backscroll.handlers import clearing
from backscroll.handlers.storage import Retention
from tests.support.clocks import Clock
from tests.support.corpus import HistoryCommands
from tests.support.histories import HistoryRunner, Step, histories
from tests.support.local import Local
from tests.support.messages import save_payload
from tests.support.notes import add_note
from tests.support.random_commands import ROOMS, RandomCommands

PAGE = 4096
COMMANDS, COMMANDS_LONG = 400, 10_000
DAY = 24 * 60 * 60 * 1000
SEED = 20261126
PASSWORD = "password"

Plain = dict[str, Any]
Tables = dict[str, list[tuple[Any, ...]]]


def proof_of(directory: Path, media: bool = True, **options: Any) -> Proof:
    """The proof of the default scope of a data directory that nobody uses; it must leave the directory as it was."""
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
        parts = directory / "default.media" if media else None
        proof = prove(directory / "default.db", parts, lambda *_: None, scratch=Path(scratch), **options)
        assert list(Path(scratch).iterdir()) == []
        assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before
    return proof


def is_whole(directory: Path, **options: Any) -> Proof:
    """The proof of an intact directory: nothing is wrong, and the tables were compared with the log."""
    proof = proof_of(directory, **options)
    assert (proof.problems, proof.more, proof.compared) == ([], 0, "")
    return proof


def execute_random(local: Local, seed: int, number: int, *, chores_every: int = 50) -> None:
    """Execute random commands while time passes; sessions, messages and unused media expire meanwhile."""
    commands, draw, clock = RandomCommands(seed), random.Random(seed), local.clock
    assert isinstance(clock, Clock)
    for count in range(number):
        clock.now += draw.choice([0, 1, 1_000, DAY // 50])
        name, payload = commands.next()
        reply = local.ask(name, payload)
        if reply["ok"]:
            commands.learn(name, payload, reply["result"])
        if count % chores_every == 0:
            local.dispatcher.run_chores("default")


# Nothing is wrong with what is whole


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_random_history_is_whole(tmp_path: Path, seed: int, long: bool) -> None:
    """Commands of every type, with chores in between: no problem, and rows, seq and chain are those of the scope."""
    with Local(tmp_path / "data") as local:
        execute_random(local, seed, COMMANDS_LONG if long else COMMANDS)
        rows, end = local.result("get-scope-info")["rows"], local.store().position
    proof = is_whole(tmp_path / "data")
    assert (proof.scope, proof.seq, proof.chain) == ("default", end.seq, end.chain)
    assert proof.rows == rows
    assert proof.bytes == (tmp_path / "data" / "default.db").stat().st_size
    assert proof.media_parts > 0


def check_history(history: list[Step]) -> None:
    """Execute a history, and prove the files that it leaves."""
    directory = Path(tempfile.mkdtemp(prefix="backscroll-proof-"))
    try:
        clock = Clock()
        local = Local(directory / "data", clock=clock)
        runner = HistoryRunner(local, clock)
        for step in history:
            runner.execute(step)
        local.close()
        is_whole(directory / "data")
    finally:
        shutil.rmtree(directory)


def test_no_history_gives_a_false_alarm(long: bool) -> None:
    """Histories with moves, deletions, expiry, media, sessions, restarts and clocks that go back."""
    settings(max_examples=3_000 if long else 20)(given(histories(8 if long else 4))(check_history))()


def execute_history(local: Local, history: list[Plain], *, numbers: Iterator[int]) -> None:
    """Execute a chat history with edits and deletions."""
    commands = HistoryCommands(history, SEED, deleting=True)
    assert isinstance(local.clock, Clock)
    for name, payload in commands.commands():
        local.clock.now += 7
        reply = local.ask(name, payload, f"history-{next(numbers):06}")
        if reply["ok"]:
            commands.note_result(name, reply["result"])


def test_a_chat_history_is_whole(tmp_path: Path, chat_history: Any, long: bool) -> None:
    """A chat history with edits, moves and deletions."""
    with Local(tmp_path / "data") as local:
        execute_history(local, chat_history.messages[: 50_000 if long else 300], numbers=itertools.count())
    assert is_whole(tmp_path / "data").seq > 200


@pytest.mark.parametrize("removed", [True, False])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_clearing_in_progress_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, removed: bool
) -> None:
    """Messages of cleared rooms that are removed by and by, and those that are not removed yet."""
    monkeypatch.setattr(clearing, "AT_ONCE", 0)
    draw, commands = random.Random(seed), RandomCommands(seed)
    local = Local(tmp_path / "data")
    monkeypatch.setattr(local, "settle", lambda _scope: None)
    for number in range(COMMANDS):
        name, payload = commands.next()
        if number % 12 == 0:
            name, payload = "clear-room-messages", {"roomId": draw.choice(ROOMS)}
        reply = local.ask(name, payload)
        if reply["ok"]:
            commands.learn(name, payload, reply["result"])
        if draw.random() < 0.15:
            local.dispatcher._removed_at_once = draw.randrange(1, 4)
            local.dispatcher.remove_cleared("default")
    while not (local.store().clearing or removed):
        local.ask("save-message", save_payload("last", ""))
        local.ask("clear-room-messages", {"roomId": "r1"})
    while local.store().clearing and removed:
        local.dispatcher.remove_cleared("default")
    assert local.store().clearing is not removed
    local.close()
    is_whole(tmp_path / "data")


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("changed", [False, True])
def test_erasing_replaced_text_is_no_problem(tmp_path: Path, seed: int, changed: bool) -> None:
    """Where the setting was on from the beginning, and where it was changed again and again."""
    clock, draw = Clock(), random.Random(seed)
    for _ in range(4):
        erasing = draw.random() < 0.5 if changed else True
        with Local(tmp_path / "data", clock=clock, retention=Retention(redact_replaced=erasing)) as local:
            local._numbers = itertools.count(clock.now)
            execute_random(local, draw.randrange(2**32), COMMANDS // 4)
            clock.now += DAY
    is_whole(tmp_path / "data")


def test_dropped_results_are_no_problem(tmp_path: Path) -> None:
    """The results of older commands are not kept for ever."""
    with Local(tmp_path / "data", retention=Retention(results=100, results_ms=0)) as local:
        execute_random(local, SEED, COMMANDS)
    is_whole(tmp_path / "data")


def test_a_copy_that_follows_a_scope_is_whole(tmp_path: Path) -> None:
    """Also where commands were appended from a log, and some without their payloads."""
    with Local(tmp_path / "from") as local:
        execute_random(local, SEED, COMMANDS)
        entries = local.entries()
    with Local(tmp_path / "data", clock=Clock(entries[-1]["at"])) as local:
        local._numbers = itertools.count(10**6)
        local.replay(entries, "default")
        execute_random(local, SEED + 1, COMMANDS // 10)
    is_whole(tmp_path / "data")


def test_an_adopted_database_is_whole(tmp_path: Path) -> None:
    """Its log came with it, so its tables can be compared with that."""
    with Local(tmp_path / "old") as local:
        local.result("set-current-user-id", {"userId": "ada"})
        for number in range(50):
            local.result("save-message", save_payload(number, "text"))
    with closing(apsw.Connection(str(tmp_path / "old" / "default.db"))) as connection:
        connection.execute("DELETE FROM scope")
    with Local(tmp_path / "data") as local:
        path = str(tmp_path / "old" / "default.db")
        local.result("adopt-legacy-database", {"path": path, "userId": "ada"}, scope="ada")
        local.result("save-message", save_payload(99, "text"), "after", scope="ada")
    [database] = (tmp_path / "data" / "scopes").glob("*.db")
    (tmp_path / "scratch").mkdir()
    proof = prove(database, None, lambda *_: None, scratch=tmp_path / "scratch")
    assert (proof.problems, proof.compared, proof.scope, proof.seq) == ([], "", "ada", 52)


def test_rows_of_an_earlier_version_are_no_problem(tmp_path: Path) -> None:
    """A file that was migrated has numbers for the daemon's own use that the log does not lead to."""
    with Local(tmp_path / "data") as local:
        execute_random(local, SEED, COMMANDS)
    with closing(apsw.Connection(str(tmp_path / "data" / "default.db"))) as connection:
        connection.execute("UPDATE messages SET written = 0, has_rare = 1; UPDATE log_references SET replaceable = 31")
        connection.execute("DELETE FROM log_references WHERE noun = 'member'")
    is_whole(tmp_path / "data")


def test_a_file_of_an_earlier_version_is_not_compared(tmp_path: Path) -> None:
    """It can be read, and is migrated when it is opened."""
    from backscroll.schema.migrations.sqlite import APPLICATION_ID, migrations

    (tmp_path / "data").mkdir()
    with closing(apsw.Connection(str(tmp_path / "data" / "default.db"))) as connection:
        connection.execute(migrations()[0])
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", 1)
    proof = proof_of(tmp_path / "data")
    assert (proof.problems, proof.schema_version) == ([], 1)
    assert "schema version 1" in proof.compared


def test_a_log_without_payloads_is_not_compared(tmp_path: Path) -> None:
    """What there is of it is checked: chain, that no row is of a later command, and what the newest commands saved."""
    with Local(tmp_path / "data", retention=Retention(payloads=False)) as local:
        execute_random(local, SEED, COMMANDS)
        local.result("save-message", save_payload("last", "text"))
        seq = local.store().seq
    proof = proof_of(tmp_path / "data")
    assert (proof.problems, proof.seq) == ([], seq)
    assert "logged without their payload" in proof.compared
    with closing(apsw.Connection(str(tmp_path / "data" / "default.db"))) as connection:
        connection.execute("UPDATE messages SET written = 1024 * 1000000")
        connection.execute("UPDATE messages SET id = 'other' WHERE id = 'mlast' OR id = 'last'")
    lost, later = proof_of(tmp_path / "data").problems
    assert lost.what.endswith(f"is not there, or not in its room, although command {seq} saved it")
    assert later.what == f"a row of messages was written by command 1000000, the last is {seq}"


def test_media_need_not_be_examined(tmp_path: Path) -> None:
    """The rest of the scope is compared without their parts."""
    with Local(tmp_path / "data") as local:
        execute_random(local, SEED, COMMANDS)
    shutil.rmtree(tmp_path / "data" / "default.media")
    assert is_whole(tmp_path / "data", media=False).rows["media"] > 0


def test_progress_may_stop_a_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each call: `Stopped` comes out, and nothing is left behind. The steps are told in words."""
    with Local(tmp_path / "data") as local:
        execute_random(local, SEED, COMMANDS // 4)
    monkeypatch.setattr("backscroll.bus.sqlite.maintenance.proof.STEPS_BETWEEN_PROGRESS", 2_000)
    steps: list[str] = []

    def note(step: str, done: int, total: int | None) -> None:
        assert 0 <= done <= (done if total is None else total)
        steps.append(step)
        if len(steps) == stop_at:
            raise Stopped

    stop_at, stopped = 1, True
    (tmp_path / "scratch").mkdir()
    while stopped:
        steps.clear()
        try:
            prove(tmp_path / "data" / "default.db", None, note, scratch=tmp_path / "scratch")
            stopped = False
        except Stopped:
            assert list((tmp_path / "scratch").iterdir()) == []
            stop_at += 1
    wanted = {"reading pages", "checking with SQLite", "checking the command log", "executing the command log again"}
    assert wanted <= set(steps)


# Damage


class Moments(NamedTuple):
    """A data directory, its database at an earlier moment, and what the later one contains."""

    directory: Path
    earlier: bytes
    later: bytes
    content: Tables


@pytest.fixture(scope="module", params=["random", "chat"])
def moments(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, chat_history: Any) -> Moments:
    """A history of random commands, and one of a chat with more rows."""
    directory = tmp_path_factory.mktemp("moments") / "data"
    database, clock, numbers = directory / "default.db", Clock(), itertools.count()
    seen = []
    for part in range(2):
        with Local(directory, clock=clock) as local:
            local._numbers = itertools.count(10**6 * (part + 1))
            if request.param == "random":
                execute_random(local, SEED + part, 250 if part == 0 else 100)
            else:
                execute_history(local, chat_history.messages[part * 200 : part * 200 + 200], numbers=numbers)
        seen.append(database.read_bytes())
    content = content_of(database)
    assert content is not None
    return Moments(directory, seen[0], seen[1], content)


def content_of(database: Path) -> Tables | None:
    """All rows, read without the code under test, but for secrets and what the file says of itself; None if it cannot.

    The index of a table may contradict its rows: so they are read in the order of the table and by each index.
    """
    try:
        with closing(apsw.Connection(f"file:{database}?immutable=1", flags=6 | apsw.SQLITE_OPEN_URI)) as connection:
            if [row[0] for row in connection.execute("PRAGMA integrity_check")] != ["ok"]:
                return None
            names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            found = {name: sorted(_rows(connection, name), key=repr) for name in names}
    except (apsw.Error, UnicodeDecodeError):
        return None
    return found


def _rows(connection: apsw.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    own = {"rooms": ["password"], "sequence": ["commits", "closed"]}.get(table, [])
    shown = ", ".join(column for column in columns if column not in own)
    return iter(connection.execute(f"SELECT {shown} FROM {table}").fetchall())


Damage = Callable[[bytearray, Moments, random.Random], str]


def one_bit(file: bytearray, _moments: Moments, draw: random.Random) -> str:
    at, bit = draw.randrange(len(file)), draw.randrange(8)
    file[at] ^= 1 << bit
    return f"bit {bit} of byte {at}"


def bit_of_the_header(file: bytearray, _moments: Moments, draw: random.Random) -> str:
    at, bit = draw.randrange(100), draw.randrange(8)
    file[at] ^= 1 << bit
    return f"bit {bit} of byte {at}"


def many_bytes(file: bytearray, _moments: Moments, draw: random.Random) -> str:
    at = draw.randrange(len(file) - 600)
    file[at : at + 600] = draw.randbytes(600)
    return f"600 bytes at {at}"


def page_of_zeros(file: bytearray, _moments: Moments, draw: random.Random) -> str:
    page = draw.randrange(len(file) // PAGE)
    file[page * PAGE : page * PAGE + PAGE] = bytes(PAGE)
    return f"page {page + 1}"


def shorter(file: bytearray, _moments: Moments, draw: random.Random) -> str:
    size = draw.choice([0, 1, 99, 100, 512, PAGE, draw.randrange(len(file)), len(file) - PAGE, len(file) - 1])
    del file[size:]
    return f"{size} bytes are left"


def longer(file: bytearray, moments: Moments, draw: random.Random) -> str:
    file += moments.earlier[: draw.choice([1, 512, PAGE])]
    return f"{len(file)} bytes"


def swapped_pages(file: bytearray, _moments: Moments, draw: random.Random) -> str:
    one, other = (page * PAGE for page in draw.sample(range(len(file) // PAGE), 2))
    file[one : one + PAGE], file[other : other + PAGE] = file[other : other + PAGE], file[one : one + PAGE]
    return f"pages {one // PAGE + 1} and {other // PAGE + 1}"


def page_twice(file: bytearray, _moments: Moments, draw: random.Random) -> str:
    one, other = (page * PAGE for page in draw.sample(range(len(file) // PAGE), 2))
    file[one : one + PAGE] = file[other : other + PAGE]
    return f"page {other // PAGE + 1} in place of {one // PAGE + 1}"


def old_pages(number: int) -> Damage:
    def damage(file: bytearray, moments: Moments, draw: random.Random) -> str:
        changed = [
            at
            for at in range(0, min(len(moments.earlier), len(file)), PAGE)
            if moments.earlier[at : at + PAGE] != file[at : at + PAGE]
        ]
        chosen = draw.sample(changed, min(number, len(changed)))
        for at in chosen:
            file[at : at + PAGE] = moments.earlier[at : at + PAGE]
        return f"pages {[at // PAGE + 1 for at in chosen]}"

    return damage


DAMAGES: dict[str, Damage] = {
    "one bit": one_bit,
    "one bit of the header": bit_of_the_header,
    "600 bytes": many_bytes,
    "a page of zeros": page_of_zeros,
    "shorter": shorter,
    "longer": longer,
    "two pages swapped": swapped_pages,
    "a page in place of another": page_twice,
    "an older page": old_pages(1),
    "3 older pages": old_pages(3),
    "10 older pages": old_pages(10),
}
HARMLESS = {
    "a page of zeros",
    "two pages swapped",
    "a page in place of another",
    "an older page",
    "3 older pages",
    "10 older pages",
}
"""Where all pages are valid by themselves, the content may be the same: of free pages, and of counters of the file.

The checksum of zeros is zero.
"""


def found_by(proof: Proof) -> str:
    """Which step of a proof found the first problem."""
    first = proof.problems[0].what if proof.problems else "nothing"
    steps = {
        "do not match their checksums": "checksums",
        "integrity check": "SQLite",
        "header": "header",
        "commands in the log": "replay",
        "is written by": "replay",
    }
    return next((step for words, step in steps.items() if words in first), "nothing" if not proof.problems else "other")


def test_no_damage_of_a_database_is_unnoticed(
    moments: Moments, tmp_path: Path, long: bool, request: pytest.FixtureRequest
) -> None:
    """Whatever is done to a file, its proof says so if any row is lost or changed, and raises nothing."""
    draw, lines = random.Random(SEED), []
    shutil.copytree(moments.directory, tmp_path / "data")
    database = tmp_path / "data" / "default.db"
    for kind, damage in DAMAGES.items():
        counts: Counter[str] = Counter()
        for number in range(100 if long else 4):
            file = bytearray(moments.later)
            what = damage(file, moments, draw)
            database.write_bytes(file)
            proof = proof_of(tmp_path / "data")
            assert len(proof.problems) <= PROBLEMS_MAX
            if not proof.problems:
                assert kind in HARMLESS, (kind, number, what)
                assert content_of(database) == moments.content, (kind, number, what)
            counts[found_by(proof) if proof.problems else "no row changed"] += 1
        lines.append(f"{kind}: " + ", ".join(f"{step} {count}" for step, count in counts.most_common()))
    add_note(request.config.stash, f"What found damage of a database ({request.node.name})", "\n".join(lines))


def part_changed(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def part_cut(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])


def part_longer(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes() + draw.randbytes(1))


def part_missing(path: Path, _draw: random.Random) -> None:
    path.unlink()


def part_is_a_directory(path: Path, _draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def test_parts_of_other_scopes_need_not_be_read(tmp_path: Path) -> None:
    """A damaged part that no media names is a problem, unless scopes share their directory of media."""
    with Local(tmp_path / "data") as local:
        name = local.result("put-media-part", {"data": "b25l"})
    (tmp_path / "data" / "default.media" / name[:2] / name).write_bytes(b"two")
    [problem] = proof_of(tmp_path / "data").problems
    assert problem.file == f"default.media/{name[:2]}/{name}"
    assert proof_of(tmp_path / "data", unnamed_parts=False).problems == []


def directory_missing(path: Path, _draw: random.Random) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize(
    "damage", [part_changed, part_cut, part_longer, part_missing, part_is_a_directory, directory_missing]
)
def test_no_damage_of_media_is_unnoticed(
    tmp_path: Path, damage: Callable[[Path, random.Random], None], long: bool
) -> None:
    """The part is named, nothing else is wrong, and the tables are compared all the same."""
    draw = random.Random(SEED)
    with Local(tmp_path / "data") as local:
        execute_random(local, SEED, COMMANDS // 4)
        for text in ("b25l", "dHdv"):
            local.result("put-media", {"parts": [local.result("put-media-part", {"data": text})], "mime": "a/b"})
        needed = sorted(local.parts())
    shutil.copytree(tmp_path / "data" / "default.media", tmp_path / "whole")
    for _ in range(50 if long else 2):
        name = draw.choice(needed)
        damage(tmp_path / "data" / "default.media" / name[:2] / name, draw)
        proof = proof_of(tmp_path / "data")
        assert [each.file for each in proof.problems] == [f"default.media/{name[:2]}/{name}"]
        assert proof.compared == ""
        shutil.rmtree(tmp_path / "data" / "default.media")
        shutil.copytree(tmp_path / "whole", tmp_path / "data" / "default.media")


CHANGES = {
    "UPDATE messages SET content = content || '.' WHERE rowid = (SELECT min(rowid) FROM messages)": "content",
    "DELETE FROM messages WHERE rowid = (SELECT max(rowid) FROM messages)": "is missing",
    "INSERT INTO bans (room_id, oder_id, timestamp) VALUES ('r9', 'ada', 1)": "do not lead to it",
    "UPDATE commands SET result = NULL WHERE type = 'create-channel'": "result",
    "UPDATE commands SET payload = (SELECT payload FROM commands WHERE id = 'kept') WHERE id = 'other'": "its digest",
    "UPDATE commands SET at = at + 1 WHERE seq = 7": "command 7 does not fit the chain",
    "DELETE FROM commands WHERE seq = 9": "command 9 is missing",
    "DELETE FROM commands WHERE seq > 20": "its command log ends with",
    "UPDATE sequence SET seq = seq - 1": "commands, but its command log ends with",
    "UPDATE sequence SET log_from = 5": "its command log begins with 5",
    "UPDATE sequence SET last_id = '7' || last_id": "last_id",
    "UPDATE sequence SET results_from = seq + 1": "are not",
    "UPDATE media SET size = size + 1": "its row says",
    "UPDATE media SET sha256 = '0' || substr(sha256, 2) || '1'": "its SHA-256 differs",
    "DELETE FROM media_parts": "rows of parts of media",
    "DELETE FROM log_references": "of log_references is missing",
    "UPDATE scope SET name = 'other'": "belongs to the scope 'other'",
    "DELETE FROM scope": "does not name the scope",
    "DELETE FROM sequence": "the end of its command log cannot be read",
    "DROP TABLE bans": "it lacks bans",
    "CREATE TABLE more (a)": "altered by another program",
    "PRAGMA user_version = 99": "Use the newer backscroll",
    "PRAGMA application_id = 1": "a database of another program",
    "INSERT INTO cleared_rooms VALUES ('r1', 3072, 0)": "marked as cleared by command 3, which did not clear it",
    "DELETE FROM rooms": "rows of members are about rows of rooms that do not exist",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with rows in all tables that the statements are about."""
    directory = tmp_path_factory.mktemp("whole") / "data"
    with Local(directory) as local:
        execute_random(local, 1, COMMANDS)
        local.result("save-room", {"room": {"id": "r1", "name": "room", "members": [{"oderId": "ada"}]}})
        local.result("save-message", save_payload("kept", "text"), "kept")
        local.result("save-message", save_payload("other", "text"), "other")
        local.result("create-channel", {"name": "general", "roomId": "r1"})
        [part] = [local.result("put-media-part", {"data": "AAAA"})]
        local.result("put-media", {"parts": [part], "mime": "a/b"})
    return directory


@pytest.mark.parametrize(("statement", "words"), CHANGES.items(), ids=range(len(CHANGES)))
def test_what_another_program_changed_is_found(whole: Path, tmp_path: Path, statement: str, words: str) -> None:
    """A change that leaves a valid database contradicts the log, the media, or the schema; the words say how."""
    shutil.copytree(whole, tmp_path / "data")
    with closing(apsw.Connection(str(tmp_path / "data" / "default.db"))) as connection:
        connection.pragma("journal_mode", "delete")
        connection.execute(statement)
    proof = proof_of(tmp_path / "data")
    assert words in " ".join(each.what for each in proof.problems), proof


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\x00", bytes(PAGE * 3)])
def test_what_is_no_database_is_a_problem(tmp_path: Path, content: bytes) -> None:
    """Files of any content, and none at all."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "default.db").write_bytes(content)
    [problem] = proof_of(tmp_path / "data").problems
    assert problem == ("", "default.db", "it is not an SQLite database, or its header is damaged")
    (tmp_path / "data" / "default.db").unlink()
    [problem] = proof_of(tmp_path / "data").problems
    assert problem == ("", "default.db", "the file cannot be read: No such file or directory")


def test_each_problem_is_told_once() -> None:
    """However often it is met; what is left out is counted, also once. Whether a step met damage can still be seen."""
    findings = Findings("default.db")
    for _ in range(4):
        findings.add("the command log cannot be read after command 470")
    assert findings.met == 4
    assert [each.what for each in findings.problems("")] == ["the command log cannot be read after command 470"]
    for number in range(2 * PROBLEMS_MAX_OF_STEP):
        findings.add(f"command {number} is missing")
    assert (len(findings.problems("")), findings.more) == (PROBLEMS_MAX_OF_STEP, PROBLEMS_MAX_OF_STEP + 1)
