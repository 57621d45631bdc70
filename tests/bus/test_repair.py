"""Repair of damaged data directories, compared with what is known to have been in them."""

import base64
import errno
import json
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from backscroll.bus.failures import AlreadyRunning, CannotOpen
from backscroll.bus.sqlite.maintenance import media_check, repairing
from backscroll.bus.sqlite.maintenance.backups import take_backup
from backscroll.bus.sqlite.maintenance.repair_report import REPORT_FILE, RepairReport, Rows, ScopeReport
from backscroll.bus.sqlite.maintenance.repairing import CannotRepair, repair
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.handlers.command_log import UNKNOWN_TYPE
from backscroll.schema.migrations.sqlite import migrations
from tests.support.clocks import Clock
from tests.support.damaged_stores import (
    DAMAGES,
    DAMAGES_OF_LOG,
    DATABASE,
    LOG_TABLES,
    OF_THE_FILE,
    Contents,
    Damage,
    History,
    Page,
    contents_of,
    files_of,
    no_progress,
    pages_of,
    rows_below,
)
from tests.support.local import PASSWORD_AT, Local
from tests.support.messages import save_payload
from tests.support.notes import add_note
from tests.support.requests import fresh_id
from tests.support.tables import all_rows

pytestmark = pytest.mark.xdist_group("repair")  # in one process, which makes the history once

SEED = 20261126
LONG_RUNS = 30  # of each damage, with a backup and without
AFTER_ALL = 1_800_000_000_000  # a time after everything in the history
SEQ, ID, TYPE, PAYLOAD, SALT, REDACTED, RESULT = 0, 1, 2, 4, 5, 6, 8
INTERNAL = ("log_references", "unnamed_media")
MEDIA = ("media", "media_parts")

StartDaemon = Callable[..., DaemonProcess]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return History(tmp_path_factory.mktemp("history"), SEED)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[Counter[tuple[str, str]]]:
    """How often each damage led to what, for the summary of the run."""
    found: Counter[tuple[str, str]] = Counter()
    yield found
    lines = [f"{damage}: {outcome}, {number}×" for (damage, outcome), number in sorted(found.items())]
    add_note(request.config.stash, "What repairs of damaged files led to", "\n".join(lines))


# Against the known truth


@pytest.mark.parametrize("backup", [False, True], ids=["alone", "with a backup"])
@pytest.mark.parametrize("damage", [*DAMAGES, *DAMAGES_OF_LOG], ids=lambda damage: damage.__name__)
def test_what_can_be_saved_is_saved_and_told(
    tmp_path: Path, history: History, damage: Any, backup: bool, long: bool, outcomes: Counter[tuple[str, str]]
) -> None:
    """Whatever is damaged: no file is lost, rows on intact pages are there, the report is true, and the store works."""
    number = [*DAMAGES, *DAMAGES_OF_LOG].index(damage)
    if not long and number % 2 != backup:  # each damage once, with a backup or without
        return
    for run in range(LONG_RUNS if long else 1):
        seed = SEED + 1_000 * run + number
        directory = tmp_path / str(run)
        before = history.killed if damage in DAMAGES_OF_LOG else history.stopped
        shutil.copytree(before, directory)
        done: Damage = damage(random.Random(seed), history.pages)
        done.do(directory / DATABASE)
        damaged = files_of(directory)
        report = repair(directory, history.backups if backup else None, None, no_progress)
        kind = "with a backup" if backup else "alone"
        outcomes[f"{done.words} ({kind})", check_repaired(directory, history, done, damaged, report)] += 1
        shutil.rmtree(directory)


def check_repaired(
    directory: Path, history: History, damage: Damage, damaged: dict[str, bytes], report: RepairReport
) -> str:
    """Check one repair, and return its outcome in words."""
    assert report.set_aside is not None, damage
    check_nothing_is_lost(directory, Path(report.set_aside), damaged)
    [scope] = report.scopes
    text = (Path(report.set_aside) / REPORT_FILE).read_text()
    assert text == report.text()
    assert scope.outcome != "not repaired", text
    found = contents_of(directory / DATABASE)
    if not {page.name for page in damage.pages} & {*LOG_TABLES, *OF_THE_FILE} and damage.pages:
        assert scope.log_from == 1, (damage, text)
    if scope.log_from == 1:
        assert whole(found) == whole(history.contents), damage
        check_passwords(found, history, scope)
    else:
        check_losses(found, history, damage, scope)
    again = repair(directory, None, None, no_progress)
    assert again.set_aside is None, again.text()
    check_it_works(directory, history, scope)
    return outcome_of(scope, found, history)


