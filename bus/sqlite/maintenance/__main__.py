"""`python -m backscroll.bus.sqlite.maintenance`: the process that works on copies of databases for a daemon."""

from backscroll.bus.sqlite.maintenance.worker import serve

if __name__ == "__main__":
    serve()
