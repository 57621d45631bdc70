"""What the sidecar's program runs: the command line."""

import sys

from backscroll.clients.command_line.main import main

sys.exit(main())
