"""Everything specific to SQLite: opening files, transactions, the write-ahead log, scopes as files, and media."""
