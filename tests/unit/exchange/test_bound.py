from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from academy.exception import AgentTerminatedError, FencedError
from academy.exchange import backlog as backlog_module
from academy.exchange import bound as bound_module
from academy.exchange.backlog import Backlog
from academy.exchange.bound import BoundMailbox, Delivery
from academy.exchange.keys import entity_key
from academy.exchange.stream import REPLIES, REQUESTS, Mark, Received
from academy.identifier import AgentId, UserId
from academy.message import (
    AcademyErrorResponse,
    ErrorCode,
    Message,
    PingRequest,
    SuccessResponse,
)

AGENT: AgentId[Any] = AgentId.new(name="agent")
USER = UserId.new(name="user")


class Wants:
    """Counts how often a mailbox wants to be filled."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, box: BoundMailbox) -> None:
        self.count += 1


@pytest.fixture
def wants() -> Wants:
    return Wants()


@pytest.fixture
async def box(wants: Wants) -> BoundMailbox:
    received = Received(7, {"old": Mark(3, 6, 0)})
    return BoundMailbox(AGENT, ("m.A",), 7, received, wants)


def ping(stream: str = "", seq: int = 0) -> Delivery:
    message = Message.create(USER, AGENT, PingRequest())
    return Delivery(message, stream, seq)


async def waiter(box: BoundMailbox) -> asyncio.Task[Message[Any]]:
    """Return a task in which the consumer waits."""
    task = asyncio.create_task(box.recv(None))
    await asyncio.sleep(0)
    return task


async def test_messages_come_in_order_and_are_noted(box: BoundMailbox) -> None:
    first, second = ping("s", 1), ping("s", 2)
    for delivery in (first, second):
        assert box.received.offer(delivery.stream, delivery.seq)
        box.accept(delivery)
    assert box.waiting_tags() == {first.message.tag, second.message.tag}
    assert await box.recv(1) is first.message
    assert dict(box.received.given_back()) == {"s": Mark(1, 7, 0)}
    assert list(box.ledger.open) == [first.message.tag.int]
    assert await box.recv(1) is second.message
    assert dict(box.received.given_back()) == {"s": Mark(2, 7, 0)}
    with pytest.raises(TimeoutError):
        await box.recv(0.01)


async def test_a_response_that_nobody_awaits_is_skipped(box: BoundMailbox) -> None:
    request = Message.create(AGENT, USER, PingRequest())
    box.ledger.sending(request.header)
    answer = request.create_response(SuccessResponse())
    stray = Message.create(AGENT, USER, PingRequest()).create_response(
        SuccessResponse()
    )
    for message in (stray, answer, answer):
        box.accept(Delivery(message))
    assert await box.recv(1) is answer
    with pytest.raises(TimeoutError):
        await box.recv(0.01)


async def test_one_is_told_of_ones_own_failed_request(box: BoundMailbox) -> None:
    request = Message.create(AGENT, USER, PingRequest())
    box.ledger.sending(request.header)
    box.report(request.header, AcademyErrorResponse(error_code=ErrorCode.PEER_LOST))
    response = await box.recv(1)
    assert (response.src, response.tag) == (USER, request.tag)
    assert response.get_body().error_code is ErrorCode.PEER_LOST


async def test_the_queue_is_asked_only_while_the_consumer_waits(
    box: BoundMailbox, wants: Wants
) -> None:
    assert not box.wanting
    box.wake()
    assert wants.count == 0
    task = await waiter(box)
    assert box.wanting
    assert wants.count == 1
    box.dirty = False
    assert not box.wanting
    box.wake()
    assert (box.dirty, wants.count) == (True, 2)
    box.accept(ping())
    assert not box.wanting  # there is something to take already
    await task
    assert not box.wanting
    box.dirty = False
    task = await waiter(box)
    assert wants.count == 2  # the queue is known to be empty
    task.cancel()


async def test_a_report_is_fetched_for_a_consumer_that_does_not_wait(
    box: BoundMailbox, wants: Wants
) -> None:
    box.accept(ping())
    box.expecting += 1
    box.wake()
    assert wants.count == 1
    box.expecting -= 1
    box.wake()
    assert wants.count == 1


async def test_an_ended_mailbox_wants_nothing(box: BoundMailbox, wants: Wants) -> None:
    task = await waiter(box)
    box.leave()
    box.wake()
    assert wants.count == 1
    with pytest.raises(RuntimeError, match=r"transport of AgentId<agent> is closed"):
        await task


@pytest.mark.parametrize(
    ("end", "error"),
    [("fence", FencedError), ("terminate", AgentTerminatedError)],
)
async def test_the_end_of_a_mailbox(
    box: BoundMailbox, end: str, error: type[Exception]
) -> None:
    box.check_open()
    assert not box.ended
    kept = [ping("s", 1), ping("s", 2)]
    for delivery in kept:
        box.accept(delivery)
    arguments = ["enough"] if end == "terminate" else []
    getattr(box, end)(*arguments)
    box.leave()
    assert box.ended
    with pytest.raises(error):
        box.check_open()
    with pytest.raises(error):
        await box.recv(1)
    assert box.untaken() == kept
    late = ping("s", 3)
    box.accept(late)
    assert box.untaken() == [late]
    assert box.untaken() == []


async def test_a_termination_has_a_reason(box: BoundMailbox) -> None:
    box.terminate("")
    with pytest.raises(AgentTerminatedError, match=r"terminated\."):
        box.check_open()


# Streams


async def test_each_destination_and_lane_has_a_stream(box: BoundMailbox) -> None:
    other = UserId.new()
    stream = box.open_outlet(USER, REQUESTS).stream
    assert stream.name == f"{entity_key(AGENT)}:7:0"
    assert box.open_outlet(USER, REQUESTS).stream is stream
    assert box.open_outlet(USER, REPLIES).stream.name == f"{entity_key(AGENT)}:7:1"
    assert box.open_outlet(other, REQUESTS).stream is not stream
    assert box.destinations() == {USER.uid, other.uid}
    stream.next()
    box.forget_streams(USER.uid)
    box.forget_streams(uuid.uuid4())
    assert box.destinations() == {other.uid}
    assert box.open_outlet(USER, REQUESTS).stream.seq == 0


# Barriers


async def test_a_stream_with_nothing_in_the_queue_is_caught_up(
    box: BoundMailbox,
) -> None:
    sender = BoundMailbox(USER, (), 1, Received(1, {}), lambda box: None)
    stream = sender.open_outlet(AGENT, REQUESTS).stream
    assert box.has(stream)
    assert await box.caught_up(stream, 5)
    stream.relayed = 2
    assert not box.has(stream)
    box.received.offer(stream.name, 2)
    assert box.has(stream)


async def test_a_sender_waits_until_the_queue_has_arrived(
    box: BoundMailbox, wants: Wants
) -> None:
    sender = BoundMailbox(USER, (), 1, Received(1, {}), lambda box: None)
    stream = sender.open_outlet(AGENT, REQUESTS).stream
    stream.relayed = 2
    box.dirty = False
    consumer = await waiter(box)
    catching_up = asyncio.create_task(box.caught_up(stream, 5))
    await asyncio.sleep(0)
    assert wants.count == 1
    for seq in (1, 2):
        assert not catching_up.done()
        box.received.offer(stream.name, seq)
        box.accept(ping(stream.name, seq))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert await asyncio.wait_for(catching_up, 1)
    box.received.offer(stream.name, 3)
    box.accept(ping(stream.name, 3))
    await consumer


async def test_an_end_releases_those_who_wait(box: BoundMailbox) -> None:
    sender = BoundMailbox(USER, (), 1, Received(1, {}), lambda box: None)
    stream = sender.open_outlet(AGENT, REQUESTS).stream
    stream.relayed = 1
    waits = [asyncio.create_task(box.caught_up(stream, 5)) for _ in range(2)]
    await asyncio.sleep(0)
    waits[0].cancel()
    box.fence()
    box.leave()
    assert await asyncio.wait_for(waits[1], 1) is False


async def test_nobody_waits_long_for_a_slow_consumer(
    box: BoundMailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound_module, "SLOW", 0.2)
    loop = asyncio.get_running_loop()
    sender = BoundMailbox(USER, (), 1, Received(1, {}), lambda box: None)
    stream = sender.open_outlet(AGENT, REQUESTS).stream
    stream.relayed = 1
    start = loop.time()
    assert not await box.caught_up(stream, 0.05)
    for _ in range(10):
        assert not await box.caught_up(stream, 5)
    assert loop.time() - start < 0.2
    await asyncio.sleep(0.2)
    catching_up = asyncio.create_task(box.caught_up(stream, 5))
    await asyncio.sleep(0)
    assert not catching_up.done()
    box.received.offer(stream.name, 1)
    box.accept(ping(stream.name, 1))
    assert await catching_up


async def test_what_waits_is_counted_until_it_is_taken(
    wants: Wants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog_module, "BACKLOG_BYTES", 20)
    backlog = Backlog()
    box, other = (
        BoundMailbox(AGENT, (), 7, Received(7, {}), wants, backlog=backlog)
        for _ in range(2)
    )
    for seq in range(1, 5):
        assert backlog.bytes == 10 * (seq - 1)
        assert box.crowded is other.crowded is (seq > 2)
        box.received.offer("s", seq)
        delivery = Delivery(ping().message, "s", seq, [b"head", b"body:)"])
        box.accept(delivery)
    await box.recv(1)
    assert backlog.bytes == 30
    box.consume(lambda message: None, lambda error: None)
    assert backlog.bytes == 0
    other.accept(Delivery(ping().message, "", 0, [bytes(50)]))
    # Who takes messages as they come holds none.
    assert (other.crowded, box.crowded) == (True, False)
    other.leave()
    assert len(other.untaken()) == 1
    assert backlog.bytes == 0
