"""One other process: its session, and the connection that carries it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from academy.link.channel import ChannelKey, Event, Received
from academy.link.config import LinkConfig
from academy.link.connection import Connection
from academy.link.frame import Buffer, Data, Filled, Frame, RemoteProtocolError
from academy.link.meter import Meter
from academy.link.session import Session
from academy.link.sharing import SharedMemory

logger = logging.getLogger(__name__)

FLUSH_AT = 32
"""Frames that are written without waiting for others."""
FEW = 2
"""Frames that come together when there is no crowd: an answer, and a confirmation."""
BUDGET = 512 * 1024
"""Bytes of large messages that are written in one turn of the event loop."""


class Peer:
    """A process that this one talks to, or wants to.

    Args:
        process: Its identifier.
        config: Limits and timeouts.
        on_message: Called with each message: the peer, what the channel was accepted
            with, the number of the message, and its segments.
        on_event: Called with each other event of the session.
    """

    def __init__(
        self,
        process: bytes,
        config: LinkConfig,
        on_message: Callable[[Peer, Any, int, Sequence[Buffer]], None],
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
        self._on_message = on_message
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._flushing = False
        self._prompt = False
        self._reading = False
        self._taken: dict[int, int] = {}
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
        regions = connection.regions()
        shared = None if regions is None else SharedMemory(regions, _waking(self))
        self.session.link_up(shared)

    def detach(self, reason: str) -> None:
        """Note that the connection has ended."""
        self.connection = None
        self.suspected = False
        self.reason = reason
        self.session.link_down()
        self._taken.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def receive(self, frames: Sequence[Frame | Filled]) -> None:
        """Take the frames of one read."""
        self._used = self._reading = True
        try:
            self._receive(frames)
        finally:
            self._reading = False
            self._settle_taken()
        self._prompt = len(frames) <= FEW
        self.flush_soon()

    def _receive(self, frames: Sequence[Frame | Filled]) -> None:
        connection, session = self.connection, self.session
        for frame in frames:
            error = ""
            # One by one: what happens must not find the session ahead of itself.
            try:
                if type(frame) is Data:
                    incoming = session.take(frame)
                    if incoming is not None:
                        self._on_message(self, incoming.note, frame.seq, frame.segments)
                else:
                    session.receive(frame)
            except RemoteProtocolError as e:
                error = str(e)
            if type(frame) is not Data:
                self._pass_on(session.events_received())
            if error and connection is not None:
                connection.fail(error)
            if self.connection is not connection:
                return

    def _pass_on(self, events: Sequence[Event]) -> None:
        for event in events:
            if type(event) is Received:
                self._on_message(self, event.note, event.seq, event.segments)
            else:
                self._on_event(self, event)

    def send(
        self,
        key: ChannelKey,
        seq: int,
        segments: Sequence[Buffer],
        size: int,
        lent: bool = False,
    ) -> None:
        """Send a message on an open channel; as `Session.send`."""
        self.session.send(key, seq, segments, size, lent)
        self.sent += 1
        self.flush_soon()

    def taken(self, channel: int, seq: int) -> None:
        """Confirm what the consumer of a channel has taken; soon, not at once.

        What is taken while the frames of one read are handed out is noted together.
        """
        self._taken[channel] = seq
        if not self._reading:
            self._settle_taken()

    def acknowledge(self) -> None:
        """Confirm now what has been taken."""
        self._settle_taken()
        self.session.acknowledge()

    def _settle_taken(self) -> None:
        """Tell the session what has been taken."""
        if not self._taken:
            return
        taken, self._taken = self._taken, {}
        now = self._loop.time()
        for channel, seq in taken.items():
            if self.session.taken(channel, seq, now):
                # Much is confirmed at once: the sender may wait for just that.
                self.flush_soon()
        if self._timer is None:
            self._set_timer()

    def flush_soon(self) -> None:
        """Write what the session has to send.

        The first output after little was read is written at once, for an answer should
        not wait; the rest is written together, in the next turn of the event loop, for
        many messages should need few system calls; but not so many that the peer has
        nothing to do meanwhile.
        """
        if self._flushing:
            if len(self.session.frames) >= FLUSH_AT:
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

    def wake(self) -> None:
        """Flush soon; may be called in any thread, also when all is over."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.flush_soon)

    def sweep(self) -> None:
        """Let go of shared memory that was not used since the last call."""
        self.session.sweep()
        self.flush_soon()

    def flush(self) -> None:
        """Write what the session has to send now."""
        self._flushing = False
        self._write()

    def _write(self) -> None:
        connection = self.connection
        if connection is None:
            return
        session = self.session
        if session.has_parts:
            budget = 0 if connection.paused else BUDGET
            frames = session.frames_to_send(budget, drained=connection.drained)
        else:
            frames = session.frames_to_send(0)
        if frames:
            self._used = True
            now = self._loop.time()
            if now >= self._meter.due:
                self._meter.read(self.sent + self.received, now)
            connection.send(frames)
        if session.has_parts and not connection.paused:
            if session.waits_for_end and not connection.drained:
                connection.drain()
            if not connection.paused:
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


def _waking(peer: Peer) -> Callable[[], None]:
    """Return what wakes a peer, but does not keep it."""
    found = weakref.ref(peer)

    def wake() -> None:
        peer = found()
        if peer is not None:
            peer.wake()

    return wake
