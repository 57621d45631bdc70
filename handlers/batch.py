"""Batches: commands one after the other, as one."""

from typing import Any

import backscroll.handlers
from backscroll.handlers.storage import Database
from backscroll.schema.errors import CallerError, TooLarge, inside
from backscroll.schema.limits import REPLY_BYTES_MAX
from backscroll.schema.operations import Batch
from backscroll.schema.wire import MSGPACK


def batch(command: Batch, db: Database) -> list[Any]:
    results, size = [], 0
    for index, member in enumerate(command.commands):
        db.entry.member = index
        try:
            results.append(backscroll.handlers.HANDLERS[type(member.payload)](member.payload, db))
            size += 0 if results[-1] is None else len(MSGPACK.encode(results[-1]))
            if size > REPLY_BYTES_MAX:
                raise TooLarge.at("$", f"the results together have more than {REPLY_BYTES_MAX} bytes")
        except CallerError as error:
            raise inside(f"$.payload.commands[{index}]", index, error) from error
    return results
