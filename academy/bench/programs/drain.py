"""Program: requests are sent while the agent is away; then it comes and takes them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from academy.agent import Agent
from academy.exchange import HybridExchangeFactory
from academy.message import ActionRequest, Message
from academy.serialize import SerializationStrategy


class Absent(Agent):
    """Is registered, and takes its messages later."""


async def measure(settings: dict[str, Any]) -> list[dict[str, Any]]:
    count = settings["messages"]
    factory = HybridExchangeFactory.from_url(settings["url"], namespace=None)
    taken: list[int] = []
    complete = asyncio.Event()

    async def take(request: Any) -> None:
        taken.append(request.get_body().get_args()[0])
        if len(taken) == count:
            complete.set()

    async with await factory.create_user_client() as user:
        registration = await user.register_agent(Absent)
        agent = registration.agent_id
        begin = time.perf_counter()
        for number in range(count):
            body = ActionRequest(
                action="run",
                serialization=SerializationStrategy.PICKLE,
                pargs=(number,),
            )
            await user.send(Message.create(user.client_id, agent, body))
        sent = time.perf_counter()
        async with await factory.create_agent_client(registration, take):
            await complete.wait()
            done = time.perf_counter()
        await user.terminate(agent)
    return [
        {
            "messages": count,
            "in_order": taken == list(range(count)),
            "sent_per_s": count / (sent - begin),
            "taken_per_s": count / (done - sent),
        }
    ]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(json.load(sys.stdin)))))
