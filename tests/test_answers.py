"""Answers that are kept: right for exactly as long as nothing was committed, and bounded."""

from pathlib import Path

from peers import Peer, message, running

from backscroll.bus.answers import Answers
from backscroll.handlers import HANDLERS
from backscroll.schema import OPERATIONS, GetMessages, GetRoom, Query
from backscroll.schema.wire import JSON, MSGPACK

ASKED = GetMessages("r1")
BY_THE_CLOCK = {"get-bans-for-room", "is-user-banned", "get-session"}


def test_an_answer_is_of_one_query_one_encoding_and_one_seq() -> None:
    """Another query, encoding or commit number does not get it."""
    kept = Answers()
    kept.put(ASKED, JSON, 7, b"[]")
    assert kept.get(GetMessages("r1"), JSON, 7) == b"[]"
    for query, codec, seq in ((GetMessages("r2"), JSON, 7), (ASKED, MSGPACK, 7), (ASKED, JSON, 8), (ASKED, JSON, 6)):
        assert kept.get(query, codec, seq) is None


def test_a_later_commit_ends_all_answers_and_an_earlier_snapshot_none() -> None:
    """What a slow reader saw before a commit replaces nothing that was seen after it."""
    kept = Answers()
    kept.put(ASKED, JSON, 7, b"old")
    kept.put(GetRoom("r1"), JSON, 8, b"new")
    kept.put(ASKED, JSON, 7, b"old")
    assert kept.get(ASKED, JSON, 7) is None
    assert kept.get(GetRoom("r1"), JSON, 8) == b"new"


def test_answers_are_bounded_in_bytes() -> None:
    """When they are more than so many bytes all are let go, and one that is larger alone is not kept."""
    kept = Answers(bytes_max=10)
    kept.put(ASKED, JSON, 1, b"12345678")
    kept.put(GetRoom("r1"), JSON, 1, b"123")
    kept.put(GetRoom("r2"), JSON, 1, b"x" * 11)
    assert [kept.get(query, JSON, 1) for query in (ASKED, GetRoom("r1"), GetRoom("r2"))] == [None, b"123", None]


def test_what_depends_on_the_clock_is_not_kept() -> None:
    """A ban or a session ends without a commit; a part of media may be gone."""
    queries = [each for each in OPERATIONS.values() if issubclass(each, Query)]
    assert not {each.wire_name for each in queries if each.KEPT} & (BY_THE_CLOCK | {"get-media-part"})
    assert {"get-messages", "get-message-page", "get-room"} <= {each.wire_name for each in queries if each.KEPT}


def test_a_kept_answer_is_given_without_the_handler_until_the_next_commit(tmp_path: Path) -> None:
    """The same page twice asks the handler once; after a save it is another page, to every client."""
    calls = []

    def counted(query: GetMessages, db: object) -> object:
        calls.append(query)
        return HANDLERS[GetMessages](query, db)

    handlers = {**HANDLERS, GetMessages: counted}
    with (
        running(tmp_path / "data", handlers=handlers) as daemon,
        Peer(daemon.endpoint) as one,
        Peer(daemon.endpoint) as two,
    ):
        one.ask("save-message", message(1))
        first = one.ask("get-messages", {"roomId": "r1"})
        again = two.ask("get-messages", {"roomId": "r1"})
        assert (first["result"], first["seq"]) == (again["result"], again["seq"])
        assert len(calls) == 1
        one.ask("save-message", message(2))
        for peer in (one, two):
            assert [each["id"] for each in peer.ask("get-messages", {"roomId": "r1"})["result"]] == ["m1", "m2"]
        assert len(calls) == 2


def test_a_client_sees_its_own_pipelined_writes_between_kept_answers(tmp_path: Path) -> None:
    """Queries and commands of one client keep their order, whether answers are kept or not."""
    with running(tmp_path / "data") as daemon, Peer(daemon.endpoint) as peer:
        for number in range(200):
            peer.request("get-messages", {"roomId": "r1", "limit": 500}, request_id=f"q{number}")
            peer.request("save-message", message(number), request_id=f"s{number}")
        replies = peer.replies(400)
        for number in range(200):
            assert len(replies[f"q{number}"]["result"]) == number
            assert replies[f"q{number}"]["seq"] == number
