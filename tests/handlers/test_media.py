"""handlers/media.py, the blob directory and clients/media.py: files beside the database, named by their hash."""

import base64
import hashlib
import io
import json
import os
import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.clients.python.media import download, upload
from backscroll.handlers import chores
from backscroll.handlers.chores import UNNAMED_MEDIA_KEPT_MS, UNUSED_PARTS_KEPT_MS
from backscroll.schema import (
    Attachment,
    Batch,
    Channel,
    ClearAllData,
    ClearRoomMessages,
    Command,
    DeleteAttachmentsForMessage,
    DeleteChannel,
    DeleteExpiredMessages,
    DeleteMedia,
    DeleteMessage,
    DeleteMessagesBefore,
    DeleteRoom,
    GetAllAttachments,
    GetMedia,
    GetMediaPart,
    GetScopeInfo,
    Health,
    Invalid,
    ListMedia,
    Media,
    MessageUpdates,
    NotFound,
    PutMedia,
    PutMediaPart,
    RenameMessage,
    Room,
    SaveAttachment,
    SaveMessage,
    SaveRoom,
    Storage,
    TooLarge,
    UpdateMessage,
)
from backscroll.schema.limits import MEDIA_PART_BYTES_MAX, MEDIA_PARTS_MAX
from backscroll.schema.wire import JSON, MSGPACK
from tests.support.clocks import Clock
from tests.support.local import REPLAYED, Local, check_replay
from tests.support.messages import message_record
from tests.support.requests import answer_all, body, result, send
from tests.support.sql import sql
from tests.support.tables import all_rows, parts_of, put_parts_at

LARGE_BYTES = 50 * 1000 * 1000
LARGE_SEED = 20260104
DAEMON_BYTES_MAX = 256 * 2**20


