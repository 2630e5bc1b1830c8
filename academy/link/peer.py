"""One other process: its session, and the connection that carries it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from academy.link.config import LinkConfig
from academy.link.connection import Connection
from academy.link.frame import Frame, RemoteProtocolError
from academy.link.meter import Meter
from academy.link.session import Event, Session

logger = logging.getLogger(__name__)

FLUSH_AT = 8
"""Frames that are written without waiting for others."""
BUDGET = 256 * 1024
"""Bytes of large messages that are written in one turn of the event loop."""


class Peer:
    """A process that this one talks to, or wants to.

    Args:
        process: Its identifier.
        config: Limits and timeouts.
        on_event: Called with each event of the session.
    """

    def __init__(
        self,
        process: bytes,
        config: LinkConfig,
        on_event: Callable[[Peer, Event], None],
    ) -> None:
        self.process = process
        self.session = Session(config)
        self.connection: Connection | None = None
        self.suspected = False
        self._last_used = asyncio.get_running_loop().time()
        self._used = False
        self.refused = False
        """Whether its host was there, but refused the last connection."""
        self.reason = ""
        """Why there is no connection, for people to read."""
        self.host: str | None = None
        """Name of its host, as it says."""
        self.pid: int | None = None
        """Its process number there, as it says."""
        self.sent = 0
        """Messages that were sent to it directly."""
        self.received = 0
        """Messages that it has sent directly."""
        self._meter = Meter(self._last_used)
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._flushing = False
        self._prompt = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        """Whether messages can go directly now."""
        return self.connection is not None and not self.suspected

    @property
    def path(self) -> str:
        """How messages go: `'uds'`, `'tcp'` or `'relay'`."""
        return self.connection.kind if self.usable and self.connection else "relay"

    @property
    def encrypted(self) -> bool:
        """Whether messages go encrypted now."""
        return self.usable and self.connection is not None and self.connection.encrypted

    @property
    def rtt(self) -> float | None:
        """Seconds of the last round trip that was measured; `None` without a link."""
        return None if self.connection is None else self.connection.rtt

    @property
    def rate(self) -> float:
        """Messages per second in both directions, over the last seconds."""
        now = self._loop.time()
        self._meter.read(self.sent + self.received, now)
        return self._meter.rate(now)

    @property
    def last_used(self) -> float:
        """When something was last sent or received: at the latest look at this."""
        if self._used:
            self._used = False
            self._last_used = self._loop.time()
        return self._last_used

    def attach(self, connection: Connection) -> None:
        """Carry the session on a new connection."""
        self.connection = connection
        self.suspected = self.refused = False
        self.reason = ""
        self.session.link_up()

    def detach(self, reason: str) -> None:
        """Note that the connection has ended."""
        self.connection = None
        self.suspected = False
        self.reason = reason
        self.session.link_down()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def receive(self, frames: Sequence[Frame]) -> None:
        """Take the frames of one read."""
        self._used = True
        connection, session = self.connection, self.session
        for frame in frames:
            error = ""
            try:
                session.receive(frame)
            except RemoteProtocolError as e:
                error = str(e)
            # One by one: what happens must not find the session ahead of itself.
            for event in session.events_received():
                self._on_event(self, event)
            if error and connection is not None:
                connection.fail(error)
            if self.connection is not connection:
                return
        self._prompt = True
        self.flush_soon()

    def taken(self, channel: int, seq: int) -> None:
        """Confirm what the consumer of a channel has taken; soon, not at once."""
        if self.session.taken(channel, seq, self._loop.time()):
            # Much is confirmed at once: the sender may wait for just that.
            self.flush_soon()
        if self._timer is None:
            self._set_timer()

    def flush_soon(self) -> None:
        """Write what the session has to send.

        The first output after something was read is written at once, for an answer
        should not wait; the rest is written together, in the next turn of the event
        loop, for many messages should need few system calls; but not so many that the
        peer has nothing to do meanwhile.
        """
        if self._flushing:
            if self.session.frames >= FLUSH_AT:
                self._write()
            return
        if not self.session.has_output:
            return
        if self._prompt:
            self._prompt = False
            self._write()
        else:
            self._flushing = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what the session has to send now."""
        self._flushing = False
        self._write()

    def _write(self) -> None:
        connection = self.connection
        if connection is None:
            return
        budget = 0 if connection.paused else BUDGET
        frames = self.session.frames_to_send(budget)
        if frames:
            self._used = True
            now = self._loop.time()
            if now >= self._meter.due:
                self._meter.read(self.sent + self.received, now)
            connection.send(frames)
        if self.session.has_parts and not connection.paused:
            self.flush_soon()
        if self._timer is None:
            self._set_timer()

    def _set_timer(self) -> None:
        due = self.session.next_timer()
        if due is not None:
            self._timer = self._loop.call_at(due, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self.session.handle_timer(self._loop.time())
        self.flush()
