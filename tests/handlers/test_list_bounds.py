"""Every list has pages, and a reply is bounded while it is built: for each list operation of the registry."""

import hashlib
import random
from collections.abc import Callable
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
import pytest
from msgspec.structs import replace

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.clients.python.listing import items_of
from backscroll.schema import (
    OPERATIONS,
    Attachment,
    Ban,
    Batch,
    Category,
    Channel,
    DeleteMedia,
    DeleteRoom,
    DeleteScope,
    GetAllAttachments,
    GetAllRooms,
    GetAttachmentsForMessage,
    GetBansForRoom,
    GetMembers,
    GetMessages,
    GetReactionsForMessage,
    GetRoom,
    GetUsersByRoom,
    Initialize,
    ListCategories,
    ListChannels,
    ListMedia,
    ListScopes,
    ListUsers,
    PutMedia,
    PutMediaPart,
    Query,
    Reaction,
    RemoveBan,
    RemoveMember,
    RemoveReaction,
    Room,
    RoomMember,
    RoomUpdates,
    SaveAttachment,
    SaveBan,
    SaveMember,
    SaveReaction,
    SaveRoom,
    SaveUser,
    TooLarge,
    UpdateRoom,
    User,
)
from backscroll.schema.description import describe
from backscroll.schema.limits import (
    CLIENT_KEYS_MAX,
    REPLY_BYTES_MAX,
    SCOPE_BYTES_MAX,
    TOKEN_SCOPES_MAX,
    TOKENS_MAX,
)
from backscroll.schema.operations import Maintenance
from backscroll.schema.positions import next_page
from backscroll.schema.replies import AccessToken, ClientKey, KeyList
from backscroll.schema.wire import JSON, MSGPACK, Codec
from tests.support.memory import limited_memory
from tests.support.messages import message_record, save_message
from tests.support.requests import body, send

LARGE = "x" * (500 * 1024)
MANY = 20
"""So many items with a large text are more than a reply."""
PEAK_BYTES_MAX = 4 * REPLY_BYTES_MAX
BY_OFFSET = "get-messages"


class Listed(NamedTuple):
    """A list: how it is asked for, and how its items are saved and removed, by number. `text` makes an item large."""

    query: Any
    save: Callable[[Client, int, str], list[Any]]
    remove: Callable[[Client, int], list[Any]]


def time_of(number: int) -> int | None:
    """Few different times, some of them unset, so that positions differ in the key alone."""
    return None if number % 3 == 0 else number % 5


def user(number: int, text: str = "") -> User:
    return User(oder_id=f"u{number}", id="u", username=text, created_at=time_of(number))


def reaction(number: int, text: str = "") -> Reaction:
    return Reaction(message_id="m1", oder_id=f"u{number}{text[:500]}", emoji="+", timestamp=time_of(number))


def reactions(number: int, text: str) -> list[Any]:
    """One reaction; where they are to be large, so many that they take as much as a large text."""
    if not text:
        return [SaveReaction(reaction(number))]
    each = [reaction(number * 1_000 + at, text) for at in range(800)]
    return [Batch.of([SaveReaction(one) for one in each])]


def attachment(number: int, text: str = "", message_id: str = "m1") -> Attachment:
    return Attachment(id=f"a{number}", message_id=message_id, filename=text, size=1, mime="x/y")


def part_name(number: int) -> str:
    """The hash of a file of one part."""
    return hashlib.sha256(f"{number}".encode()).hexdigest()


def save_member(number: int, text: str = "") -> SaveMember:
    return SaveMember("r1", RoomMember(oder_id=f"u{number}", username=text, joined_at=time_of(number)))


def channels(client: Client, number: int, text: str | None) -> list[Any]:
    """The channels of a room are saved together."""
    others = [each for each in client.ask(ListChannels("r1")) if each.id != f"c{number}"]
    new = [] if text is None else [Channel(**_child(number, text), type="text")]
    return [UpdateRoom("r1", RoomUpdates(channels=others + new))]