def sha256(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def put(client: Client, *parts: bytes, mime: str = "text/plain", uploader_id: str | None = None) -> Media:
    """Create a media of these parts."""
    hashes = [client.execute(PutMediaPart(part)) for part in parts]
    return client.execute(PutMedia(hashes, mime, uploader_id))


def fetch(client: Client, media: Media) -> list[bytes]:
    """The bytes of all parts of a media."""
    return [client.ask(GetMediaPart(media.id, number)) for number in range(media.parts)]


def part_files(data_dir: Path) -> dict[str, Path]:
    """The files in the media directories, by name."""
    return {path.name: path for path in data_dir.glob("*.media/**/*") if path.is_file()}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The data directory of `transport`."""
    return tmp_path / "data"


def test_a_media_is_fetched_as_it_was_put(client: Client, transport: InProcess, clock: Clock) -> None:
    """A media has the hash and size of the whole, its parts are returned in order, and each is a file."""
    parts = [b"one", b"", b"three", b"one"]
    media = put(client, *parts, mime="x/y", uploader_id="ada")
    assert media == Media(
        id=media.id,
        sha256=sha256(*parts),
        mime="x/y",
        size=11,
        parts=4,
        created_at=clock.now,
        uploader_id="ada",
    )
    assert client.ask(GetMedia(media.id)) == media
    assert fetch(client, media) == parts
    assert set(parts_of(transport.store)) == {sha256(part) for part in parts}
    assert client.execute(PutMediaPart(b"one")) == sha256(b"one")


def test_the_same_content_is_stored_once(client: Client, transport: InProcess) -> None:
    """The same bytes, in whatever parts and by whichever user, are the same media."""
    first = put(client, b"hello", b" ", b"world", mime="text/plain", uploader_id="ada")
    files = set(parts_of(transport.store))
    assert put(client, b"hello", b" ", b"world", mime="text/html", uploader_id="bob") == first
    assert set(parts_of(transport.store)) == files
    assert put(client, b"hello world") == first
    assert fetch(client, first) == [b"hello", b" ", b"world"]


def test_the_same_parts_in_another_order_are_another_media(client: Client, transport: InProcess) -> None:
    """The parts themselves are stored once."""
    first, second = put(client, b"a", b"b"), put(client, b"b", b"a")
    assert first.id != second.id
    assert fetch(client, second) == [b"b", b"a"]
    assert len(parts_of(transport.store)) == 2


def test_an_unknown_media_is_null_and_its_parts_are_not_found(client: Client) -> None:
    """A part past the last one is not found either."""
    media = put(client, b"x")
    assert client.ask(GetMedia("nobody")) is None
    for query in (GetMediaPart("nobody"), GetMediaPart(media.id, 1), GetMediaPart(media.id, 2**53 - 1)):
        with pytest.raises(NotFound) as refused:
            client.ask(query)
        assert refused.value.details == {"path": "$.payload.part"}


def test_a_media_with_a_missing_part_is_not_found(client: Client, transport: InProcess) -> None:
    """The error names the first missing part, and no row is written."""
    known, unknown = client.execute(PutMediaPart(b"x")), sha256(b"never put")
    before = all_rows(transport.store)
    with pytest.raises(NotFound) as refused:
        client.execute(PutMedia([known, unknown, unknown], "x/y"))
    assert refused.value.details == {"path": "$.payload.parts[1]"}
    assert not before["media"]
    assert all_rows(transport.store) == before


@pytest.mark.parametrize(
    "name",
    ["", "x", "../../../etc/passwd", sha256(b"x").upper(), sha256(b"x")[:-1] + "\n", sha256(b"x")[:-1], "é" * 64],
)
def test_a_part_name_must_be_a_hash(client: Client, name: str) -> None:
    """No text of a caller becomes a path."""
    client.execute(PutMediaPart(b"x"))
    with pytest.raises(Invalid) as refused:
        client.execute(PutMedia([name], "x/y"))
    assert refused.value.details == {"path": "$.payload.parts[0]"}


def test_sizes_and_numbers_of_parts_are_limited(client: Client, transport: InProcess) -> None:
    """One byte or one part too many, or no part, is refused in both encodings; exactly the limit is accepted."""
    largest = b"\xff" * MEDIA_PART_BYTES_MAX
    for codec in (JSON, MSGPACK):
        name = result(transport, "put-media-part", {"data": largest}, codec)
        error = send(transport, body("put-media-part", {"data": largest + b"\0"}, codec))["error"]
        assert (error["code"], error["details"]) == ("too-large", {"path": "$.payload.data"})
        assert name == sha256(largest)
    assert list(parts_of(transport.store)) == [sha256(largest)]
    with pytest.raises(TooLarge):
        client.execute(PutMedia([sha256(b"x")] * (MEDIA_PARTS_MAX + 1), "x/y"))
    with pytest.raises(Invalid):
        client.execute(PutMedia([], "x/y"))


def test_in_json_bytes_are_base64(transport: InProcess) -> None:
    """In JSON the same bytes are put and fetched as text."""
    data = bytes(range(256))
    name = result(transport, "put-media-part", {"data": base64.b64encode(data).decode()})
    media = result(transport, "put-media", {"parts": [name], "mime": "x/y"})
    fetched = result(transport, "get-media-part", {"mediaId": media["id"]})
    assert base64.b64decode(fetched, validate=True) == data
    assert result(transport, "get-media-part", {"mediaId": media["id"]}, MSGPACK) == data
    error = send(transport, body("put-media-part", {"data": "no base64!"}))["error"]
    assert (error["code"], error["details"]) == ("invalid", {"path": "$.payload.data"})


# --- damage ---


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"hellp"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"hello\0"),
        lambda path: path.unlink(),
    ],
    ids=["changed", "emptied", "longer", "gone"],
)
def test_a_damaged_part_is_not_returned(client: Client, data_dir: Path, damage: Callable[[Path], None]) -> None:
    """Bytes are compared with their hash whenever they are read; other parts and requests are served."""
    media = put(client, b"hello", b"world")
    file = part_files(data_dir)[sha256(b"hello")]
    damage(file)
    with pytest.raises(Storage) as refused:
        client.ask(GetMediaPart(media.id, 0))
    assert refused.value.retryable == (not file.exists())  # a missing one may belong to a media that was just deleted
    assert client.ask(GetMediaPart(media.id, 1)) == b"world"
    assert client.ask(GetMedia(media.id)) == media


def test_a_damaged_part_cannot_become_media(client: Client, data_dir: Path) -> None:
    """A part that does not match its hash is refused by `put-media`."""
    name = client.execute(PutMediaPart(b"hello"))
    part_files(data_dir)[name].write_bytes(b"hellp")
    with pytest.raises(Storage):
        client.execute(PutMedia([name], "x/y"))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"hellp")], ids=["gone", "changed"])
def test_a_damaged_part_is_repaired_by_putting_it_again(
    client: Client, data_dir: Path, damage: Callable[[Path], None]
) -> None:
    """The media is complete again afterwards."""
    media = put(client, b"hello")
    damage(part_files(data_dir)[sha256(b"hello")])
    assert put(client, b"hello") == media
    assert fetch(client, media) == [b"hello"]


# --- removal ---


def test_delete_media_removes_unshared_parts(client: Client, transport: InProcess) -> None:
    """Parts of other media stay on disk; deleting a media twice is no error."""
    first, second = put(client, b"shared", b"first"), put(client, b"shared", b"second")
    for _ in range(2):
        client.execute(DeleteMedia(first.id))
    assert client.ask(GetMedia(first.id)) is None
    assert set(parts_of(transport.store)) == {sha256(b"shared"), sha256(b"second")}
    assert fetch(client, second) == [b"shared", b"second"]
    client.execute(DeleteMedia(second.id))
    assert parts_of(transport.store) == {}


def commit(transport: InProcess, *commands: Command[Any]) -> list[bool]:
    """Execute commands in one transaction; for each, whether it succeeded."""
    requests = [transport.dispatcher.receive(body(command.wire_name, command, MSGPACK)) for command in commands]
    return [MSGPACK.decode(reply, dict[str, Any])["ok"] for reply in answer_all(transport.dispatcher, requests)]


def test_a_part_put_again_in_the_same_commit_is_kept(client: Client, transport: InProcess) -> None:
    """A media deleted and put in one transaction, in either order, keeps the bytes of the media that is left.

    After a deletion the part has to be put again, as in a later transaction.
    """
    name = sha256(b"hello")
    media = put(client, b"hello")
    again = PutMedia([name], "x/y")
    assert commit(transport, DeleteMedia(media.id), PutMediaPart(b"hello"), again) == [True] * 3
    assert set(parts_of(transport.store)) == {name}
    [(media_id, *_)] = all_rows(transport.store)["media"]
    assert commit(transport, again, DeleteMedia(str(media_id)), again, PutMediaPart(sha256=name)) == [
        *(True, True, False, False)
    ]
    assert parts_of(transport.store) == {}


def test_a_failed_put_does_not_keep_a_part(client: Client, transport: InProcess) -> None:
    """A put that is refused does not keep the part that another command of the commit removes."""
    media = put(client, b"hello")
    refused = PutMedia([sha256(b"hello"), sha256(b"never put")], "x/y")
    assert commit(transport, DeleteMedia(media.id), refused) == [True, False]
    assert parts_of(transport.store) == {}


def test_clear_all_data_removes_all_media(client: Client, transport: InProcess) -> None:
    """Neither parts of media nor parts that are in no media yet are left on disk."""
    put(client, b"hello", b"world")
    client.execute(PutMediaPart(b"waits"))
    client.execute(ClearAllData())
    assert parts_of(transport.store) == {}


def test_orphaned_parts_are_removed_after_a_day(
    client: Client, transport: InProcess, data_dir: Path, clock: Clock
) -> None:
    """Parts of a media stay, however old they are."""
    put(client, b"used")
    for name in (b"old", b"fresh", b"put again"):
        client.execute(PutMediaPart(name))
    files = part_files(data_dir)
    left_over = files[sha256(b"used")].with_name("new-left-over")
    left_over.write_bytes(b"half a part")
    for path in (*files.values(), left_over):
        _put_at(path, clock.now - UNUSED_PARTS_KEPT_MS - 1)
    _put_at(files[sha256(b"fresh")], clock.now - UNUSED_PARTS_KEPT_MS)
    client.execute(PutMediaPart(b"put again"))
    transport.dispatcher.run_chores("default")
    assert set(parts_of(transport.store)) == {sha256(each) for each in (b"used", b"fresh", b"put again")}
    clock.now += 1
    transport.dispatcher.run_chores("default")
    assert set(parts_of(transport.store)) == {sha256(each) for each in (b"used", b"put again")}


def _put_at(path: Path, time_ms: int) -> None:
    os.utime(path, ns=(time_ms * 1_000_000, time_ms * 1_000_000))


# Media that attachments name


DAY_MS = UNNAMED_MEDIA_KEPT_MS


@pytest.fixture
def attach(client: Client) -> Callable[..., None]:
    """Saves an attachment of a message that names a media, or none."""

    def save(attachment_id: str, media: Media | None, message_id: str = "m1") -> None:
        media_id = None if media is None else media.id
        attachment = Attachment(id=attachment_id, message_id=message_id, filename="f", media_id=media_id)
        client.execute(SaveAttachment(attachment))

    return save


@pytest.fixture
def stored_after(client: Client, transport: InProcess, clock: Clock) -> Callable[..., list[str]]:
    """Runs the chores a time later, with files as old as the clock says; the ids of the media that are left."""

    def run(ms: int, put_at: int | None = None) -> list[str]:
        put_parts_at(transport.store, (clock.now - 2 * DAY_MS) if put_at is None else put_at)
        clock.now += ms
        transport.dispatcher.run_chores("default")
        return [each.id for each in client.ask(ListMedia())]

    return run


REMOVALS: dict[str, Command[Any]] = {
    "its attachments are deleted": DeleteAttachmentsForMessage("m1"),
    "the message is deleted": DeleteMessage("m1"),
    "the message is deleted in any order": DeleteMessage("m1", arrival="any-order"),
    "the message becomes one that was deleted": Batch.of(
        [DeleteMessage("m9", arrival="any-order"), RenameMessage("m1", "m9")]
    ),
    "the message is saved as deleted": SaveMessage(message_record("m1", is_deleted=True)),
    "the message expires": Batch.of([UpdateMessage("m1", MessageUpdates(expires_at=0)), DeleteExpiredMessages()]),
    "the message is too old": DeleteMessagesBefore("r1", 10**14),
    "the room is cleared": ClearRoomMessages("r1"),
    "the room is deleted": DeleteRoom("r1"),
    "the channel is deleted": DeleteChannel("c1", room_id="r1", cascade=True),
    "the attachment gets no media": SaveAttachment(Attachment(id="a1", message_id="m1", filename="f")),
    "the attachment has no media in any order": SaveAttachment(
        Attachment(id="a1", message_id="m1", filename="greater"), arrival="any-order"
    ),
    "the attachment gets another media": SaveAttachment(
        Attachment(id="a1", message_id="m2", filename="f", media_id="another")
    ),
}


@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS)
def test_media_go_a_day_after_their_last_attachment(
    client: Client,
    attach: Callable[..., None],
    stored_after: Callable[..., list[str]],
    transport: InProcess,
    removal: Command[Any],
) -> None:
    """However the attachment goes. What another attachment names stays, and what none ever named."""
    client.execute(SaveRoom(Room(id="r1", name="r", channels=[Channel(id="c1", name="c", type="text")])))
    client.execute(SaveMessage(message_record("m1", channel_id="c1")))
    once, twice, never = put(client, b"once"), put(client, b"twice"), put(client, b"never")
    attach("a1", once)
    attach("a2", twice)
    attach("a3", twice, "elsewhere")
    client.execute(removal)
    assert stored_after(DAY_MS - 1) == [once.id, twice.id, never.id]
    assert stored_after(1) == [twice.id, never.id]
    assert set(parts_of(transport.store)) == {sha256(b"twice"), sha256(b"never")}
    client.execute(DeleteAttachmentsForMessage("elsewhere"))
    client.execute(DeleteAttachmentsForMessage("m1"))
    assert stored_after(DAY_MS) == [never.id]


def test_media_that_are_named_again_stay(
    client: Client, attach: Callable[..., None], stored_after: Callable[..., list[str]]
) -> None:
    """The day begins when the last attachment goes, as often as that happens."""
    media = put(client, b"hello")
    attach("a1", media)
    attach("a1", None)
    assert stored_after(DAY_MS - 1) == [media.id]
    attach("a2", media, "local")
    client.execute(RenameMessage("local", "m1"))
    assert stored_after(DAY_MS) == [media.id]
    client.execute(DeleteAttachmentsForMessage("m1"))
    assert stored_after(DAY_MS - 1) == [media.id]
    assert stored_after(1) == []


@pytest.mark.parametrize("second_message", ["m1", "m2"])
@pytest.mark.parametrize("filenames", [("lesser", "more"), ("more", "lesser")])
def test_media_of_an_attachment_in_any_order_go_unless_it_counts(
    client: Client, stored_after: Callable[..., list[str]], filenames: tuple[str, str], second_message: str
) -> None:
    """Whether it was replaced or came late."""
    for filename, message_id in zip(filenames, ("m1", second_message), strict=True):
        media = put(client, filename.encode())
        attachment = Attachment(id="a1", message_id=message_id, filename=filename, media_id=media.id)
        client.execute(SaveAttachment(attachment, arrival="any-order"))
    [counting] = client.ask(GetAllAttachments())
    assert counting.filename == "more"
    assert stored_after(DAY_MS) == [counting.media_id]


def test_media_that_are_put_again_stay_for_a_day(
    client: Client,
    clock: Clock,
    attach: Callable[..., None],
    stored_after: Callable[..., list[str]],
    transport: InProcess,
) -> None:
    """Whoever gets an existing media as the result of an upload, in whatever parts, has a day to name it."""
    media = put(client, b"hello", b"world")
    attach("a1", media)
    attach("a1", None)
    put_parts_at(transport.store, 0)
    assert put(client, b"helloworld").id == media.id
    with transport.store.read() as snapshot:
        assert all(snapshot.blobs.was_put_since(name, 1) for name in parts_of(transport.store))
    assert stored_after(DAY_MS, put_at=clock.now) == [media.id]
    assert stored_after(1, put_at=clock.now - DAY_MS) == []


def test_media_are_deleted_by_logged_commands(tmp_path: Path, clock: Clock) -> None:
    """The chores name each that they delete, so a replay does the same whenever it is done, and no text is left."""
    with Local(tmp_path / "data", clock=clock) as local:
        for number in range(3):
            part = local.result("put-media-part", {"data": base64.b64encode(b"%d" % number).decode()})
            media = local.result("put-media", {"parts": [part], "mime": f"the-mime-of/{number}"})
            attachment = {"id": f"a{number}", "messageId": "m1", "filename": "f", "mediaId": media["id"]}
            local.result("save-attachment", {"attachment": attachment})
        local.result("delete-attachments-for-message", {"messageId": "m1"})
        put_parts_at(local.store(), clock.now)
        clock.now += DAY_MS + 1
        local.dispatcher.run_chores("default")
        entries = local.entries()
        assert [each["type"] for each in entries[-3:]] == ["delete-media"] * 3
        assert local.rows("media") == []
        assert "the-mime-of" not in repr(local.tables())
        local.replay(entries)
        check_replay(local, REPLAYED)


def test_one_run_deletes_a_bounded_number_of_parts(
    client: Client,
    attach: Callable[..., None],
    stored_after: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A room of many files does not hold up the scope; those that were put again do not stand in the way."""
    monkeypatch.setattr(chores, "DELETED_PARTS_MAX", 3)
    media = [put(client, b"%d" % number, b"second part") for number in range(4)]
    for number, each in enumerate(media):
        attach(f"a{number}", each)
    client.execute(DeleteAttachmentsForMessage("m1"))
    assert stored_after(DAY_MS) == [each.id for each in media[2:]]
    assert stored_after(0) == []


def test_scope_info_counts_the_bytes_of_media(client: Client) -> None:
    """`get-scope-info` includes the files beside the database."""
    before = client.execute(GetScopeInfo())
    put(client, b"x" * 1_000_000)
    after = client.execute(GetScopeInfo())
    assert after.bytes >= before.bytes + 1_000_000
    assert (after.rows["media"], after.rows["media_parts"]) == (1, 1)


# --- whole files ---


@pytest.mark.parametrize("size", [0, 1, MEDIA_PART_BYTES_MAX, MEDIA_PART_BYTES_MAX + 1, 2 * MEDIA_PART_BYTES_MAX])
def test_a_file_of_any_size_is_uploaded_and_downloaded(client: Client, size: int) -> None:
    """It is cut into as few parts as possible, at least one, and is equal afterwards."""
    content = random.Random(size).randbytes(size)
    media = upload(client, io.BytesIO(content), "x/y", uploader_id="ada")
    assert media.parts == max(1, -(-size // MEDIA_PART_BYTES_MAX))
    assert (media.size, media.sha256, media.mime, media.uploader_id) == (size, sha256(content), "x/y", "ada")
    copy = io.BytesIO()
    assert download(client, media.id, copy) == media
    assert copy.getvalue() == content


def test_files_are_read_and_written_at_their_position(client: Client) -> None:
    """Upload begins at the current position of the file, and download keeps what was written before."""
    file = io.BytesIO(b"head and body")
    file.read(len("head "))
    media = upload(client, file, "x/y")
    copy = io.BytesIO()
    copy.write(b"before ")
    download(client, media.id, copy)
    assert copy.getvalue() == b"before and body"


def test_an_unknown_file_cannot_be_downloaded(client: Client) -> None:
    """It is not found, and nothing is written."""
    copy = io.BytesIO()
    with pytest.raises(NotFound):
        download(client, "nobody", copy)
    assert copy.getvalue() == b""


def test_a_download_is_verified_as_a_whole(client: Client, transport: InProcess) -> None:
    """Exchanged parts are detected even where each part matches its own hash."""
    media = put(client, b"a", b"b")
    with transport.store.write() as db:
        db.run(sql("UPDATE media_parts SET sha256 = :sha256 WHERE position = 1"), sha256=sha256(b"a"))
    with pytest.raises(Storage, match="does not have the same bytes"):
        download(client, media.id, io.BytesIO())


def test_two_clients_can_transfer_a_large_file_at_once(
    start_daemon: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    """It becomes one media with the right hash, and the memory of the daemon stays small."""
    source = tmp_path / "source"
    draw = random.Random(LARGE_SEED)
    source.write_bytes(b"".join(draw.randbytes(LARGE_BYTES // 50) for _ in range(50)))
    daemon = start_daemon("--log-level", "warning")
    before = _peak_bytes(daemon)
    media: list[Media] = []

    def there(_number: int) -> None:
        with Client(daemon.endpoint, timeout_ms=60_000) as client, source.open("rb") as file:
            media.append(upload(client, file, "x/y"))

    def back(number: int) -> None:
        with Client(daemon.endpoint, timeout_ms=60_000) as client, (tmp_path / f"copy-{number}").open("wb") as file:
            download(client, media[number].id, file)

    _at_once(there)
    _at_once(back)
    assert media[0] == media[1]
    assert media[0].size == LARGE_BYTES
    hashes = {_file_hash(tmp_path / name) for name in ("source", "copy-0", "copy-1")}
    assert hashes == {media[0].sha256}
    files = part_files(tmp_path / "data")
    assert sum(path.stat().st_size for path in files.values()) == LARGE_BYTES
    with Client(daemon.endpoint) as client:
        assert client.ask(Health()).ready
    peak = _peak_bytes(daemon)
    print(f"peak RSS of the daemon: {peak / 2**20:.0f} MiB, {before / 2**20:.0f} MiB before; seed {LARGE_SEED}")  # noqa: T201
    assert peak < DAEMON_BYTES_MAX


def _at_once(work: Callable[[int], None]) -> None:
    """Run two functions in two threads at the same time; raises what either raised."""
    errors: list[BaseException] = []
    together = threading.Barrier(2)

    def run(number: int) -> None:
        try:
            together.wait()
            work(number)
        except BaseException as error:  # noqa: BLE001  # raised again below
            errors.append(error)

    threads: Sequence[threading.Thread] = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _peak_bytes(daemon: DaemonProcess) -> int:
    """The peak memory of a process."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def test_a_part_put_after_clearing_in_one_batch_is_kept(transport: InProcess) -> None:
    """However often a part was to be removed in a transaction, it stays if it is put again after that."""
    data = base64.b64encode(b"hi").decode()
    clear = {"type": "clear-all-data", "payload": {}}
    put = {"type": "put-media-part", "payload": {"data": data}}
    name = {"type": "put-media", "payload": {"parts": [sha256(b"hi")], "mime": "text/plain"}}
    Client(transport=transport).execute(PutMediaPart(b"hi"))
    bodies = [json.dumps({"id": str(at)} | each).encode() for at, each in enumerate([clear, clear, clear, put, name])]
    replies = answer_all(transport.dispatcher, [transport.dispatcher.receive(body) for body in bodies])
    media = json.loads(replies[-1])["result"]
    assert Client(transport=transport).ask(GetMediaPart(media["id"])) == b"hi"
