"""Tests of the clients: Python, JavaScript and the command line."""
