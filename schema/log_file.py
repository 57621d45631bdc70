"""Command logs as files: JSON Lines that `backscroll log export` writes, `replay` reads, and people write by hand.

A header, then one command per line. Text only, no I/O; `PROTOCOL.md` in this folder specifies the format. This is the
only module of the schema that uses pydantic, for good error messages about hand-written lines; so clients and the rest
of the schema import it only when there is a file to read or write.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast

import msgspec
from msgspec import Raw, structs
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from backscroll.schema.command_log import CHAIN_START, Change, Generated, LogEntry, Salt
from backscroll.schema.decode_errors import DECODE_ERRORS
from backscroll.schema.errors import BackscrollError
from backscroll.schema.limits import (
    INTEGER_MAX,
    MILLIS_MAX,
    REQUEST_ID_BYTES_MAX,
    SCOPE_BYTES_MAX,
    ClientId,
    Id,
    Many,
    PositiveCount,
)
from backscroll.schema.operations.base import Command
from backscroll.schema.operations.decoding import UNLIMITED, command_type, decode_as, decode_payload
from backscroll.schema.records import Record
from backscroll.schema.wire import DEFAULT_SCOPE, JSON, half_a_sender

FIRST_AT = 1_767_225_600_000  # 2026-01-01T00:00:00Z
STEP_MS = 1_000
COMMENTS = (b"#", b"//")
LINE_ENDS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}
RECORDED_KEYS = ("changes", "generated", "principal", "client", "n", "salt")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Seq = Annotated[int, Field(ge=1, le=INTEGER_MAX)]
Hex = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Model = TypeVar("Model", bound="_Document")


def _of_bytes(most: int) -> AfterValidator:
    def check(text: str) -> str:
        if not 1 <= len(text.encode()) <= most:
            raise ValueError(f"the text must have 1 to {most} bytes")
        return text

    return AfterValidator(check)


def _millis(at: object) -> object:
    """Convert ISO 8601 text to milliseconds since the epoch; without an offset it is UTC. Other values stay."""
    if not isinstance(at, str):
        return at
    time = datetime.fromisoformat(at)
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (time - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


ScopeName = Annotated[str, _of_bytes(SCOPE_BYTES_MAX)]
Time = Annotated[int, BeforeValidator(_millis), Field(ge=0, le=MILLIS_MAX)]


class BadLine(ValueError):
    """A line that is not valid in a log file, or whose command cannot be executed. `number` counts lines from 1."""

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(f"line {number}: {problem}")
        self.number = number
        self.problem = problem


class _Document(BaseModel):
    """A JSON object of a log file: values are not converted, and unknown keys are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class LogHeader(_Document):
    """The first line: the scope of the log, the number of its first entry, and the chain before that.

    `to` and `chainEnd` are the number of the last entry and the chain after it; a recording does not have them.
    """

    format: Literal["backscroll-log"] = "backscroll-log"
    version: Literal[1] = 1
    scope: ScopeName = DEFAULT_SCOPE
    from_seq: Seq | None = Field(default=None, validation_alias="from", serialization_alias="from")
    chain_start: Hex = CHAIN_START.hex()
    to: Annotated[int, Field(ge=0, le=INTEGER_MAX)] | None = None
    chain_end: Hex | None = None


class _Line(_Document):
    """The other lines, without the keys that msgspec decodes: `payload` and those of `_Recorded`."""

    type: str
    seq: Seq | None = None
    at: Time | None = None
    id: Annotated[str, _of_bytes(REQUEST_ID_BYTES_MAX)] | None = None
    redacted: bool = False
    digest: Hex | None = None
    scope: ScopeName | None = None


class _Recorded(Record, frozen=True, kw_only=True):
    """What the daemon recorded about a command, in lines written by it."""

    changes: Many[Change] = msgspec.field(default_factory=list)
    generated: Generated | None = None
    principal: Id | None = None
    client: ClientId | None = None
    n: PositiveCount | None = None
    salt: Salt | None = None


class LogLine(NamedTuple):
    """A command of a log file: its line number, from 1, its scope, and the size of the line in bytes.

    The payload of `entry` is the decoded command, or None if the log does not contain it.
    """

    number: int
    scope: str
    entry: LogEntry
    size: int


class HeaderLine(NamedTuple):
    """A header of a log file and its line number, from 1. The lines after it belong to its scope."""

    number: int
    header: LogHeader


def header_text(header: LogHeader) -> str:
    """The first line of a log file, including its newline."""
    return _text(header.model_dump(by_alias=True, exclude_none=True))


def entry_text(entry: LogEntry, scope: str | None = None) -> str:
    """The line of an entry, including its newline. Give `scope` only if it is not the header's."""
    line: dict[str, Any] = {"seq": entry.seq, "at": entry.at, "id": entry.id, "type": entry.type}
    line["payload"] = entry.payload
    if entry.changes:
        line["changes"] = entry.changes
    recorded = {key: getattr(entry, key) for key in RECORDED_KEYS[1:]}
    line |= {key: value for key, value in recorded.items() if value is not None}
    if entry.redacted:
        line["redacted"] = True
    if entry.redacted or entry.payload is None:
        line["digest"] = entry.digest
    if scope is not None:
        line["scope"] = scope
    return _text(line)


