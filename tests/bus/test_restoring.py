"""Restoring backups: the state of a moment, as another history, and never over what is in use."""

import random
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backscroll.bus.failures import CannotOpen
from backscroll.bus.inprocess import InProcess
from backscroll.bus.sqlite.maintenance import restoring
from backscroll.bus.sqlite.maintenance.backups import remove_old, verify
from backscroll.bus.sqlite.maintenance.catalog import read_catalog
from backscroll.bus.sqlite.maintenance.restoring import CannotRestore, restore
from backscroll.bus.sqlite.scopes import SqliteScopes
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema.tables import Attachments
from backscroll.schema.wire import DEFAULT_SCOPE
from tests.support.clocks import Clock
from tests.support.local import PASSWORD_AT, Local, Plain, Tables, comparable
from tests.support.messages import save_payload
from tests.support.notes import say
from tests.support.recorded_histories import RecordedHistory, nothing

MEDIA_AT = list(Attachments._meta.fields).index("media_id")


def history(tmp_path: Path, seed: int, commands: int, backups: int) -> RecordedHistory:
    """A random history with backups, the first and some others full."""
    recorded = RecordedHistory(tmp_path / "data", seed)
    for number in range(backups):
        recorded.go_on(recorded.draw.randrange(1, 2 * commands // backups))
        recorded.put_media(f"media {number}".encode())
        recorded.clock.now += 60_000
        recorded.back_up(tmp_path / "backups", full=number == 0 or recorded.draw.random() < 0.3)
        recorded.clock.now += 60_000
    recorded.close()
    return recorded


def restored(tmp_path: Path, clock: Clock, **how: Any) -> Local:
    into = tmp_path / "again"
    restore(tmp_path / "backups", into, nothing, clock=clock, **how)
    return Local(into, clock=clock)


@pytest.mark.timeout(3_600)
def test_a_restored_state_is_that_of_the_moment(tmp_path: Path, long: bool) -> None:
    """Random histories with backups in between: each backup restores every row as it was, with media, the log and its
    chain; and each seq and time between does, except for texts that were deleted before the commands were backed up.
    """
    for seed in [random.SystemRandom().randrange(2**32) for _ in range(60)] if long else [7]:
        say(f"seed {seed}")
        directory = tmp_path / f"{seed}"
        recorded = history(directory, seed, 400 if long else 90, 8 if long else 5)
        assert verify(directory / "backups", nothing) == []
        catalog = read_catalog(directory / "backups")
        for backup in catalog.backups if long else catalog.backups[-2:]:
            [state] = backup.manifest.scopes
            with restored(directory, recorded.clock, name=backup.name) as local:
                assert without_times_of_media(recorded.rows(local)) == without_times_of_media(
                    recorded.states[state.seq]
                )
                assert local.parts() == recorded.parts[state.seq]
                chains = [entry["chain"] for entry in local.entries()]
                assert chains == [entry["chain"] for entry in recorded.entries[: state.seq]]
                if backup is catalog.backups[-1]:
                    assert comparable(local.entries()) == comparable(recorded.entries)
            shutil.rmtree(directory / "again")
        for _ in range(40 if long else 4):
            seq = recorded.draw.randrange(cleared_at(recorded), len(recorded.states))
            with restored(directory, recorded.clock, until_seq=seq) as local:
                assert local.store().seq == seq
                assert unlike(recorded, local, seq) == []
            shutil.rmtree(directory / "again")
            at = recorded.draw.choice(recorded.times[cleared_at(recorded) :])
            with restored(directory, recorded.clock, until_at=at) as local:
                assert local.store().seq == recorded.until(at)
                assert unlike(recorded, local, recorded.until(at)) == []
            shutil.rmtree(directory / "again")


def without_times_of_media(tables: Tables) -> Tables:
    """The tables without the times since when media are named by nothing.

    An event in any order about an attachment may win or lose by its text, and that may be erased when it is replayed.
    """
    return tables | {"unnamed_media": [row[:1] for row in tables["unnamed_media"]]}


def cleared_at(recorded: RecordedHistory) -> int:
    """The number of the last `clear-all-data`, before which the log has no payloads; 1 if there is none."""
    return max([1, *(int(entry["seq"]) for entry in recorded.entries if entry["type"] == "clear-all-data")])


def unlike(recorded: RecordedHistory, local: Local, seq: int) -> list[str]:
    """How what was restored differs from the state after a command, where no later deletion explains it.

    Compared is with a replay of the log as it is at the end, from which everything is erased that was deleted by then:
    each row that this replay has must be there as it was, and other rows differ only where this replay differs too.
    Passwords between two backups are those of the next one. A reaction from an earlier backup stays where the emoji of
    its removal was erased before that was backed up, and the mark of a removal where a later reaction was.
    """
    wanted, found = _comparable(recorded.states[seq]), _comparable(recorded.rows(local))
    with Local(local.directory.with_name(f"replayed-{seq}"), clock=recorded.clock) as again:
        again.replay(recorded.entries[:seq], DEFAULT_SCOPE)
        replayed = _comparable(recorded.rows(again))
    shutil.rmtree(again.directory)
    _leave_out_stale(found, recorded, seq)
    _leave_out_named_media(wanted, found)
    problems = [] if wanted.keys() == found.keys() else ["other tables"]
    for table, rows in wanted.items():
        missing = [row for row in rows if row not in found[table]]
        added = [row for row in found[table] if row not in rows and row not in replayed[table]]
        if [row for row in missing if row in replayed[table]] or len(added) > len(missing):
            problems.append(f"{table}: {missing[:2]} became {added[:2]}")
    return problems


def _leave_out_stale(found: Tables, recorded: RecordedHistory, seq: int) -> None:
    """Leave out what may stay of an earlier state: a reaction if its removal is erased, and the mark of a removal if
    the reaction that came after it is. Each must have been in an earlier state, under any id of its message.
    """
    state = recorded.states[seq]
    removals, saves, lists = _erased(recorded.entries[:seq], dict(state["message_aliases"]))
    for table, users, messages in (("reactions", removals, set[str]()), ("reaction_removals", saves, lists)):
        earlier = {row[1:] for each in recorded.states[:seq] for row in each[table]}
        found[table] = [
            row
            for row in found[table]
            if row in state[table] or row[1:] not in earlier or not (row[:2] in users or row[0] in messages)
        ]


def _erased(
    entries: list[Plain], aliases: dict[str, str]
) -> tuple[set[tuple[str, str]], set[tuple[str, str]], set[str]]:
    """The (message, user) of reactions that were removed, and that were saved, by commands whose emoji is erased, and
    the messages with erased lists of reactions. The ids of messages are those that they have now.
    """
    removals, saves, lists = set[tuple[str, str]](), set[tuple[str, str]](), set[str]()
    for entry in entries:
        if entry.get("redacted") and (payload := entry.get("payload")):
            for single in payload["commands"] if entry["type"] == "batch" else [entry]:
                about = single["payload"]
                match single["type"]:
                    case "remove-reaction":
                        removals.add(_reaction_of(about, aliases))
                    case "save-reaction":
                        saves.add(_reaction_of(about["reaction"], aliases))
                    case "save-message" if "reactions" in about["message"]:
                        lists.add(aliases.get(about["message"]["id"], about["message"]["id"]))
                    case "update-message" if "reactions" in about["updates"]:
                        lists.add(aliases.get(about["messageId"], about["messageId"]))
    return removals, saves, lists


def _reaction_of(named: Plain, aliases: dict[str, str]) -> tuple[str, str]:
    """The message, by its id now, and the user, "" for unnamed ones, as in rows."""
    message: str = named["messageId"]
    return aliases.get(message, message), named.get("oderId") or ""


def _leave_out_named_media(wanted: Tables, found: Tables) -> None:
    """Leave out that no attachment names a media any more, where one that is deleted later does in the other state.

    What attachments are is compared by itself.
    """
    in_wanted, in_found = ({row[MEDIA_AT] for row in tables["attachments"]} for tables in (wanted, found))
    wanted["unnamed_media"] = [row for row in wanted["unnamed_media"] if row[0] not in in_found]
    found["unnamed_media"] = [row for row in found["unnamed_media"] if row[0] not in in_wanted - in_found]


def _comparable(tables: Tables) -> Tables:
    """The tables without passwords, and without the times since when media are named by nothing."""
    rooms = [row[:PASSWORD_AT] + row[PASSWORD_AT + 1 :] for row in tables["rooms"]]
    return without_times_of_media(tables) | {"rooms": sorted(rooms, key=repr)}


def test_deleted_text_is_in_the_backup_until_it_expires(tmp_path: Path) -> None:
    """A full copy from before the deletion has it and restores it; one from after it does not."""
    clock = Clock()
    with Local(tmp_path / "data", clock=clock) as local:
        recorded = RecordedHistory.__new__(RecordedHistory)
        recorded.local, recorded.clock, recorded.parts = local, clock, {}
        local.result("save-message", save_payload(1, "a secret"))
        recorded.back_up(tmp_path / "backups")
        local.result("delete-message", {"messageId": "m1"})
        clock.now += 1_000
        recorded.back_up(tmp_path / "backups")
    with restored(tmp_path, clock, until_seq=1) as local:
        assert local.result("get-message-by-id", {"messageId": "m1"})["content"] == "a secret"
    shutil.rmtree(tmp_path / "again")
    with restored(tmp_path, clock) as local:
        assert "a secret" not in repr(local.tables())


@pytest.mark.parametrize("listed", [[], [{"messageId": "m1", "oderId": "bo", "emoji": "👎"}]])
@pytest.mark.parametrize("command", ["save-message", "update-message"])
def test_a_list_that_was_erased_still_replaces_reactions(tmp_path: Path, command: str, listed: list[Plain]) -> None:
    """What a list of reactions removed is not there again when that list was erased before it was backed up."""
    recorded = RecordedHistory(tmp_path / "data", 0)
    recorded.local.result("save-message", save_payload(1, "a text"))
    recorded.local.result("save-reaction", {"reaction": {"messageId": "m1", "oderId": "bo", "emoji": "👍"}})
    recorded.back_up(tmp_path / "backups")
    new = {"content": "another text", "reactions": listed}
    if command == "save-message":
        recorded.local.result(command, {"message": save_payload(1, "")["message"] | new})
    else:
        recorded.local.result(command, {"messageId": "m1", "updates": new})
    recorded.local.result("delete-message", {"messageId": "m1"})
    recorded.clock.now += 1_000
    recorded.back_up(tmp_path / "backups")
    recorded.close()
    with restored(tmp_path, recorded.clock, until_seq=3) as local:
        assert local.result("get-reactions-for-message", {"messageId": "m1"}) == []


def test_media_go_also_if_the_attachment_was_erased(tmp_path: Path) -> None:
    """Erased, an attachment in any order may count no more. Its media was named, and goes in a day."""
    recorded = RecordedHistory(tmp_path / "data", 0)
    media_id = recorded.put_media(b"hello")
    for filename, named in (("less", {}), ("more", {"mediaId": media_id})):
        attachment = {"id": "a1", "messageId": "m1", "filename": filename} | named
        recorded.local.result("save-attachment", {"attachment": attachment, "arrival": "any-order"})
        recorded.clock.now += 1_000
        if not named:
            recorded.back_up(tmp_path / "backups")
    recorded.local.result("delete-attachments-for-message", {"messageId": "m1"})
    recorded.back_up(tmp_path / "backups")
    wanted = without_times_of_media(recorded.rows(recorded.local))
    recorded.close()
    with restored(tmp_path, recorded.clock) as local:
        assert without_times_of_media(recorded.rows(local)) == wanted
        assert wanted["unnamed_media"] == [(media_id,)]


@pytest.fixture
def backed_up(tmp_path: Path) -> RecordedHistory:
    """Two scopes with a full backup and the commands after it; closed."""
    recorded = RecordedHistory(tmp_path / "data", 3)
    recorded.go_on(12)
    recorded.local.result("save-message", save_payload(1, "elsewhere"), scope="other")
    recorded.back_up(tmp_path / "backups")
    recorded.clock.now += 60_000
    recorded.go_on(8)
    recorded.local.result("save-message", save_payload(2, "elsewhere"), "retried", scope="other")
    recorded.clock.now += 60_000
    recorded.back_up(tmp_path / "backups")
    return recorded


def test_a_retry_after_a_restore_takes_effect_once(tmp_path: Path, backed_up: RecordedHistory) -> None:
    """The ids of requests and the numbers of clients come with the log."""
    reply = backed_up.local.ask("save-message", save_payload(2, "elsewhere"), "retried", scope="other")
    assert reply["seq"] == 2
    backed_up.close()
    with restored(tmp_path, backed_up.clock) as local:
        assert local.ask("save-message", save_payload(2, "elsewhere"), "retried", scope="other") == reply
        assert local.code("save-message", save_payload(2, "another"), "retried", scope="other") == "conflict"


def test_cursors_from_after_the_restored_moment_get_a_gap(tmp_path: Path, backed_up: RecordedHistory) -> None:
    """A cursor goes on where the restored log has everything that its holder has seen; any later one gets a gap, also
    after new commands have taken the numbers that it has seen.
    """
    local = backed_up.local
    early = local.result("get-changes", {"after": None, "limit": 500}, scope="other")["cursor"]
    local.result("save-message", save_payload(3, "lost"), scope="other")
    late = local.result("get-changes", {"after": "now"}, scope="other")["cursor"]
    backed_up.close()
    with restored(tmp_path, backed_up.clock) as again:
        assert again.result("get-changes", {"after": late}, scope="other").get("gap")
        again.result("save-message", save_payload(3, "new"), scope="other")
        again.result("save-message", save_payload(4, "new"), scope="other")
        assert again.result("get-changes", {"after": late}, scope="other").get("gap")
        page = again.result("get-changes", {"after": early}, scope="other")
        assert not page.get("gap")
        assert [change["id"] for change in page["changes"]] == ["m3", "m4"]


def test_a_restored_database_is_of_another_lineage(tmp_path: Path, backed_up: RecordedHistory) -> None:
    """So no log of the files before is taken for its own, and its next backup is a full one."""
    backed_up.close()
    with restored(tmp_path, backed_up.clock) as local:
        before = read_catalog(tmp_path / "backups").backups[-1].manifest.scopes[0].lineage
        assert local.store()._moment.lineage != before
        again = RecordedHistory.__new__(RecordedHistory)
        again.local, again.clock, again.parts = local, backed_up.clock, {}
        assert again.back_up(tmp_path / "backups").manifest.kind == "full"


def test_a_restore_over_a_running_daemon_is_refused(
    tmp_path: Path, backed_up: RecordedHistory, start_daemon: Callable[..., DaemonProcess]
) -> None:
    """With words, and nothing changes."""
    backed_up.close()
    start_daemon(data_dir=tmp_path / "data")
    with pytest.raises(CannotRestore, match="another daemon"):
        restore(tmp_path / "backups", tmp_path / "data", nothing)
    assert not list(tmp_path.glob("*before*"))
    assert not list(tmp_path.glob(".restoring*"))


@pytest.mark.parametrize("scope", [None, "other"])
def test_what_was_there_is_set_aside(tmp_path: Path, backed_up: RecordedHistory, scope: str | None) -> None:
    """The files of all scopes, or of the one, are beside the directory and can be opened; other scopes stay."""
    backed_up.local.result("save-message", save_payload(9, "after the backup"))
    backed_up.local.result("save-message", save_payload(9, "after the backup"), scope="other")
    backed_up.local.result("save-message", save_payload(9, "a new scope"), scope="new")
    (tmp_path / "data" / "tokens.json").write_text('{"tokens":[]}')
    backed_up.close()
    report = restore(tmp_path / "backups", tmp_path / "data", nothing, scope=scope, clock=backed_up.clock)
    assert [each.scope for each in report.scopes] == ([DEFAULT_SCOPE, "other"] if scope is None else ["other"])
    assert report.set_aside is not None
    assert report.problems == []
    with Local(tmp_path / "data", clock=backed_up.clock) as local:
        assert local.result("get-message-by-id", {"messageId": "m9"}, scope="other") is None
        assert (local.result("get-message-by-id", {"messageId": "m9"}) is None) == (scope is None)
        assert (local.result("get-message-by-id", {"messageId": "m9"}, scope="new") is None) == (scope is None)
    (report.set_aside / "default.db").touch()
    with Local(report.set_aside, clock=backed_up.clock) as local:
        assert local.result("get-message-by-id", {"messageId": "m9"}, scope="other")["content"] == "after the backup"
    assert (tmp_path / "data" / "tokens.json").exists()


def test_one_scope_is_restored_into_a_fresh_directory(tmp_path: Path, backed_up: RecordedHistory) -> None:
    """A daemon can serve it."""
    backed_up.close()
    with restored(tmp_path, backed_up.clock, scope="other") as local:
        assert local.scopes.names() == [DEFAULT_SCOPE, "other"]
        assert local.store("other").seq == 2


@pytest.mark.usefixtures("backed_up")
def test_only_leftovers_of_the_same_directory_are_removed(tmp_path: Path) -> None:
    """Those of a restore that was killed; a restore into a directory of a similar name may be in progress."""
    left, other = (
        tmp_path / f"{restoring.BUILDING}data[1]-abcdefgh",
        tmp_path / f"{restoring.BUILDING}data[1]-2-abcdefgh",
    )
    for each in (left, other):
        each.mkdir()
    restore(tmp_path / "backups", tmp_path / "data[1]", nothing, scope=DEFAULT_SCOPE)
    assert (left.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize("after", [0, 2])
def test_an_interrupted_restore_keeps_daemons_from_starting(
    tmp_path: Path, backed_up: RecordedHistory, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """It says what to do, and restoring again finishes it; nothing is lost."""
    backed_up.close()
    move, moved = restoring._move, list[Path]()

    def killed(path: Path, target: Path) -> None:
        if len(moved) == after:
            raise KeyboardInterrupt
        moved.append(path)
        move(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(restoring, "_move", killed)
        with pytest.raises(KeyboardInterrupt):
            restore(tmp_path / "backups", tmp_path / "data", nothing, clock=backed_up.clock)
    with pytest.raises(CannotOpen, match="interrupted"):
        SqliteScopes(tmp_path / "data")
    restore(tmp_path / "backups", tmp_path / "data", nothing, clock=backed_up.clock)
    with Local(tmp_path / "data", clock=backed_up.clock) as local:
        assert backed_up.rows(local) == backed_up.states[-1]
    assert list(tmp_path.glob("data-before-restore-*/default.db"))


def test_a_restore_that_cannot_be_meant_is_refused(tmp_path: Path, backed_up: RecordedHistory) -> None:
    """It says why, and changes nothing."""
    backed_up.close()
    backups, again, letters = tmp_path / "backups", tmp_path / "again", tmp_path / "letters"
    letters.mkdir()
    (letters / "letter.txt").touch()
    cases: list[tuple[str, Path, Path, dict[str, Any]]] = [
        ("neither a data directory nor empty", backups, letters, {}),
        ("inside", backups, backups / "again", {}),
        ("inside", backups, tmp_path, {}),
        ("not a directory of backups", tmp_path / "elsewhere", again, {}),
        ("ends with seq 2", backups, again, {"until_seq": 1_000, "scope": "other"}),
        ("name the scope", backups, again, {"until_seq": 2}),
        ("no backup 'yesterday'", backups, again, {"name": "yesterday"}),
        ("has the scope 'never'", backups, again, {"scope": "never"}),
    ]
    for words, directory, into, how in cases:
        with pytest.raises(CannotRestore, match=words):
            restore(directory, into, nothing, **how)
        assert not (into / "default.db").exists()


def test_damaged_backups_are_not_restored(tmp_path: Path, backed_up: RecordedHistory) -> None:
    """The error names the file and what to do; an earlier backup can still be restored by its name."""
    backed_up.close()
    first, last = read_catalog(tmp_path / "backups").backups
    path = last.path / "default.log"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CannotRestore, match=r"default\.log is missing or damaged"):
        restore(tmp_path / "backups", tmp_path / "again", nothing)
    assert not (tmp_path / "again" / "default.db").exists()
    with restored(tmp_path, backed_up.clock, name=first.name) as local:
        assert local.store().seq == first.manifest.scopes[0].seq


def test_a_missing_part_of_media_does_not_prevent_a_restore(tmp_path: Path) -> None:
    """Whether the full copy or the commands after it have the media: it is a problem of the report, and the rest is
    restored.
    """
    recorded = RecordedHistory(tmp_path / "data", 5)
    recorded.put_media(b"in the full copy")
    recorded.back_up(tmp_path / "backups")
    recorded.put_media(b"after it")
    recorded.clock.now += 1_000
    recorded.go_on(5)
    recorded.back_up(tmp_path / "backups")
    recorded.close()
    for path in (tmp_path / "backups" / "media").glob("*/*"):
        path.unlink()
    report = restore(tmp_path / "backups", tmp_path / "again", nothing, clock=recorded.clock)
    assert len([problem for problem in report.problems if "part" in problem.what]) >= 2
    with closing(SqliteScopes(tmp_path / "again", clock=recorded.clock)) as scopes:
        assert scopes.open(DEFAULT_SCOPE).seq == len(recorded.states) - 1


def test_moments_before_all_full_copies_come_from_the_log(tmp_path: Path) -> None:
    """When the earlier backups have expired, the log in a full copy still leads to any earlier state."""
    recorded = RecordedHistory(tmp_path / "data", 11)
    recorded.go_on(30)
    recorded.back_up(tmp_path / "backups")
    recorded.clock.now += 86_400_000 * 30
    recorded.go_on(10)
    recorded.back_up(tmp_path / "backups", full=True)
    recorded.close()
    assert len(remove_old(tmp_path / "backups", daily=1, weekly=1)) == 1
    for seq in (1, 17):
        with restored(tmp_path, recorded.clock, until_seq=seq) as local:
            assert local.store().seq == seq
            assert unlike(recorded, local, seq) == []
        shutil.rmtree(tmp_path / "again")


def test_an_in_process_store_opens_a_restored_directory(tmp_path: Path, backed_up: RecordedHistory) -> None:
    """With the keys and tokens that were backed up, where there were none."""
    (tmp_path / "data" / "keys.json").write_text("{}")
    backed_up.clock.now += 1
    backed_up.back_up(tmp_path / "backups")
    backed_up.close()
    restore(tmp_path / "backups", tmp_path / "again", nothing, clock=backed_up.clock)
    assert (tmp_path / "again" / "keys.json").read_text() == "{}"
    assert (tmp_path / "again" / "keys.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "again" / "keys.json").unlink()
    with InProcess(tmp_path / "again", clock=backed_up.clock):
        pass
