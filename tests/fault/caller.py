"""A process that calls agents; started by the harness.

The first line of standard input is a pickled `CallerPart` in base64; when standard
input ends, no new calls are made. Calls are written to a journal for the oracle.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import sys
from pathlib import Path
from typing import Any

from academy.body import ActionRequest
from academy.exchange import UserExchangeClient
from academy.exchange.hybrid import HybridExchangeFactory
from academy.handle import Handle
from academy.identifier import AgentId
from academy.message import Message
from academy.serialize import SerializationStrategy
from tests.fault.actor import read_part, say, standard_input
from tests.fault.oracle import Journal


@dataclasses.dataclass
class CallerPart:
    """What the process plays.

    Attributes:
        factory: The exchange.
        agents: Whom to call, in turn.
        journal: Its stem is the name of the sender.
        tasks: How many calls are under way at a time.
        hold: Seconds that the action takes.
        size: Bytes of the argument, if any: then `digest` is called.
        one_way: Whether to go on as soon as a request is accepted.
        pause: Seconds between two calls of a task.
        settle: Seconds that calls have to end when standard input has ended.
    """

    factory: HybridExchangeFactory
    agents: list[AgentId[Any]]
    journal: Path
    tasks: int = 16
    hold: float = 0.0
    size: int = 0
    one_way: bool = False
    pause: float = 0.0
    settle: float = 30.0


class Caller:
    """Calls until it is told to stop."""

    def __init__(self, part: CallerPart, client: UserExchangeClient[Any]) -> None:
        self._client = client
        self._part = part
        self._journal = Journal(part.journal)
        self._numbers = itertools.count(1)
        self._payload = bytes(part.size)
        self._stopping = False
        self.begun = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        agents = self._part.agents
        handles = [Handle(agent, exchange=self._client) for agent in agents]
        loops = [
            asyncio.create_task(self._loop(handles, n)) for n in range(self._part.tasks)
        ]
        await self.begun.wait()
        say("ready")
        await stop.wait()
        self._stopping = True
        _, late = await asyncio.wait(loops, timeout=self._part.settle)
        for task in late:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        self._journal.close()

    async def _loop(self, handles: list[Handle[Any]], first: int) -> None:
        first %= len(handles)
        for handle in itertools.cycle(handles[first:] + handles[:first]):
            if self._stopping:
                return
            await self._call(handle)
            # A closed client refuses at once; others must get their turn.
            await asyncio.sleep(self._part.pause)

    async def _call(self, handle: Handle[Any]) -> None:
        self.begun.set()
        await self._journal.watch(
            next(self._numbers), lambda id: self._request(handle, id)
        )

    async def _request(self, handle: Handle[Any], id: str) -> Any:
        part = self._part
        action, argument = (
            ("digest", self._payload) if part.size else ("record", part.hold)
        )
        if not part.one_way:
            return await handle.action(action, id, argument)
        request = ActionRequest(
            action=action,
            serialization=SerializationStrategy.PICKLE,
            pargs=(id, argument),
        )
        await self._client.send(
            Message.create(self._client.client_id, handle.agent_id, request)
        )


async def main(part: CallerPart) -> None:
    error = ""
    stop = asyncio.Event()
    try:
        client = await part.factory.create_user_client()
        async with client, standard_input() as commands:
            end = asyncio.ensure_future(commands.read())
            end.add_done_callback(lambda _: stop.set())
            await Caller(part, client).run(stop)
    except Exception as e:
        error = type(e).__name__
        print(f"{error}: {e}", file=sys.stderr)
    say(f"ended {error}".strip())


if __name__ == "__main__":
    asyncio.run(main(read_part()))
