"""The daemon: sockets, threads, the file. Knows no operation by name. `python -m backscroll.bus` runs it."""
