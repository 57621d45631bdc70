"""What somebody who mistyped a name may have meant."""

from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The closest names, to be put at the end of a message; empty where nothing is close."""
    from difflib import get_close_matches  # for mistakes alone

    close = get_close_matches(word, list(known))
    return f"; did you mean {' or '.join(close)}?" if close else ""
