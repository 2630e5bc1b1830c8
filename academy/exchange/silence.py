"""How long somebody who was asked has not answered, by a loop that may be busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TICK = 0.1
"""Seconds between two looks."""


class Silence:
    """Counts the time without an answer. Belongs to one event loop.

    What counts is the time in which the loop could have read one: while it is busy
    with thousands of tasks, answers wait in its socket, and nobody is silent.

    Args:
        on_tick: Called from time to time while it lasts, with its seconds.
    """

    def __init__(self, on_tick: Callable[[float], None]) -> None:
        self._on_tick = on_tick
        self.seconds = 0.0
        """How long the silence lasts; 0 when nothing was asked."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Note that something was asked, perhaps once more."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def end(self) -> None:
        """Note an answer, or that none is awaited any more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.seconds = None, 0.0

    def _tick(self) -> None:
        self.seconds += TICK
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)
        self._on_tick(self.seconds)
