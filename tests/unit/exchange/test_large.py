"""Large messages between mailboxes: whose memory they are, and which way they go."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from academy.exception import (
    BackpressureTimeout,
    MessageTooLargeError,
    PeerLostError,
    RequestLostError,
)
from academy.exchange import courier as courier_module
from academy.exchange import outbox as outbox_module
from academy.exchange import router as router_module
from academy.exchange.bound import BoundMailbox
from academy.exchange.engine import Engine
from academy.exchange.line import Line
from academy.message import ActionRequest, ActionResponse, Message
from tests.unit.exchange.conftest import NewEngine
from tests.unit.exchange.mail import (
    answer,
    bind_agent,
    bind_user,
    connect,
    failure,
    post,
    send,
    take,
    until,
)
from tests.unit.exchange.test_links import connection_of, cut, pair

LIMIT = 1 << 20
"""Of the queue, in these tests."""
SIZE = 8 * LIMIT


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "QUEUE_LIMIT", LIMIT)
    monkeypatch.setattr(router_module, "QUEUE_LIMIT", LIMIT)


def request(box: BoundMailbox, dest: BoundMailbox, *values: Any) -> Message[Any]:
    body = ActionRequest(action="do", serialization="pickle", pargs=values)
    return Message.create(box.uid, dest.uid, body)


def arguments(message: Message[Any]) -> Any:
    return message.get_body().get_args()


def lend(engine: Engine, box: BoundMailbox, message: Message[Any]) -> Any:
    """Send a message without a copy; return what is to be awaited, if anything."""
    return engine.router.submit(box, message, True)


def parcel_of(box: BoundMailbox, message: Message[Any]) -> Any:
    return box.ledger.awaited[message.tag.int].parcel


def values() -> list[Any]:
    return [
        bytes(range(256)) * (SIZE // 256),
        bytearray(b"\x07") * SIZE,
        np.arange(SIZE, dtype=np.uint8),
        np.arange(SIZE // 8).reshape(2, -1).T,
    ]


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("size", ["large", "small"])
async def test_types_survive_every_way(
    new_engine: NewEngine,
    monkeypatch: pytest.MonkeyPatch,
    index: int,
    size: str,
) -> None:
    value = values()[index]
    if size == "small":
        value = value[:50_000]
    else:
        monkeypatch.setattr(courier_module, "QUEUE_LIMIT", 64 << 20)
    here, user, _, agent, _ = await pair(new_engine)
    local = await bind_agent(here)
    alone = await new_engine()
    queued = await bind_agent(alone)
    for dest in (agent, local, queued):
        message = request(user, dest, value)
        waiting = lend(here, user, message)
        if waiting is not None:
            await waiting
        (found,) = arguments(await dest.recv(5))
        assert type(found) is type(value)
        assert bytes(found) == bytes(value)
        if isinstance(found, np.ndarray):
            assert found.shape == value.shape
            assert found.flags.writeable


async def test_requests_are_not_copied_while_their_sender_waits(
    new_engine: NewEngine,
) -> None:
    here, user, there, agent, line = await pair(new_engine)
    array = np.ones(SIZE, dtype=np.uint8)
    message = request(user, agent, array)
    assert lend(here, user, message) is None
    parcel = parcel_of(user, message)
    assert np.shares_memory(np.frombuffer(parcel.segments[2], np.uint8), array)
    taken = await agent.recv(5)
    response = taken.create_response(ActionResponse(result=5, serialization="pickle"))
    await post(there, agent, response)
    await answer(user)
    assert parcel.lent is None
    assert not parcel.kept
    await until(lambda: not len(line.outbox))


async def test_a_plain_send_is_a_copy(new_engine: NewEngine) -> None:
    here, user, _, agent, _ = await pair(new_engine)
    array = np.ones(SIZE, dtype=np.uint8)
    await post(here, user, request(user, agent, array))
    array[:] = 2
    (found,) = arguments(await agent.recv(5))
    assert (found == 1).all()


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 10, 20])
async def test_a_call_that_is_given_up_never_arrives_torn(
    new_engine: NewEngine, turns: int
) -> None:
    here, user, _, agent, line = await pair(new_engine)
    array = np.ones(SIZE, dtype=np.uint8)
    message = request(user, agent, array)
    assert lend(here, user, message) is None
    for _ in range(turns):
        await asyncio.sleep(0)
    user.ledger.forget(message.tag)
    array[:] = 2
    await send(here, user, agent.uid, 1)
    first = await agent.recv(5)
    if first.get_body().action == "do":
        (found,) = arguments(first)
        assert (found == 1).all()
        first = await agent.recv(5)
    assert first.get_body().action == "1"
    await until(lambda: not len(line.outbox))


async def test_a_call_that_is_given_up_while_the_other_side_does_not_read(
    new_engine: NewEngine,
) -> None:
    here, user, there, agent, line = await pair(new_engine)
    transport: Any = connection_of(there, here)._transport
    transport.pause_reading()
    array = np.ones(SIZE, dtype=np.uint8)
    message = request(user, agent, array)
    assert lend(here, user, message) is None
    await until(lambda: connection_of(here, there).paused)
    user.ledger.forget(message.tag)
    array[:] = 2
    transport.resume_reading()
    await send(here, user, agent.uid, 1)
    assert await take(agent) == [1]
    await until(lambda: not len(line.outbox))


async def test_a_response_ends_the_loan_of_what_was_not_sent(
    new_engine: NewEngine,
) -> None:
    """As an error that the sender makes itself, while the other side is silent."""
    here, user, there, agent, line = await pair(new_engine)
    transport: Any = connection_of(there, here)._transport
    transport.pause_reading()
    message = request(user, agent, np.ones(SIZE, dtype=np.uint8))
    assert lend(here, user, message) is None
    parcel = parcel_of(user, message)
    here.courier.lost(bytes.fromhex(there.process), "it is gone")
    while parcel.tag in {a.header.tag for a in user.ledger.awaited.values()}:
        assert isinstance(await failure(user), PeerLostError)
    assert not parcel.kept
    assert parcel.lent is None
    assert not len(line.outbox)
    transport.resume_reading()


async def test_a_closed_mailbox_lends_nothing(new_engine: NewEngine) -> None:
    here, user, there, agent, _ = await pair(new_engine)
    transport: Any = connection_of(there, here)._transport
    transport.pause_reading()
    message = request(user, agent, np.ones(SIZE, dtype=np.uint8))
    lend(here, user, message)
    parcel = parcel_of(user, message)
    user.ledger.end_loans()
    assert not parcel.kept
    transport.resume_reading()


async def test_results_are_not_copied_if_nobody_else_has_them(
    new_engine: NewEngine,
) -> None:
    here, user, there, agent, _ = await pair(new_engine)
    kept = np.ones(SIZE, dtype=np.uint8)
    for make in (lambda: np.ones(SIZE, dtype=np.uint8), lambda: kept):
        lend(here, user, request(user, agent, 5))
        taken = await agent.recv(5)
        body = ActionResponse(result=make(), serialization="pickle")
        await post(there, agent, taken.create_response(body))
        kept[:] = 2
        result = (await answer(user)).get_body().get_result()
        assert (result == 1).all()
        kept[:] = 1


async def test_the_first_message_waits_for_its_channel(new_engine: NewEngine) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    message = request(user, agent, bytes(SIZE))
    await post(here, user, message)
    assert arguments(await agent.recv(5)) == (bytes(SIZE),)


@pytest.mark.parametrize("direct", [True, False])
async def test_nobody_can_be_reached(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    monkeypatch.setattr(outbox_module, "DIRECT_TIMEOUT", 0.1)
    here, there = await new_engine(direct=direct), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    message = request(user, agent, bytes(SIZE))
    with pytest.raises(MessageTooLargeError, match="queue on the server") as caught:
        await post(here, user, message)
    assert (caught.value.executed, caught.value.limit) == ("no", LIMIT)
    assert message.tag.int not in user.ledger.awaited
    # What follows is not held up.
    await send(here, user, agent.uid, 1)
    assert await take(agent) == [1]


async def test_an_agent_that_does_not_run(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "DIRECT_TIMEOUT", 0.1)
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    await there.unbind(agent)
    with pytest.raises(MessageTooLargeError) as caught:
        await post(here, user, request(user, agent, bytes(SIZE)))
    assert caught.value.executed == "no"


async def test_an_agent_that_is_about_to_run(new_engine: NewEngine) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    await there.unbind(agent)
    sending = asyncio.create_task(post(here, user, request(user, agent, bytes(SIZE))))
    await until(lambda: any(len(line.outbox) for line in here.courier.lines.all()))
    again = await there.bind(agent.uid)
    assert arguments(await again.recv(5)) == (bytes(SIZE),)
    await sending


async def test_a_cut_connection(new_engine: NewEngine) -> None:
    """It is sent again, from the beginning, to the same incarnation."""
    here, user, there, agent, line = await pair(new_engine)
    value = np.arange(4 * SIZE, dtype=np.uint8)
    lend(here, user, request(user, agent, value))
    for _ in range(3):
        await asyncio.sleep(0)
    cut(here, there)
    (found,) = arguments(await agent.recv(10))
    assert (found == value).all()
    await until(lambda: not len(line.outbox))


async def stuck(
    new_engine: NewEngine,
) -> tuple[Engine, BoundMailbox, Engine, BoundMailbox, Line]:
    """Return a pair between which a large request is half way."""
    here, user, there, agent, line = await pair(new_engine)
    transport: Any = connection_of(there, here)._transport
    transport.pause_reading()
    lend(here, user, request(user, agent, np.ones(SIZE, dtype=np.uint8)))
    await until(lambda: connection_of(here, there).paused)
    return here, user, there, agent, line


async def test_an_agent_that_ends_before_it_has_taken_it(
    new_engine: NewEngine,
) -> None:
    here, user, there, agent, line = await stuck(new_engine)
    await there.unbind(agent)
    transport: Any = connection_of(there, here)._transport
    transport.resume_reading()
    error = await failure(user)
    assert isinstance(error, RequestLostError)
    assert error.executed == "no"
    assert "larger than the limit" in str(error)
    assert not len(line.outbox)


async def test_a_link_that_does_not_come_back(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "DIRECT_TIMEOUT", 0.1)
    _, user, there, _, line = await stuck(new_engine)
    assert there.links is not None
    await there.links.node.close()
    error = await failure(user)
    assert error.executed == "maybe"
    assert not len(line.outbox)


async def test_what_was_not_taken_is_not_given_back(new_engine: NewEngine) -> None:
    """Its sender in this process is told, and that elsewhere sees it by itself."""
    here, user, there, agent, _ = await pair(new_engine)
    local = await bind_user(there)
    assert lend(here, user, request(user, agent, bytes(SIZE))) is None
    assert lend(there, local, request(local, agent, bytes(SIZE))) is None
    await until(lambda: len(agent.inbox) == 2)
    await there.unbind(agent)
    for box in (user, local):
        error = await failure(box)
        assert isinstance(error, RequestLostError)
        assert error.executed == "no"


async def test_a_consumer_that_does_not_keep_up(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "UNREACHABLE_TIMEOUT", 0.2)
    here, user, _, agent, _ = await pair(new_engine)
    first = request(user, agent, bytes(SIZE))
    assert lend(here, user, first) is None
    message = request(user, agent, np.ones(SIZE, dtype=np.uint8))
    with pytest.raises(BackpressureTimeout) as caught:
        await lend(here, user, message)
    assert caught.value.executed == "no"
    assert arguments(await agent.recv(5)) == (bytes(SIZE),)


async def test_small_messages_pass_a_large_one(new_engine: NewEngine) -> None:
    here, user, there, agent, _ = await pair(new_engine)
    other, second = await bind_user(here), await bind_agent(there)
    await connect(here, other, second)
    lend(here, user, request(user, agent, bytes(16 * SIZE)))
    await send(here, other, second.uid, 1)
    assert await take(second) == [1]
    assert not len(agent.inbox)
    assert len(arguments(await agent.recv(5))[0]) == 16 * SIZE
