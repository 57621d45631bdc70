"""The steps by which a database came to its present tables, a folder a database system."""
