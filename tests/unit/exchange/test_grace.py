from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest

from academy.exchange import grace
from academy.exchange.bound import BoundMailbox
from academy.exchange.grace import Graces
from academy.exchange.ledger import Awaited
from academy.exchange.stream import Received
from academy.identifier import AgentId, UserId
from academy.message import Message, PingRequest, SuccessResponse
from tests.unit.exchange.mail import until

Settled = list[tuple[BoundMailbox, Awaited, str]]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grace, "GRACE", 0.05)
    monkeypatch.setattr(grace, "TOGETHER", 0.02)


@pytest.fixture
def settled() -> Iterator[Settled]:
    found: Settled = []
    yield found
    for box, awaited, _ in found:
        assert box.ledger.awaited[awaited.header.tag.int] is awaited


def new_box() -> BoundMailbox:
    return BoundMailbox(UserId.new(), (), 1, Received(1, {}), lambda box: None)


def ask(box: BoundMailbox, dest: AgentId[Any]) -> Message[PingRequest]:
    message = Message.create(box.uid, dest, PingRequest())
    box.ledger.sending(message.header)
    return message


def note(settled: Settled) -> Any:
    return lambda *found: settled.append(cast(Any, found))


async def test_what_is_not_answered_in_time(settled: Settled) -> None:
    box, idle = new_box(), new_box()
    ending, staying = AgentId[Any].new(), AgentId[Any].new()
    answered, late, other = ask(box, ending), ask(box, ending), ask(box, staying)
    Graces(note(settled)).start([box, idle], ending.uid, "enough")
    await asyncio.sleep(0)
    assert not settled
    box.ledger.took(answered.create_response(SuccessResponse()).header)
    await until(lambda: settled)
    assert [(b, a.header.tag, r) for b, a, r in settled] == [(box, late.tag, "enough")]
    assert other.tag.int in box.ledger.awaited


async def test_many_that_end_one_after_the_other(settled: Settled) -> None:
    """Each gets its grace, and the requests are looked through a few times only."""
    box = new_box()
    agents = [AgentId[Any].new() for _ in range(30)]
    for agent in agents:
        ask(box, agent)
    graces = Graces(note(settled))
    loop = asyncio.get_running_loop()
    started: dict[int, float] = {}
    for agent in agents:
        started[agent.uid.int] = loop.time()
        graces.start([box], agent.uid, str(agent.uid))
        await asyncio.sleep(0.002)
    await until(lambda: len(settled) == len(agents))
    for _, awaited, reason in settled:
        assert reason == str(awaited.header.dest.uid)
    assert loop.time() - max(started.values()) >= grace.GRACE
    assert not graces._ended
