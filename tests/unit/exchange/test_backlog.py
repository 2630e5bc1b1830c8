"""A process that holds too much takes in no more."""

from __future__ import annotations

import pytest

from academy.exception import MailboxFullError
from academy.exchange import backlog as backlog_module
from academy.exchange.backlog import BACKLOG_BYTES, Backlog
from academy.exchange.flight import QUEUE_LIMIT
from academy.link.channel import Reason
from academy.link.session import Session
from tests.unit.exchange.conftest import NewEngine
from tests.unit.exchange.mail import (
    agree,
    answer,
    bind_agent,
    bind_user,
    connect,
    number,
    send,
    take,
    until,
)


def test_it_counts_bytes() -> None:
    backlog = Backlog()
    backlog.add([b"head", memoryview(b"rest")])
    assert backlog.bytes == 8
    assert not backlog.full
    backlog.remove([[b"head", memoryview(b"rest")]])
    assert backlog.bytes == 0
    assert BACKLOG_BYTES >= 2 * QUEUE_LIMIT


async def test_within_a_process(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are refused, and answers are not."""
    engine = await new_engine()
    user, agent, other = (
        await bind_user(engine),
        await bind_agent(engine),
        await bind_agent(engine),
    )
    (request,) = await send(engine, user, agent.uid, 1)
    assert await take(agent) == [1]
    await send(engine, user, agent.uid, 2, 3)
    monkeypatch.setattr(backlog_module, "BACKLOG_BYTES", engine._backlog.bytes)
    for dest in (agent.uid, other.uid):
        with pytest.raises(MailboxFullError, match="consumers that are slow") as caught:
            await send(engine, user, dest, 4)
        assert (caught.value.uid, caught.value.executed) == (dest, "no")
    await agree(engine, agent, request)
    assert (await answer(user)).tag == request.tag
    assert await take(agent, 2) == [2, 3]
    await send(engine, user, agent.uid, 5)
    assert number(await agent.recv(5)) == 5


async def test_further_senders_on_links_go_through_the_queue(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await new_engine(direct=True), await new_engine(direct=True)
    user, late = await bind_user(here), await bind_user(here)
    agent = await bind_agent(there)
    line = await connect(here, user, agent)
    await send(here, user, agent.uid, 1)
    await until(lambda: there._backlog.bytes)
    monkeypatch.setattr(backlog_module, "BACKLOG_BYTES", 1)
    refused: list[int] = []
    refuse = Session.refuse

    def note(session: Session, channel: int, reason: Reason) -> None:
        refused.append(channel)
        refuse(session, channel, reason)

    monkeypatch.setattr(Session, "refuse", note)
    await send(here, late, agent.uid, 2)
    await send(here, late, agent.uid, 3)
    await until(lambda: refused)
    late_line = late.open_outlet(agent.uid, 0).line
    assert not late_line.outbox.is_direct
    # Who talks directly already goes on.
    assert line.outbox.is_direct
    assert sorted(await take(agent, 3)) == [1, 2, 3]
    # The consumer has caught up.
    await connect(here, late, agent)
