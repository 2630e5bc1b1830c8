"""The receiving ends of the channels of a session."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from academy.link.channel import REQUESTS, ChannelKey, Received
from academy.link.config import SEGMENT_COST, LinkConfig
from academy.link.frame import Back, Buffer, Lent, Part, RemoteProtocolError
from academy.link.parts import Assembly
from academy.link.window import ReceiveWindow


class Unfinished:
    """What the unfinished messages of a session weigh together.

    Args:
        limit: What they may weigh, unless it is a single one.
    """

    __slots__ = ("_limit", "_weight")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._weight = 0

    def change(self, before: int, after: int) -> None:
        """Note that a message has grown.

        Raises:
            RemoteProtocolError: There are too many.
        """
        self._weight += after - before
        if self._weight > max(self._limit, after):
            raise RemoteProtocolError("too many unfinished messages")

    @property
    def weight(self) -> int:
        """What they weigh."""
        return self._weight


class Incoming:
    """Turns the frames of a channel into messages.

    Args:
        number: Number of the channel as the peer says it.
        channel: Its number as this side says it. A peer that starts anew begins to
            count anew, and its channels must not be taken for its former ones.
        key: What it carries.
        config: Limits.
        unfinished: Messages in parts of the whole session.
    """

    __slots__ = (
        "_assembly",
        "_config",
        "_unfinished",
        "accepted",
        "channel",
        "key",
        "note",
        "number",
        "window",
    )

    def __init__(
        self,
        number: int,
        channel: int,
        key: ChannelKey,
        config: LinkConfig,
        unfinished: Unfinished,
    ) -> None:
        self.number = number
        self.channel = channel
        self.key = key
        self.accepted = False
        """Whether messages may come."""
        self.note: Any = None
        """What comes with each message."""
        messages = config.window_messages if key.lane == REQUESTS else 0
        self.window = ReceiveWindow(messages, config.window_bytes)
        self._config = config
        self._unfinished = unfinished
        self._assembly: Assembly | None = None

    def event(self, seq: int, segments: Sequence[Buffer]) -> Received:
        """Return what says that a message has arrived."""
        return Received(self.channel, self.key, seq, segments, self.note)

    def receive(self, seq: int, segments: Sequence[Buffer]) -> None:
        """Take a whole message.

        Raises:
            RemoteProtocolError: It is not allowed here.
        """
        if self._assembly is not None:
            raise RemoteProtocolError("a message amid the parts of another")
        size = sum(map(len, segments))
        if size + SEGMENT_COST * len(segments) > self._config.chunk:
            raise RemoteProtocolError("a large message in one frame")
        self.window.receive(seq, size)

    def receive_part(
        self, frame: Part | Lent | Back, segment: memoryview | None = None
    ) -> Received | None:
        """Take a piece of a part of a message; return the message if it is the last.

        Args:
            frame: The part, or what says that a segment is in shared memory.
            segment: That segment.

        Raises:
            RemoteProtocolError: It is not allowed here.
            MemoryError: There is no room for the message, which was dropped.
        """
        assembly = self._assembly
        if assembly is None:
            assembly = self._assembly = Assembly(
                frame.seq, self._config.message_limit, self._unfinished.change
            )
        elif assembly.seq != frame.seq:
            raise RemoteProtocolError("a part amid those of another message")
        try:
            if segment is not None:
                assembly.add_whole(segment)
            elif isinstance(frame, Part):
                assembly.add(frame.data)
            if not frame.last:
                return None
            segments = assembly.finish()
        except (ValueError, struct.error) as e:
            raise RemoteProtocolError(f"a damaged message: {e}") from e
        self.end()
        self.window.receive(frame.seq, sum(map(len, segments)))
        return self.event(frame.seq, segments)

    def room(self, most: int) -> memoryview | None:
        """Return where the next bytes of a message go, if it has memory for them."""
        return None if self._assembly is None else self._assembly.room(most)

    def filled(self, seq: int, size: int) -> None:
        """Note that bytes were written to what `room` has returned.

        Raises:
            RemoteProtocolError: They are not of that message.
        """
        assembly = self._assembly
        if assembly is None or assembly.seq != seq:
            raise RemoteProtocolError("a piece of no message")
        try:
            assembly.advance(size)
        except ValueError as e:
            raise RemoteProtocolError(f"a damaged message: {e}") from e

    def abort(self, seq: int) -> None:
        """Drop a message that its sender has taken back.

        Raises:
            RemoteProtocolError: It is not the one whose parts come.
        """
        if self._assembly is None or self._assembly.seq != seq:
            raise RemoteProtocolError("the end of a message that was not begun")
        self.end()

    def end(self) -> None:
        """Drop a message of which parts are missing."""
        if self._assembly is not None:
            self._unfinished.change(self._assembly.weight, 0)
            self._assembly = None


class IncomingChannels:
    """The channels that the peer has opened on one connection, by both numbers.

    Args:
        config: Limits.
        used: Number of the last channel before them, as this side counts.
    """

    def __init__(self, config: LinkConfig, used: int) -> None:
        self._config = config
        self.used = used
        """Number of the last one."""
        self.unfinished = Unfinished(config.parts_limit)
        """Messages of which parts are missing."""
        self._last = 0
        self.by_number: dict[int, Incoming] = {}
        """Those that have not ended, by their numbers there."""
        self.by_channel: dict[int, Incoming] = {}
        """The same, by their numbers here."""

    def open(self, number: int, key: ChannelKey) -> Incoming | None:
        """Enter a channel that the peer opens; `None` if it has too many.

        Raises:
            RemoteProtocolError: It does not count upwards.
        """
        if number <= self._last:
            raise RemoteProtocolError(f"channel {number} after {self._last}")
        self._last = number
        if len(self.by_number) >= self._config.channel_limit:
            return None
        self.used += 1
        incoming = Incoming(number, self.used, key, self._config, self.unfinished)
        self.by_number[number] = self.by_channel[self.used] = incoming
        return incoming

    def with_message(self, number: int) -> Incoming | None:
        """Return the channel of a message, or `None` when it has been refused.

        After a refusal messages may still be on their way: they are dropped.

        Raises:
            RemoteProtocolError: Messages are not allowed on it.
        """
        incoming = self.by_number.get(number)
        if incoming is None:
            if number > self._last:
                raise RemoteProtocolError(f"a message on channel {number}, not open")
            return None
        if not incoming.accepted:
            raise RemoteProtocolError(f"a message on channel {number}, not accepted")
        return incoming

    def forget(self, incoming: Incoming) -> None:
        """Remove a channel that has ended."""
        del self.by_number[incoming.number], self.by_channel[incoming.channel]
        incoming.end()
