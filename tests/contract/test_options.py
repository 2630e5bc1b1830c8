"""Options of calls, and what travels with a call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from academy.agent import Agent, action
from academy.exception import (
    ActionCancelledError,
    AgentInactiveError,
    AgentTerminatedError,
    PeerLostError,
)
from academy.exchange.client import UserExchangeClient
from academy.handle import Handle
from academy.message import ActionRequest, Message
from academy.runtime import Runtime, RuntimeConfig
from academy.trace import traceparent
from tests.contract.office import FACTOR, Office, eventually, within

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Clerk(Agent):
    """Writes down what it does."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    @action
    async def note(self, text: str) -> str:
        self.notes.append(text)
        return text

    @action(idempotent=True)
    async def put(self, text: str) -> str:
        return await self.note(text)

    @action
    async def hold(self) -> None:
        self.notes.append("held")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.notes.append("cancelled")
            raise

    @action
    async def trace(self) -> str | None:
        return traceparent.get()


class Firm:
    """A clerk, which works where agents do, and a user who calls it."""

    def __init__(self, mail: Office, user: UserExchangeClient[Any]) -> None:
        self.mail = mail
        self.user = user
        self.clerk = Clerk()
        self.runtimes: list[Runtime[Clerk]] = []

    async def register(self) -> None:
        self.registration = await self.mail.register(Clerk)
        self.handle: Handle[Any] = Handle(
            self.registration.agent_id, exchange=self.user, agent_class=Clerk
        )

    async def start(self) -> None:
        await self.mail.place.run(self._start())

    async def desk(self, answer: Callable[[Any], Any]) -> Any:
        """Let somebody else sit at the clerk's desk."""
        return await self.mail.desk(self.registration, answer)

    async def close(self) -> None:
        for runtime in self.runtimes:
            await self.mail.place.run(runtime.__aexit__(None, None, None))

    async def _start(self) -> None:
        runtime = Runtime(
            self.clerk,
            exchange_factory=self.mail.factory,
            registration=self.registration,
            config=RuntimeConfig(terminate_on_success=False),
        )
        await runtime.__aenter__()
        self.runtimes.append(runtime)


@pytest.fixture
async def firm(mail: Office) -> AsyncIterator[Firm]:
    made = Firm(mail, await mail.user())
    await made.register()
    yield made
    await made.close()


async def test_timeout_is_on_time_and_cancels(firm: Firm) -> None:
    await firm.start()
    await firm.handle.note("ready")
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"'hold' within 0\.3 s"):
        await firm.handle.options(timeout=0.3).hold()
    assert 0.3 <= time.monotonic() - start < 0.3 + FACTOR
    await eventually(lambda: firm.clerk.notes == ["ready", "held", "cancelled"])


async def test_deadline_is_kept_by_the_agent(firm: Firm) -> None:
    """Also when the caller cannot tell it that the time is up."""
    await firm.start()
    body = ActionRequest(action="hold", serialization="pickle")  # type: ignore[arg-type]
    message = Message.create(
        firm.user.client_id, firm.handle.agent_id, body, deadline=0.2
    )
    async with within(5):
        response = await firm.user.request(message)
    error = response.get_body().get_exception()
    assert type(error) is TimeoutError
    assert "cancelled the action 'hold'" in str(error)
    assert firm.clerk.notes == ["held", "cancelled"]


async def test_deadline_passes_while_a_call_waits(firm: Firm) -> None:
    """Also when nobody is left to cancel it: an agent that starts late refuses it."""
    body = ActionRequest(action="note", serialization="pickle", pargs=("late",))  # type: ignore[arg-type]
    message = Message.create(
        firm.user.client_id, firm.handle.agent_id, body, deadline=0.2
    )
    answer = asyncio.create_task(firm.user.request(message))
    await asyncio.sleep(0.5)  # the time that it may take, and more
    await firm.start()
    async with within(5):
        error = (await answer).get_body().get_exception()
    assert type(error) is TimeoutError
    assert "It was not executed" in str(error)
    assert firm.clerk.notes == []


