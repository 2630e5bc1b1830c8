"""A session with another process: channels, messages and acknowledgements.

A session lasts as long as both processes do, across connections; channels last as long
as a connection. Pure: frames and the time go in; frames, events and the next timer
come out.

The sending side opens a channel, waits for `Accepted`, and sends from there. The
receiving side answers `ChannelOffered` with `accept` or `refuse`, and calls `taken` as
its consumer takes messages; that is acknowledgement and credit in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from academy.link.channel import (
    Accepted,
    ChannelKey,
    ChannelOffered,
    Event,
    Reason,
    Rejected,
    Taken,
    Told,
)
from academy.link.codec import ack_size
from academy.link.config import SEGMENT_COST, LinkConfig
from academy.link.frame import (
    Abort,
    Ack,
    Buffer,
    Close,
    Control,
    Data,
    Filled,
    Frame,
    LocalProtocolError,
    Open,
    Opened,
    Part,
    Refused,
    RemoteProtocolError,
)
from academy.link.incoming import Incoming, IncomingChannels
from academy.link.outgoing import Outgoing, OutgoingChannels
from academy.link.parts import PartQueue, check_size
from academy.link.window import Confirmations


class Session:
    """What two processes say to each other, whatever the connection.

    Args:
        config: Limits and timeouts.
    """

    def __init__(self, config: LinkConfig) -> None:
        self._config = config
        self._chunk = config.chunk
        self._channels_used = 0
        mark = ack_size(1) - ack_size(0)
        self._marks_per_ack = (config.frame_limit - ack_size(0)) // mark
        self._confirmations = Confirmations(
            config.ack_delay, config.ack_messages, config.ack_bytes
        )
        self._events: list[Event] = []
        self.linked = False
        self._reset()

    def _reset(self) -> None:
        """Forget what belongs to a connection."""
        self._out = OutgoingChannels()
        self._parts = PartQueue(self._config.part, self._config.parts_limit)
        self.frames: list[Frame] = []
        """What waits to be sent, parts of large messages aside."""
        self._in = IncomingChannels(self._config, self._channels_used)
        self._confirmations.clear()

    # The connection

    def link_up(self) -> None:
        """Begin on a new connection: all channels are to be opened again."""
        self._reset()
        self.linked = True

    def link_down(self) -> None:
        """Note that the connection has ended; half messages are dropped."""
        self._reset()
        self.linked = False

    def receive(self, frame: Frame | Filled) -> None:
        """Take a frame of the connection.

        Raises:
            RemoteProtocolError: It does not fit to what came before. The connection is
                to be ended with `LinkProtocol.fail`.
        """
        match frame:
            case Data(_, seq, segments):
                incoming = self.take(frame)
                if incoming is not None:
                    self._events.append(incoming.event(seq, segments))
            case Part():
                self._receive_part(frame)
            case Filled(number, seq, size):
                incoming = self._in.with_message(number)
                if incoming is not None:
                    incoming.filled(seq, size)
            case Abort(number, seq):
                incoming = self._in.with_message(number)
                if incoming is not None:
                    incoming.abort(seq)
            case Ack(marks):
                self._receive_ack(marks)
            case Open():
                self._receive_open(frame)
            case Opened(number, inc, accepted):
                self._receive_opened(number, inc, accepted)
            case Refused(number, reason):
                self._receive_refused(number, reason)
            case Close(number):
                self._receive_close(number)
            case Control(data):
                self._receive_control(data)
            case _:
                raise RemoteProtocolError(f"{type(frame).__name__} to a session")

    def take(self, frame: Data) -> Incoming | None:
        """Take a message in one frame as `receive` does, without an event.

        Returns:
            The channel that it has come on; `None` if it is dropped.
        """
        incoming = self._in.by_number.get(frame.channel)
        if incoming is None or not incoming.accepted:
            incoming = self._in.with_message(frame.channel)
        if incoming is not None:
            incoming.receive(frame.seq, frame.segments)
        return incoming

    def room(self, number: int, most: int) -> memoryview | None:
        """Return where the next bytes of a part may be read to.

        What was read is to be told with `Filled`, before anything else is asked.

        Args:
            number: Channel of the part, as the peer says it.
            most: Bytes that are missing of it.
        """
        incoming = self._in.by_number.get(number)
        return None if incoming is None else incoming.room(most)

    # The sending side

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
        self._parts.add(out.number, seq, segments, lent=lent)

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

    def tell(self, data: bytes) -> None:
        """Send a control message to the peer process, if it is linked.

        Raises:
            LocalProtocolError: The message is larger than `chunk`.
        """
        if len(data) > self._config.chunk:
            raise LocalProtocolError(
                f"A control message of {len(data)} bytes exceeds {self._config.chunk}."
            )
        if self.linked:
            self.frames.append(Control(data))

    # The receiving side

    def accept(self, channel: int, inc: int, accepted: int, note: Any = None) -> None:
        """Accept an offered channel; nothing if it was accepted, or has ended.

        Args:
            channel: Its number.
            inc: Incarnation of the mailbox.
            accepted: Highest number of the stream that has arrived, on any path.
            note: What is to come with each message of the channel.
        """
        incoming = self._in.by_channel.get(channel)
        if incoming is not None and not incoming.accepted:
            incoming.accepted = True
            incoming.note = note
            self.frames.append(Opened(incoming.number, inc, accepted))

    def refuse(self, channel: int, reason: Reason) -> None:
        """Refuse an offered channel, or end an accepted one."""
        incoming = self._in.by_channel.get(channel)
        if incoming is not None:
            self._forget(incoming)
            self.frames.append(Refused(incoming.number, reason))

    def taken(self, channel: int, seq: int, now: float) -> bool:
        """Note that the consumer has taken a channel's messages up to a number.

        Returns:
            Whether so much is confirmed that it should be sent now.

        Args:
            channel: Number of the channel; nothing happens when it has ended.
            seq: Highest number taken, of messages on any path.
            now: The time.
        """
        incoming = self._in.by_channel.get(channel)
        if incoming is None or not incoming.accepted:
            return False
        freed = incoming.window.take(seq)
        if freed is None:
            return False
        much = self._confirmations.add(incoming.number, seq, freed, now)
        if much:
            self.acknowledge()
        return much

    def acknowledge(self) -> None:
        """Confirm now what is to be confirmed."""
        marks = self._confirmations.take()
        most = self._marks_per_ack
        for start in range(0, len(marks), most):
            self.frames.append(Ack(tuple(marks[start : start + most])))

    # Output

    def next_timer(self) -> float | None:
        """Return when `handle_timer` is due, if it is."""
        return self._confirmations.due

    def handle_timer(self, now: float) -> None:
        """Do what is due; nothing if nothing is."""
        due = self._confirmations.due
        if due is not None and now >= due:
            self.acknowledge()

    def frames_to_send(self, budget: int, *, drained: bool = True) -> list[Frame]:
        """Return the frames to send, once.

        Args:
            budget: About how many bytes of large messages may go with them; their
                parts go in turn, channel by channel.
            drained: Whether all parts that were returned before are written.
        """
        if self.has_output and self._confirmations.ride_with(len(self.frames)):
            self.acknowledge()
        frames, self.frames = self.frames, []
        if self._parts.messages:
            frames += self._parts.take(budget, drained=drained)
        return frames

    @property
    def has_output(self) -> bool:
        """Whether there is something to send, acknowledgements aside."""
        return bool(self.frames or self._parts.messages)

    @property
    def has_parts(self) -> bool:
        """Whether parts of large messages wait to be sent."""
        return bool(self._parts.messages)

    @property
    def waits_for_end(self) -> bool:
        """Whether parts wait until those before them are written."""
        return self._parts.waits_for_end

    def events_received(self) -> list[Event]:
        """Return what has happened, once."""
        events, self._events = self._events, []
        return events

    def _abandon(self, out: Outgoing) -> None:
        self._out.remove(out)
        self._parts.drop(out.number)

    def _forget(self, incoming: Incoming) -> None:
        self._in.forget(incoming)
        self._confirmations.discard(incoming.number)

    # Input: answers to the sending side

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

    # Input: to the receiving side

    def _receive_open(self, frame: Open) -> None:
        key = ChannelKey(frame.src, frame.src_inc, frame.dest, frame.lane)
        incoming = self._in.open(frame.channel, key)
        if incoming is None:
            self.frames.append(Refused(frame.channel, Reason.TOO_MANY))
            return
        self._channels_used = incoming.channel
        self._events.append(ChannelOffered(incoming.channel, key))

    def _receive_close(self, number: int) -> None:
        incoming = self._in.by_number.get(number)
        if incoming is not None:
            self._forget(incoming)

    def _receive_control(self, data: Buffer) -> None:
        if len(data) > self._config.chunk:
            raise RemoteProtocolError(f"a control message of {len(data)} bytes")
        self._events.append(Told(data))

    def _receive_part(self, frame: Part) -> None:
        incoming = self._in.with_message(frame.channel)
        if incoming is None:
            return
        try:
            received = incoming.receive_part(frame)
        except MemoryError:
            # The sender hears of it, and takes another way or reports the error.
            self.refuse(incoming.channel, Reason.NO_MEMORY)
            return
        if received is not None:
            self._events.append(received)
