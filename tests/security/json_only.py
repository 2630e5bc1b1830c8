"""A process of a system that talks in JSON only; started by `test_json_only`.

Whatever unpickles anything in it is noted and fails. Standard input gives, as JSON,
what the process plays; it writes JSON lines.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any, NoReturn

unpickled: list[str] = []


def refuse(*args: Any, **kwargs: Any) -> NoReturn:
    unpickled.append(repr(args)[:80])
    raise AssertionError("something was unpickled")


def no_class(event: str, args: tuple[Any, ...]) -> None:
    if event == "pickle.find_class":
        unpickled.append(repr(args))


# Before anything else is imported, for that may keep the originals.
sys.addaudithook(no_class)
pickle.loads = pickle.load = refuse
pickle.Unpickler = refuse  # type: ignore[misc,assignment]

import asyncio  # noqa: E402
import json  # noqa: E402
from collections.abc import Awaitable  # noqa: E402

from academy.agent import Agent, action  # noqa: E402
from academy.exchange.hybrid import (  # noqa: E402
    HybridAgentRegistration,
    HybridExchangeFactory,
)
from academy.handle import Handle  # noqa: E402
from academy.identifier import AgentId, EntityId  # noqa: E402
from academy.runtime import Runtime, RuntimeConfig  # noqa: E402
from academy.serialize import SerializationStrategy  # noqa: E402

JSON = SerializationStrategy.JSON
PICKLE = SerializationStrategy.PICKLE


class Clerk(Agent):
    """Does what can go right and wrong."""

    @action
    async def add(self, a: int, b: int) -> int:
        return a + b

    @action
    async def fail(self, text: str) -> None:
        raise KeyError(text)

    @action
    async def tuple(self) -> Any:
        return {"pair": [1, "two", None]}

    @action
    async def strange(self) -> Any:
        return object()

    @action
    async def forbidden(self) -> None:
        raise AssertionError("it ran")


def permits(action: str, source: EntityId) -> bool:
    return action != "forbidden"


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def outcome(work: Awaitable[Any]) -> Any:
    try:
        return await asyncio.wait_for(work, 20)
    except Exception as e:
        return [type(e).__name__, str(e)]


async def serve(factory: HybridExchangeFactory, agent: AgentId[Any]) -> None:
    config = RuntimeConfig(
        allowed_deserializers={JSON}, authorize=permits, terminate_on_success=False
    )
    registration: Any = HybridAgentRegistration(agent)
    runtime = Runtime(
        Clerk(), exchange_factory=factory, registration=registration, config=config
    )
    async with runtime:
        say(ready=True)
        await asyncio.to_thread(sys.stdin.read)
        runtime.signal_shutdown()


async def call(factory: HybridExchangeFactory, agent: AgentId[Any]) -> None:
    async with await factory.create_user_client() as user:
        plain: Handle[Any] = Handle(
            agent,
            exchange=user,
            request_serializer=JSON,
            allowed_deserializers={JSON},
        )
        rude: Handle[Any] = Handle(
            agent,
            exchange=user,
            request_serializer=PICKLE,
            allowed_deserializers=[JSON],
        )
        greedy: Handle[Any] = Handle(
            agent,
            exchange=user,
            request_serializer=JSON,
            result_serializer=PICKLE,
        )
        await plain.ping(timeout=20)
        say(
            add=await outcome(plain.add(1, b=2)),
            tuple=await outcome(plain.tuple()),
            fail=await outcome(plain.fail("no key")),
            strange=await outcome(plain.strange()),
            missing=await outcome(plain.nothing()),
            arguments=await outcome(plain.add(1)),
            forbidden=await outcome(plain.forbidden()),
            rude=await outcome(rude.add(1, 2)),
            greedy=await outcome(greedy.add(1, 2)),
            last=await outcome(plain.add(3, 4)),
        )


async def main() -> None:
    part = json.loads(sys.stdin.readline())
    factory = HybridExchangeFactory.from_url(
        part["url"], namespace=part["namespace"], direct=part["direct"]
    )
    agent = AgentId[Any].model_validate_json(part["agent"])
    await (serve if part["role"] == "agent" else call)(factory, agent)
    say(unpickled=unpickled)


if __name__ == "__main__":
    asyncio.run(main())
