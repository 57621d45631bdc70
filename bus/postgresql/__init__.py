"""PostgreSQL, in place of SQLite files: one database for any number of daemons. See DESIGN.md."""