async def test_agent_that_starts_too_late_does_not_go_on(firm: Firm) -> None:
    with pytest.raises(TimeoutError):
        await firm.handle.options(timeout=0.3).hold()
    await firm.start()
    async with within(5):
        await firm.handle.note("later")
    firm.clerk.notes.remove("later")
    await eventually(lambda: firm.clerk.notes in ([], ["held", "cancelled"]))


async def test_wait_for_returns_on_time(firm: Firm) -> None:
    """Nobody runs the agent."""
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(firm.handle.note("x"), 0.3)
    assert time.monotonic() - start < 0.3 + FACTOR


async def test_what_travels(firm: Firm) -> None:
    desk = await firm.desk(lambda _: None)
    token = traceparent.set(PARENT)
    try:
        with pytest.raises(TimeoutError):
            await firm.handle.options(timeout=0.5).note("x")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(firm.handle.note("x"), 0.5)
    finally:
        traceparent.reset(token)
    taken = [m for m in desk.taken if isinstance(m.get_body(), ActionRequest)]
    assert 0.3 < taken[0].header.deadline <= 0.5
    assert taken[1].header.deadline is None
    assert [m.header.traceparent for m in taken] == [PARENT, PARENT]


async def test_trace_reaches_the_action(firm: Firm) -> None:
    await firm.start()
    token = traceparent.set(PARENT)
    try:
        assert await firm.handle.trace() == PARENT
    finally:
        traceparent.reset(token)
    assert await firm.handle.trace() is None


# Calls that are lost


async def lose(firm: Firm, call: Any) -> asyncio.Task[Any]:
    """Make a call that somebody takes who then goes away."""
    desk = await firm.desk(lambda _: None)
    task: asyncio.Task[Any] = asyncio.ensure_future(call)
    await eventually(lambda: desk.taken)
    await desk.close()
    return task


async def test_lost_calls_are_errors(firm: Firm) -> None:
    task = await lose(firm, firm.handle.note("x"))
    async with within(15):
        with pytest.raises(PeerLostError):
            await task


async def test_retry_runs_in_the_next_process(firm: Firm) -> None:
    task = await lose(firm, firm.handle.options(retry=True).note("x"))
    await firm.start()
    async with within(20):
        assert await task == "x"
    assert firm.clerk.notes == ["x"]


async def test_idempotent_actions_are_retried(firm: Firm) -> None:
    task = await lose(firm, firm.handle.put("x"))
    await firm.start()
    async with within(20):
        assert await task == "x"


async def test_retry_ends_at_the_deadline(firm: Firm) -> None:
    task = await lose(firm, firm.handle.options(retry=True, timeout=1).note("x"))
    async with within(3):
        with pytest.raises(TimeoutError):
            await task


async def test_retry_ends_with_the_agent(firm: Firm) -> None:
    task = await lose(firm, firm.handle.options(retry=True).note("x"))
    await firm.user.terminate(firm.handle.agent_id)
    async with within(15):
        with pytest.raises(AgentTerminatedError):
            await task


# Agents that do not run


async def test_offline_fail(firm: Firm) -> None:
    quick = firm.handle.options(offline="fail")
    async with within(2):
        with pytest.raises(AgentInactiveError):
            await quick.note("x")
    await firm.start()
    assert await quick.note("y") == "y"
    assert firm.clerk.notes == ["y"]
    await firm.user.terminate(firm.handle.agent_id)
    with pytest.raises((AgentTerminatedError, ActionCancelledError)):
        await quick.note("z")


async def test_offline_queue_is_the_default(firm: Firm) -> None:
    task = asyncio.create_task(firm.handle.note("x"))
    await asyncio.wait([task], timeout=0.05)
    assert not task.done()
    await firm.start()
    async with within(5):
        assert await task == "x"