def time_of(text: str) -> int:
    """Milliseconds since the epoch, from digits or from an ISO 8601 time; raises `ValueError`."""
    at: int = TypeAdapter(Time).validate_python(int(text) if text.isascii() and text.isdigit() else text)
    return at


class LogReader:
    """Reads one log file; `header` is the one that applies to the line read last.

    Lines without `seq` are numbered per scope, starting at `next_seq`. Lines without `id` get one that is derived from
    their line number, and from `next_seq` unless that is 1, because an id takes effect only once in a scope.
    """

    def __init__(self, next_seq: int = 1) -> None:
        self.header = LogHeader()
        self._next_seq = next_seq
        self._id = "line" if next_seq == 1 else f"after-{next_seq - 1}-line"
        self._at = FIRST_AT - STEP_MS
        self._seqs: dict[str, int] = {}

    def read(self, lines: Iterable[bytes]) -> Iterator[LogLine]:
        """Yield the commands, checked as the daemon checks them except for size limits; raises `BadLine`."""
        return (line for line in self.read_all(lines) if isinstance(line, LogLine))

    def read_all(self, lines: Iterable[bytes]) -> Iterator[HeaderLine | LogLine]:
        """Yield the commands like `read`, and also every header."""
        for number, line in enumerate(lines, 1):
            text = line.removeprefix(BYTE_ORDER_MARK).strip()
            if not text or text.startswith(COMMENTS):
                continue
            fields = _fields(text, number)
            if "format" in fields:  # the first line, and others in a file that was joined with `cat`
                self.header = _checked(fields, LogHeader, number)
                yield HeaderLine(number, self.header)
            else:
                yield self._line(fields, number, len(line))

    def _line(self, fields: dict[str, Raw], number: int, size: int) -> LogLine:
        payload = fields.pop("payload", None)
        recorded_fields = {key: fields.pop(key) for key in RECORDED_KEYS if key in fields}
        line = _checked(fields, _Line, number)
        scope = line.scope or self.header.scope
        try:
            entry = LogEntry(
                seq=self._seq(scope, line.seq),
                at=self._at + STEP_MS if line.at is None else line.at,
                id=line.id or f"{self._id}-{number}",
                type=line.type,
                payload=_command(line, payload),
                redacted=line.redacted,
                digest=line.digest,
                **structs.asdict(_recorded(recorded_fields)),
            )
        except (BackscrollError, ValueError) as error:
            raise BadLine(number, str(error)) from None
        self._at, self._seqs[scope] = entry.at, entry.seq
        return LogLine(number, scope, entry, size)

    def _seq(self, scope: str, seq: int | None) -> int:
        """The seq of a line, which must follow the scope's previous one."""
        if scope in self._seqs:
            due: int | None = self._seqs[scope] + 1
        else:
            due = self.header.from_seq if scope == self.header.scope else None
        if seq is not None and due is not None and seq != due:
            raise ValueError(f"$.seq: expected {due}, got {seq}")
        return seq or due or self._next_seq


def _fields(text: bytes, number: int) -> dict[str, Raw]:
    try:
        return JSON.decode(text, dict[str, Raw])
    except DECODE_ERRORS as error:
        raise BadLine(number, f"not a JSON object: {error}") from None


def _checked(fields: dict[str, Raw], model: type[Model], number: int) -> Model:
    try:
        return model.model_validate({name: JSON.decode(value, object) for name, value in fields.items()})
    except ValidationError as error:
        raise BadLine(number, "; ".join(map(_problem, error.errors()))) from None
    except DECODE_ERRORS as error:
        raise BadLine(number, f"not a JSON object: {error}") from None


def _problem(error: Mapping[str, Any]) -> str:
    """Describe what is wrong with one field."""
    problem = {"extra_forbidden": "unknown key", "missing": "required key is missing"}.get(error["type"], error["msg"])
    problem = problem.removeprefix("Value error, ")
    return f"$.{error['loc'][0]}: {problem[0].lower()}{problem[1:]}"


def _command(line: _Line, payload: Raw | None) -> Command[Any] | None:
    """The command of a line; None if the log does not contain its payload."""
    as_type = command_type(line.type)
    if line.redacted and line.digest is None:
        raise ValueError("$.digest: a redacted command needs the digest of its original payload")
    if payload is None:
        payload = Raw(b"null" if line.redacted else b"{}")
    if bytes(payload) == b"null":
        if line.digest is None:
            raise ValueError("$.payload: a payload that is null needs a digest")
        return None
    return cast("Command[Any]", decode_as(as_type, payload, JSON, UNLIMITED))  # limits apply to requests only


def _recorded(fields: dict[str, Raw]) -> _Recorded:
    try:
        recorded = decode_payload(Raw(JSON.encode(fields)), JSON, _Recorded)
        if (recorded.client is None) is not (recorded.n is None):
            raise half_a_sender(recorded.client)
        return recorded
    except BackscrollError as error:
        raise ValueError(error.message.replace("$.payload", "$", 1)) from None


def _text(document: dict[str, Any]) -> str:
    """Encode one line, with spaces for readability and no character that any language treats as a line end."""
    text = msgspec.json.format(JSON.encode(document), indent=0).decode()
    for character, escaped in LINE_ENDS.items():
        text = text.replace(character, escaped)
    return text + "\n"
