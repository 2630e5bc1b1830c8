"""Deadlines and traces of requests, as the dispatcher keeps them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from academy import dispatch
from academy.exception import ActionCancelledError, ActionInvalidStateError
from academy.message import (
    ActionRequest,
    CancelRequest,
    Message,
    PingRequest,
    SuccessResponse,
)
from academy.serialize import SerializationStrategy
from academy.trace import traceparent
from tests.unit.local_agents import eventually
from tests.unit.test_dispatch import AGENT, USER, Harness

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Timed(Harness):
    """A harness whose requests have deadlines or traces."""

    def __init__(self) -> None:
        super().__init__()
        self.traces: list[str | None] = []

    def start(self, *, open: bool = True) -> Timed:
        super().start(open=open)
        return self

    async def invoke(self, name: str, source: Any, args: Any, kwargs: Any) -> Any:
        self.traces.append(traceparent.get())
        return await super().invoke(name, source, args, kwargs)

    def take(self, name: str, **fields: Any) -> uuid.UUID:
        body = ActionRequest(action=name, serialization=SerializationStrategy.PICKLE)
        message = Message.create(USER, AGENT, body, **fields)
        self.dispatcher.receive(message)
        return message.tag

    async def verdict(self, tag: uuid.UUID) -> str:
        body = await self.answer(tag)
        assert type(body.get_exception()) is TimeoutError
        return str(body.executed)


@pytest.fixture
async def timed() -> AsyncIterator[Timed]:
    one = Timed()
    yield one
    one.release.set()
    await one.dispatcher.close()


async def test_action_that_runs_is_cancelled(timed: Timed) -> None:
    tag = timed.start().take("hold", deadline=0.02)
    await eventually(lambda: timed.actions == ["hold"])
    assert await timed.verdict(tag) == "maybe"


async def test_enough_time(timed: Timed) -> None:
    tag = timed.start().take("one", deadline=10.0)
    assert (await timed.answer(tag)).get_result() == "one"
    assert len(timed.dispatcher._deadlines) == 0


async def test_no_time_left(timed: Timed) -> None:
    tag = timed.start().take("one", deadline=0.0)
    assert await timed.verdict(tag) == "no"
    assert timed.actions == []


async def test_passed_before_its_turn(timed: Timed) -> None:
    """The event loop was busy with what came before."""
    timed.start()
    tag = timed.take("one", deadline=0.01)
    time.sleep(0.02)  # noqa: ASYNC251 - that is what an inconsiderate action does
    assert await timed.verdict(tag) == "no"
    assert timed.actions == []


async def test_passed_before_the_agent_has_started(timed: Timed) -> None:
    late, patient = timed.take("one", deadline=0.01), timed.take("two")
    timed.start(open=False)
    assert await timed.verdict(late) == "no"
    timed.dispatcher.open()
    assert (await timed.answer(patient)).get_result() == "two"
    assert timed.actions == ["two"]


async def test_time_counts_from_the_arrival(timed: Timed) -> None:
    late = timed.take("hold", deadline=0.05)
    timed.start()
    await eventually(lambda: timed.actions == ["hold"])
    assert await timed.verdict(late) == "maybe"


async def test_action_that_does_not_let_itself_be_cancelled(timed: Timed) -> None:
    tag = timed.start().take("stubborn", deadline=0.01)
    await eventually(lambda: "stayed" in timed.actions)
    timed.release.set()
    assert (await timed.answer(tag)).get_result() == "stubborn"


async def test_cancelled_before(timed: Timed) -> None:
    waiting = timed.take("one", deadline=0.01)
    await timed.request(CancelRequest(target_tag=waiting))
    timed.start(open=False)
    assert isinstance(await timed.error(waiting), ActionCancelledError)
    assert len(timed.dispatcher._deadlines) == 0


async def test_cancel_that_overtakes_its_request(
    timed: Timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "EARLY_CANCELS", 2)
    timed.start()
    tags = [uuid.uuid4() for _ in range(3)]
    for tag in tags:
        cancel = await timed.request(CancelRequest(target_tag=tag))
        assert isinstance(await timed.error(cancel), ActionInvalidStateError)
    for tag in tags[1:]:
        timed.take("one", tag=tag)
        assert isinstance(await timed.error(tag), ActionCancelledError)
    assert timed.actions == []
    # Of so many, the first one is forgotten.
    timed.take("one", tag=tags[0])
    assert (await timed.answer(tags[0])).get_result() == "one"


async def test_closing_forgets_them(timed: Timed) -> None:
    tags = [timed.take("one", deadline=0.01)]
    timed.start(open=False).shutdown.set()
    await timed.dispatcher.close()
    assert isinstance(await timed.error(tags[0]), ActionCancelledError)
    assert len(timed.dispatcher._deadlines) == 0


async def test_pings_have_none(timed: Timed) -> None:
    message = Message.create(USER, AGENT, PingRequest(), deadline=0.0)
    timed.dispatcher.receive(message)
    timed.start()
    assert isinstance(await timed.answer(message.tag), SuccessResponse)


async def test_refused_at_the_shutdown(timed: Timed) -> None:
    timed.start().shutdown.set()
    tag = timed.take("one", deadline=0.01)
    assert isinstance(await timed.error(tag), ActionCancelledError)
    assert len(timed.dispatcher._deadlines) == 0


async def test_traces_are_those_of_the_callers(timed: Timed) -> None:
    token = traceparent.set("00-of-the-launcher")
    timed.start()
    traceparent.reset(token)
    for parent in (PARENT, None, "garbage"):
        await timed.answer(timed.take("one", traceparent=parent))
    assert timed.traces == [PARENT, None, None]


async def test_deadlines_leave_nothing_behind(timed: Timed) -> None:
    timed.start()
    for _ in range(3):
        await timed.answer(timed.take("one", deadline=100.0))
    await asyncio.sleep(0)
    assert len(timed.dispatcher._deadlines) == 0
