"""A mailbox while a process owns it, with its consumer and its books."""

from __future__ import annotations

import collections
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from academy.exchange.parcel import Parcel
from academy.exchange.stream import REPLIES, REQUESTS, Mark, Offer
from academy.link.channel import Reason
from tests.simulation.line import QUEUE_LIMIT, Line
from tests.simulation.message import (
    LOST,
    PROBE,
    REPORT,
    REQUEST,
    RESPONSE,
    RESULT,
    TERMINATED_MAYBE,
    TERMINATED_NO,
    Message,
    decode,
)
from tests.simulation.server import Entry, Reply

if TYPE_CHECKING:
    from tests.simulation.loop import Loop
    from tests.simulation.node import Peer
    from tests.simulation.process import Process

LARGEST_TAKE = 64
STALL = 0.7


class Delivery(NamedTuple):
    """A message in the inbox."""

    message: Message
    entry: Entry
    refused: bool = False


@dataclass
class Awaited:
    """A request whose answer has not come."""

    message: Message
    line: Line
    parcel: Parcel
    since: float
    strikes: int = 0


class Box:
    """One incarnation of a mailbox."""

    eid: uuid.UUID
    inc: int

    def __init__(
        self,
        process: Process,
        eid: uuid.UUID,
        inc: int,
        marks: dict[str, Mark],
        clean: range,
    ) -> None:
        self.process = process
        self.world = process.world
        self.clock = process.clock
        self.eid = eid
        self.inc = inc
        self.clean = clean
        self.received = self.world.rules.received(inc, marks)
        self.base = {name: mark.seq for name, mark in marks.items()}
        self.inbox: collections.deque[Delivery] = collections.deque()
        self.consumed: dict[str, int] = {}
        self.channels: dict[str, tuple[Peer | Loop, int]] = {}
        self.lines: dict[tuple[uuid.UUID, int], Line] = {}
        self.open: dict[int, Message] = {}
        self.answers: dict[int, Parcel] = {}
        self.awaited: dict[int, Awaited] = {}
        self.after = (0, 0)
        self.batch = 1
        self.dirty = True
        self.taking = False
        self.busy = False
        self.ended = False
        self.closing = False
        self.expecting = 0
        """How many reports are awaited, whether the consumer waits or not."""
        self.then: Callable[[], None] | None = None
        """What is done when this has ended."""

    # Sending

    def line(self, dest: uuid.UUID, lane: int) -> Line:
        line = self.lines.get((dest, lane))
        if line is None:
            line = self.lines[dest, lane] = Line(self, dest, lane)
            self.process.lines[line.key] = line
        return line

    def heard_of(self, src: uuid.UUID, inc: int) -> None:
        """Another mailbox has this incarnation, for it has sent something."""
        for lane in (REQUESTS, REPLIES):
            self.line(src, lane).newer(inc)

    def request(self, message: Message) -> Parcel:
        return self.line(message.dest, REQUESTS).submit(message)

    def respond(self, message: Message) -> None:
        self.line(message.dest, REPLIES).submit(message)

    def sending(self, message: Message, line: Line, parcel: Parcel) -> None:
        """Enter a message that is about to be sent."""
        if message.kind == RESPONSE:
            self.answers[message.tag] = parcel
            return
        awaited = self.awaited.get(message.tag)
        since = parcel.note[1]
        self.awaited[message.tag] = Awaited(message, line, parcel, since)
        if awaited is None:
            self.process.auditor.start()

    def cancel(self, tag: int) -> None:
        """The caller no longer waits."""
        awaited = self.awaited.get(tag)
        if awaited is not None:
            unsent = awaited.line.take_back(awaited.parcel)
            self.settle(tag, "Cancelled", "no" if unsent else "maybe")

    def settle(self, tag: int, outcome: str, executed: str = "") -> None:
        """End a request of this mailbox."""
        awaited = self.awaited.pop(tag, None)
        if awaited is not None:
            self.world.ledger.resolved(tag, outcome, executed)

    # Receiving

    def accept(self, peer: Peer | Loop, channel: int, stream: str) -> None:
        """Accept a channel, and say at once how far its stream was consumed."""
        self.channels[stream] = (peer, channel)
        peer.session.accept(channel, self.inc, self.received.accepted(stream))
        consumed = self.consumed.get(stream, self.base.get(stream, 0))
        if consumed:
            peer.session.taken(channel, consumed, self.clock.now)

    def receive(self, entry: Entry, *, queued: bool) -> None:
        """Take what has arrived, directly or from the queue."""
        offer = self.received.offer(entry.stream, entry.seq)
        if entry.kind in (PROBE, REPORT):
            if offer is Offer.NEW:
                self._note_consumed(entry)
                self.process.auditor.heard(self, entry)
            return
        message = decode(entry.segments)
        if not entry.stream.startswith("p"):
            self.heard_of(message.src, int(entry.stream.split(":")[1]))
        stamp = entry.stamp
        if offer is Offer.NEW:
            refused = stamp not in (0, self.inc) and stamp not in self.clean
            self.inbox.append(Delivery(message, entry, refused))
            self.kick()
        elif offer is Offer.FORMER and message.kind == REQUEST:
            # One that closed cleanly has answered all that it took.
            if stamp not in self.clean:
                self.respond(message.answer(LOST))
                self.world.ledger.refused(message, self.inc)
        elif not queued and entry.seq <= self.consumed.get(entry.stream, 0):
            self._acknowledge(entry.stream)

    def kick(self) -> None:
        """Let the consumer go on, or take what waits on the server."""
        if self.ended:
            return
        if self.inbox and not self.busy:
            self.busy = True
            delay = self.world.think(self.eid)
            self.clock.after(delay, self.process, self._consume)
        eager = self.expecting or not (self.busy or self.inbox)
        if self.dirty and eager and not self.taking:
            self._take()

    def _consume(self) -> None:
        self.busy = False
        if self.ended or not self.inbox:
            return
        delivery = self.inbox.popleft()
        self.world.rules.consume(self, delivery)
        self.kick()

    def consume(self, delivery: Delivery) -> None:
        """Do what the consumer does with a message, then acknowledge it."""
        self.use(delivery)
        self.note_consumed(delivery)

    def use(self, delivery: Delivery) -> None:
        """Execute a request, refuse it, or take a response."""
        message = delivery.message
        if message.kind == RESPONSE:
            outcome = {
                RESULT: ("result", ""),
                LOST: ("PeerLost", "maybe"),
                TERMINATED_NO: ("MailboxTerminated", "no"),
                TERMINATED_MAYBE: ("MailboxTerminated", "maybe"),
            }[message.status]
            self.settle(message.tag, *outcome)
        elif delivery.refused:
            self.respond(message.answer(LOST))
            self.world.ledger.refused(message, self.inc)
        else:
            self.world.ledger.executed(message, self, delivery.entry)
            self.open[message.tag] = message
            delay = self.world.work()
            self.clock.after(delay, self.process, self._answer, message)

    def _note_consumed(self, entry: Entry) -> None:
        self.received.consumed(entry.stream, entry.seq)
        self.consumed[entry.stream] = entry.seq
        self._acknowledge(entry.stream)

    def note_consumed(self, delivery: Delivery) -> None:
        self._note_consumed(delivery.entry)
        self.world.ledger.consumed(delivery.message)

    def _acknowledge(self, stream: str) -> None:
        channel = self.channels.get(stream)
        if channel is not None:
            peer, number = channel
            peer.session.taken(number, self.consumed[stream], self.clock.now)
            peer.touch()

    def _answer(self, message: Message) -> None:
        if not self.ended and self.open.pop(message.tag, None) is not None:
            self.respond(message.answer(RESULT))

    def knows(self, tag: int) -> bool:
        """Whether a request is in work here, or its answer is on its way."""
        answer = self.answers.get(tag)
        return (
            tag in self.open
            or any(d.message.tag == tag for d in self.inbox)
            or (answer is not None and answer.kept)
        )

    def has_answer(self, tag: int) -> bool:
        """Whether the answer to a request of this mailbox waits to be consumed."""
        return any(
            d.message.tag == tag and d.message.kind == RESPONSE for d in self.inbox
        )

    # The queue on the server

    def wake(self) -> None:
        self.dirty = True
        self.kick()

    def _take(self) -> None:
        self.taking, self.dirty = True, False
        self.process.commands.call(
            "take", self.eid, self.inc, self.batch, self.after, done=self._took
        )

    def _took(self, reply: Reply | None, sent: int) -> None:
        self.taking = False
        if reply is None:
            self.dirty = True
        elif reply[0] == "ok":
            self._arrived(reply[1], reply[2])
        elif reply[0] == "missing":
            self.dirty = True
            self.process.restore()
        elif not self.ended:
            self.gone() if reply[0] == "terminated" else self.fenced()
            return
        if self.closing:
            self._close()
        elif not self.ended and reply is not None and reply[0] == "ok":
            self.kick()

    def _arrived(self, back: list[Entry], queue: list[Entry]) -> None:
        if back:
            self.after = (back[-1].id, self.after[1])
        if queue:
            self.after = (self.after[0], queue[-1].id)
        found = len(back) + len(queue)
        self.dirty = self.dirty or found > 0
        self.batch = min(LARGEST_TAKE, 2 * self.batch) if found >= self.batch else 1
        for entry in (*back, *queue):
            self.receive(entry, queued=True)

    # The end

    def close(self) -> None:
        """Close cleanly: nothing is lost, and all that was taken is answered."""
        if self.ended or self.closing:
            return
        self.ended = self.closing = True
        self._answer_open(LOST)
        # Behind this in line, so that the answers are there before the next owner.
        for line in self.lines.values():
            line.leave(grace=False)
        if not self.taking:
            self._close()

    def _close(self) -> None:
        entries = [d.entry for d in self.inbox]
        # What is larger was not queued: its sender still has it.
        untaken = [e for e in entries if sum(map(len, e.segments)) <= QUEUE_LIMIT]
        self.process.commands.call(
            "close",
            self.eid,
            self.inc,
            self.after,
            self.received.given_back(),
            untaken,
            done=self._closed,
            timeout=STALL,
        )

    def _closed(self, reply: Reply | None, sent: int) -> None:
        self.closing = False
        self._end()

    def fenced(self) -> None:
        """A newer owner has the mailbox."""
        if not self.ended:
            self._answer_open(LOST)
            self._end()

    def gone(self) -> None:
        """The mailbox is closed for good."""
        if self.ended:
            return
        for delivery in self.inbox:
            if delivery.message.kind == REQUEST:
                status = TERMINATED_MAYBE if delivery.refused else TERMINATED_NO
                self.process.respond(delivery.message.answer(status))
                self.world.ledger.refused(delivery.message, self.inc)
        self._answer_open(TERMINATED_MAYBE)
        self._end()

    def _answer_open(self, status: int) -> None:
        for message in self.open.values():
            self.process.respond(message.answer(status))
        self.open.clear()

    def _end(self) -> None:
        self.ended = True
        channels, self.channels = self.channels, {}
        for peer, channel in channels.values():
            # What was consumed is acknowledged before: the rest was not.
            if self.world.rules.last_ack:
                peer.session.acknowledge()
            peer.session.refuse(channel, Reason.NOT_HERE)
            peer.touch()
        for line in self.lines.values():
            line.end()
        for tag in list(self.awaited):
            self.settle(tag, "Ended", "maybe")
        if self.process.boxes.get(self.eid) is self:
            del self.process.boxes[self.eid]
        if self.then is not None:
            self.then()
        else:
            self.world.unbound(self.eid)
