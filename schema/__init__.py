"""The protocol: operations, records, errors and the wire format. Imports no other part of backscroll and does no I/O.

Everything a Python client needs can be imported from here; the modules have the documentation.
"""

from backscroll.schema.command_log import *
from backscroll.schema.errors import *
from backscroll.schema.operations import *
from backscroll.schema.positions import *
from backscroll.schema.records import *
from backscroll.schema.replies import *

__all__ = ["DELETED_TEXT", "ERRORS", "OPERATIONS"]
__all__ += [  # all classes, so that a new operation needs no entry here
    name for name, value in dict(globals()).items() if isinstance(value, type) and value.__module__.startswith(__name__)
]