def check_nothing_is_lost(directory: Path, aside: Path, damaged: dict[str, bytes]) -> None:
    """Each file is set aside as it was, or still in place."""
    for name, content in damaged.items():
        places = [path for path in (aside / name, directory / name) if path.is_file()]
        assert any(path.read_bytes() == content for path in places), name


def check_passwords(found: Contents, history: History, scope: ScopeReport) -> None:
    """With the log whole, passwords are all that may be lost, since it does not have them."""
    told = {each["id"] for rows in scope.uncertain for each in rows.named}
    assert {row[0] for row in history.contents["rooms"] - found["rooms"]} <= told
    assert (scope.outcome == "whole") is not bool(told)
    assert {rows.table for rows in scope.uncertain} <= {"rooms"}
    assert not scope.lost
    assert not scope.commands_lost


def whole(contents: Contents) -> Contents:
    """All rows, without passwords, and the results of commands whose text was erased, which a replay makes or not."""
    commands = {
        tuple(None if at == RESULT and row[REDACTED] else value for at, value in enumerate(row))
        for row in contents["commands"]
    }
    rooms = {row[:PASSWORD_AT] + row[PASSWORD_AT + 1 :] for row in contents["rooms"]}
    return contents | {"commands": commands, "rooms": rooms}


def check_losses(found: Contents, history: History, damage: Damage, scope: ScopeReport) -> None:
    """What is lost is what the report says, and no more than what was on damaged pages."""
    wanted = history.contents
    commands = {row[SEQ] for row in found["commands"] if row[TYPE] != UNKNOWN_TYPE}
    told = {seq for first, last in scope.commands_lost for seq in range(first, last + 1)}
    assert {row[SEQ] for row in wanted["commands"]} - commands == told
    assert scope.ids_known == sum(row[TYPE] == UNKNOWN_TYPE for row in found["commands"])
    assert {row[ID] for row in found["commands"]} <= {row[ID] for row in wanted["commands"]}
    assert scope.seq > max(row[SEQ] for row in wanted["commands"])
    assert all(row[PAYLOAD] is None for row in found["commands"])
    if damage.pages:  # else everything is lost that the lost commands wrote
        for table in found.keys() - {"commands"}:
            check_table(table, found, history, damage, scope)


def check_table(table: str, found: Contents, history: History, damage: Damage, scope: ScopeReport) -> None:
    missing = history.contents[table] - found[table]
    if table not in MEDIA:
        assert len(missing) <= rows_below(history.pages, damage.pages, table), (table, damage)
    lost = [each for rows in scope.lost if rows.table == table for each in rows.named]
    uncertain = [each for rows in scope.uncertain if rows.table == table for each in rows.named]
    columns = history.columns[table]
    matches = [tuple(columns.index(name) for name in each) for each in (*lost, *uncertain)]
    if table not in scope.maybe_more:
        told = {(at, tuple(each.values())) for at, each in zip(matches, (*lost, *uncertain), strict=True)}
        places = {at for at, _ in told}
        untold = [row for row in missing if not any((at, tuple(row[n] for n in at)) in told for at in places)]
        assert not untold, (table, untold[:2], damage)
    for each in lost:
        at = tuple(columns.index(name) for name in each)
        assert tuple(each.values()) not in {tuple(row[n] for n in at) for row in found[table]}, (table, each)
    added = found[table] - history.contents[table]
    assert len(added) <= sum(rows.number for rows in scope.uncertain if rows.table == table) + len(scope.notes)


