"""The tree of errors: complete, documented, and the same on both sides of the wire."""

import re
from typing import Any

import pytest

from backscroll.schema import errors
from backscroll.schema.errors import (
    ERRORS,
    BackscrollError,
    CallerError,
    DaemonError,
    DeadlineExceeded,
    Internal,
    Invalid,
    NoReply,
)
from backscroll.schema.wire import Codec, error_of, read_reply, write_failure
from tests.support.requests import CODECS

CODES = {
    "malformed",
    "unknown-operation",
    "invalid",
    "too-large",
    "not-found",
    "conflict",
    "superseded",
    "unauthenticated",
    "forbidden",
    "deadline-exceeded",
    "busy",
    "unavailable",
    "storage",
    "internal",
}  # the protocol's closed set

every_error = pytest.mark.parametrize("error_class", ERRORS.values(), ids=ERRORS)
both = pytest.mark.parametrize("codec", CODECS, ids=repr)


def test_the_error_codes_are_those_of_the_protocol() -> None:
    """`ERRORS` holds exactly the closed set of codes that the protocol defines."""
    assert set(ERRORS) == CODES
    assert all(error_class.code == code for code, error_class in ERRORS.items())


def test_every_error_is_a_caller_or_a_daemon_error() -> None:
    """Each class is either a `CallerError` or a `DaemonError`."""
    for error_class in ERRORS.values():
        assert issubclass(error_class, CallerError) + issubclass(error_class, DaemonError) == 1
        assert error_class.fault == ("caller" if issubclass(error_class, CallerError) else "daemon")
    assert issubclass(DeadlineExceeded, DaemonError)


def test_the_docstring_draws_the_error_tree() -> None:
    """The module's docstring shows every class under its parent, with its code."""
    parents: list[type[BackscrollError]] = [BackscrollError]
    seen = set()
    for line in (errors.__doc__ or "").splitlines():
        drawn = re.match(r" {4}(?P<indent>[│ ]*)[├└]── (?P<name>\w+) +(?P<rest>.*)", line)
        if drawn:
            error_class = getattr(errors, drawn["name"])
            depth = 1 + len(drawn["indent"]) // 4
            parents[depth:] = [error_class]
            assert parents[depth - 1] in error_class.__bases__
            assert not error_class.code or error_class is NoReply or drawn["rest"].startswith(error_class.code + " ")
            seen.add(error_class)
    assert seen == {*ERRORS.values(), CallerError, DaemonError, NoReply}


@both
@every_error
@pytest.mark.parametrize("details", [None, {}, {"path": "$.id", "known": ["a"]}], ids=repr)
@pytest.mark.parametrize("retryable", [False, True])
def test_an_error_survives_the_wire(
    error_class: type[BackscrollError], codec: Codec, details: dict[str, Any] | None, retryable: bool
) -> None:
    """Class, message, details and `retryable` arrive as they were raised."""
    raised = error_class("what it is – ünïcödé", details=details, retryable=retryable)
    reply, reply_codec = read_reply(write_failure("request-1", raised, codec))
    arrived = error_of(reply)
    assert (reply.id, reply.ok, reply_codec) == ("request-1", False, codec)
    assert type(arrived) is error_class
    assert (arrived.message, arrived.details, arrived.retryable) == (raised.message, details, retryable)
    assert str(arrived) == raised.message


@both
def test_a_failure_without_request_id_has_a_null_id(codec: Codec) -> None:
    """The reply to a request whose id cannot be read has the id null."""
    fields = codec.decode(write_failure(None, Invalid("x"), codec), dict[str, Any])
    error = {"code": "invalid", "message": "x", "fault": "caller", "retryable": False}
    assert fields == {"id": None, "ok": False, "error": error}


@both
@pytest.mark.parametrize(
    ("fault", "error_class"),
    [("caller", CallerError), ("daemon", DaemonError), ("nobody", DaemonError), (None, DaemonError)],
)
def test_an_unknown_error_code_is_raised_by_its_fault(
    codec: Codec, fault: str | None, error_class: type[BackscrollError]
) -> None:
    """A client raises the base class for the fault of a code it does not know, and keeps the code."""
    error_fields = {"code": "on-fire", "message": "hot", "retryable": True, "details": {"degrees": 451}, "since": 9}
    body = codec.encode({"id": "x", "ok": False, "error": error_fields | ({"fault": fault} if fault else {})})
    error = error_of(read_reply(body)[0])
    assert (type(error), error.code, error.message) == (error_class, "on-fire", "hot")
    assert (error.retryable, error.details) == (True, {"degrees": 451})
    assert error_class.code == ""  # of this error alone
    assert isinstance(error_of(read_reply(codec.encode({"id": "x", "ok": False}))[0]), Internal)


def test_an_error_at_a_path_has_it_in_message_and_details() -> None:
    """`at` puts the path into the message for people and into the details for programs."""
    error = Invalid.at("$.payload.message.id", "expected `str`")
    assert error.message == "$.payload.message.id: expected `str`"
    assert error.details == {"path": "$.payload.message.id"}
    assert not error.retryable


def test_no_reply_is_a_timeout_error_and_not_on_the_wire() -> None:
    """`NoReply` can be caught as `TimeoutError`, and its code is not one of the wire's."""
    assert issubclass(NoReply, TimeoutError)
    assert NoReply.code not in ERRORS


@pytest.mark.parametrize("error_class", ERRORS.values(), ids=lambda each: each.code)
def test_errors_are_retryable_by_default_as_documented(error_class: type[BackscrollError]) -> None:
    """A class that is always retryable is so without being told at each place that raises it."""
    assert error_class("what happened").retryable is (error_class.retries == "always")
