"""One connection: an asyncio transport driven by a `LinkProtocol`."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from typing import Any, Protocol, cast

from academy.link.frame import Buffer, Data, Filled, Frame, Part
from academy.link.protocol import (
    Cause,
    Change,
    LinkClosed,
    LinkOpen,
    LinkProtocol,
    Suspected,
    Trusted,
)
from academy.link.refusal import Refusal
from academy.link.region import Regions, regions_with

WRITE_BUFFER = 256 * 1024
"""Bytes waiting to be written above which no large messages are added."""
COPY_BELOW = 16 * 1024
"""Pieces smaller than this are joined before they are written: one copy is cheaper
than one more element for the kernel. What is missing of a part is read to its place if
it is not smaller."""
SOCKET_BUFFER = 1 << 20
"""Bytes that the kernel is asked to hold of what was written to a Unix socket: with its
own 200 kB the two processes wait for each other most of the time."""
UNSENT = 256 * 1024
"""Bytes that the kernel is asked to hold of what was written to a TCP socket and not
sent to the network yet."""
READ = 256 * 1024
"""Bytes of what is read at once."""
READ_AMID = COPY_BELOW
"""The same where parts of a large message follow: they are better read to its place."""

TURN = 512 * 1024
"""Bytes of large messages after which nothing more is read in that turn of the event
loop. That of asyncio reads once in a turn, that of uvloop up to 32 times, and what is
to be done for other messages would wait."""


class _Buffers(threading.local):
    """What is read goes here first. One per thread: it is used up at once."""

    def __init__(self) -> None:
        self.large = memoryview(bytearray(READ))
        self.small = self.large[:READ_AMID]


_buffers = _Buffers()


class Owner(Protocol):
    """What a connection tells its owner."""

    def link_open(self, connection: Connection, peer: bytes) -> None:
        """Both sides have proved themselves."""
        ...

    def frames_received(
        self, connection: Connection, frames: Sequence[Frame | Filled]
    ) -> None:
        """The peer has sent frames, which have come in one go."""
        ...

    def room(self, connection: Connection, part: Part, most: int) -> memoryview | None:
        """Return where the bytes that are missing of a part may be read to."""
        ...

    def suspected(self, connection: Connection, suspected: bool) -> None:
        """The peer is silent for too long, or is heard again."""
        ...

    def writable(self, connection: Connection) -> None:
        """Large messages may go on."""
        ...

    def link_closed(self, connection: Connection, cause: Cause, reason: str) -> None:
        """The connection has ended; called once."""
        ...


class Connection(asyncio.BufferedProtocol):
    """Drives one `LinkProtocol` over an asyncio transport.

    Args:
        protocol: The state machine.
        owner: Who is told what happens.
        kind: `'uds'` or `'tcp'`, for people to read.
        dialled: Whether this side made the connection.
        encrypted: Whether it is encrypted.
    """

    def __init__(
        self,
        protocol: LinkProtocol,
        owner: Owner,
        kind: str,
        *,
        dialled: bool,
        encrypted: bool = False,
    ) -> None:
        self._protocol = protocol
        self._owner = owner
        self.kind = kind
        self.dialled = dialled
        self.encrypted = encrypted
        self.source = kind
        """Where it goes, or comes from, for people to read."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.paused = False
        """Whether so much waits to be written that large messages must wait."""
        buffers = _buffers
        self._large, self._small = buffers.large, buffers.small
        self._buffer = self._large
        self._filling = False
        self._filled = 0
        """Bytes of large messages that were read in this turn of the event loop."""

    def __repr__(self) -> str:
        return f"Connection({self.kind}, {self._protocol.state.name})"

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self._protocol.closed

    @property
    def rtt(self) -> float | None:
        """Seconds from a question to its answer, as last measured."""
        return self._protocol.rtt

    @property
    def refusal(self) -> Refusal | None:
        """Why the peer was refused, if it was."""
        return self._protocol.refusal

    def regions(self) -> Regions | None:
        """Return what makes memory that both processes see, where that can be."""
        if self.kind != "uds" or self._transport is None:
            return None
        return regions_with(self._transport.get_extra_info("socket"))

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER)
        sock = transport.get_extra_info("socket")
        if self.kind == "tcp":
            _tune(sock)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        self._settle()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read to: where a part belongs, if it is worth it."""
        protocol = self._protocol
        part = protocol.part
        if part is not None and protocol.rest >= COPY_BELOW:
            room = self._owner.room(self, part, protocol.rest)
            if room is not None:
                self._filling = True
                return room
        self._buffer = self._small if protocol.amid or part else self._large
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand what was read to the state machine."""
        now = self._loop.time()
        if self._filling:
            self._filling = False
            self._count_filled(nbytes)
            self._protocol.receive_filled(nbytes, now)
        else:
            self._protocol.receive_data(self._buffer[:nbytes], now)
        self._settle()

    def _count_filled(self, size: int) -> None:
        assert self._transport is not None
        if not self._filled:
            self._loop.call_soon(self._end_turn)
        self._filled += size
        if self._filled > TURN:
            self._transport.pause_reading()

    def _end_turn(self) -> None:
        if self._filled > TURN and self._transport is not None:
            self._transport.resume_reading()
        self._filled = 0

    def eof_received(self) -> bool:
        """Note the end of the byte stream."""
        self._protocol.receive_eof(self._loop.time())
        self._settle()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the connection."""
        self._protocol.receive_eof(self._loop.time())
        self._settle()

    def pause_writing(self) -> None:
        """Hold large messages back."""
        self.paused = True

    def resume_writing(self) -> None:
        """Let large messages go on."""
        assert self._transport is not None
        self.paused = False
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self._owner.writable(self)

    # What the owner calls

    def send(self, frames: list[Frame]) -> None:
        """Send frames, in one write."""
        self._protocol.send(*frames)
        self._write()

    @property
    def drained(self) -> bool:
        """Whether all that was sent is written."""
        transport = self._transport
        return transport is None or not transport.get_write_buffer_size()

    def drain(self) -> None:
        """Hold large messages back until all that was sent is written."""
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=0)

    def fail(self, reason: str) -> None:
        """End the connection because the peer broke the protocol."""
        self._protocol.fail(reason)
        self._settle()

    def close(self, reason: str) -> None:
        """End the connection; the peer is told. Idempotent."""
        self._protocol.close(reason)
        self._settle()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._protocol.close("aborted")
        self._settle()
        transport = self._transport
        if transport is None:
            return
        if self.encrypted or transport.get_write_buffer_size():
            transport.abort()

    def _settle(self) -> None:
        """Pass on what the state machine has to say, and set its timer."""
        if self._protocol.out:
            self._write()
        frames: list[Frame | Filled] = []
        changed = self._timer is None
        for event in self._protocol.events_received():
            if type(event) is Data or not isinstance(event, Change):
                frames.append(event)
                continue
            if frames:
                self._owner.frames_received(self, frames)
                frames = []
            changed = True
            self._tell(event)
        if frames:
            self._owner.frames_received(self, frames)
        if changed or not frames:
            # Frames alone only put off what is due.
            self._set_timer()

    def _tell(self, event: Change) -> None:
        match event:
            case LinkOpen(peer):
                self._tell_open(peer)
            case Suspected():
                self._owner.suspected(self, True)
            case Trusted():
                self._owner.suspected(self, False)
            case LinkClosed(cause, reason):
                self._end(cause, reason)

    def _end(self, cause: Cause, reason: str) -> None:
        if self._transport is not None:
            if cause in (Cause.LOST, Cause.REFUSED):
                # Nobody may ever read what waits to be written, nor end TLS properly.
                self._transport.abort()
            else:
                self._transport.close()
        self._tell_closed(cause, reason)

    def _tell_open(self, peer: bytes) -> None:
        self._owner.link_open(self, peer)

    def _tell_closed(self, cause: Cause, reason: str) -> None:
        self._owner.link_closed(self, cause, reason)

    def _write(self) -> None:
        pieces = self._protocol.data_to_send()
        if not pieces or self._transport is None or self._transport.is_closing():
            return
        # Not `writelines`: in CPython 3.12.0-3.13.1 it never pauses the writer.
        if sum(map(len, pieces)) < COPY_BELOW:
            self._transport.write(b"".join(pieces))
            return
        small: list[Buffer] = []
        for piece in pieces:
            if len(piece) < COPY_BELOW:
                small.append(piece)
                continue
            if small:
                self._transport.write(b"".join(small))
                small = []
            self._transport.write(piece)
        if small:
            self._transport.write(b"".join(small))

    def _set_timer(self) -> None:
        due = self._protocol.next_timer()
        if due is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        # Most of the time the timer is set too early, for every frame puts off what is
        # due: looking again when it fires costs less than setting it every time.
        if self._timer is not None and due < self._timer.when():
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._protocol.handle_timer(self._loop.time())
        self._settle()


def _tune(sock: Any) -> None:
    """Send small frames at once, and let the kernel notice a dead peer."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 5),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 8000),
        # What waits there nothing can overtake.
        ("TCP_NOTSENT_LOWAT", UNSENT),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