def check_it_works(directory: Path, history: History, scope: ScopeReport) -> None:
    """Commands whose ids are known are not executed again; others are, with later numbers; feeds get a gap."""
    lost = {row[ID] for row in history.contents["commands"]} - {
        row[ID] for row in contents_of(directory / DATABASE)["commands"]
    }
    with Local(directory, clock=Clock(AFTER_ALL)) as local:
        for name, payload, request_id in random.Random(SEED).sample(history.sent, 8):
            reply = local.ask(name, payload, request_id)
            if request_id in lost:
                continue
            assert local.store().seq >= scope.seq
            assert reply["ok"] or reply["error"]["code"] == "conflict", reply
            assert not reply["ok"] or reply["seq"] == history.seqs[request_id]
        seq = local.store().seq
        assert local.ask("save-message", save_payload(1, "after the repair"), fresh_id())["seq"] == seq + 1
        gap = local.result("get-changes", {"after": history.cursor}).get("gap", False)
        assert gap is (scope.log_from > 1)


def outcome_of(scope: ScopeReport, found: Contents, history: History) -> str:
    """The outcome in words: all, or which part of the state is there."""
    if scope.outcome == "whole":
        return "everything is back"
    if scope.log_from == 1:
        return "everything but passwords is back"
    tables = [table for table in found if table not in ("commands", *INTERNAL)]
    there = sum(len(history.contents[table] & found[table]) for table in tables)
    everything = sum(len(history.contents[table]) for table in tables)
    return "all rows are back, the log begins anew" if there == everything else "rows or commands are lost"


# Whatever happens meanwhile


KILLED = 77
STEPS_QUICK = 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of this process")
def test_a_repair_that_is_killed_loses_nothing(tmp_path: Path, history: History, long: bool) -> None:
    """Killed before any change of a file: each file is where it was or set aside, and the next repair does it all."""
    steps = count_steps(damaged_copy(tmp_path / "counted", history))
    assert steps > STEPS_QUICK
    chosen = range(steps) if long else sorted(random.Random(SEED).sample(range(steps), STEPS_QUICK))
    for step in chosen:
        directory = damaged_copy(tmp_path / str(step), history)
        damaged = files_of(directory)
        assert repaired_in_fork(directory, step) == KILLED
        for name, content in damaged.items():
            places = [directory / name, *directory.glob(f"damaged-*/{name}")]
            assert any(path.is_file() and path.read_bytes() == content for path in places), (step, name)
        repair(directory, None, None, no_progress)
        assert whole(contents_of(directory / DATABASE)) == whole(history.contents), step
        assert not [*directory.glob(".*"), *directory.glob("*-repaired")]


def test_a_daemon_refuses_what_is_being_replaced(tmp_path: Path, history: History) -> None:
    """Once it is decided to replace a database, no daemon uses the old one; repairing again finishes it."""
    directory = tmp_path / "data"
    shutil.copytree(history.stopped, directory)
    shutil.copy(directory / DATABASE, directory / f"{DATABASE}-repaired")
    with pytest.raises(CannotOpen, match=r"repair of .* was interrupted"):
        Local(directory)
    report = repair(directory, None, None, no_progress)
    assert report.set_aside is None
    assert f"The repair of {DATABASE} was interrupted, and is finished now" in report.text()
    assert whole(contents_of(directory / DATABASE)) == whole(history.contents)


def damaged_copy(directory: Path, history: History) -> Path:
    shutil.copytree(history.killed, directory)
    page = next(page for page in history.pages if page.name == "messages" and page.kind == "leaf")
    zero(directory / DATABASE, page)
    log = directory / f"{DATABASE}-wal"
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    return directory


def zero(path: Path, page: Page) -> None:
    with path.open("rb+") as file:
        file.seek((page.number - 1) * 4096)
        file.write(bytes(4096))


def count_steps(directory: Path) -> int:
    """How often a repair changes files."""
    reader, writer = os.pipe()
    status = repaired_in_fork(directory, -1, writer)
    os.close(writer)
    with os.fdopen(reader) as lines:
        assert status == 0
        return len(lines.read())


