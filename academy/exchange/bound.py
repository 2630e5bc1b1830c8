"""One mailbox that this process has bound."""

from __future__ import annotations

import asyncio
import logging
import uuid
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from academy.exception import FencedError, MailboxTerminatedError
from academy.exchange.backlog import Backlog
from academy.exchange.inbox import Inbox
from academy.exchange.inlet import Inlet
from academy.exchange.keys import entity_key
from academy.exchange.ledger import Ledger
from academy.exchange.outlet import Outlet
from academy.exchange.stream import REQUESTS, Received, SendStream
from academy.identifier import EntityId
from academy.link.channel import Reason
from academy.message import AcademyErrorResponse, Header, Message
from academy.segment import Segment

logger = logging.getLogger(__name__)

LARGEST_TAKE = 64
SLOW = 2.0
"""Seconds for which nobody waits for a consumer that was found not to keep up."""


_REQUESTS = f":{REQUESTS}"
"""End of the names of streams of requests."""


class Delivery(Struct, frozen=True, eq=False, gc=False):
    """A message in the inbox of a bound mailbox.

    Attributes:
        message: The message.
        stream: Name of its stream; empty for what this process says itself.
        seq: Its number there.
        segments: The serialized message, to give it back.
        local: Whether its sender was a mailbox of this process, which keeps no copy.
        stamp: Incarnation that may have it already; 0 if none.
    """

    message: Message[Any]
    stream: str = ""
    seq: int = 0
    segments: Sequence[Segment] = ()
    local: bool = False
    stamp: int = 0


