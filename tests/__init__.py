"""The tests of backscroll, by area. `ROOT` is the checkout."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
