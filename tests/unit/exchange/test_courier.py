"""Lines that end while messages still come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from academy.exception import AgentTerminatedError, FencedError, PeerLostError
from academy.exchange.bound import BoundMailbox
from academy.exchange.engine import Engine
from academy.exchange.stream import REQUESTS
from academy.message import SuccessResponse, encode
from tests.unit.exchange.conftest import NewEngine
from tests.unit.exchange.mail import (
    agree,
    answer,
    bind_agent,
    bind_user,
    connect,
    failure,
    numbered,
    send,
    take,
    until,
)


async def half_read(engine: Engine) -> tuple[BoundMailbox, BoundMailbox]:
    """Return a user, and an agent beside it that has taken one of two requests."""
    user, agent = await bind_user(engine), await bind_agent(engine)
    await send(engine, user, agent.uid, 1, 2)
    assert await take(agent) == [1]
    return user, agent


async def test_what_comes_as_a_line_ends_is_not_forgotten(
    new_engine: NewEngine,
) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    line = await connect(here, user, agent)
    late: list[asyncio.Task[Any]] = []

    def come_late(_: object) -> None:
        # A channel may be open soon: until then it is held.
        line.outbox.expect(asyncio.get_running_loop().time())
        late.append(asyncio.create_task(send(here, user, agent.uid, 2)))

    await send(here, user, agent.uid, 1)
    line.drained().add_done_callback(come_late)
    async with asyncio.timeout(10):
        await here.courier._end([line], 5.0)
        await until(lambda: late and late[0].done())
    assert await take(agent, 2) == [1, 2]
    await late[0]


async def test_what_waited_for_a_terminated_mailbox_is_refused(
    new_engine: NewEngine,
) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    line = await connect(here, user, agent)
    # It has waited at the gate of the outlet, and not seen that another one is made.
    outlet = user.outlets[REQUESTS][agent.uid.uid.int]
    await here.terminate(agent.uid, "enough")
    await until(lambda: outlet.line is not line)
    message = numbered(user, agent.uid, 1)
    segments = encode(message)
    size = sum(map(len, segments))
    for _ in range(2):
        work = here.courier.submit(user, outlet, message, segments, size, False)
        assert work is not None
        async with asyncio.timeout(10):
            with pytest.raises(AgentTerminatedError, match="enough"):
                await work


async def test_what_is_given_back_is_not_overtaken(new_engine: NewEngine) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, former = await half_read(here)
    await here.unbind(former)
    agent = await bind_agent(there, former.uid)
    # It asks for nothing yet, so what was given back waits in the queue.
    await send(here, user, agent.uid, 3)
    assert await take(agent, 2) == [2, 3]


async def test_what_a_former_owner_resends_is_not_overtaken(
    new_engine: NewEngine,
) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, former = await half_read(here)
    agent = await bind_agent(there, former.uid)
    await until(lambda: former.ended)
    await send(here, user, agent.uid, 3)
    assert await take(agent, 2) == [2, 3]


async def test_an_answer_is_sent_though_nobody_waits_for_that(
    new_engine: NewEngine,
) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(here), await bind_agent(there)
    await send(here, user, agent.uid, 1)
    request = await agent.recv(5)
    work = there.router.submit(agent, request.create_response(SuccessResponse()))
    assert work is not None
    sending = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    sending.cancel()
    await there.unbind(agent)
    assert isinstance((await answer(user)).get_body(), SuccessResponse)


async def test_who_waits_for_an_answer_hears_that_it_was_not_sent(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(here), await bind_agent(there)
    await send(here, user, agent.uid, 1)
    request = await agent.recv(5)
    # Its process does not know yet that somebody else has the mailbox.
    monkeypatch.setattr(there, "_on_news", lambda news: None)
    await bind_agent(here, agent.uid)
    with pytest.raises(FencedError):
        await agree(there, agent, request)
    error = await failure(user)
    assert isinstance(error, PeerLostError)
    assert "took its mailbox over" in str(error)


async def test_what_is_given_back_late_is_not_overtaken(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await new_engine(), await new_engine()
    user, former = await half_read(here)
    # Closing waits for a take that is under way, and meanwhile the next owner is there.
    taken, closing = asyncio.Event(), asyncio.Event()

    async def wait_for_take(take: object, stall: float) -> None:
        closing.set()
        await taken.wait()

    monkeypatch.setattr(here.server, "while_answering", wait_for_take)
    former.take = asyncio.create_task(taken.wait())  # type: ignore[assignment]
    unbinding = asyncio.create_task(here.unbind(former))
    await closing.wait()
    agent = await bind_agent(there, former.uid)
    sending = asyncio.create_task(send(here, user, agent.uid, 3))
    await asyncio.wait([sending], timeout=0.2)
    taken.set()
    await unbinding
    assert await take(agent, 2) == [2, 3]
    await sending
