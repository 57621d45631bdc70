"""Tests of what each operation does."""
