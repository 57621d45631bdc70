"""What is done to whole databases: checks, backups, restores and repairs, outside of the daemon's process."""
