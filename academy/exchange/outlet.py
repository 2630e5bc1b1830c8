"""The sending end of a stream, whatever its way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from academy.exchange.stream import SendStream
from academy.identifier import EntityId


class Outlet:
    """Where the messages of a mailbox to another one go out, in one lane.

    Args:
        dest: The other mailbox.
        stream: The stream.
    """

    __slots__ = ("_gate", "dest", "line", "stream", "waiting")

    def __init__(self, dest: EntityId, stream: SendStream) -> None:
        self.dest = dest
        self.stream = stream
        self.waiting = 0
        """How many messages wait for their turn, or have it: no other may pass them.
        That the gate is not locked says nothing, for whose turn is next has not run."""
        self._gate: asyncio.Lock | None = None
        self.line: Any = None
        """Its line to another process, if there is one."""

    @property
    def busy(self) -> bool:
        """Whether something is on its way to another process, or waits for a way."""
        return self.line is not None and len(self.line.outbox) > 0

    def returned(self, seq: int) -> None:
        """Note that a message which was delivered goes into the queue after all.

        What follows in the stream stays behind it, on every way.
        """
        if self.line is not None:
            self.line.outbox.returned(seq)
        else:
            self.stream.relayed = max(self.stream.relayed, seq)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until all before it have had their turn; the rest waits meanwhile."""
        if self._gate is None:
            self._gate = asyncio.Lock()
        self.waiting += 1
        try:
            async with self._gate:
                yield
        finally:
            self.waiting -= 1
