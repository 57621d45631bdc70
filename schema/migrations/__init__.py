"""The migrations that create and upgrade the tables: a folder for each database system."""
