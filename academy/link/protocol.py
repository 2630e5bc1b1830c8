"""One connection as a state machine: handshake, frames, signs of life, end.

No socket, clock or randomness: bytes and the time go in, bytes, events and the time of
the next timer come out. What the peer sends never raises; it ends the machine with a
reason.

After calling any of `receive_data`, `receive_eof`, `send`, `fail`, `close` or
`handle_timer`, take what `data_to_send` and `events_received` give, and ask
`next_timer` again.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

from msgspec import Struct

from academy.link.codec import LENGTH, encode, parse
from academy.link.config import LinkConfig
from academy.link.frame import (
    Back,
    Buffer,
    Bye,
    Data,
    Filled,
    Frame,
    Lent,
    Part,
    Ping,
    Pong,
    RemoteProtocolError,
)
from academy.link.handshake import Handshake, HandshakeError, Role
from academy.link.reader import FrameReader
from academy.link.refusal import Refusal

MEASURE = 10.0
"""Seconds after which a peer that is never silent is asked nevertheless, to measure the
round trip."""


class State(enum.Enum):
    """Where a connection is in its life."""

    HANDSHAKE = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


_OPEN, _CLOSED = State.OPEN, State.CLOSED  # to look them up on the class takes longer


class Cause(enum.Enum):
    """Why a state changes."""

    PROVED = enum.auto()
    """Both sides have proved themselves."""
    CLOSED_HERE = enum.auto()
    CLOSED_BY_PEER = enum.auto()
    LOST = enum.auto()
    """The byte stream ended without a goodbye, or the peer fell silent."""
    REFUSED = enum.auto()
    """The peer did not prove itself."""
    VIOLATED = enum.auto()
    """The peer sent what the protocol does not allow."""


TRANSITIONS: dict[tuple[State, Cause], State] = {
    (State.HANDSHAKE, Cause.PROVED): State.OPEN,
    (State.HANDSHAKE, Cause.CLOSED_HERE): State.CLOSED,
    (State.HANDSHAKE, Cause.LOST): State.CLOSED,
    (State.HANDSHAKE, Cause.REFUSED): State.CLOSED,
    (State.OPEN, Cause.CLOSED_HERE): State.CLOSED,
    (State.OPEN, Cause.CLOSED_BY_PEER): State.CLOSED,
    (State.OPEN, Cause.LOST): State.CLOSED,
    (State.OPEN, Cause.VIOLATED): State.CLOSED,
}


class LinkOpen(Struct, frozen=True, gc=False):
    """Both sides have proved themselves.

    Attributes:
        peer: Identifier of the other process.
    """

    peer: bytes


class Suspected(Struct, frozen=True, gc=False):
    """The peer has been silent for longer than it should."""


class Trusted(Struct, frozen=True, gc=False):
    """A suspected peer has given a sign of life."""


class LinkClosed(Struct, frozen=True, gc=False):
    """The connection has ended; nothing follows.

    Attributes:
        cause: Why.
        reason: The same for people to read.
    """

    cause: Cause
    reason: str


Change: TypeAlias = LinkOpen | Suspected | Trusted | LinkClosed
"""What happens to a connection."""
Event: TypeAlias = Change | Frame | Filled
"""A change, or a frame that the peer has sent."""


class LinkProtocol:
    """The state machine of one connection.

    Args:
        config: Limits and timeouts.
        role: Which side dialled.
        handshake: The handshake of this side.
        now: The time.
    """

    def __init__(
        self, config: LinkConfig, role: Role, handshake: Handshake, now: float
    ) -> None:
        self._config = config
        self._handshake = handshake
        self._reader = FrameReader(config.handshake_limit)
        self.part: Part | None = None
        """The part of a large message whose end has not come."""
        self.amid = False
        """Whether parts of a large message are to follow."""
        self.out: list[Buffer] = []
        """What is to be written; `data_to_send` takes it."""
        self._events: list[Event] = []
        self._deadline = now + config.handshake_timeout
        self._heard = now
        # Since the peer was last heard: the first ping, the last one, the suspicion.
        self._asked_since: float | None = None
        self._asked = now
        self._suspected_since: float | None = None
        self._owes_pong = False
        self._measuring_since: float | None = now if role is Role.CLIENT else None
        self._measured = now
        self.rtt: float | None = None
        """Seconds of the last round trip that was measured, with what the peer needed
        to answer; the first one is that of the handshake, which on the dialling side
        has the time to connect in it."""
        self.state = State.HANDSHAKE
        self.refusal: Refusal | None = None
        """Why the peer was refused, if it was."""
        if role is Role.CLIENT:
            self._send_raw(handshake.start())

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self.state is _CLOSED

    def receive_data(self, data: Buffer, now: float) -> None:
        """Take bytes from the peer. After the end they are ignored."""
        if self.state is _CLOSED:
            return
        self._note_life(now)
        try:
            for body, start, end in self._reader.feed(data):
                if self.part is None and self.state is _OPEN:
                    frame = parse(body, start, end)
                    if type(frame) is Data:
                        self._events.append(frame)
                        continue
                    self._receive_frame(frame, now)
                elif self.part is not None:
                    self._receive_piece(memoryview(body)[start:end])
                else:
                    self._receive_handshake(bytes(body[start:end]), now)
                if self.closed:
                    return
        except HandshakeError as e:
            self._refuse(e.refusal, f"the peer was refused: {e}")
        except RemoteProtocolError as e:
            if self.state is State.OPEN:
                self.fail(str(e))
            else:
                self._refuse(Refusal.GARBAGE, f"the peer sent {e}")
        if self._owes_pong:
            self._owes_pong = False
            self.send(Pong())

    @property
    def rest(self) -> int:
        """Bytes of the part that have not come."""
        return self._reader.rest

    def receive_filled(self, size: int, now: float) -> None:
        """Note that bytes of the part have come into the memory of its message.

        Args:
            size: How many, at most `rest`.
            now: The time.
        """
        part = self.part
        if part is None:
            return
        self._note_life(now)
        self._reader.rest -= size
        self._events.append(Filled(part.channel, part.seq, size))
        if not self._reader.rest:
            self._receive_piece(memoryview(b""))

    def receive_eof(self, now: float) -> None:
        """Note that the byte stream has ended."""
        if self.state is not State.CLOSED:
            self._end(Cause.LOST, "the connection was lost")

    def send(self, *frames: Frame) -> None:
        """Send frames. On a connection that is not open they are dropped."""
        if self.state is _OPEN:
            for frame in frames:
                self.out += encode(frame)

    def fail(self, reason: str) -> None:
        """End an open connection, for its frames are not what the session allows.

        Args:
            reason: Text of the `RemoteProtocolError`.
        """
        if self.state is State.OPEN:
            self.refusal = Refusal.VIOLATION
            self._end(Cause.VIOLATED, f"the peer sent {reason}")

    def refuse(self, refusal: Refusal, reason: str) -> None:
        """End a connection whose peer has not proved itself and must not.

        Args:
            refusal: Why.
            reason: The same for people to read.
        """
        if self.state is State.HANDSHAKE:
            self._refuse(refusal, f"the peer was refused: {reason}")

    def close(self, reason: str) -> None:
        """End the connection; the peer is told. Idempotent."""
        if self.state is not State.CLOSED:
            self._end(Cause.CLOSED_HERE, reason)

    def next_timer(self) -> float | None:
        """Return when `handle_timer` is due, or `None` after the end."""
        if self.state is State.CLOSED:
            return None
        if self.state is State.HANDSHAKE:
            return self._deadline
        verdict = self._verdict_due()
        return self._ask_due() if verdict is None else min(self._ask_due(), verdict)

    def handle_timer(self, now: float) -> None:
        """Do what is due; nothing if nothing is.

        What counts against the peer is the time since it was asked, not since it was
        heard: if this process itself was stopped for a while, the peer gets its time.
        """
        if self.state is State.HANDSHAKE and now >= self._deadline:
            self._refuse(Refusal.LATE, "the peer did not prove itself in time")
        if self.state is not State.OPEN:
            return
        verdict = self._verdict_due()
        if verdict is not None and now >= verdict:
            self._judge(now)
        if self.state is State.OPEN and now >= self._ask_due():
            self._asked = now
            if self._asked_since is None:
                self._asked_since = now
            self._ping(now)
        elif self.state is State.OPEN and now >= self._measured + MEASURE:
            self._ping(now)

    def data_to_send(self) -> list[Buffer]:
        """Return what is to be written, once."""
        out, self.out = self.out, []
        return out

    def events_received(self) -> list[Event]:
        """Return what has happened, once."""
        events, self._events = self._events, []
        return events

    # Signs of life

    def _note_life(self, now: float) -> None:
        self._heard = now
        self._asked_since = None
        if self._suspected_since is not None:
            self._suspected_since = None
            self._events.append(Trusted())

    def _ask_due(self) -> float:
        since = self._heard if self._asked_since is None else self._asked
        return since + self._config.ping_interval

    def _verdict_due(self) -> float | None:
        """Return when a peer that does not answer is suspected, or given up."""
        config = self._config
        if self._suspected_since is not None:
            return self._suspected_since + (config.dead_after - config.suspect_after)
        if self._asked_since is not None:
            return self._asked_since + (config.suspect_after - config.ping_interval)
        return None

    def _judge(self, now: float) -> None:
        if self._suspected_since is None:
            self._suspected_since = now
            self._events.append(Suspected())
            return
        silence = now - self._heard
        self._end(Cause.LOST, f"the peer was silent for {silence:.1f} s")

    # Frames

    def _receive_handshake(self, body: bytes, now: float) -> None:
        answer = self._handshake.receive(body)
        if answer is not None:
            self._send_raw(answer)
        if self._handshake.done:
            self._measure(now)
            self._move(Cause.PROVED)
            self._reader.limit = self._config.frame_limit
            self._reader.gives_pieces = True
            self._events.append(LinkOpen(self._handshake.peer))
        else:
            self._measuring_since = now

    def _receive_frame(self, frame: Frame, now: float) -> None:
        if isinstance(frame, Part):
            self.part = frame
            self._receive_piece(frame.data)
        elif isinstance(frame, Ping):
            # One answer for all the questions that came together.
            self._owes_pong = True
        elif isinstance(frame, Bye):
            self._end(Cause.CLOSED_BY_PEER, "the peer closed the connection")
        elif isinstance(frame, Pong):
            self._measure(now)
        else:
            if isinstance(frame, Lent | Back):
                self.amid = not frame.last
            self._events.append(frame)

    def _receive_piece(self, data: Buffer) -> None:
        """Pass on a piece of the part, which may be all of it."""
        part, rest = self.part, self._reader.rest
        assert part is not None
        last = part.last and not rest
        if len(data) or last:
            self._events.append(Part(part.channel, part.seq, last, data))
        if not rest:
            self.part = None
            self.amid = not last

    def _ping(self, now: float) -> None:
        self.send(Ping())
        # Of several pings without an answer, the first one counts.
        if self._measuring_since is None:
            self._measuring_since = now

    def _measure(self, now: float) -> None:
        if self._measuring_since is not None:
            self.rtt = now - self._measuring_since
            self._measured = now
            self._measuring_since = None

    def _send_raw(self, body: bytes) -> None:
        self.out += (LENGTH.pack(len(body)), body)

    def _refuse(self, refusal: Refusal, reason: str) -> None:
        self.refusal = refusal
        self._end(Cause.REFUSED, reason)

    def _end(self, cause: Cause, reason: str) -> None:
        if cause is Cause.REFUSED:
            self.out.clear()
        elif cause in (Cause.CLOSED_HERE, Cause.VIOLATED):
            self.send(Bye())
        self._move(cause)
        self._reader = FrameReader(self._config.handshake_limit)
        self.part = None
        self._events.append(LinkClosed(cause, reason))

    def _move(self, cause: Cause) -> None:
        self.state = TRANSITIONS[self.state, cause]