def repaired_in_fork(directory: Path, kill_at: int, counted: int | None = None) -> int:
    """Repair in a process that is killed at its n-th change of a file; returns its exit code."""
    process = os.fork()
    if not process:
        steps = 0

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal steps
            opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if not opens and event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.copyfile"):
                return
            if counted is not None:
                os.write(counted, b".")
            if steps == kill_at:
                os._exit(KILLED)
            steps += 1

        sys.addaudithook(watch)
        try:
            repair(directory, None, None, no_progress)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


# What is not damaged, and what is not a database


def test_nothing_is_changed_where_nothing_is_damaged(tmp_path: Path, history: History) -> None:
    """Neither a stopped nor a killed store is touched, and that is said."""
    for name, before in (("stopped", history.stopped), ("killed", history.killed)):
        directory = tmp_path / name
        shutil.copytree(before, directory)
        files = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        report = repair(directory, None, None, no_progress)
        assert report.set_aside is None
        assert "Nothing is damaged" in report.text()
        after = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "lock"}
        assert after == files


def test_a_full_disk_is_no_damage(tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot be examined, because there is no room for a copy, is left as it is."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shutil.copytree(history.killed, tmp_path / "data")
    monkeypatch.setattr(repairing, "copy_database", full)
    with pytest.raises(CannotRepair, match="is full"):
        repair(tmp_path / "data", None, None, no_progress)
    assert files_of(tmp_path / "data") == files_of(history.killed)
    assert not [*(tmp_path / "data").glob("damaged-*")]


def test_a_running_daemon_refuses_a_repair(tmp_path: Path, start_daemon: StartDaemon) -> None:
    """It says which process has to be stopped."""
    start_daemon()
    with pytest.raises(AlreadyRunning, match="Stop it"):
        repair(tmp_path / "data", None, None, no_progress)


def test_a_scope_that_does_not_exist_is_not_repaired(tmp_path: Path, history: History) -> None:
    """A wrong name, of a scope or of the directory, is an error and changes nothing."""
    shutil.copytree(history.stopped, tmp_path / "data")
    with pytest.raises(CannotRepair, match="no scope 'other'"):
        repair(tmp_path / "data", None, "other", no_progress)
    with pytest.raises(CannotRepair, match="no data directory"):
        repair(tmp_path / "nothing", None, None, no_progress)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("backup", [False, True], ids=["alone", "with a backup"])
def test_damaged_parts_of_media(tmp_path: Path, backup: bool) -> None:
    """A part comes from the backup; without one it is set aside, and the report says what names it."""
    with Local(tmp_path / "data") as local:
        part = local.result("put-media-part", {"data": "aGVsbG8="})
        media = local.result("put-media", {"parts": [part], "mime": "text/plain"})["id"]
        attachment = {"id": "a1", "messageId": "m1", "filename": "f", "mediaId": media}
        local.result("save-attachment", {"attachment": attachment})
        take_backup(local.scopes, tmp_path / "backups", no_progress, stopped=True)
    path = Path("default.media") / part[:2] / part
    (tmp_path / "data" / path).write_bytes(b"hallo")
    report = repair(tmp_path / "data", tmp_path / "backups" if backup else None, None, no_progress)
    assert report.set_aside is not None
    assert (Path(report.set_aside) / path).read_bytes() == b"hallo"
    [scope] = report.scopes
    assert scope.media_restored == int(backup)
    assert (tmp_path / "data" / path).exists() is backup
    assert scope.media_lost == ([] if backup else [part])
    assert ("attachment 'a1' of message 'm1'" in report.text()) is not backup


@pytest.mark.parametrize("backup", [False, True], ids=["alone", "with a backup"])
def test_a_damaged_file_of_tokens(tmp_path: Path, history: History, backup: bool) -> None:
    """It comes from the backup; without one it stays as it is, and the report says what to do."""
    shutil.copytree(history.stopped, tmp_path / "data")
    good = json.dumps({"tokens": []})
    (tmp_path / "data" / "tokens.json").write_text(good)
    with Local(tmp_path / "data") as local:
        take_backup(local.scopes, tmp_path / "backups", no_progress, stopped=True)
    (tmp_path / "data" / "tokens.json").write_bytes(b'{"tokens": [')
    report = repair(tmp_path / "data", tmp_path / "backups" if backup else None, None, no_progress)
    assert report.set_aside is not None
    assert (Path(report.set_aside) / "tokens.json").read_bytes() == b'{"tokens": ['
    assert ("as it is in the backup" in report.text()) is backup
    assert report.is_whole is backup
    content = (tmp_path / "data" / "tokens.json").read_text()
    assert content == (good if backup else '{"tokens": [')


def test_a_deleted_text_does_not_come_back_from_a_backup(tmp_path: Path) -> None:
    """Rows of the log that are taken from a backup are erased by the commands since then."""
    with Local(tmp_path / "data") as local:
        for number in range(60):
            local.result("save-message", save_payload(number, f"secret {number} " + "x" * 300))
        take_backup(local.scopes, tmp_path / "backups", no_progress, stopped=True)
        for number in range(60):
            local.result("delete-message", {"messageId": f"m{number}"}, f"deletion-{number}")
    before = all_rows(tmp_path / "data" / DATABASE)
    for page in [page for page in pages_of(tmp_path / "data" / DATABASE) if page.name == "commands"][1:3]:
        zero(tmp_path / "data" / DATABASE, page)
    report = repair(tmp_path / "data", tmp_path / "backups", None, no_progress)
    assert report.is_whole, report.text()
    after = all_rows(tmp_path / "data" / DATABASE)
    assert [row[:RESULT] for row in after["commands"]] == [row[:RESULT] for row in before["commands"]]
    assert b"secret" not in (tmp_path / "data" / DATABASE).read_bytes()


# What is no damage, what cannot be saved, and what was repaired before


@pytest.mark.parametrize(
    ("statement", "says"),
    [(f"PRAGMA user_version = {len(migrations()) + 1}", "newer backscroll"), ("PRAGMA application_id = 1", "another")],
    ids=["of a later version", "of another program"],
)
def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, statement: str, says: str) -> None:
    """A database of a later version or of another program is not damaged: nothing is made of it, and that is said."""
    with Local(tmp_path / "data") as local:
        local.result("save-message", save_payload(1, "text"))
    with closing(apsw.Connection(str(tmp_path / "data" / DATABASE))) as connection:
        connection.execute(statement)
    files = files_of(tmp_path / "data")
    with pytest.raises(CannotRepair, match=rf"nothing was repaired: .*{says}"):
        repair(tmp_path / "data", None, None, no_progress)
    assert files_of(tmp_path / "data") == files
    assert not [*(tmp_path / "data").glob("damaged-*")]


