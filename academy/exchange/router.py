"""How messages of this process find their way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeAlias

from academy.exception import (
    ExchangeError,
    Executed,
    ForbiddenError,
    MailboxFullError,
    MailboxTerminatedError,
    MessageTooLargeError,
)
from academy.exchange.bound import BoundMailbox, Delivery
from academy.exchange.courier import Courier
from academy.exchange.delivery_failure import failure_body, too_large
from academy.exchange.flight import QUEUE_LIMIT
from academy.exchange.line import Line, drained
from academy.exchange.mailbox import RESPONSE, make_entry
from academy.exchange.outlet import Outlet
from academy.exchange.parcel import Parcel
from academy.exchange.queues import Queues, entry_of
from academy.exchange.server import Command
from academy.exchange.stream import REPLIES, REQUESTS, SendStream
from academy.identifier import EntityId
from academy.link.config import LinkConfig
from academy.message import (
    AcademyErrorResponse,
    CancelRequest,
    ErrorCode,
    Header,
    Message,
    decode,
    encode,
)
from academy.ownership import own
from academy.segment import Segment
from academy.task import Tasks

logger = logging.getLogger(__name__)

MESSAGE_LIMIT = LinkConfig.message_limit
"""Bytes of the largest message, serialized. The queue takes smaller ones only."""
_CANCEL = CancelRequest.kind
BARRIER_TIMEOUT = 0.5
"""Seconds that a message waits for those before it to leave the queue, before it is
queued behind them."""

TAKEN_OVER = "another client took its mailbox over"

Ended: TypeAlias = Callable[[Iterable[BoundMailbox], uuid.UUID, str], None]


def terminated(uid: EntityId, reason: str, executed: Executed) -> AcademyErrorResponse:
    """Return the answer for those who wait for a mailbox that is closed for good."""
    return AcademyErrorResponse(
        error_code=ErrorCode.MAILBOX_TERMINATED,
        mailbox_id=uid,
        executed=executed,
        detail=reason,
    )


def lost(uid: EntityId, why: str) -> AcademyErrorResponse:
    """Return the answer for those who wait for what a mailbox may have executed."""
    return AcademyErrorResponse(
        error_code=ErrorCode.PEER_LOST, mailbox_id=uid, detail=why
    )


class Router:
    """Sends messages: within the process, or through the queue on the server.

    Args:
        process: Identifier of this process.
        queues: The queues on the server.
        boxes: The mailboxes bound in this process, by their UUID as an integer.
        courier: Carries messages to mailboxes elsewhere.
    """

    def __init__(
        self,
        process: str,
        queues: Queues,
        boxes: Mapping[int, BoundMailbox],
        courier: Courier,
    ) -> None:
        self._queues = queues
        self._boxes = boxes
        self.courier = courier
        courier.appender.unsent = self._answer_unsent
        self._own_stream = SendStream(f"p{process}", 0, REPLIES)
        self._senders: dict[uuid.UUID, set[BoundMailbox]] = {}
        self._tasks = Tasks("exchange-responses")
        self.ended: Ended = lambda senders, dest, reason: None
        """Told of a mailbox that is closed for good: who had sent to it, and why."""

    def submit(
        self, box: BoundMailbox, message: Message[Any], lent: bool = False
    ) -> Awaitable[None] | None:
        """Take a message of a bound mailbox.

        Args:
            box: The mailbox.
            message: The message.
            lent: Whether what it carries does not change before the ledger of the
                mailbox has the response, or forgets the request: no need to copy it.

        Returns:
            What is to be awaited until it is accepted, and raises like this; `None` if
            it is, as where its way is clear.

        Raises:
            ForbiddenError: The message is in somebody else's name.
            MessageTooLargeError: It exceeds 8 GiB; or 64 MiB, and the destination is
                not reached directly.
            FencedError: The mailbox has a newer owner.
            MailboxTerminatedError: The destination, or the sender, is closed for good.
            BadEntityIdError: The destination is not registered.
            MailboxFullError: The destination is offline and its queue is full, or it is
                in this process, which holds too much that was not taken.
            BackpressureTimeout: The destination did not keep up for 30 s.
            PeerUnreachableError: The server was away for too long.
        """
        header = message.header
        dest = header.dest
        if header.src.uid.int != box.number or box.inbox.error is not None:
            self._refuse_sender(box, message)
        segments = encode(message)
        size = sum(map(len, segments))
        if size > MESSAGE_LIMIT:
            raise MessageTooLargeError(size, MESSAGE_LIMIT)
        asks = header.kind == "request" and message.body.kind != _CANCEL
        lane = REQUESTS if asks else REPLIES
        number = dest.uid.int
        outlet = box.outlets[lane].get(number) or self._open(box, dest, lane)
        if not outlet.waiting:
            target = self._boxes.get(number)
            if target is None:
                work = self.courier.submit(box, outlet, message, segments, size, lent)
                return None if work is None else self._sent_away(dest, work)
            if not outlet.busy and target.has(outlet.stream):
                self._deliver(box, target, outlet.stream, message, segments, lane)
                return None
        return self._send_in_turn(box, outlet, message, segments, size, lent)

    async def _send_in_turn(
        self,
        box: BoundMailbox,
        outlet: Outlet,
        message: Message[Any],
        segments: list[Segment],
        size: int,
        lent: bool,
    ) -> None:
        """Send a message behind those that wait for the way to become clear."""
        async with outlet.turn():
            target = await self._caught_up(outlet)
            box.check_open()
            if target is not None:
                lane = outlet.stream.lane
                self._deliver(box, target, outlet.stream, message, segments, lane)
                return
        work = self.courier.submit(box, outlet, message, segments, size, lent)
        if work is not None:
            await self._sent_away(message.dest, work)

    async def _sent_away(self, dest: EntityId, work: Awaitable[None]) -> None:
        try:
            await work
        except MailboxTerminatedError as e:
            if e.uid.uid == dest.uid:
                self.forget_dest(dest.uid, e.reason or "")
            raise

    def _open(self, box: BoundMailbox, dest: EntityId, lane: int) -> Outlet:
        self._senders.setdefault(dest.uid, set()).add(box)
        return box.open_outlet(dest, lane)

    def senders(self, dest: uuid.UUID) -> list[BoundMailbox]:
        """Return the mailboxes of this process that have sent to a mailbox."""
        return list(self._senders.get(dest, ()))

    def forget_dest(self, dest: uuid.UUID, reason: str) -> None:
        """Drop what is kept about a mailbox that is closed for good."""
        self.courier.gone(dest)
        senders = self._senders.pop(dest, set())
        for box in senders:
            box.forget_streams(dest)
        self.ended(senders, dest, reason)

    def forget_source(self, box: BoundMailbox) -> None:
        """Drop what is kept about a mailbox that is no longer bound here."""
        for dest in box.destinations():
            senders = self._senders.get(dest, set())
            senders.discard(box)
            if not senders:
                self._senders.pop(dest, None)

    @contextlib.asynccontextmanager
    async def giving_back(self, box: BoundMailbox) -> AsyncIterator[None]:
        """Have what follows wait while what a mailbox did not take goes into its queue.

        To be entered before anything else is sent there. Senders elsewhere still have
        their messages; those of this process would go ahead of theirs.
        """
        async with contextlib.AsyncExitStack() as stack:
            for outlet in self._returned(box.uid, box.waiting()):
                await stack.enter_async_context(outlet.turn())
            yield

    def _returned(self, dest: EntityId, untaken: list[Delivery]) -> list[Outlet]:
        """Note what of this process goes into a queue; return where it came from."""
        outlets = {}
        for delivery in untaken:
            source = self._boxes.get(delivery.message.src.uid.int)
            if source is not None and delivery.local:
                outlet = source.outlet_of(dest, delivery.stream)
                if outlet is not None:
                    outlet.returned(delivery.seq)
                    outlets[delivery.stream] = outlet
        return list(outlets.values())

    def respond_soon(self, header: Header, body: AcademyErrorResponse) -> None:
        """Answer a request in the name of the mailbox it was for, in the background."""
        self._answer_soon(header.create_response_header(), body)

    def _answer_soon(self, header: Header, body: AcademyErrorResponse) -> None:
        message: Message[Any] = Message(header=header, body=body)
        target = self._boxes.get(message.dest.uid.int)
        if target is not None:
            target.accept(Delivery(message))
            return
        # Put in line now: what is done to the mailbox next comes after the answer.
        stream = self._own_stream
        entry = make_entry(
            stream.name, stream.next(), RESPONSE, message.tag.bytes, encode(message)
        )
        command = self._queues.post(None, message.dest, entry)
        self._tasks.spawn(
            self._responded(message.dest, command), name=f"respond-{header.tag}"
        )

    def answer_open(self, box: BoundMailbox, why: str) -> None:
        """Tell those whose requests were taken that nobody will answer now, and why."""
        for header in list(box.ledger.open.values()):
            self.respond_soon(header, lost(box.uid, why))

    def _answer_unsent(self, line: Line, parcel: Parcel) -> None:
        """Tell who waits for an answer that its mailbox cannot send any more."""
        if parcel.note.kind == "response":
            self._answer_soon(parcel.note, lost(line.box.uid, TAKEN_OVER))

    def refuse(self, box: BoundMailbox, untaken: list[Delivery], reason: str) -> None:
        """Tell those whose requests were not taken that the mailbox is closed."""
        for delivery in untaken:
            if delivery.message.is_request():
                body = terminated(box.uid, reason, "no")
                self.respond_soon(delivery.message.header, body)

    def returnable(self, box: BoundMailbox, untaken: list[Delivery]) -> list[Delivery]:
        """Return what the queue can take of what was not taken.

        Other processes still have the rest, and know what to do. Those in this one, who
        keep no copy, are answered.
        """
        found = []
        for delivery in untaken:
            size = sum(map(len, delivery.segments))
            header = delivery.message.header
            if size <= QUEUE_LIMIT:
                found.append(delivery)
            elif delivery.local and header.kind == "request":
                body = failure_body(box.uid, too_large(size, QUEUE_LIMIT))
                self.respond_soon(header, body)
        return found

    def resend(self, box: BoundMailbox, untaken: list[Delivery]) -> None:
        """Queue what came from this process and was not taken."""
        self._returned(box.uid, untaken)
        for delivery in self.returnable(box, untaken):
            if delivery.local:
                self.resend_soon(box.uid, delivery)

    def resend_soon(self, dest: EntityId, delivery: Delivery) -> None:
        """Queue a message that a mailbox of this process can no longer take."""
        # Put in line now, so that what its sender sends next stays behind it. If the
        # sender is gone, this process sends it in its own name.
        source = self._boxes.get(delivery.message.src.uid.int)
        command = self._queues.post(source, dest, entry_of(delivery))
        self._tasks.spawn(
            self._resent(source, dest, delivery, command),
            name=f"resend-{delivery.seq}",
        )

    async def control(self, dest: EntityId, kind: str, payload: bytes) -> None:
        """Send a control message of this process itself; raises as `Queues.append`."""
        stream = self._own_stream
        tag = uuid.uuid4().bytes
        entry = make_entry(stream.name, stream.next(), kind, tag, [payload])
        await self._queues.append(None, dest, entry, timeout=5.0)

    def control_soon(self, dest: EntityId, kind: str, payload: bytes) -> None:
        """Send a control message in the background."""
        self._tasks.spawn(self._control(dest, kind, payload), name=f"control-{kind}")

    async def flush(self, timeout: float) -> None:
        """Wait until the background work so far is done, at most so many seconds."""
        await self._tasks.join(timeout)

    async def close(self) -> None:
        """Stop the background work."""
        await self._tasks.cancel()

    def _refuse_sender(self, box: BoundMailbox, message: Message[Any]) -> NoReturn:
        if box.inbox.error is not None and message.src.uid == box.uid.uid:
            raise box.inbox.error
        raise ForbiddenError(
            f"The transport of {box.uid} cannot send in the name of {message.src}."
        )

    async def _caught_up(self, outlet: Outlet) -> BoundMailbox | None:
        """Wait until the earlier messages of a stream have arrived, by the queue.

        Returns:
            The mailbox in this process that has them; `None` if there is none, so
            that what follows must be queued behind them.
        """
        target = self._boxes.get(outlet.dest.uid.int)
        if target is not None and outlet.busy:
            self.courier.not_found(outlet.line)
            await drained([outlet.line], BARRIER_TIMEOUT)
        if target is None or outlet.busy:
            return None
        ready = await target.caught_up(outlet.stream, BARRIER_TIMEOUT)
        return target if ready else None

    def _deliver(
        self,
        box: BoundMailbox,
        target: BoundMailbox,
        stream: SendStream,
        message: Message[Any],
        segments: list[Segment],
        lane: int,
    ) -> None:
        """Hand a message to a mailbox of this process: serialized, so isolated."""
        if target.crowded and lane == REQUESTS:
            detail = "its process holds as much as it may for consumers that are slow"
            raise MailboxFullError(target.uid, "no", detail)
        seq = stream.next()
        box.ledger.sending(message.header, _now(), lane, seq)
        copies = own(segments)
        target.received.offer(stream.name, seq)
        target.accept(Delivery(decode(copies), stream.name, seq, copies, local=True))

    async def _responded(self, dest: EntityId, command: Command) -> None:
        try:
            await self._queues.accepted(None, dest, command)
        except ExchangeError as e:
            logger.debug("%s could not be answered: %s", dest, e)

    async def _resent(
        self,
        source: BoundMailbox | None,
        dest: EntityId,
        delivery: Delivery,
        command: Command,
    ) -> None:
        try:
            await self._queues.accepted(source, dest, command)
        except MailboxTerminatedError as e:
            if delivery.message.is_request():
                body = terminated(e.uid, e.reason or "", "no")
                self.respond_soon(delivery.message.header, body)
        except ExchangeError as e:
            logger.warning("A message to %s could not be queued: %s", dest, e)
            if delivery.message.is_request():
                self.respond_soon(delivery.message.header, failure_body(dest, e))

    async def _control(self, dest: EntityId, kind: str, payload: bytes) -> None:
        try:
            await self.control(dest, kind, payload)
        except ExchangeError as e:
            logger.debug("%s could not be told: %s", dest, e)


def _now() -> float:
    return asyncio.get_running_loop().time()
