"""Why something cannot be had now."""

from __future__ import annotations


class Refusal(Exception):
    """`reason` is a sentence that names what lacks and, where there is one, the remedy."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Awaited(Refusal):
    """It needs an object that does not exist, or not yet: no more is known than that it has to wait."""
