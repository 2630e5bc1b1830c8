"""A process that takes requests one by one; started by the harness.

It binds the mailbox of an agent by a bare transport, so that what it has not asked for
is not taken. The first line of standard input is a pickled `ConsumerPart` in base64;
when standard input ends, the transport is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
import uuid
from typing import Any

from academy.body import ActionRequest, ActionResponse
from academy.exception import ExchangeError
from academy.exchange.hybrid import HybridExchangeFactory, HybridExchangeTransport
from academy.identifier import AgentId
from academy.message import Message
from tests.fault.actor import read_part, say, standard_input
from tests.fault.oracle import ExecutionLog


@dataclasses.dataclass
class ConsumerPart:
    """What the process plays.

    Attributes:
        factory: The exchange.
        agent_id: Whose mailbox.
        log: What is executed is written to this file.
        take: How many requests are taken; `None` for any number.
        quick: How many requests are taken before it begins to make pauses.
        pause: Seconds between two of them.
        hold: Seconds until the answer.
        noise: Whether to send wrong answers beside each right one.
    """

    factory: HybridExchangeFactory
    agent_id: AgentId[Any]
    log: str
    take: int | None = None
    quick: int = 0
    pause: float = 0.0
    hold: float = 0.0
    noise: bool = False


class Consumer:
    """Takes requests, and answers each in a task of its own."""

    def __init__(self, part: ConsumerPart, transport: HybridExchangeTransport) -> None:
        self._part = part
        self._transport = transport
        self._log = ExecutionLog(part.log)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Take what is to be taken; when cancelled, answer no more."""
        try:
            await self._take()
            await asyncio.get_running_loop().create_future()
        finally:
            for task in self._tasks:
                task.cancel()

    async def _take(self) -> None:
        taken = 0
        while self._part.take is None or taken < self._part.take:
            message = await self._transport.recv()
            taken += 1
            self._start(message)
            if self._part.pause and taken > self._part.quick:
                await asyncio.sleep(self._part.pause)

    def _start(self, message: Message[Any]) -> None:
        body = message.get_body()
        # What a caller takes back, or other messages, need no answer here.
        if isinstance(body, ActionRequest):
            self._log.add(body.get_args()[0])
            task = asyncio.create_task(self._answer(message, body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Message[Any], body: ActionRequest) -> None:
        if self._part.hold:
            await asyncio.sleep(self._part.hold)
        result = body.get_args()[0]
        answer = ActionResponse(result=result, serialization=body.serialization)
        response = message.create_response(answer)
        with contextlib.suppress(ExchangeError):
            if self._part.noise:
                for wrong in self._wrong(message, body):
                    await self._transport.send(wrong)
            await self._transport.send(response)
            if self._part.noise:
                await self._transport.send(message.create_response(answer))

    def _wrong(self, message: Message[Any], body: ActionRequest) -> list[Message[Any]]:
        """Return answers to nothing, and one with a label that was not asked for."""
        wrong = ActionResponse(result="wrong", serialization=body.serialization)
        src, dest = message.dest, message.src
        return [
            Message.create(src, dest, wrong, tag=uuid.uuid4()),
            Message.create(src, dest, wrong, tag=message.tag, label=uuid.uuid4()),
        ]


async def main(part: ConsumerPart) -> None:
    error = ""
    try:
        transport = await HybridExchangeTransport.new(
            namespace=part.factory.namespace,
            redis_info=part.factory.redis_info,
            mailbox_id=part.agent_id,
        )
        async with transport, standard_input() as commands:
            say("ready")
            work = asyncio.ensure_future(Consumer(part, transport).run())
            end = asyncio.ensure_future(commands.read())
            await asyncio.wait([work, end], return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
    except Exception as e:
        error = type(e).__name__
        print(f"{error}: {e}", file=sys.stderr)
    say(f"ended {error}".strip())


if __name__ == "__main__":
    asyncio.run(main(read_part()))
