"""All that only SQLite needs: opening files, transactions, the write-ahead log, scopes as files, media beside them."""