def categories(client: Client, number: int, text: str | None) -> list[Any]:
    others = [each for each in client.ask(ListCategories("r1")) if each.id != f"c{number}"]
    new = [] if text is None else [Category(**_child(number, text))]
    return [UpdateRoom("r1", RoomUpdates(categories=others + new))]


def _child(number: int, text: str) -> dict[str, Any]:
    return {"id": f"c{number}", "name": text, "position": number % 5}


LISTS = [
    Listed(GetMessages("r1"), lambda _, number, text: [save_message(number, text)], lambda *_: []),
    Listed(
        GetReactionsForMessage("m1"),
        lambda _, number, text: reactions(number, text),
        lambda _, number: [RemoveReaction("m1", f"u{number}", "+")],
    ),
    Listed(ListUsers(), lambda _, number, text: [SaveUser(user(number, text))], lambda *_: []),
    Listed(
        GetUsersByRoom("r1"),
        lambda _, number, text: [SaveUser(user(number, text)), save_member(number)],
        lambda _, number: [RemoveMember("r1", f"u{number}")],
    ),
    Listed(
        GetMembers("r1"),
        lambda _, number, text: [save_member(number, text)],
        lambda _, number: [RemoveMember("r1", f"u{number}")],
    ),
    Listed(
        GetAllRooms(),
        lambda _, number, text: [SaveRoom(Room(id=f"r{number}", name=text, created_at=time_of(number)))],
        lambda _, number: [DeleteRoom(f"r{number}")],
    ),
    Listed(ListChannels("r1"), channels, lambda client, number: channels(client, number, None)),
    Listed(ListCategories("r1"), categories, lambda client, number: categories(client, number, None)),
    Listed(
        GetBansForRoom("r1"),
        lambda _, number, text: [SaveBan(Ban(room_id="r1", oder_id=f"u{number}", timestamp=number % 5, reason=text))],
        lambda _, number: [RemoveBan("r1", f"u{number}")],
    ),
    Listed(
        GetAttachmentsForMessage("m1"),
        lambda _, number, text: [SaveAttachment(attachment(number, text))],
        lambda _, number: [SaveAttachment(attachment(number, message_id="another"))],
    ),
    Listed(
        ListMedia(),
        lambda _, number, text: [PutMediaPart(f"{number}".encode()), PutMedia([part_name(number)], mime=text)],
        lambda client, number: [
            DeleteMedia(each.id) for each in client.ask(ListMedia()) if each.sha256 == part_name(number)
        ],
    ),
    Listed(
        GetAllAttachments(),
        lambda _, number, text: [SaveAttachment(attachment(number, text))],
        lambda *_: [],
    ),
]
WITH_PAGES = [each for each in LISTS if each.query.wire_name != BY_OFFSET]


def named(listed: Listed) -> str:
    return str(listed.query.wire_name)


@pytest.fixture
def client(transport: InProcess) -> Client:
    client = Client(transport=transport)
    client.execute(SaveRoom(Room(id="r1", name="")))
    return client


def fill(client: Client, listed: Listed, text: str, number: int = MANY) -> None:
    if named(listed) in ("list-channels", "list-categories") and text:  # they would not fit into one request
        noun = "channel" if named(listed) == "list-channels" else "category"
        for at in range(number):
            create: Any = OPERATIONS[f"create-{noun}"]
            client.execute(create(name=text, room_id="r1", position=at % 5))
        return
    for at in range(number):
        for operation in listed.save(client, at, text):
            client.execute(operation)


def key(query: Any, item: Any) -> Any:
    """What identifies an item: its position in the list."""
    return next_page(query, item).after


# The registry


def lists_records(hint: Any) -> bool:
    """Whether a reply of this type contains a list of records, or is a list."""
    if get_origin(hint) is list:
        return True
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        hints = get_type_hints(hint)
        return any(name != "damaged" and _has_list_of_records(each) for name, each in hints.items())
    return any(map(lists_records, get_args(hint)))


def _has_list_of_records(hint: Any) -> bool:
    if get_origin(hint) is list:
        item = get_args(hint)[0]
        return isinstance(item, type) and issubclass(item, msgspec.Struct)
    return any(map(_has_list_of_records, get_args(hint)))


