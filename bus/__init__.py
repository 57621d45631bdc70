"""The daemon: sockets, threads and files. It knows no operation by name. `python -m backscroll.bus` runs it."""
