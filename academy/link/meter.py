"""How many messages pass in a second, without a clock or a timer of its own."""

from __future__ import annotations

import math

MEMORY = 3.0
"""Seconds after which a message counts for a third of what it did."""
GRAIN = 0.1
"""Seconds between two readings that are enough for it."""
YOUNG = 1.0
"""Seconds of age below which a meter claims no more than it has seen."""


class Meter:
    """The rate at which a count grows, as a decaying mean.

    Args:
        now: The time.
    """

    def __init__(self, now: float) -> None:
        self._began = self._at = now
        self._count = 0
        self._recent = 0.0
        self.due = now
        """When the next reading makes a difference."""

    def read(self, count: int, now: float) -> None:
        """Note what the count is now."""
        self._recent *= math.exp((self._at - now) / MEMORY)
        self._recent += count - self._count
        self._count, self._at = count, now
        self.due = now + GRAIN

    def rate(self, now: float) -> float:
        """Return how much the count has grown per second, over the last seconds."""
        age = max(now - self._began, YOUNG)
        left = self._recent * math.exp((self._at - now) / MEMORY)
        # What came before the beginning was nothing: the mean is over less time.
        return left / (MEMORY * (1.0 - math.exp(-age / MEMORY)))
