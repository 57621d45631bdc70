"""The language: operations, records, errors and the wire format. Imports nothing of ours and does no I/O.

Everything that a client in Python needs can be imported from here; the modules are there for their documentation.
"""

from backscroll.schema.command_log import *
from backscroll.schema.errors import *
from backscroll.schema.operations import *
from backscroll.schema.operations import OPERATIONS
from backscroll.schema.records import *
from backscroll.schema.replies import *
