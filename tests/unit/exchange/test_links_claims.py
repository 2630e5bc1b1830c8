"""In whose name a process may send on a link."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from academy.exchange import links as links_module
from academy.exchange.bound import BoundMailbox
from academy.exchange.engine import Engine
from academy.exchange.server import ServerUnavailableError
from academy.exchange.stream import REQUESTS, Received
from academy.link.channel import ChannelKey
from academy.message import encode
from tests.unit.exchange.conftest import NewEngine
from tests.unit.exchange.mail import (
    bind_agent,
    bind_user,
    connect,
    numbered,
    send,
    take,
    until,
)


def pretend(engine: Engine, victim: BoundMailbox) -> BoundMailbox:
    """Return the mailbox of another process, as if this one had bound it."""
    received = Received(victim.inc, {})
    return BoundMailbox(victim.uid, (), victim.inc, received, lambda box: None)


def offer(engine: Engine, box: BoundMailbox, agent: BoundMailbox) -> Any:
    """Have a mailbox want to talk directly; return its line."""
    outlet = box.outlet(agent.uid, REQUESTS) or box.open_outlet(agent.uid, REQUESTS)
    line = outlet.line or engine.courier._open(box, outlet)
    engine.courier.seek(line)
    return line


async def test_a_foreign_sender_is_refused(
    new_engine: NewEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    liar, there, home = [await new_engine(direct=True) for _ in range(3)]
    agent, victim = await bind_agent(there), await bind_user(home)
    line = offer(liar, pretend(liar, victim), agent)
    assert there.links is not None
    await until(lambda: there.links and there.links.foreign == 1)
    await until(lambda: line.peer is None)
    assert not line.outbox.is_direct
    assert "in the name of" in caplog.text
    assert str(victim.uid.uid) in caplog.text
    # Nobody is diverted: the one that has it talks directly all the same.
    assert there.links._where.get(victim.uid.uid) is None
    await connect(home, victim, agent)
    assert there.links.foreign == 1


async def test_an_unknown_sender_is_refused(new_engine: NewEngine) -> None:
    liar, there, home = [await new_engine(direct=True) for _ in range(3)]
    agent, gone = await bind_agent(there), await bind_user(home)
    await home.unbind(gone)
    offer(liar, pretend(liar, gone), agent)
    await until(lambda: there.links and there.links.foreign == 1)


async def test_a_known_sender_costs_no_second_look(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = [await new_engine(direct=True) for _ in range(2)]
    user, first, second = (
        await bind_user(here),
        await bind_agent(there),
        await bind_agent(there),
    )
    await connect(here, user, first)

    async def locate(*_: Any) -> None:
        pytest.fail("It knows already.")

    monkeypatch.setattr(there.directory, "locate", locate)
    await connect(here, user, second)


async def test_members_are_believed_while_the_server_is_away(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = [await new_engine(direct=True) for _ in range(2)]
    user, agent = await bind_user(here), await bind_agent(there)

    async def locate(*_: Any) -> None:
        raise ServerUnavailableError

    monkeypatch.setattr(there.directory, "locate", locate)
    await connect(here, user, agent)


@pytest.mark.parametrize("true", [True, False])
async def test_a_slow_server_has_the_last_word(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch, true: bool
) -> None:
    """What is believed at first is taken back when it was a lie."""
    monkeypatch.setattr(links_module, "CLAIM_TIMEOUT", 0.01)
    here, there, home = [await new_engine(direct=True) for _ in range(3)]
    agent, user = await bind_agent(there), await bind_user(here if true else home)
    box = user if true else pretend(here, user)
    answered, locate = asyncio.Event(), there.directory.locate

    async def slowly(*args: Any) -> Any:
        await answered.wait()
        return await locate(*args)

    monkeypatch.setattr(there.directory, "locate", slowly)
    line = offer(here, box, agent)
    await until(lambda: line.outbox.is_direct)
    answered.set()
    if true:
        await send(here, user, agent.uid, 1)
        assert await take(agent) == [1]
        assert line.outbox.is_direct
    else:
        await until(lambda: line.peer is None)
        assert there.links is not None
        assert there.links.foreign == 1
        assert user.uid.uid not in there.links._where


async def test_a_channel_key_names_the_sender_of_all_its_messages(
    new_engine: NewEngine,
) -> None:
    here, there = [await new_engine(direct=True) for _ in range(2)]
    user, agent = await bind_user(here), await bind_agent(there)
    line = await connect(here, user, agent)
    other = await bind_user(here)
    message = numbered(other, agent.uid, 7)
    segments = encode(message)
    assert line.key == ChannelKey(user.uid.uid, user.inc, agent.uid.uid, REQUESTS)
    before = there.queues.dead_letters
    # Past the check of this side.
    here.courier.submit(
        user,
        user.open_outlet(agent.uid, REQUESTS),
        message,
        segments,
        sum(map(len, segments)),
    )
    await until(lambda: there.queues.dead_letters == before + 1)
