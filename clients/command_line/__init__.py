"""The command line: `backscroll serve | call | describe | log | replay | demo`. It imports the Python client and the schema."""
