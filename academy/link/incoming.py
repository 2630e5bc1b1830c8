"""The receiving end of a channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from academy.link.channel import REQUESTS, ChannelKey, Received
from academy.link.config import SEGMENT_COST, LinkConfig
from academy.link.frame import Buffer, Part, RemoteProtocolError
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

    def receive_part(self, frame: Part) -> Received | None:
        """Take a part of a message; return the message if that is its last.

        Raises:
            RemoteProtocolError: It is not allowed here.
        """
        assembly = self._assembly
        if assembly is None:
            assembly = Assembly(frame.seq, self._config.message_limit)
        elif assembly.seq != frame.seq:
            raise RemoteProtocolError("a part amid those of another message")
        before = assembly.weight
        try:
            assembly.add(frame.data)
            if not frame.last:
                self._assembly = assembly
                self._unfinished.change(before, assembly.weight)
                return None
            segments = assembly.finish()
        except ValueError as e:
            raise RemoteProtocolError(f"a damaged message: {e}") from e
        self._assembly = None
        self._unfinished.change(before, 0)
        self.window.receive(frame.seq, sum(map(len, segments)))
        return self.event(frame.seq, segments)

    def end(self) -> None:
        """Drop a message of which parts are missing."""
        if self._assembly is not None:
            self._unfinished.change(self._assembly.weight, 0)
            self._assembly = None