class BoundMailbox:
    """State of one mailbox while this process owns it.

    Messages are taken from the queue on the server only while the consumer waits for
    one, and more at a time the longer it keeps up: what a slow consumer has not asked
    for stays in the queue, where the next owner finds it.

    Args:
        uid: Whose mailbox.
        mro: Class names of the agent.
        inc: Incarnation of this binding.
        received: What was taken before, per stream.
        on_want: Called when the consumer waits and the queue may have messages.
        clean: Incarnations before it of which it is known what they took.
        on_bounce: Called with a request that another incarnation may have executed.
        backlog: Counts what waits here, with the other mailboxes of the process.
    """

    def __init__(
        self,
        uid: EntityId,
        mro: tuple[str, ...],
        inc: int,
        received: Received,
        on_want: Callable[[BoundMailbox], None],
        clean: range = range(0),
        on_bounce: Callable[[BoundMailbox, Message[Any]], None] | None = None,
        backlog: Backlog | None = None,
    ) -> None:
        self.uid = uid
        self.number = uid.uid.int
        """The UUID as an integer, which is compared faster."""
        self.key = entity_key(uid)
        self.mro = mro
        self.inc = inc
        self.received = received
        self.ledger = Ledger()
        self.inbox: Inbox[Delivery] = Inbox()
        self.after = {"r": "0-0", "q": "0-0"}
        """Entries up to here have arrived from the two parts of the queue."""
        self.batch = 1
        """How many messages the next take asks for."""
        self.dirty = True
        """Whether the queue may have messages that have not arrived."""
        self.take: asyncio.Task[None] | None = None
        """The take that is under way."""
        self.expecting = 0
        """How many reports this process awaits, whether the consumer waits or not."""
        self._on_want = on_want
        self._on_bounce = on_bounce
        self._backlog = backlog or Backlog()
        self.clean = clean
        """Incarnations before it of which it is known what they took."""
        # By stream; made when it is needed, for it is large.
        self._inlets: weakref.WeakValueDictionary[str, Inlet] | None = None
        self._held: list[Delivery] | None = None
        self._hand_over: Callable[[Message[Any]], None] | None = None
        self._on_end: Callable[[Exception], None] | None = None
        self._waiting = 0
        self.outlets: tuple[dict[int, Outlet], dict[int, Outlet]] = ({}, {})
        """Where messages go out, by lane and by the UUID of the destination."""
        self._barriers: list[tuple[str, int, asyncio.Future[None]]] = []
        self._slow_until = 0.0

    @property
    def wanting(self) -> bool:
        """Whether a take is due: somebody waits and the queue may have some."""
        eager = self.expecting or (self._waiting and not self.inbox)
        return bool(self.dirty and eager and not self.ended)

    @property
    def ended(self) -> bool:
        """Whether the mailbox was fenced, terminated, or given up."""
        return self.inbox.error is not None

    @property
    def crowded(self) -> bool:
        """Whether its consumer must take some before more should come."""
        return self._hand_over is None and self._backlog.full

    def check_open(self) -> None:
        """Raise what ended the mailbox, if it has ended."""
        if self.inbox.error is not None:
            raise self.inbox.error

    def destinations(self) -> set[uuid.UUID]:
        """Return whom this mailbox has sent to."""
        return {outlet.dest.uid for lane in self.outlets for outlet in lane.values()}

    def destination(self, uid: uuid.UUID) -> EntityId | None:
        """Return whom this mailbox has sent to, given by its UUID."""
        found = (lane.get(uid.int) for lane in self.outlets)
        return next((outlet.dest for outlet in found if outlet is not None), None)

    def forget_streams(self, dest: uuid.UUID) -> None:
        """Drop the streams to a mailbox that is closed for good."""
        for lane in self.outlets:
            lane.pop(dest.int, None)

    def outlet_of(self, dest: EntityId, stream: str) -> Outlet | None:
        """Return where a stream of this mailbox goes out, if it is of this one."""
        found = (lane.get(dest.uid.int) for lane in self.outlets)
        return next((o for o in found if o and o.stream.name == stream), None)

    def open_outlet(self, dest: EntityId, lane: int) -> Outlet:
        """Return where messages to a mailbox go out."""
        outlet = self.outlets[lane].get(dest.uid.int)
        if outlet is None:
            outlet = Outlet(dest, SendStream(self.key, self.inc, lane))
            self.outlets[lane][dest.uid.int] = outlet
        return outlet

    def waiting(self) -> list[Delivery]:
        """Return what the consumer has not taken; it stays."""
        return [*self.inbox.items(), *(self._held or [])]

    def waiting_tags(self) -> set[uuid.UUID]:
        """Return the tags of the messages that the consumer has not taken."""
        return {delivery.message.tag for delivery in self.waiting()}

    def has_answer(self, tag: uuid.UUID) -> bool:
        """Return whether the answer to a request of this mailbox waits in the inbox."""
        return any(
            d.message.tag == tag and d.message.header.kind == "response"
            for d in self.inbox.items()
        )

    def accept(self, delivery: Delivery) -> None:
        """Put a message into the inbox; the caller has checked its number."""
        if self._held is not None and delivery.stream.endswith(_REQUESTS):
            self._held.append(delivery)
        elif self._hand_over is not None and self.inbox.error is None:
            message = self._use(delivery)
            if message is not None:
                self._hand_over(message)
        else:
            self.inbox.put(delivery)
            self._backlog.add(delivery.segments)
        if self._barriers:
            self._open_barriers()

    def pass_on(self, inlet: Inlet, seq: int, message: Message[Any]) -> bool:
        """Give a new message to the consumer, unless something is in the way.

        Returns:
            Whether that was done; if not, it is to be accepted.
        """
        if (
            self._hand_over is None
            or self._held is not None
            or self._barriers
            or self.inbox.error is not None
        ):
            return False
        self.received.consumed(inlet.stream, seq)
        inlet.peer.taken(inlet.channel, seq)
        if self.ledger.took(message.header):
            self._hand_over(message)
        else:
            self._drop(message)
        return True

    def report(self, header: Header, body: AcademyErrorResponse) -> None:
        """Answer one of this mailbox's own requests with an error."""
        response: Message[Any] = Message(
            header=header.create_response_header(), body=body
        )
        self.accept(Delivery(response))

    def wake(self) -> None:
        """Note that the queue may have messages."""
        self.dirty = True
        if self.wanting:
            self._on_want(self)

    async def recv(self, timeout: float | None) -> Message[Any]:
        """Return the next message that is of use. Cancelling is safe."""
        while True:
            message = self._use(await self._next(timeout))
            if message is not None:
                return message

    def consume(
        self,
        hand_over: Callable[[Message[Any]], None],
        on_end: Callable[[Exception], None],
    ) -> None:
        """Have messages handed over as they arrive; `recv` is not to be used then.

        Args:
            hand_over: Called with each message that is of use; must not raise.
            on_end: Called when the mailbox was fenced or terminated.
        """
        self._hand_over, self._on_end = hand_over, on_end
        self._waiting += 1
        for delivery in self._drain():
            self.accept(delivery)
        if self.wanting:
            self._on_want(self)

    def _use(self, delivery: Delivery) -> Message[Any] | None:
        """Note that the consumer has a message; return it if it is of use."""
        if delivery.stream and not self._consume(delivery):
            return None
        message = delivery.message
        if self.ledger.took(message.header):
            return message
        self._drop(message)
        return None

    def _drop(self, message: Message[Any]) -> None:
        who = message.header.src
        logger.debug("%s dropped a response of %s: nobody awaits it", self.uid, who)

    def attach(self, inlet: Inlet) -> None:
        """Confirm what is consumed of a stream on the channel that it comes by."""
        if self._inlets is None:
            self._inlets = weakref.WeakValueDictionary()
        self._inlets[inlet.stream] = inlet
        consumed = self.received.taken(inlet.stream)
        if consumed:
            inlet.confirm(consumed)

    def detach(self) -> None:
        """End the channels to this mailbox: it is not here any more."""
        inlets, self._inlets = self._inlets, None
        for inlet in (inlets or {}).values():
            # What was consumed is confirmed first: so the sender knows of the rest that
            # it was not.
            inlet.peer.acknowledge()
            inlet.peer.session.refuse(inlet.channel, Reason.NOT_HERE)
            inlet.peer.flush_soon()

    def _consume(self, delivery: Delivery) -> bool:
        """Note that the consumer has a message; return whether it may have it."""
        stamp = delivery.stamp
        known = stamp in (0, self.inc) or stamp in self.clean
        if not known and delivery.message.is_request() and self._on_bounce is not None:
            # Before it is confirmed, or the sender would take it for taken (R6).
            self._on_bounce(self, delivery.message)
        self.received.consumed(delivery.stream, delivery.seq)
        self._confirm(delivery.stream, delivery.seq)
        return known

    def confirm(self, stream: str) -> None:
        """Tell the sender of a stream what it need not keep any more."""
        self._confirm(stream, self.received.taken(stream))

    def _confirm(self, stream: str, seq: int) -> None:
        inlet = None if self._inlets is None else self._inlets.get(stream)
        if inlet is not None:
            inlet.confirm(seq)

    async def caught_up(self, stream: SendStream, timeout: float) -> bool:
        """Wait until all of a stream that is in the queue has arrived here.

        Returns:
            Whether that happened within the timeout and the mailbox is still bound.
        """
        if self.has(stream):
            return True
        loop = asyncio.get_running_loop()
        if loop.time() < self._slow_until:
            return False
        reached: asyncio.Future[None] = loop.create_future()
        self._barriers.append((stream.name, stream.relayed, reached))
        self.wake()
        await asyncio.wait([reached], timeout=timeout)
        self._barriers = [b for b in self._barriers if b[2] is not reached]
        if not reached.done():
            # The consumer does not keep up: not every sender has to find that out.
            self._slow_until = loop.time() + SLOW
        return reached.done() and not self.ended

    def has(self, stream: SendStream) -> bool:
        """Return whether all of a stream that is in the queue has arrived here."""
        return self.received.accepted(stream.name) >= stream.relayed

    def fence(self) -> None:
        """End the mailbox because a newer owner has it."""
        self._end(FencedError(self.uid))

    def terminate(self, reason: str) -> None:
        """End the mailbox because it is closed for good."""
        self._end(MailboxTerminatedError(self.uid, reason or None))

    def leave(self) -> None:
        """End the mailbox because its transport is closed."""
        self._on_end = None
        self._end(RuntimeError(f"The transport of {self.uid} is closed."))

    def hold_requests(self) -> None:
        """Leave the requests that come from now on to the next owner.

        The consumer still gets responses, and cancels of what it has taken.
        """
        if self._held is None:
            self._held = []
            for delivery in self._drain():
                self.accept(delivery)

    def untaken(self) -> list[Delivery]:
        """Remove and return what the consumer of an ended mailbox did not take."""
        held, self._held = self._held or [], None
        return [*held, *self._drain()]

    def _drain(self) -> list[Delivery]:
        """Remove and return what waits in the inbox."""
        found = self.inbox.drain()
        self._backlog.remove(delivery.segments for delivery in found)
        return found

    def _end(self, error: Exception) -> None:
        first = not self.ended
        self.inbox.end(error)
        if first and self._on_end is not None:
            self._on_end(error)
        for _, _, reached in self._barriers:
            if not reached.done():
                reached.set_result(None)

    async def _next(self, timeout: float | None) -> Delivery:
        self._waiting += 1
        try:
            if self.wanting:
                self._on_want(self)
            delivery = await self.inbox.get(timeout)
            self._backlog.remove([delivery.segments])
            return delivery
        finally:
            self._waiting -= 1
            if self.wanting:
                # Others wait, too.
                self._on_want(self)

    def _open_barriers(self) -> None:
        for name, seq, reached in self._barriers:
            if not reached.done() and self.received.accepted(name) >= seq:
                reached.set_result(None)
