"""`backscroll completion`: a script for a shell, made by shtab from the parser of all commands and settings."""

import argparse
import sys
from collections.abc import Iterator
from typing import get_args

import shtab

from backscroll.clients.command_line.main import Parser, build_parser
from backscroll.schema.command_log import Noun
from backscroll.schema.operations import OPERATIONS

CHOICES = {"TYPE": list(OPERATIONS), "OPERATION": list(OPERATIONS), "NOUN": list(get_args(Noun))}
PLACES = {"DIR": shtab.DIRECTORY, "FROM": shtab.DIRECTORY, "TO": shtab.DIRECTORY, "FILE": shtab.FILE}


def completion(options: argparse.Namespace) -> int:
    """Print the completion script for a shell."""
    sys.stdout.write(shtab.complete(_full_parser(), options.shell) + "\n")
    return 0


def _full_parser() -> Parser:
    """The parser of all commands, with the daemon's settings and with the values that arguments can have."""
    from backscroll.bus.settings import add_settings

    parser = build_parser()
    add_settings(_subparsers(parser)["serve"])
    for action in _actions(parser):
        word = action.metavar if isinstance(action.metavar, str) else ""
        if word in CHOICES:
            action.choices = CHOICES[word]
        elif word in PLACES:
            action.complete = PLACES[word]  # type: ignore[attr-defined]  # where shtab looks for it
    return parser


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All flags and arguments of a parser and of those below it."""
    yield from parser._actions
    for below in _subparsers(parser).values():
        yield from _actions(below)


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}