FEW = {"list-tokens", "list-keys", "get-tasks"}
READING = [each for each in OPERATIONS.values() if issubclass(each, Query | Maintenance)]


def test_every_list_of_the_registry_can_be_asked_for_in_parts() -> None:
    """Whatever may return a list of records has a `limit`, can leave the list out, or has only a few."""
    unbounded = {
        each.wire_name
        for each in READING
        if lists_records(each.reply_type) and not {"limit", "child_lists"} & set(each.__struct_fields__)
    }
    assert unbounded == FEW


def test_the_longest_lists_of_tokens_and_keys_fit_a_reply() -> None:
    """Their number is limited, and the length of each: also where a character takes six bytes in JSON."""
    name, scope = "n" * 64, "\x01" * SCOPE_BYTES_MAX
    token = AccessToken(name=name, right="write", created_at=0, scopes=[scope] * TOKEN_SCOPES_MAX, expires_at=0)
    assert len(JSON.encode([token] * TOKENS_MAX)) < REPLY_BYTES_MAX
    key = ClientKey(name=name, public_key="k" * 40, created_at=0)
    assert len(JSON.encode(KeyList(server_key="k" * 40, keys=[key] * CLIENT_KEYS_MAX))) < REPLY_BYTES_MAX


def test_every_list_of_the_registry_is_tested_here() -> None:
    """A new operation that returns a list needs an entry in `LISTS`."""
    lists = {each.wire_name for each in READING if get_origin(each.reply_type) is list}
    assert lists == {named(each) for each in LISTS} | {
        "list-scopes",
        "list-tokens",
        "list-backups",
        "get-messages-by-ids",
    }
    assert all("after" in each.query.__struct_fields__ for each in WITH_PAGES)


# A list that is larger than a reply


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=repr)
@pytest.mark.parametrize("listed", LISTS, ids=named)
def test_a_list_that_is_too_large_is_refused_early(
    client: Client, transport: InProcess, listed: Listed, codec: Codec
) -> None:
    """Without `limit` it is `too-large`, which says what to do; no more is read than fits into a reply."""
    fill(client, listed, LARGE)
    request = body(named(listed), listed.query, codec)
    with limited_memory(PEAK_BYTES_MAX):
        reply = codec.decode(transport.dispatcher.answer(request), dict[str, Any])
    assert reply["error"]["code"] == "too-large"
    assert "`limit`" in reply["error"]["message"]
    assert ("until a page is empty" in reply["error"]["message"]) == (named(listed) != BY_OFFSET)
    client.execute(Initialize())
    assert client.ask(GetMessages("none")) == []  # the connection of the refused query reads what is new


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=repr)
@pytest.mark.parametrize("listed", WITH_PAGES, ids=named)
def test_the_pages_of_a_large_list_are_shorter(
    client: Client, transport: InProcess, listed: Listed, codec: Codec
) -> None:
    """A page ends before a reply would be too large; the pages together have every item once, in order."""
    fill(client, listed, LARGE)
    page: Any = replace(listed.query, limit=500)
    keys: list[Any] = []
    pages = 0
    while True:
        with limited_memory(PEAK_BYTES_MAX):
            reply = transport.dispatcher.answer(body(named(listed), page, codec))
            assert len(reply) <= REPLY_BYTES_MAX
        items = msgspec.convert(codec.decode(reply, dict[str, Any])["result"], page.reply_type)
        if not items:
            break
        pages += 1
        keys += [key(page, item) for item in items]
        page = next_page(page, items[-1])
    assert pages >= 2
    assert len(keys) == len(set(keys)) >= MANY
    assert keys == [key(page, item) for item in items_of(client, listed.query, limit=3 if len(keys) < 100 else 500)]


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=repr)
def test_a_position_has_all_fields_of_the_order(client: Client, transport: InProcess, codec: Codec) -> None:
    """Without a time, `list-users` returned the same page for ever. An unset time is null, and the list ends."""
    for number in range(6):
        user = User(oder_id=f"u{number}", id="u", username="u", created_at=number if number % 2 else None)
        client.execute(SaveUser(user))

    def page(after: Any) -> Any:
        return send(transport, body("list-users", {"limit": 2, "after": after}, codec))

    assert page({"oderId": "u1"})["error"]["message"] == (
        "$.payload.after.createdAt: required field is missing; give null if it is unset"
    )
    assert page("u1")["error"]["message"] == (
        "$.payload.after: expected object or null, got string; the object needs createdAt, oderId"
    )
    found: list[Any] = []
    while items := page({name: found[-1].get(name) for name in ("createdAt", "oderId")} if found else None)["result"]:
        found += items
    assert [each["oderId"] for each in found] == ["u0", "u2", "u4", "u1", "u3", "u5"]


