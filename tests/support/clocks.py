"""A clock that stands still until a test moves it."""


class Clock:
    """Milliseconds since the epoch, as set by the test."""

    def __init__(self, now: int = 1_767_225_600_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now
