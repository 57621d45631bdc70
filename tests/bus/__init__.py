"""Tests of the daemon: its socket, its threads and its store."""
