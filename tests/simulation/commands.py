"""The command connection of a process: calls in order, repeated until answered."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable
from typing import Any

from tests.simulation.clock import Actor, Clock
from tests.simulation.server import Reply, Server

BATCH = 32
TIMEOUT = 30.0

Done = Callable[[Reply | None, int], object]
"""Called with the reply, or `None` if there was none in time, and with how many times
the call was sent."""


class Call:
    """A call that waits for its reply."""

    __slots__ = ("args", "deadline", "done", "name", "sent")

    def __init__(
        self, name: str, args: tuple[Any, ...], done: Done, deadline: float
    ) -> None:
        self.name = name
        self.args = args
        self.done = done
        self.deadline = deadline
        self.sent = 0


class Commands:
    """Calls of one process.

    A connection that breaks takes requests or replies with it; what has no reply is
    sent again on the next one, in the same order.
    """

    def __init__(
        self,
        clock: Clock,
        chance: random.Random,
        server: Server,
        actor: Actor,
        latency: float,
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._server = server
        self._actor = actor
        self._latency = latency
        self._queue: collections.deque[Call] = collections.deque()
        self._connection = 0
        self._on_the_way = 0
        self._busy = False
        self.away = False
        """Whether the server does not answer."""

    def call(self, name: str, *args: Any, done: Done, timeout: float = TIMEOUT) -> None:
        """Put a call in line."""
        self._queue.append(Call(name, args, done, self._clock.now + timeout))
        self._kick()

    def break_off(self) -> None:
        """Lose the connection, at any point of a round trip."""
        if self._on_the_way and self._chance.random() < 0.5:
            self._execute(self._chance.randint(0, self._on_the_way))
        self._connection += 1
        self._on_the_way = 0
        self._busy = True
        pause = self._chance.uniform(0.0, 0.3)
        self._clock.after(pause, self._actor, self._reconnect, self._connection)

    def _kick(self) -> None:
        if self._busy or not self._queue:
            return
        self._busy = True
        self._on_the_way = min(len(self._queue), BATCH)
        for index in range(self._on_the_way):
            self._queue[index].sent += 1
        latency = self._latency * self._chance.uniform(0.5, 2.0)
        self._clock.after(latency, None, self._arrive, self._connection)

    def _execute(self, count: int) -> list[Reply]:
        calls = [self._queue[index] for index in range(count)]
        return [self._server.run(call.name, call.args) for call in calls]

    def _arrive(self, connection: int) -> None:
        if connection != self._connection:
            return
        replies = self._execute(self._on_the_way)
        self._on_the_way = 0
        latency = self._latency * self._chance.uniform(0.5, 2.0)
        self._clock.after(latency, self._actor, self._answer, connection, replies)

    def _answer(self, connection: int, replies: list[Reply]) -> None:
        if connection != self._connection:
            return
        self.away = False
        for reply in replies:
            call = self._queue.popleft()
            call.done(reply, call.sent)
            if self._actor.dead:
                return
        self._busy = False
        self._kick()

    def _reconnect(self, connection: int) -> None:
        if connection != self._connection:
            return
        for call in [c for c in self._queue if c.deadline <= self._clock.now]:
            self._queue.remove(call)
            call.done(None, call.sent)
        if self._server.down:
            self.away = True
            pause = self._chance.uniform(0.1, 0.4)
            self._clock.after(pause, self._actor, self._reconnect, connection)
            return
        self._busy = False
        self._kick()
