"""Virtual time: what happens, in order, in processes that can stop or die."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

Callback = Callable[..., object]


class Actor:
    """Whatever runs code: it can be paused, and it can die."""

    def __init__(self) -> None:
        self.dead = False
        self.paused = False
        self.backlog: list[tuple[Callback, tuple[Any, ...]]] = []

    def settle(self) -> None:
        """Do what is left to do after an event."""


class Clock:
    """Runs events in the order of their time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.events = 0
        self._heap: list[
            tuple[float, int, Actor | None, Callback, tuple[Any, ...]]
        ] = []
        self._number = itertools.count()

    def after(
        self, delay: float, actor: Actor | None, callback: Callback, *args: Any
    ) -> None:
        """Call something later. The code of an actor runs only while it does."""
        item = (self.now + delay, next(self._number), actor, callback, args)
        heapq.heappush(self._heap, item)

    def resume(self, actor: Actor) -> None:
        """Let a paused actor go on, with all it has missed, in order."""
        if not actor.paused:
            return
        actor.paused = False
        backlog, actor.backlog = actor.backlog, []
        for callback, args in backlog:
            self.after(0.0, actor, callback, *args)

    def run(self, until: float, done: Callable[[], bool] | None = None) -> None:
        """Run until a time, or until something holds."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, actor, callback, args = heapq.heappop(heap)
            self.events += 1
            if actor is None:
                callback(*args)
            elif actor.dead:
                continue
            elif actor.paused:
                actor.backlog.append((callback, args))
            else:
                callback(*args)
                actor.settle()
            if done is not None and done():
                return
        self.now = max(self.now, until)
