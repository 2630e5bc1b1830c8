"""The sending end of a stream, whatever its way."""

from __future__ import annotations

import asyncio
from typing import Any

from academy.exchange.stream import SendStream
from academy.identifier import EntityId


class Outlet:
    """Where the messages of a mailbox to another one go out, in one lane.

    Args:
        dest: The other mailbox.
        stream: The stream.
    """

    __slots__ = ("dest", "gate", "line", "stream")

    def __init__(self, dest: EntityId, stream: SendStream) -> None:
        self.dest = dest
        self.stream = stream
        self.gate: asyncio.Lock | None = None
        """Keeps the stream in order while it waits for a path."""
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

    def closed_gate(self) -> asyncio.Lock:
        """Return the gate, made when it is needed first."""
        if self.gate is None:
            self.gate = asyncio.Lock()
        return self.gate