def overwritten(directory: Path) -> tuple[Path, Path]:
    """A data directory whose database is noise, and a backup of its first 20 commands of 30."""
    data, backups = directory / "data", directory / "backups"
    with Local(data) as local:
        for number in range(20):
            local.result("save-message", save_payload(number, "text"))
        take_backup(local.scopes, backups, no_progress, stopped=True)
        for number in range(20, 30):
            local.result("save-message", save_payload(number, "text"))
    size = (data / DATABASE).stat().st_size
    (data / DATABASE).write_bytes(random.Random(SEED).randbytes(size))
    return data, backups


def test_a_database_of_noise_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    """If nothing can be read, and no backup has it, nothing is repaired: an empty database would look like success."""
    data, _ = overwritten(tmp_path)
    files = files_of(data)
    report = repair(data, None, None, no_progress)
    assert [scope.outcome for scope in report.scopes] == ["not repaired"]
    assert not report.is_whole
    assert "nothing of it can be read" in report.text()
    assert files_of(data) == files


@pytest.mark.parametrize("noted", [True, False], ids=["with the last commit", "without"])
def test_what_came_after_a_backup_is_told_to_be_lost(tmp_path: Path, noted: bool) -> None:
    """If only the backup can be read, the commands since then are lost, and are never said to be back."""
    data, backups = overwritten(tmp_path)
    if not noted:
        (data / f"{DATABASE}-last-commit").unlink()
    report = repair(data, backups, None, no_progress)
    [scope] = report.scopes
    assert (scope.outcome, scope.more_commands) == ("partly lost", True)
    assert scope.commands_lost == ([(21, 30)] if noted else [])
    assert scope.rows["messages"] == 20
    assert "more may be lost" in report.text().splitlines()[0]


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "with a damaged page"])
def test_a_backup_that_is_newer_gives_all_its_rows(tmp_path: Path, damaged: bool) -> None:
    """Also passwords, which the log does not have, if the database is of an earlier moment than the backup."""
    data, backups = tmp_path / "data", tmp_path / "backups"
    with Local(data) as local:
        for room in ("r1", "r2"):
            local.result("save-room", {"room": {"id": room, "name": room, "password": "old"}}, room)
        local.result("save-message", save_payload(1, "text"))
    earlier = (data / DATABASE).read_bytes()
    with Local(data) as local:
        for room in ("r1", "r3"):
            local.result("save-room", {"room": {"id": room, "name": room, "password": "new"}}, f"{room} again")
        local.result("delete-message", {"messageId": "m1"}, "deletion")
        take_backup(local.scopes, backups, no_progress, stopped=True)
    before = contents_of(data / DATABASE)
    (data / DATABASE).write_bytes(earlier)
    if damaged:
        zero(data / DATABASE, next(page for page in pages_of(data / DATABASE) if page.name == "messages"))
    report = repair(data, backups, None, no_progress)
    assert report.is_whole, report.text()
    assert contents_of(data / DATABASE) == before


