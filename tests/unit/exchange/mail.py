"""Mailboxes on engines, for tests of what engines are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from academy.exchange.bound import BoundMailbox
from academy.exchange.engine import Engine
from academy.exchange.line import Line
from academy.exchange.stream import REQUESTS
from academy.identifier import AgentId, EntityId, UserId
from academy.link.channel import ChannelKey
from academy.message import (
    AcademyErrorResponse,
    ActionRequest,
    Message,
    SuccessResponse,
)

AGENT = "academy.agent.Agent"


async def register(engine: Engine) -> AgentId[Any]:
    """Register a new agent."""
    uid: AgentId[Any] = AgentId.new(name="agent")
    await engine.directory.register([(uid, ("m.A", AGENT))])
    return uid


async def bind_agent(engine: Engine, uid: EntityId | None = None) -> BoundMailbox:
    """Bind the mailbox of an agent, or of a new one."""
    return await engine.bind(uid or await register(engine))


async def bind_user(engine: Engine) -> BoundMailbox:
    """Bind the mailbox of a new user."""
    uid = UserId.new(name="user")
    await engine.directory.register([(uid, ())])
    return await engine.bind(uid)


def numbered(box: BoundMailbox, dest: EntityId, n: int) -> Message[ActionRequest]:
    """Return a request that carries a number."""
    body = ActionRequest(action=str(n), serialization="json")
    return Message.create(box.uid, dest, body)


def number(message: Message[Any]) -> int:
    """Return the number that a request carries."""
    return int(message.get_body().action)


async def post(engine: Engine, box: BoundMailbox, message: Message[Any]) -> None:
    """Send a message, and wait until it is accepted."""
    work = engine.router.submit(box, message)
    if work is not None:
        await work


async def send(
    engine: Engine, box: BoundMailbox, dest: EntityId, *numbers: int
) -> list[Message[Any]]:
    """Send requests that carry numbers."""
    messages = [numbered(box, dest, n) for n in numbers]
    for message in messages:
        await post(engine, box, message)
    return messages


async def take(box: BoundMailbox, count: int = 1) -> list[int]:
    """Take requests and return their numbers."""
    return [number(await box.recv(5)) for _ in range(count)]


async def agree(engine: Engine, box: BoundMailbox, request: Message[Any]) -> None:
    """Answer a request."""
    await post(engine, box, request.create_response(SuccessResponse()))


async def answer(box: BoundMailbox, seconds: float = 5.0) -> Message[Any]:
    """Return the next response."""
    message = await box.recv(seconds)
    assert message.is_response()
    return message


async def failure(box: BoundMailbox, seconds: float = 5.0) -> Any:
    """Return the error that the next response stands for."""
    body = (await answer(box, seconds)).get_body()
    assert isinstance(body, AcademyErrorResponse), body
    return body.get_exception()


async def connect(engine: Engine, box: BoundMailbox, other: BoundMailbox) -> Line:
    """Have a mailbox talk directly to one in another process; return its line."""

    def direct() -> bool:
        line = engine.courier.lines.get(key)
        return line is not None and line.outbox.is_direct and not len(line.outbox)

    key = ChannelKey(box.uid.uid, box.inc, other.uid.uid, REQUESTS)
    await send(engine, box, other.uid, 0)
    assert await take(other) == [0]
    await until(direct)
    line = engine.courier.lines.get(key)
    assert line is not None
    return line


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - it changes in several tasks
            await asyncio.sleep(0.005)
