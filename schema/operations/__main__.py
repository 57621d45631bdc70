"""Print the table of operations as Markdown, made from the registry alone."""

import sys

from backscroll.schema.operations import OPERATIONS
from backscroll.schema.operations.table import operations_table

if __name__ == "__main__":
    sys.stdout.write(operations_table(OPERATIONS.values()))
