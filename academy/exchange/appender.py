"""Messages of lines into the queues on the server, as soon as there is room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from academy.exception import (
    ExchangeError,
    FencedError,
    MailboxFullError,
    PeerUnreachableError,
)
from academy.exchange.delivery_failure import doubtful
from academy.exchange.line import Line
from academy.exchange.mailbox import make_entry
from academy.exchange.parcel import Effect, Parcel
from academy.exchange.queues import NoRoomError, Queues
from academy.exchange.server import Command
from academy.exchange.stream import REPLIES
from academy.task import Tasks

SHORTEST_PAUSE = 0.005
LONGEST_PAUSE = 0.1
"""Seconds between two looks at a queue that is full."""


class Appender:
    """Appends what outboxes decide to append, and tells them what became of it.

    Args:
        queues: The queues on the server.
        run: Carries out what an outbox decides then.
    """

    def __init__(
        self, queues: Queues, run: Callable[[Line, list[Effect]], None]
    ) -> None:
        self._queues = queues
        self._run = run
        self.unsent: Callable[[Line, Parcel], None] = lambda line, parcel: None
        """Told of an answer whose mailbox was taken over before it was sent."""
        self._now = asyncio.get_running_loop().time
        self._tasks = Tasks("exchange-appender")

    def append(self, line: Line, parcel: Parcel, stamp: int) -> None:
        """Append a message, behind all before it.

        Args:
            line: Its line.
            parcel: The message.
            stamp: The incarnation that may have it already; 0 if none.
        """
        if line.key.lane == REPLIES:
            # One that arrives twice, or that nobody awaits, is dropped there.
            stamp = 0
        name = line.outbox.stream.name
        entry = make_entry(
            name, parcel.seq, parcel.kind, parcel.tag.bytes, parcel.segments, stamp
        )
        command = self._queues.post(line.box, line.dest, entry, ahead=parcel.ahead)
        self._tasks.spawn(
            self._appended(line, parcel, command), name=f"append-{parcel.seq}"
        )

    def await_room(self, line: Line) -> None:
        """Look for room for what an outbox holds, until there is some."""
        if line.looks is None:
            line.looks = self._tasks.spawn(self._look(line), name="look-for-room")

    async def close(self) -> None:
        """Stop; what has no answer is given up."""
        await self._tasks.cancel()

    async def _appended(self, line: Line, parcel: Parcel, command: Command) -> None:
        error: ExchangeError | None = None
        try:
            parcel.inc = await self._queues.accepted(line.box, line.dest, command)
        except ExchangeError as e:
            # Nobody has it only if it was never sent directly, and asked for once.
            nobody = parcel.fresh and command.attempts <= 1
            if isinstance(e, NoRoomError):
                if parcel.patient:
                    parcel.fresh = nobody
                    self._run(line, line.outbox.refused(parcel, self._now()))
                    return
                e = MailboxFullError(e.uid, e.executed, e.detail)
            error = e if nobody else doubtful(line.dest, e)
        arrived = error is None or (
            isinstance(error, PeerUnreachableError) and error.executed == "maybe"
        )
        effects = line.outbox.appended(parcel, self._now(), arrived=arrived)
        if error is None:
            line.passed_on(parcel)
        else:
            line.fail(parcel, error)
            if isinstance(error, FencedError) and line.key.lane == REPLIES:
                self.unsent(line, parcel)
        self._run(line, effects)

    async def _look(self, line: Line) -> None:
        pause = SHORTEST_PAUSE
        try:
            while line.outbox.short:
                await asyncio.sleep(pause)
                # Its answer comes after those to what was appended before.
                room = await self._queues.room(line.dest)
                effects = line.outbox.room(room, self._now())
                pause = SHORTEST_PAUSE if effects else min(2 * pause, LONGEST_PAUSE)
                self._run(line, effects)
        finally:
            line.looks = None
