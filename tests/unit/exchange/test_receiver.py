from __future__ import annotations

from typing import Any

import pytest

from academy.exchange.bound import BoundMailbox
from academy.exchange.engine import Engine
from academy.exchange.mailbox import REQUEST, RESPONSE, make_entry
from academy.identifier import UserId
from academy.message import Message, SuccessResponse, encode
from tests.unit.exchange.conftest import NewEngine
from tests.unit.exchange.mail import (
    bind_agent,
    bind_user,
    numbered,
    send,
    take,
    until,
)


async def put(
    engine: Engine, box: BoundMailbox, stream: str, message: Message[Any], kind: str
) -> None:
    """Append an entry as a member may make it, whatever it says."""
    entry = make_entry(stream, 1, kind, message.tag.bytes, encode(message))
    await engine.queues.append(None, box.uid, entry)


@pytest.mark.parametrize(
    "lie", ["source", "destination", "kind", "request of a process", "stream"]
)
async def test_what_contradicts_its_entry_is_refused(
    new_engine: NewEngine, lie: str
) -> None:
    here, there = await new_engine(), await new_engine()
    user, other, agent = (
        await bind_user(here),
        await bind_user(here),
        await bind_agent(there),
    )
    stream = user.open_outlet(agent.uid, 0).stream.name
    sender = other if lie == "source" else user
    dest = UserId.new() if lie == "destination" else agent.uid
    kind = RESPONSE if lie == "kind" else REQUEST
    if lie == "request of a process":
        stream = f"p{here.process}:0:1"
    elif lie == "stream":
        stream = "nobody:1:0"
    await put(here, agent, stream, numbered(sender, dest, 1), kind)
    await send(here, other, agent.uid, 2)
    assert await take(agent) == [2]
    await until(lambda: there.queues.dead_letters == 1)


async def test_a_process_may_answer_in_the_name_of_others(
    new_engine: NewEngine,
) -> None:
    """As it does for mailboxes that it has terminated."""
    here, there = await new_engine(), await new_engine()
    user, agent = await bind_user(there), await bind_agent(here)
    (request,) = await send(there, user, agent.uid, 1)
    response = request.create_response(SuccessResponse())
    await put(here, user, f"p{here.process}:0:1", response, RESPONSE)
    assert (await user.recv(5)).tag == request.tag
