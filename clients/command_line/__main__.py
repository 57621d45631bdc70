"""`python -m backscroll.clients.command_line`: the command line where the installed command is not on the path."""

import sys

from backscroll.clients.command_line.main import main

if __name__ == "__main__":
    sys.exit(main())
