"""The sending side of a session: its channels, and the messages on them."""

from __future__ import annotations

from collections.abc import Sequence

from academy.link.channel import (
    REPLIES,
    Accepted,
    ChannelKey,
    Event,
    Reason,
    Rejected,
    Taken,
)
from academy.link.config import SEGMENT_COST, LinkConfig
from academy.link.frame import (
    Abort,
    Buffer,
    Close,
    Data,
    Frame,
    LocalProtocolError,
    Open,
    RemoteProtocolError,
)
from academy.link.outgoing import Outgoing, OutgoingChannels
from academy.link.part_queue import PartQueue
from academy.link.parts import Memory, check_size


class Sending:
    """What this side sends; see `academy.link.session`.

    Args:
        config: Limits and timeouts.
    """

    def __init__(self, config: LinkConfig) -> None:
        self._config = config
        self._chunk = config.chunk
        self._events: list[Event] = []
        self.linked = False
        """Whether there is a connection."""
        self._reset_sending(None)

    def _reset_sending(self, memory: Memory | None) -> None:
        self._out = OutgoingChannels()
        self._parts = PartQueue(self._config.part, self._config.parts_limit, memory)
        self.frames: list[Frame] = []
        """What waits to be sent, parts of large messages aside."""

    def open(self, key: ChannelKey) -> None:
        """Ask for a channel, unless that was done on this connection."""
        if not self.linked or key in self._out:
            return
        out = self._out.add(key)
        self.frames.append(Open(out.number, key.lane, key.src, key.src_inc, key.dest))

    def is_open(self, key: ChannelKey) -> bool:
        """Return whether the peer has accepted the channel on this connection."""
        out = self._out.get(key)
        return out is not None and out.open

    def send(
        self,
        key: ChannelKey,
        seq: int,
        segments: Sequence[Buffer],
        size: int | None = None,
        lent: bool = False,
    ) -> None:
        """Send a message on an open channel; a large one goes in parts.

        Args:
            key: The channel.
            seq: Number of the message, above those sent on the channel before.
            segments: Its segments; not to be changed until the message was taken.
            size: Bytes of the segments, if that is known.
            lent: Whether they may be changed once it was taken back.

        Raises:
            LocalProtocolError: The channel is not open, or the message is larger than
                `message_limit`. Nothing was sent.
        """
        out = self._out.get(key)
        if out is None or not out.open:
            raise LocalProtocolError("The channel of a message is not open.")
        if size is None:
            size = sum(map(len, segments))
        weight = size + SEGMENT_COST * len(segments)
        if weight <= self._chunk and out.number not in self._parts.messages:
            self.frames.append(Data(out.number, seq, segments))
            return
        if weight > self._config.message_limit:
            check_size(segments, self._config.message_limit)
        # A request is its caller's, who may change it when he does not wait any more.
        owned = key.lane == REPLIES and not lent
        self._parts.add(out.number, seq, segments, lent=lent, owned=owned)

    def take_back(self, key: ChannelKey, seq: int) -> bool:
        """Do not send a message, if it has not been sent to the end.

        Returns:
            Whether that was in time: then the peer does not get it.
        """
        out = self._out.get(key)
        begun = None if out is None else self._parts.take_back(out.number, seq)
        if out is not None and begun:
            self.frames.append(Abort(out.number, seq))
        return begun is not None

    def close(self, key: ChannelKey) -> None:
        """Give up a channel: nothing more will be sent on it."""
        out = self._out.get(key)
        if out is not None:
            self._abandon(out)
            self.frames.append(Close(out.number))

    @property
    def has_parts(self) -> bool:
        """Whether parts of large messages wait to be sent."""
        return bool(self._parts.messages)

    @property
    def waits_for_end(self) -> bool:
        """Whether parts wait until those before them are written."""
        return self._parts.waits_for_end

    def _abandon(self, out: Outgoing) -> None:
        self._out.remove(out)
        self._parts.drop(out.number)

    # What the peer answers

    def _receive_opened(self, number: int, inc: int, accepted: int) -> None:
        out = self._out.answered(number)
        if out is None:
            return
        if out.open:
            raise RemoteProtocolError(f"a second answer to channel {number}")
        out.open = True
        self._events.append(Accepted(out.key, inc, accepted))

    def _receive_refused(self, number: int, reason: int) -> None:
        out = self._out.answered(number)
        if out is not None:
            self._abandon(out)
            self._events.append(Rejected(out.key, Reason(reason)))

    def _receive_ack(self, marks: Sequence[tuple[int, int]]) -> None:
        for number, seq in marks:
            out = self._out.answered(number)
            if out is None:
                continue
            if not out.open:
                raise RemoteProtocolError(f"an ack of channel {number}, not open")
            self._events.append(Taken(out.key, seq))
