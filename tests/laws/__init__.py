"""What holds across the whole project."""
