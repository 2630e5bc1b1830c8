"""What becomes of messages for which there is no room in a queue."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio

from academy.exception import (
    AgentTerminatedError,
    BackpressureTimeout,
    MailboxFullError,
)
from academy.exchange import courier as courier_module
from academy.exchange import queues as queues_module
from academy.exchange.bound import BoundMailbox
from academy.exchange.engine import Engine
from academy.exchange.keys import Keys
from academy.exchange.line import Line
from academy.exchange.stream import REQUESTS
from academy.link.channel import ChannelKey
from academy.message import ActionRequest, CancelRequest, Message
from tests.unit.exchange.conftest import NewEngine
from tests.unit.exchange.mail import (
    agree,
    answer,
    bind_agent,
    bind_user,
    numbered,
    post,
    register,
    send,
    take,
    until,
)

ROOM = 4


@pytest.fixture(autouse=True)
def small_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues_module, "QUEUE_CAPACITY", ROOM)


async def pair(
    new_engine: NewEngine, *, direct: bool = False
) -> tuple[Engine, BoundMailbox, Engine, BoundMailbox]:
    here, there = await new_engine(direct=direct), await new_engine(direct=direct)
    return here, await bind_user(here), there, await bind_agent(there)


def line_of(engine: Engine, box: BoundMailbox, other: BoundMailbox) -> Line:
    line = engine.courier.lines.get(
        ChannelKey(box.uid.uid, box.inc, other.uid.uid, REQUESTS)
    )
    assert line is not None
    return line


Sending = list[asyncio.Task[Any]]


async def fill(
    here: Engine, user: BoundMailbox, agent: BoundMailbox, count: int
) -> Sending:
    """Send more than there is room for; return those that wait."""
    tasks = [
        asyncio.create_task(post(here, user, numbered(user, agent.uid, n)))
        for n in range(count)
    ]
    await until(lambda: [t.done() for t in tasks].count(True) == ROOM)
    await until(lambda: line_of(here, user, agent).outbox.short)
    assert [t.done() for t in tasks] == [True] * ROOM + [False] * (count - ROOM)
    return tasks[ROOM:]


async def outcome(tasks: Sending) -> list[Any]:
    """Return what the tasks have raised, or None."""
    async with asyncio.timeout(10):
        return list(await asyncio.gather(*tasks, return_exceptions=True))


async def test_a_burst_to_who_lives_arrives_in_order(new_engine: NewEngine) -> None:
    here, user, _, agent = await pair(new_engine)
    tasks = await fill(here, user, agent, 100)
    assert await take(agent, 100) == list(range(100))
    assert await outcome(tasks) == [None] * 96
    # And so does what comes later.
    await send(here, user, agent.uid, 100)
    assert await take(agent) == [100]
    await until(lambda: line_of(here, user, agent).looks is None)


async def test_large_ones_are_not_overtaken_by_small_ones(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues_module, "QUEUE_CAPACITY", 10_000)
    monkeypatch.setattr(queues_module, "QUEUE_BYTES", 100_000)
    here, user, _, agent = await pair(new_engine)

    def request(n: int) -> Message[ActionRequest]:
        size = 90_000 if n % 3 == 1 else 100
        body = ActionRequest(action=f"{n}", serialization="json", pargs=("x" * size,))
        return Message.create(user.uid, agent.uid, body)

    tasks = [asyncio.create_task(post(here, user, request(n))) for n in range(30)]
    assert await take(agent, 30) == list(range(30))
    assert await outcome(tasks) == [None] * 30


async def test_several_senders_share_the_room(new_engine: NewEngine) -> None:
    here, user, _, agent = await pair(new_engine)
    elsewhere = await new_engine()
    senders = [(elsewhere, await bind_user(elsewhere)), (here, await bind_user(here))]
    await fill(here, user, agent, 40)
    waiting = [
        asyncio.create_task(send(engine, box, agent.uid, *range(first, first + 40)))
        for first, (engine, box) in zip((100, 200), senders, strict=True)
    ]
    got = await take(agent, 120)
    await asyncio.gather(*waiting)
    for first in (0, 100, 200):
        sent = list(range(first, first + 40))
        assert [n for n in got if n // 100 * 100 == first] == sent


async def test_nobody_else_is_held_up(new_engine: NewEngine) -> None:
    here, user, there, agent = await pair(new_engine)
    tasks = await fill(here, user, agent, ROOM + 2)
    other = await bind_agent(there)
    await send(here, user, other.uid, 1)
    assert await take(other) == [1]
    assert not any(task.done() for task in tasks)


async def test_answers_and_cancels_do_not_wait(new_engine: NewEngine) -> None:
    """Or those who call each other would wait for each other."""
    here, user, there, agent = await pair(new_engine)
    (request,) = await send(there, agent, user.uid, 1)
    assert await take(user) == [1]
    await fill(here, user, agent, ROOM + 1)
    tag = request.tag
    cancel = Message.create(user.uid, agent.uid, CancelRequest(target_tag=tag))
    with pytest.raises(MailboxFullError):
        await post(here, user, cancel)
    await agree(here, user, request)


async def test_a_consumer_that_takes_nothing(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, user, _, agent = await pair(new_engine)
    monkeypatch.setattr(courier_module, "UNREACHABLE_TIMEOUT", 0.3)
    errors = await outcome(await fill(here, user, agent, ROOM + 2))
    for error in errors:
        assert isinstance(error, BackpressureTimeout)
        assert error.executed == "no"
        assert "its queue was full" in str(error)
    assert len(user.ledger.awaited) == ROOM
    assert await take(agent, ROOM) == list(range(ROOM))
    # What was given up is not sent after all.
    await send(here, user, agent.uid, 99)
    assert await take(agent) == [99]


async def test_who_is_cancelled_has_sent_nothing(new_engine: NewEngine) -> None:
    here, user, _, agent = await pair(new_engine)
    first, second, third = await fill(here, user, agent, ROOM + 3)
    second.cancel()
    assert isinstance((await outcome([second]))[0], asyncio.CancelledError)
    assert await take(agent, ROOM + 2) == [*range(ROOM + 1), ROOM + 2]
    assert await outcome([first, third]) == [None, None]


async def test_nobody_waits_for_an_offline_mailbox(new_engine: NewEngine) -> None:
    here = await new_engine()
    user, uid = await bind_user(here), await register(here)
    await send(here, user, uid, *range(ROOM))
    with pytest.raises(MailboxFullError) as caught:
        async with asyncio.timeout(5):
            await send(here, user, uid, ROOM)
    assert type(caught.value) is MailboxFullError
    assert caught.value.executed == "no"


async def test_nobody_waits_for_who_dies(
    new_engine: NewEngine, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    here, user, there, agent = await pair(new_engine)
    tasks = await fill(here, user, agent, ROOM + 3)
    await there._lease.close()
    await raw.delete(keys.lease(there.process))
    errors = await outcome(tasks)
    assert [type(e) for e in errors] == [MailboxFullError] * 3
    assert {e.executed for e in errors} == {"no"}


async def test_nobody_waits_for_who_is_terminated(new_engine: NewEngine) -> None:
    here, user, there, agent = await pair(new_engine)
    tasks = await fill(here, user, agent, ROOM + 3)
    await there.terminate(agent.uid, "it was old")
    errors = await outcome(tasks)
    assert [type(e) for e in errors] == [AgentTerminatedError] * 3
    assert {e.executed for e in errors} == {"no"}


async def test_the_next_owner_takes_what_waited(new_engine: NewEngine) -> None:
    here, user, there, agent = await pair(new_engine)
    tasks = await fill(here, user, agent, 20)
    again = await bind_agent(await new_engine(), agent.uid)
    assert await take(again, 20) == list(range(20))
    assert await outcome(tasks) == [None] * 16
    assert not there.courier.lines.all()


async def test_they_go_directly_when_a_channel_opens(new_engine: NewEngine) -> None:
    """In order, and each once."""
    here, user, there, agent = await pair(new_engine, direct=True)
    count = 100
    messages = [numbered(user, agent.uid, n) for n in range(count)]
    seek, here.courier.seek = here.courier.seek, lambda line: None
    tasks = [asyncio.create_task(post(here, user, m)) for m in messages]
    await until(lambda: [t.done() for t in tasks].count(True) == ROOM)
    line = line_of(here, user, agent)
    here.courier.seek = seek
    here.courier.seek(line)
    await until(lambda: bool(line.outbox.incarnation))
    assert await take(agent, count) == list(range(count))
    assert await outcome(tasks) == [None] * count
    assert line.outbox.stream.relayed < count
    await agree(there, agent, messages[-1])
    assert (await answer(user)).tag == messages[-1].tag


async def test_it_closes_while_somebody_waits(new_engine: NewEngine) -> None:
    here, user, _, agent = await pair(new_engine)
    tasks = await fill(here, user, agent, ROOM + 1)
    line = line_of(here, user, agent)
    await here.close()
    assert line.looks is None or line.looks.done()
    for task in tasks:
        task.cancel()
    await outcome(tasks)
