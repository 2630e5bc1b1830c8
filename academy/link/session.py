"""A session with another process: channels, messages and acknowledgements.

A session lasts as long as both processes do, across connections; channels last as long
as a connection. Pure: frames and the time go in; frames, events and the next timer
come out.

The sending side opens a channel, waits for `Accepted`, and sends from there. The
receiving side answers `ChannelOffered` with `accept` or `refuse`, and calls `taken` as
its consumer takes messages; that is acknowledgement and credit in one.
"""

from __future__ import annotations

from typing import Any

from academy.link.channel import (
    ChannelKey,
    ChannelOffered,
    Event,
    Reason,
    Told,
)
from academy.link.codec import acks
from academy.link.config import LinkConfig
from academy.link.frame import (
    Abort,
    Ack,
    Back,
    Buffer,
    Close,
    Control,
    Data,
    Filled,
    Frame,
    Lent,
    LocalProtocolError,
    Offer,
    Open,
    Opened,
    Part,
    Refused,
    RemoteProtocolError,
    Sharing,
    Unmapped,
)
from academy.link.incoming import Incoming, IncomingChannels
from academy.link.sending import Sending
from academy.link.sharing import SharedMemory
from academy.link.window import Confirmations


class Session(Sending):
    """What two processes say to each other, whatever the connection.

    Args:
        config: Limits and timeouts.
    """

    def __init__(self, config: LinkConfig) -> None:
        super().__init__(config)
        self._channels_used = 0
        self._confirmations = Confirmations(
            config.ack_delay, config.ack_messages, config.ack_bytes
        )
        self._memory: SharedMemory | None = None
        self._reset(None)

    def _reset(self, memory: SharedMemory | None) -> None:
        """Forget what belongs to a connection, and begin with what this one shares."""
        if self._memory is not None:
            self._memory.close()
        self._memory = memory
        self._reset_sending(memory)
        self._in = IncomingChannels(self._config, self._channels_used)
        self._confirmations.clear()

    # The connection

    def link_up(self, memory: SharedMemory | None = None) -> None:
        """Begin on a new connection: all channels are to be opened again.

        Args:
            memory: What is shared with the other process, if anything.
        """
        self._reset(memory)
        self.linked = True

    def link_down(self) -> None:
        """Note that the connection has ended; half messages are dropped."""
        self._reset(None)
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
                self._receive_part(frame, None)
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
                self._receive_other(frame)

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

    # Control messages

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
        self.frames += acks(self._confirmations.take(), self._config.frame_limit)

    # Output

    def next_timer(self) -> float | None:
        """Return when `handle_timer` is due, if it is."""
        return self._confirmations.due

    def handle_timer(self, now: float) -> None:
        """Do what is due; nothing if nothing is."""
        due = self._confirmations.due
        if due is not None and now >= due:
            self.acknowledge()

    def sweep(self) -> None:
        """Let go of shared memory that was not used since the last call."""
        if self._memory is not None:
            self._memory.sweep()

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
        if self._memory is not None:
            frames += self._memory.take_frames()
        return frames

    @property
    def has_output(self) -> bool:
        """Whether there is something to send, acknowledgements aside."""
        memory = self._memory
        shares = memory is not None and memory.has_output
        return bool(self.frames or self._parts.messages or shares)

    def events_received(self) -> list[Event]:
        """Return what has happened, once."""
        events, self._events = self._events, []
        return events

    def _forget(self, incoming: Incoming) -> None:
        self._in.forget(incoming)
        self._confirmations.discard(incoming.number)

    # Input

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

    def _receive_other(self, frame: Frame) -> None:
        memory = self._memory
        if isinstance(frame, Offer) and memory is None:
            self.frames.append(Unmapped(frame.region))
        elif memory is None or not isinstance(frame, Sharing):
            raise RemoteProtocolError(f"{type(frame).__name__} to a session")
        elif isinstance(frame, Lent | Back):
            self._receive_part(frame, memory.view(frame))
        else:
            memory.receive(frame)

    def _receive_part(
        self, frame: Part | Lent | Back, segment: memoryview | None
    ) -> None:
        incoming = self._in.with_message(frame.channel)
        if incoming is None:
            return
        try:
            received = incoming.receive_part(frame, segment)
        except MemoryError:
            # The sender hears of it, and takes another way or reports the error.
            self.refuse(incoming.channel, Reason.NO_MEMORY)
            return
        if received is not None:
            self._events.append(received)
