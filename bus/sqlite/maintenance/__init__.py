"""What is done to whole files of data: checks, backups, restore and repair."""
