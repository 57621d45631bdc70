"""Which clients a scope knows, so that their commands take effect in one order, also where one is sent again.

A command may say which client sent it, and as which of its commands (`n`, which rises). One that was refused and is
sent again may come after later commands of its client that took effect; it must not take effect after them. The rows of
the log have both, so nothing else is stored: what is known is read from the newest rows when a scope is opened. To
forget a client is harmless: its next command is executed as if the client was new.
"""

from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress

from peewee import SQL

from backscroll.handlers.sql import Named, statement
from backscroll.handlers.storage import Reads
from backscroll.schema.command_log import Sender, sender_in
from backscroll.schema.decode_errors import DECODE_ERRORS
from backscroll.schema.errors import Superseded
from backscroll.schema.limits import KNOWN_CLIENTS_MAX
from backscroll.schema.tables import Commands

ROWS_MAX = 2_048  # the newest, which are read when a scope is opened
ROWS_BYTES_MAX = 4 * 2**20  # of these rows together, because a large payload is read with its row

SELECT_NEWEST = statement(
    Commands.select(Commands.facts, SQL("coalesce(length(payload), 0) + coalesce(length(facts), 0)"))
    .where(Commands.seq > Named("after"))
    .order_by(Commands.seq.desc())
)


class KnownClients:
    """The greatest `n` that took effect of each client, of the clients whose last command took effect latest."""

    def __init__(self) -> None:
        self.greatest_n: OrderedDict[str, int] = OrderedDict()

    def add(self, senders: Iterable[Sender]) -> None:
        """Note the senders of commands that took effect, in their order."""
        for client, n in senders:
            self.greatest_n[client] = max(self.greatest_n.get(client, 0), n)
            self.greatest_n.move_to_end(client)
            if len(self.greatest_n) > KNOWN_CLIENTS_MAX:
                self.greatest_n.popitem(last=False)


def known_clients(seq: int, db: Reads) -> KnownClients:
    """The clients in the newest rows of a scope's log, which ends with `seq`."""
    senders: list[Sender] = []
    size = 0
    for facts, row_bytes in db.each(SELECT_NEWEST, after=seq - ROWS_MAX):
        with suppress(*DECODE_ERRORS):  # a damaged row
            if sender := sender_in(facts):
                senders.append(sender)
        size += row_bytes
        if size > ROWS_BYTES_MAX:
            break
    known = KnownClients()
    known.add(reversed(senders))
    return known


def superseded(sender: Sender, greatest_n: int) -> Superseded:
    """The error of a command whose id is new, although one of its client with this `n` took effect."""
    problem = f"the command {greatest_n} of this client took effect, so {sender.n} is not executed any more"
    return Superseded.at("$.n", problem, n=greatest_n)