def test_all_damaged_parts_of_media_are_repaired(tmp_path: Path) -> None:
    """However many there are, and also if only the repaired database tells which there should be."""
    data, backups, number = tmp_path / "data", tmp_path / "backups", 30
    with Local(data) as local:
        for n in range(number):
            part = local.result("put-media-part", {"data": base64.b64encode(b"part %d" % n).decode()})
            local.result("put-media", {"parts": [part], "mime": "text/plain"})
        take_backup(local.scopes, backups, no_progress, stopped=True)
    before = files_of(data)
    parts = [*data.glob("default.media/*/*")]
    for path in parts[: number // 2]:
        path.write_bytes(b"damaged")
    for path in parts[number // 2 :]:
        path.unlink()
    with (data / DATABASE).open("rb+") as file:
        file.write(bytes(4096))  # so that its rows cannot be read before it is repaired
    report = repair(data, backups, None, no_progress)
    assert report.set_aside is not None
    assert report.is_whole, report.text()
    assert report.scopes[0].media_restored == number
    assert len([*Path(report.set_aside).glob("default.media/*/*")]) == number // 2
    media = {name: content for name, content in before.items() if "media" in name}
    assert {name: content for name, content in files_of(data).items() if "media" in name} == media


def test_more_lost_parts_than_are_noted_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of lost parts is bounded: a repair of the first ones is not told to be one of all."""
    for module in (repairing, media_check):
        monkeypatch.setattr(module, "LOST_MAX", 2)
    data, backups = tmp_path / "data", tmp_path / "backups"
    with Local(data) as local:
        for n in range(3):
            local.result("put-media-part", {"data": base64.b64encode(b"part %d" % n).decode()})
        take_backup(local.scopes, backups, no_progress, stopped=True)
    for path in data.glob("default.media/*/*"):
        path.write_bytes(b"damaged")
    report = repair(data, backups, None, no_progress)
    assert not report.is_whole
    assert "repair again" in report.text()
    assert repair(data, backups, None, no_progress).is_whole
    assert repair(data, backups, None, no_progress).set_aside is None


def test_a_scope_of_which_only_media_are_left_is_found(tmp_path: Path) -> None:
    """It comes from the backup; without one it is told, and its media stay."""
    data, backups = tmp_path / "data", tmp_path / "backups"
    with Local(data) as local:
        local.scopes.open("other")
        local.result("put-media-part", {"data": "aGVsbG8="}, scope="other")
        take_backup(local.scopes, backups, no_progress, stopped=True)
    for path in data.glob("scopes/*.db*"):
        path.unlink()
    assert [scope.outcome for scope in repair(data, None, None, no_progress).scopes] == ["not repaired"]
    assert [*data.glob("scopes/*.media/*/*")]
    report = repair(data, backups, None, no_progress)
    assert [(scope.scope, scope.rows["commands"]) for scope in report.scopes] == [("other", 1)]


def test_commands_behind_damage_of_the_log_have_their_effects(tmp_path: Path, long: bool) -> None:
    """With pages and the `-wal` damaged: a message is there, or named as lost, or the command that saved it is."""
    for run in range(20 if long else 2):
        draw, data, killed = random.Random(SEED + run), tmp_path / f"data {run}", tmp_path / f"killed {run}"
        with Local(data) as local:
            for number in range(150):
                local.result("save-message", save_payload(number, "x" * 300), f"before-{number}")
        pages = pages_of(data / DATABASE)
        with Local(data) as local:
            for number in range(150, 220):
                local.result("save-message", save_payload(number, "x" * 300), f"after-{number}")
            shutil.copytree(data, killed)
        (killed / "lock").unlink()
        for name in ("commands", "messages"):
            zero(killed / DATABASE, draw.choice([each for each in pages if each.name == name and each.kind == "leaf"]))
        log = killed / f"{DATABASE}-wal"
        content = bytearray(log.read_bytes())
        content[draw.randrange(len(content) // 4, len(content) // 2)] ^= 1
        log.write_bytes(content)
        [scope] = repair(killed, None, None, no_progress).scopes
        there = {row[0] for row in contents_of(killed / DATABASE)["messages"]}
        named = {each["id"] for rows in scope.lost if rows.table == "messages" for each in rows.named}
        lost = {f"m{seq - 1}" for first, last in scope.commands_lost for seq in range(first, last + 1)}
        assert {f"m{number}" for number in range(220)} <= there | named | lost, run
        assert len(lost) < 70, run
        assert repair(killed, None, None, no_progress).set_aside is None


def test_a_repaired_database_can_be_repaired_again(tmp_path: Path) -> None:
    """Where a repair began a new log, another one of an index loses nothing, and tells no earlier loss again."""
    data = tmp_path / "data"
    with Local(data) as local:
        for number in range(40):
            local.result("save-message", save_payload(number, "x" * 300), f"before-{number}")
    zero(data / DATABASE, [page for page in pages_of(data / DATABASE) if page.name == "commands"][2])
    [scope] = repair(data, None, None, no_progress).scopes
    assert scope.commands_lost
    with Local(data) as local:
        for number in range(40, 60):
            local.result("save-message", save_payload(number, "x" * 300), f"after-{number}")
    before = contents_of(data / DATABASE)
    pages = {page.name: page for page in pages_of(data / DATABASE) if page.kind == "leaf"}
    zero(data / DATABASE, pages["sqlite_autoindex_commands_1"])
    assert repair(data, None, None, no_progress).is_whole
    assert contents_of(data / DATABASE) == before
    zero(data / DATABASE, pages["messages"])
    [scope] = repair(data, None, None, no_progress).scopes
    assert not scope.commands_lost


# What is printed


def test_a_report_begins_with_what_to_do() -> None:
    """What became of each scope and what to do now come before the details, whose lists can be cut."""
    lost = [{"id": f"m{number}"} for number in range(31)]
    scope = ScopeReport(
        scope="ada",
        file="scopes/1.db",
        damage=[f"damage {number}" for number in range(7)],
        outcome="partly lost",
        commands_lost=[(4, 4), (7, 9)],
        ids_known=1,
        lost=[Rows("messages", 40, lost)],
    )
    report = RepairReport(set_aside="/data/damaged-1", scopes=[scope])
    lines = report.text(5).splitlines()
    assert lines[0] == "scope 'ada': LOST: 40 rows of messages, 4 commands (4, 7 to 9); everything else is back."
    assert lines[2] == "What to do now:"
    assert lines.index("- Start the daemon again.") < lines.index("Details of scope 'ada' (scopes/1.db):")
    assert any("repair with `--backups DIR`" in line for line in lines)
    assert "    and 2 more; see report.txt" in lines
    assert "    and 35 more; see report.txt" in lines
    assert "    id 'm30'" in report.text().splitlines()
    assert "    and 9 more" in report.text().splitlines()
    assert any("Not even the ids are known of 3 of these" in line for line in lines)
