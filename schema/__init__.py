"""The language: operations, records, errors and the wire format. Imports nothing of ours and does no I/O.

Everything that a client in Python needs can be imported from here; the modules are there for their documentation.
"""

from backscroll.schema.command_log import *
from backscroll.schema.errors import *
from backscroll.schema.operations import *
from backscroll.schema.records import *
from backscroll.schema.replies import *

__all__ = ["DELETED_TEXT", "ERRORS", "OPERATIONS"]
__all__ += [  # the classes; an operation that is added is among them
    name for name, value in dict(globals()).items() if isinstance(value, type) and value.__module__.startswith(__name__)
]
