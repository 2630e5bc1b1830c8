"""Messages to other processes: what the outbox of each stream decides, carried out.

A line may use a channel of a direct link, which `academy.exchange.links` finds and
opens. Without links (the Redis exchange) everything goes through the queues.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from academy.exception import (
    BackpressureTimeout,
    BadEntityIdError,
    ExchangeError,
    Executed,
    PeerLostError,
)
from academy.exchange.appender import Appender
from academy.exchange.bound import BoundMailbox
from academy.exchange.delivery_failure import no_way
from academy.exchange.flight import QUEUE_LIMIT
from academy.exchange.line import Line, Lines, drained
from academy.exchange.mailbox import REQUEST, RESPONSE
from academy.exchange.outbox import RECONNECT_GRACE, Outbox
from academy.exchange.outlet import Outlet
from academy.exchange.parcel import Append, Effect, GiveUp, Parcel, Refuse, SendDirect
from academy.exchange.queues import UNREACHABLE_TIMEOUT, NotRegisteredError, Queues
from academy.exchange.stream import REQUESTS
from academy.link.channel import ChannelKey
from academy.link.config import LinkConfig
from academy.message import Message
from academy.ownership import own
from academy.segment import Segment
from academy.task import Tasks

logger = logging.getLogger(__name__)

_Work: TypeAlias = tuple[BoundMailbox, Outlet, Message[Any], list[Segment], int, bool]
_Waiting: TypeAlias = tuple[Line, Parcel]

LEND_FROM = 256 * 1024
"""Bytes of a message from which its memory is not copied while its sender waits."""

RECOVERY_TIMEOUT = 5.0
"""Seconds that a sender waits for a destination that a server has forgotten."""
RECOVERY_PAUSE = 0.2
"""Seconds between two attempts meanwhile."""


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
        self._restore = restore
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks("exchange-courier")
        self.appender = Appender(queues, self._run)
        self.lines = Lines()
        self.direct = False
        """Whether there are direct links."""
        self.seek: Callable[[Line], None] = lambda line: None
        """Finds a direct way for a line that has none."""
        self.moved: Callable[[uuid.UUID], None] = lambda dest: None
        """Told of a mailbox that is not where it was."""

    # Sending

    def submit(
        self,
        box: BoundMailbox,
        outlet: Outlet,
        message: Message[Any],
        segments: list[Segment],
        size: int,
        lent: bool,
    ) -> Awaitable[None] | None:
        """Take a message, given also serialized, with the bytes of its segments.

        Their memory is copied, unless it is lent: then it is not to be changed before
        the ledger of the mailbox has the response, or forgets the request.

        Returns:
            What is to be awaited until it is sent or queued; `None` if that is the
            case. It raises a `BackpressureTimeout` if the destination did not keep up
            for 30 s, so that the message was not sent, and else as `Queues.accepted`.
        """
        work = box, outlet, message, segments, size, lent
        if (waiting := self._submit(work)) is not None:
            return self._finish(work, waiting)
        outlet.stream.known = True
        return None

    async def _finish(self, work: _Work, waiting: _Waiting) -> None:
        box, outlet, message, *_ = work
        try:
            try:
                await self._accepted(*waiting)
            except (NotRegisteredError, BadEntityIdError) as e:
                if not outlet.stream.known and isinstance(e, BadEntityIdError):
                    raise
                give_up = self._loop.time() + RECOVERY_TIMEOUT
                # What follows in the stream waits behind it.
                async with outlet.turn():
                    await self._recover(work, give_up, e)
        except ExchangeError:
            box.ledger.forget(message.tag)
            raise
        outlet.stream.known = True

    async def _recover(self, work: _Work, give_up: float, error: ExchangeError) -> None:
        """Send again when the owners have restored what the server has lost."""
        while self._loop.time() < give_up:
            self._restore()
            await asyncio.sleep(RECOVERY_PAUSE)
            try:
                waiting = self._submit(work)
                if waiting is not None:
                    await self._accepted(*waiting)
                return
            except (NotRegisteredError, BadEntityIdError) as e:
                error = e
        raise error

    def _submit(self, work: _Work) -> _Waiting | None:
        """Put a message into the outbox; return where it has to wait there."""
        box, outlet, message, segments, size, lent = work
        line = outlet.line or self._open(box, outlet)
        outbox = line.outbox
        if outbox.incarnation == 0:
            self.seek(line)
        header = message.header
        now = self._loop.time()
        if len(segments) == 2 or size < LEND_FROM:
            lent = False
        if len(segments) > 2 and not lent:
            # It may be sent again after this returns. Head and stream are immutable.
            segments = own(segments)
        kind = REQUEST if header.kind == "request" else RESPONSE
        parcel, effects = outbox.submit(kind, header.tag, segments, now, size)
        parcel.note = header
        if lent:
            parcel.lent = functools.partial(self._take_back, line)
        box.ledger.sending(header, now, line.key.lane, parcel.seq, parcel)
        if effects is None:
            assert line.peer is not None
            line.peer.send(line.key, parcel.seq, segments, size, lent)
            return None
        parcel.accepted = self._loop.create_future()
        self._run(line, effects)
        return line, parcel

    def _take_back(self, line: Line, parcel: Parcel) -> None:
        """Let go of the memory of a message whose call has ended."""
        peer, now = line.peer, self._loop.time()
        unsent = peer is not None and peer.session.take_back(line.key, parcel.seq)
        self._run(line, line.outbox.take_back(parcel, now, unsent=unsent))
        if peer is not None:
            peer.flush_soon()

    async def _accepted(self, line: Line, parcel: Parcel) -> None:
        accepted = parcel.accepted
        try:
            async with asyncio.timeout(UNREACHABLE_TIMEOUT):
                await asyncio.shield(accepted)
        except TimeoutError:
            what = "queue" if line.outbox.short else "window"
            if not accepted.done():
                line.outbox.drop(parcel)
            if accepted.done() or parcel.kept:
                # It is just being sent.
                await accepted
                return
            executed: Executed = "no" if parcel.fresh else "maybe"
            detail = f"its {what} was full for {UNREACHABLE_TIMEOUT:g} s"
            raise BackpressureTimeout(line.dest, executed, detail) from None
        except asyncio.CancelledError:
            # An answer was given, and nobody would give it again.
            if line.key.lane == REQUESTS:
                line.outbox.withdraw(parcel)
            raise
        finally:
            # A failure after this has nobody to be raised to.
            parcel.accepted = None

    def _open(self, box: BoundMailbox, outlet: Outlet) -> Line:
        lane, dest = outlet.stream.lane, outlet.dest
        window = self._config.window_messages if lane == REQUESTS else 0
        limits = window, self._config.window_bytes, QUEUE_LIMIT
        outbox = Outbox(outlet.stream, *limits, direct=self.direct)
        key = ChannelKey(box.uid.uid, box.inc, dest.uid, lane)
        line = outlet.line = Line(box, outlet, key, outbox)
        self.lines.add(line)
        return line

    # What becomes of lines

    def open(self, line: Line, inc: int, accepted: int) -> bool:
        """Use a channel that a peer has accepted, unless it is a former owner."""
        if inc < line.known:
            self.leave(line, grace=False)
            return False
        line.known = inc
        self._run(line, line.outbox.channel_open(inc, accepted, self._loop.time()))
        return True

    def not_found(self, line: Line) -> None:
        """Let the queue be used, if it is up: there is nobody to talk to directly."""
        if not self._queues.away:
            self._run(line, line.outbox.no_channel(self._loop.time()))

    def taken(self, line: Line, seq: int) -> None:
        """Note what the consumer at the end of a channel has taken."""
        _, effects = line.outbox.taken(seq, self._loop.time())
        if effects or line.waits is not None:
            self._run(line, effects)

    def rejected(self, line: Line) -> None:
        """Note that the incarnation which a channel was open to has ended it."""
        line.peer = None
        self.lines.place(line, b"")
        now = self._loop.time()
        self._run(line, line.outbox.channel_lost(now, grace=False, ended=True))

    def leave(self, line: Line, *, grace: bool) -> None:
        """Give the channel of a line up.

        Args:
            line: The line.
            grace: Whether there may be another one soon.
        """
        if line.peer is not None:
            line.peer.session.close(line.key)
            line.peer.flush_soon()
            line.peer = None
        self._run(line, line.outbox.channel_lost(self._loop.time(), grace=grace))

    def newer(self, dest: uuid.UUID, inc: int) -> None:
        """Leave channels to former incarnations of a mailbox that has this one.

        A former one that has not heard of it yet would take what is sent to it, also
        the answers to requests of the newer one. When it hears, it says what it has
        taken: that is worth a moment.
        """
        for line in self.lines.outdated(dest, inc):
            line.known = max(line.known, inc)
            if line.outbox.incarnation == 0 and len(line.outbox):
                self.seek(line)
            if 0 < line.outbox.incarnation < inc:
                line.outbox.stop()
                former = line.outbox.incarnation
                self._loop.call_later(RECONNECT_GRACE, self._leave, line, former)

    def _leave(self, line: Line, former: int) -> None:
        if line.outbox.incarnation == former:
            self.lines.place(line, b"")
            self.leave(line, grace=False)
            self.moved(line.dest.uid)
            self.seek(line)

    def lost(self, process: bytes, detail: str) -> None:
        """Fail what a process that is gone has had directly; queues are not known."""
        for line in self.lines.at(process):
            error = PeerLostError(line.dest, "maybe", detail)
            for awaited in line.box.ledger.awaiting(line.dest):
                parcel = awaited.parcel
                sent = parcel is not None and 0 < parcel.inc == line.known
                if parcel and sent and not line.box.has_answer(awaited.header.tag):
                    line.outbox.drop(parcel)
                    line.fail(parcel, error)
            self.lines.place(line, b"")

    def gone(self, dest: uuid.UUID) -> None:
        """Let what is on its way to a mailbox that is closed for good be refused."""
        self._end_soon(self.lines.to(dest))

    def retire(self, box: BoundMailbox) -> None:
        """Let what an ended mailbox has sent arrive or fail, and forget its lines."""
        self._end_soon(self.lines.of(box))

    def _end_soon(self, lines: list[Line]) -> None:
        if lines:
            self._tasks.spawn(self._end(lines, UNREACHABLE_TIMEOUT), name="end-lines")

    def drop(self, line: Line) -> None:
        """Forget a line; what is on the way is given up."""
        self.lines.remove(line)
        if line.outlet.line is line:
            # What comes next makes a new one.
            line.outlet.line = None
        if line.timer is not None:
            line.timer.cancel()
        if line.looks is not None:
            line.looks.cancel()
        if line.peer is not None:
            line.peer.session.close(line.key)
            line.peer.flush_soon()

    async def release(self, box: BoundMailbox, timeout: float) -> None:
        """Let what a mailbox has sent arrive, and forget its lines.

        What is not confirmed within the time goes into queues.
        """
        lines = self.lines.of(box)
        await drained(lines, timeout)
        await self._end(lines, timeout)

    async def _end(self, lines: list[Line], timeout: float) -> None:
        """Put what is on the way into queues, and forget the lines."""
        for line in lines:
            self.leave(line, grace=False)
        await drained(lines, timeout)
        for line in lines:
            self.drop(line)

    async def close(self) -> None:
        """Give up all lines."""
        for line in self.lines.all():
            self.drop(line)
        await self._tasks.cancel()
        await self.appender.close()

    # Effects

    def _run(self, line: Line, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendDirect(parcel):
                    assert line.peer is not None
                    lent = parcel.lent is not None
                    segments, size = parcel.segments, parcel.size
                    line.peer.send(line.key, parcel.seq, segments, size, lent)
                    line.passed_on(parcel)
                case Append(parcel, stamp):
                    self.appender.append(line, parcel, stamp)
                case Refuse(parcel) | GiveUp(parcel):
                    line.fail(parcel, no_way(line.dest, effect, QUEUE_LIMIT))
        line.note_progress()
        due = line.outbox.next_timer()
        if due is not None and line.timer is None:
            line.timer = self._loop.call_at(due, self._fire, line)
        if line.outbox.short and self.lines.get(line.key) is line:
            self.appender.await_room(line)

    def _fire(self, line: Line) -> None:
        line.timer = None
        if line.outbox.incarnation == 0:
            self.seek(line)
        up = not self._queues.away
        effects = line.outbox.handle_timer(self._loop.time(), relay_up=up)
        self._run(line, effects)
