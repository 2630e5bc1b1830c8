"""Messages to other processes: the outbox of each stream, and the channels to peers.

The courier asks the directory where a mailbox is, has the node link to that process,
opens a channel for each stream that has something to say, and carries out what the
outboxes decide. Without a node (the Redis exchange) everything goes through queues.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from academy.exception import (
    BackpressureTimeout,
    BadEntityIdError,
    ExchangeError,
    Executed,
    PeerLostError,
    PeerUnreachableError,
)
from academy.exchange.bound import BoundMailbox
from academy.exchange.mailbox import REQUEST, RESPONSE, make_entry
from academy.exchange.outbox import Append, Effect, GiveUp, Outbox, Parcel, SendDirect
from academy.exchange.queues import UNREACHABLE_TIMEOUT, NotRegisteredError, Queues
from academy.exchange.stream import REQUESTS, SendStream
from academy.identifier import EntityId
from academy.link.config import LinkConfig
from academy.link.peer import Peer
from academy.link.session import ChannelKey
from academy.message import AcademyErrorResponse, ErrorCode, Header, Message
from academy.serialize import Segment, detach
from academy.task import Tasks

logger = logging.getLogger(__name__)

KeyT = TypeVar("KeyT")

RECOVERY_TIMEOUT = 5.0
"""Seconds that a sender waits for a destination that a server has forgotten."""
RECOVERY_PAUSE = 0.2
"""Seconds between two attempts meanwhile."""


@dataclass(slots=True)
class _Note:
    """What the courier keeps with a parcel.

    Attributes:
        header: Header of the message.
        accepted: Set when the message is on its way; `None` if nobody waits.
    """

    header: Header
    accepted: asyncio.Future[None] | None = None


@dataclass(slots=True, eq=False)
class Line:
    """A stream to another process: its outbox, and the channel it may go by.

    Attributes:
        box: The sending mailbox.
        dest: The mailbox it goes to.
        key: Its channel.
        outbox: What is on the way.
        peer: The process that the channel is, or was last, open to.
        timer: Next look at the outbox.
        empty: Set while nothing is on the way.
    """

    box: BoundMailbox
    dest: EntityId
    key: ChannelKey
    outbox: Outbox
    peer: Peer | None = None
    timer: asyncio.TimerHandle | None = None
    empty: asyncio.Event = field(default_factory=asyncio.Event)


class Courier:
    """Carries messages of this process's mailboxes to mailboxes elsewhere.

    Args:
        queues: The queues on the server.
        config: Limits of links.
        restore: Called when the server has forgotten a mailbox of this process.
    """

    def __init__(
        self,
        queues: Queues,
        config: LinkConfig,
        restore: Callable[[], None],
    ) -> None:
        self._queues = queues
        self._config = config
        self.seek: Callable[[Line], None] | None = None
        """Finds the process of a line's destination, and links to it."""
        self._restore = restore
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks("exchange-courier")
        self._lines: dict[ChannelKey, Line] = {}
        self._by_box: dict[BoundMailbox, set[Line]] = {}
        self._by_dest: dict[uuid.UUID, set[Line]] = {}

    async def send(
        self,
        box: BoundMailbox,
        stream: SendStream,
        message: Message[Any],
        segments: list[Segment],
        lane: int,
    ) -> None:
        """Accept a message: when this returns, it is sent or queued.

        Raises:
            BackpressureTimeout: The destination did not keep up for 30 s; the message
                was not sent.
            ExchangeError: As `Queues.accepted`.
        """
        line = self._line(box, stream, message.dest, lane)
        try:
            try:
                await self._submit(line, message, segments)
            except (NotRegisteredError, BadEntityIdError) as e:
                if not stream.known and isinstance(e, BadEntityIdError):
                    raise
                give_up = self._loop.time() + RECOVERY_TIMEOUT
                # What follows in the stream waits behind it.
                async with box.gate(message.dest, lane):
                    await self._recover(line, message, segments, give_up, e)
        except ExchangeError:
            box.ledger.forget(message.tag)
            raise
        stream.known = True

    async def _recover(
        self,
        line: Line,
        message: Message[Any],
        segments: list[Segment],
        give_up: float,
        error: ExchangeError,
    ) -> None:
        """Send again when the owners have restored what the server has lost."""
        while self._loop.time() < give_up:
            self._restore()
            await asyncio.sleep(RECOVERY_PAUSE)
            try:
                await self._submit(line, message, segments)
                return
            except (NotRegisteredError, BadEntityIdError) as e:
                error = e
        raise error

    async def _submit(
        self, line: Line, message: Message[Any], segments: list[Segment]
    ) -> None:
        kind = REQUEST if message.is_request() else RESPONSE
        now = self._loop.time()
        # Copied where it is not immutable: it may be sent again after this returns.
        parcel, effects = line.outbox.submit(
            kind, message.tag.bytes, detach(segments), now
        )
        line.empty.clear()
        note = _Note(message.header)
        parcel.note = note
        line.box.ledger.sending(message.header, since=now, seq=parcel.seq)
        if effects == [SendDirect(parcel)]:
            self._run(line, effects)
            return
        note.accepted = self._loop.create_future()
        if line.outbox.incarnation == 0 and self.seek is not None:
            self.seek(line)
        self._run(line, effects)
        await self._accepted(line, parcel, note.accepted)

    async def _accepted(
        self, line: Line, parcel: Parcel, accepted: asyncio.Future[None]
    ) -> None:
        try:
            async with asyncio.timeout(UNREACHABLE_TIMEOUT):
                await asyncio.shield(accepted)
        except TimeoutError:
            if not line.outbox.withdraw(parcel):
                await accepted
                return
            raise BackpressureTimeout(
                line.dest, "no", f"its window was full for {UNREACHABLE_TIMEOUT:g} s"
            ) from None
        except asyncio.CancelledError:
            line.outbox.withdraw(parcel)
            raise
        finally:
            # A failure after this has nobody to be raised to.
            parcel.note.accepted = None

    def _line(
        self, box: BoundMailbox, stream: SendStream, dest: EntityId, lane: int
    ) -> Line:
        key = ChannelKey(box.uid.uid, box.inc, dest.uid, lane)
        line = self._lines.get(key)
        if line is None:
            windowed = lane == REQUESTS
            outbox = Outbox(
                stream,
                self._config.window_messages if windowed else 0,
                self._config.window_bytes,
            )
            line = Line(box, dest, key, outbox)
            self._lines[key] = line
            self._by_box.setdefault(box, set()).add(line)
            self._by_dest.setdefault(dest.uid, set()).add(line)
        return line

    def keeps(self, box: BoundMailbox, dest: EntityId, seq: int) -> bool:
        """Return whether a request has not been confirmed or queued yet."""
        key = ChannelKey(box.uid.uid, box.inc, dest.uid, REQUESTS)
        line = self._lines.get(key)
        return line is not None and line.outbox.keeps(seq)

    # What becomes of lines

    def lines_to(self, dest: uuid.UUID) -> list[Line]:
        """Return the lines to a mailbox."""
        return list(self._by_dest.get(dest, ()))

    def lines_by(self, peer: Peer) -> list[Line]:
        """Return the lines whose channel is, or was last, open to a peer."""
        return [line for line in self._lines.values() if line.peer is peer]

    def drop(self, line: Line) -> None:
        """Forget a line; what is on the way is given up."""
        self._lines.pop(line.key, None)
        _discard(self._by_box, line.box, line)
        _discard(self._by_dest, line.dest.uid, line)
        if line.timer is not None:
            line.timer.cancel()
        if line.peer is not None:
            line.peer.session.close(line.key)
            line.peer.flush_soon()

    async def release(self, box: BoundMailbox, timeout: float) -> None:
        """Let what a mailbox has sent arrive, and forget its lines.

        What is not confirmed within the time goes into queues.
        """
        lines = list(self._by_box.get(box, ()))
        busy = [line for line in lines if len(line.outbox)]
        await self._drained(busy, timeout)
        for line in busy:
            self.channel_lost(line, grace=False)
        await self._drained(busy, timeout)
        for line in lines:
            self.drop(line)

    async def _drained(self, lines: list[Line], timeout: float) -> None:
        waits = [self._loop.create_task(line.empty.wait()) for line in lines]
        if waits:
            _, late = await asyncio.wait(waits, timeout=timeout)
            for wait in late:
                wait.cancel()

    async def close(self) -> None:
        """Give up all lines."""
        for line in list(self._lines.values()):
            self.drop(line)
        await self._tasks.cancel()

    # What sessions say

    def channel_open(self, key: ChannelKey, inc: int, accepted: int) -> None:
        """Use a channel that the peer has accepted."""
        line = self._lines.get(key)
        if line is not None:
            now = self._loop.time()
            self._run(line, line.outbox.channel_open(inc, accepted, now))

    def taken(self, key: ChannelKey, seq: int) -> None:
        """Note what a peer's consumer has taken."""
        line = self._lines.get(key)
        if line is not None:
            _, effects = line.outbox.taken(seq, self._loop.time())
            self._run(line, effects)

    def rejected(self, key: ChannelKey) -> None:
        """Stop to use a channel that the peer has ended: the mailbox is elsewhere."""
        line = self._lines.get(key)
        if line is not None:
            line.peer = None
            self.channel_lost(line, grace=False)

    def channel_lost(self, line: Line, *, grace: bool) -> None:
        """Stop to use the channel of a line."""
        effects = line.outbox.channel_lost(self._loop.time(), grace=grace)
        self._run(line, effects)

    # Effects

    def _run(self, line: Line, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendDirect(parcel):
                    self._send_direct(line, parcel)
                case Append(parcel, stamp):
                    self._append(line, parcel, stamp)
                case GiveUp(parcel):
                    executed: Executed = "maybe" if parcel.inc else "no"
                    detail = "neither the process nor the Redis server answers"
                    error = PeerUnreachableError(line.dest, executed, detail)
                    self._failed(line, parcel, error)
        if not len(line.outbox):
            line.empty.set()
        due = line.outbox.next_timer()
        if due is not None and line.timer is None:
            line.timer = self._loop.call_at(due, self._fire, line)

    def _fire(self, line: Line) -> None:
        line.timer = None
        up = not self._queues.away
        effects = line.outbox.handle_timer(self._loop.time(), relay_up=up)
        self._run(line, effects)

    def _send_direct(self, line: Line, parcel: Parcel) -> None:
        assert line.peer is not None
        awaited = line.box.ledger.awaited.get(parcel.note.header.tag)
        if awaited is not None:
            awaited.direct = parcel.inc
        line.peer.session.send(line.key, parcel.seq, parcel.segments)
        line.peer.flush_soon()
        self._set_accepted(parcel)

    def _append(self, line: Line, parcel: Parcel, stamp: int) -> None:
        entry = make_entry(
            line.outbox.stream.name,
            parcel.seq,
            parcel.kind,
            parcel.tag,
            parcel.segments,
            stamp,
        )
        reply = self._queues.post(line.box, line.dest, entry)
        self._tasks.spawn(
            self._appended(line, parcel, reply), name=f"append-{parcel.seq}"
        )

    async def _appended(
        self, line: Line, parcel: Parcel, reply: asyncio.Future[Any]
    ) -> None:
        error: ExchangeError | None = None
        try:
            stamp = await self._queues.accepted(line.box, line.dest, reply)
            awaited = line.box.ledger.awaited.get(parcel.note.header.tag)
            if awaited is not None:
                awaited.direct = stamp
        except ExchangeError as e:
            error = e
        arrived = error is None or (
            isinstance(error, PeerUnreachableError) and error.executed == "maybe"
        )
        effects = line.outbox.appended(parcel, self._loop.time(), arrived=arrived)
        if error is None:
            self._set_accepted(parcel)
        else:
            self._failed(line, parcel, error)
        self._run(line, effects)

    def _set_accepted(self, parcel: Parcel) -> None:
        accepted = parcel.note.accepted
        if accepted is not None and not accepted.done():
            accepted.set_result(None)

    def _failed(self, line: Line, parcel: Parcel, error: ExchangeError) -> None:
        """Tell who waits: the sender, or those who wait for the answer."""
        accepted = parcel.note.accepted
        if accepted is not None and not accepted.done():
            accepted.set_exception(error)
            return
        header: Header = parcel.note.header
        if header.tag not in line.box.ledger.awaited:
            logger.debug("A message to %s was lost: %s", line.dest, error)
            return
        lost = isinstance(error, PeerLostError)
        body = AcademyErrorResponse(
            error_code=ErrorCode.PEER_LOST if lost else ErrorCode.REQUEST_LOST,
            mailbox_id=line.dest,
            detail=str(error),
        )
        line.box.report(header, body)


def _discard(index: dict[KeyT, set[Line]], key: KeyT, line: Line) -> None:
    lines = index.get(key, set())
    lines.discard(line)
    if not lines:
        index.pop(key, None)
