"""The command line, `backscroll COMMAND`. It imports the Python client and the schema."""