def test_every_position_is_complete() -> None:
    """All fields of all positions are required, and the examples have them all; it is said how to go on."""
    described = describe()
    for listed in WITH_PAGES:
        operation = described["operations"][named(listed)]
        references = operation["payload"]["properties"]["after"]["anyOf"]
        [position] = [described["$defs"][each["$ref"].rpartition("/")[2]] for each in references if "$ref" in each]
        assert position["required"] == list(position["properties"])
        assert "end is an empty page" in operation["payload"]["properties"]["after"]["description"]
        assert "after" not in operation["example"] or list(operation["example"]["after"]) == position["required"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("listed", WITH_PAGES, ids=named)
def test_pages_are_complete_while_the_list_changes(client: Client, listed: Listed, seed: int) -> None:
    """Items that are there from the first page to the last are returned once, in the order of the whole list."""
    draw = random.Random(seed)
    fill(client, listed, "", 30)
    before = {key(listed.query, item) for item in client.execute(listed.query)}
    seen: list[Any] = []
    page: Any = replace(listed.query, limit=draw.randint(1, 7))
    removed, new = list(range(30)), 100
    draw.shuffle(removed)
    while items := client.execute(page):
        seen += [key(page, item) for item in items]
        page = next_page(page, items[-1])
        for operation in listed.remove(client, removed.pop()) if draw.random() < 0.5 else listed.save(client, new, ""):
            client.execute(operation)
        new += 1
    after = [key(listed.query, item) for item in client.execute(listed.query)]
    stable = [each for each in after if each in before]
    assert len(stable) >= 10
    assert [each for each in seen if each in set(stable)] == stable


def test_scopes_have_pages(client: Client, transport: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of scopes are listed like all else; a scope that is deleted meanwhile ends nothing."""
    for number in range(5):
        Client(transport=transport, scope=f"s{number}").execute(Initialize())
    first = client.execute(ListScopes(limit=2))
    assert first == ["default", "s0"]
    Client(transport=transport, scope="s0").execute(DeleteScope())
    assert client.execute(ListScopes(limit=2, after="s0")) == ["s1", "s2"]
    assert list(items_of(client, ListScopes(), limit=2)) == ["default", "s1", "s2", "s3", "s4"]
    names = [f"{number:0128}" for number in range(70_000)]  # so many files would take minutes
    monkeypatch.setattr(type(transport.scopes), "names", lambda _: names)
    with pytest.raises(TooLarge, match="`limit`"):
        client.execute(ListScopes())
    assert client.execute(ListScopes(limit=2, after=names[7])) == names[8:10]


def test_rooms_and_messages_without_their_lists(client: Client) -> None:
    """With `childLists: false` the lists are left out, not empty."""
    client.execute(SaveRoom(Room(id="r2", name="", members=[RoomMember(oder_id="ada")])))
    for room in [client.ask(GetRoom("r2", child_lists=False)), *client.ask(GetAllRooms(child_lists=False))]:
        assert room is not None
        assert (room.members, room.channels, room.categories) == (None, None, None)
    client.execute(SaveReaction(reaction(1)))
    client.execute(save_message(1))
    [message] = client.ask(GetMessages("r1", child_lists=False))
    assert message == message_record(1)
