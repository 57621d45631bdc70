"""The importer: sends a converter's commands in batches, so that the same file can be imported again at any time.

The id of each batch follows from the source's name, the batch's number and its content. So a second import of the same
file sends requests that were executed already and changes nothing, an import that was interrupted goes on where it
was, and of a file that has grown only what is new, or was changed, is executed.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import msgspec

from backscroll.clients.python import Client
from backscroll.schema import Batch, CallerError, Command
from backscroll.schema.limits import BATCH_COMMANDS_MAX, FREE_JSON_BYTES_MAX

Commands: TypeAlias = Iterator[Command[Any]]

BATCH_BYTES_MAX = FREE_JSON_BYTES_MAX
"""Of the commands in JSON, unless one alone has more; so the free JSON of a batch is within its limit too."""


class LeftOut(NamedTuple):
    """A command that cannot be executed, and why."""

    command: Command[Any]
    reason: str


class Encoded(NamedTuple):
    """A command with its JSON, which says how large it is and what the id of its batch follows from."""

    command: Command[Any]
    json: bytes


def import_commands(client: Client, source: str, commands: Iterable[Command[Any]]) -> list[LeftOut]:
    """Execute all commands that can be executed, and return the others. `source` is the same for the same export."""
    left_out: list[LeftOut] = []
    for number, batch in enumerate(_batches(_encoded(commands, left_out))):
        _import_batch(client, f"{source} {number}", batch, left_out)
    return left_out


def _encoded(commands: Iterable[Command[Any]], left_out: list[LeftOut]) -> Iterator[Encoded]:
    """The commands in JSON; one that has none, such as half an emoji, would make its whole batch impossible to send."""
    for command in commands:
        try:
            yield Encoded(command, msgspec.json.encode(command))
        except (ValueError, OverflowError) as error:
            left_out.append(LeftOut(command, str(error)))


def _batches(commands: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    batch: list[Encoded] = []
    size = 0
    for each in commands:
        if batch and (len(batch) == BATCH_COMMANDS_MAX or size + len(each.json) > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += len(each.json)
    if batch:
        yield batch


def _import_batch(client: Client, name: str, batch: list[Encoded], left_out: list[LeftOut]) -> None:
    """Execute a batch; if it is refused, the commands in it that were not to blame, under an id that follows from them.

    What is left may be refused once more, where a command needed one that was left out.
    """
    while batch:
        try:
            client.execute(Batch.of(each.command for each in batch), request_id=_request_id(name, batch))
            return
        except CallerError as refused:
            if not refused.failures:
                raise  # about the batch as a whole
            left_out += [LeftOut(batch[failed.index].command, str(failed)) for failed in refused.failures]
            failed_at = {failed.index for failed in refused.failures}
            batch = [each for index, each in enumerate(batch) if index not in failed_at]


def _request_id(name: str, batch: list[Encoded]) -> str:
    digest = hashlib.sha256(name.encode())
    for each in batch:
        digest.update(f"\n{each.command.wire_name} {len(each.json)} ".encode())
        digest.update(each.json)
    return digest.hexdigest()
