"""What type checkers make of a program that uses the public API. Checked, not run."""

from __future__ import annotations

import asyncio
from concurrent.futures import ProcessPoolExecutor
from typing import Any, assert_type

from academy.agent import Agent, AgentDescription, action, event, loop, timer
from academy.context import ActionContext
from academy.exception import AgentTerminatedError, ExchangeError
from academy.exchange import (
    AgentExchangeClient,
    AgentRegistration,
    ExchangeFactory,
    ExchangeTransport,
    HybridExchangeFactory,
    LocalExchangeFactory,
    LocalExchangeTransport,
    MailboxStatus,
    RedisExchangeFactory,
    UserExchangeClient,
)
from academy.handle import Handle, ProxyHandle
from academy.identifier import AgentId, EntityId, UserId
from academy.logging.recommended import recommended_logging
from academy.manager import Manager
from academy.message import ActionRequest, ActionResponse, Message, PingRequest
from academy.runtime import Runtime, RuntimeConfig
from academy.serialize import SerializationStrategy
from academy.state import FileState
from academy.stats import AgentStats


class Calc(Agent):
    """An agent with one of everything."""

    def __init__(self, factor: int = 1) -> None:
        super().__init__()
        self.factor = factor
        self.wake = asyncio.Event()

    async def agent_on_startup(self) -> None:
        assert_type(self.agent_id, AgentId[Calc])

    @action
    async def square(self, x: int) -> int:
        return await self.agent_run_sync(pow, x, 2)

    @action(allow_protected_name=True)
    async def ping(self) -> str:
        return "pong"

    @action(context=True)
    async def who(self, *, context: ActionContext) -> EntityId:
        return context.source_id

    @loop
    async def work(self, shutdown: asyncio.Event) -> None:
        await shutdown.wait()

    @timer(1.5)
    async def tick(self) -> None:
        self.wake.set()

    @event("wake")
    async def woken(self) -> None:
        self.agent_shutdown()


class Caller(Agent):
    def __init__(self, calc: Handle[Calc]) -> None:
        super().__init__()
        self.calc = calc

    @action
    async def twice(self, x: int) -> int:
        once: int = await self.calc.square(x)
        other = await self.agent_launch_alongside(Calc, args=(2,))
        assert_type(other, Handle[Calc])
        return once + int(await other.action("square", x))


async def call_locally(calc: Calc) -> None:
    """A decorated method keeps its type."""
    assert_type(await calc.square(3), int)
    await calc.square("x")  # type: ignore[arg-type]
    assert_type(await calc.agent_describe(), AgentDescription)


async def launch(factory: ExchangeFactory[LocalExchangeTransport]) -> None:
    manager = await Manager.from_exchange_factory(
        factory, executors=ProcessPoolExecutor(), log_config=recommended_logging()
    )
    async with manager:
        handle = await manager.launch(Calc, args=(2,), name="calc")
        assert_type(handle, Handle[Calc])
        assert_type(handle.agent_id, AgentId[Calc])
        assert_type(await manager.launch(Calc(2)), Handle[Calc])
        registration = await manager.register_agent(Calc)
        assert_type(registration, AgentRegistration[Calc])
        assert_type(manager.get_handle(registration), Handle[Calc])
        assert_type(manager.get_handle(handle.agent_id), Handle[Calc])
        async with manager.launch_batch() as batch:
            assert_type(await batch.queue(Calc, name="batched"), Handle[Calc])
        caller = await manager.launch(Caller, args=(handle,))
        assert_type(await caller.ping(timeout=1), float)
        assert_type(await handle.agent_status(), MailboxStatus)
        assert_type(await handle.agent_stats(), AgentStats)
        assert_type(manager.running(), set[AgentId[Any]])
        try:
            await manager.wait({handle, caller.agent_id}, timeout=1)
        except TimeoutError:
            await manager.shutdown(handle, blocking=True, terminate=True)
        except AgentTerminatedError as e:
            error: ExchangeError = e
            assert_type(error.args, tuple[Any, ...])


def factories() -> list[ExchangeFactory[Any]]:
    return [
        LocalExchangeFactory(),
        RedisExchangeFactory("localhost", 6379, password="secret"),
        HybridExchangeFactory("localhost", 6379, namespace=None, ports=range(9, 99)),
        HybridExchangeFactory.from_url("redis://localhost"),
    ]


async def exchange_messages(factory: LocalExchangeFactory) -> None:
    user = await factory.create_user_client(name="user")
    assert_type(user, UserExchangeClient[LocalExchangeTransport])
    assert_type(user.client_id, UserId)
    registration = await user.register_agent(Calc)

    async def handle(request: Message[Any]) -> None:
        assert_type(request.src, EntityId)

    agent = await factory.create_agent_client(registration, handle)
    assert_type(agent, AgentExchangeClient[Calc, LocalExchangeTransport])
    assert_type(agent.client_id, AgentId[Calc])
    request = Message.create(user.client_id, agent.client_id, PingRequest())
    assert_type(request, Message[PingRequest])
    assert_type(request.get_body(), PingRequest)
    body = ActionRequest(action="square", serialization=SerializationStrategy.JSON)
    assert_type(body.get_args(), tuple[Any, ...])
    result = ActionResponse(result=1, serialization=SerializationStrategy.PICKLE)
    assert_type(request.create_response(result), Message[ActionResponse])
    assert_type(await user.discover(Calc), tuple[AgentId[Any], ...])


async def run(
    factory: LocalExchangeFactory, registration: AgentRegistration[Calc]
) -> None:
    config = RuntimeConfig(terminate_on_success=False)
    assert_type(
        RuntimeConfig.model_validate_json(config.model_dump_json()), RuntimeConfig
    )

    def permits(action: str, source: EntityId) -> bool:
        return True

    async def permits_later(name: str, who: EntityId) -> bool:
        return True

    RuntimeConfig(authorize=permits)
    RuntimeConfig(authorize=permits_later, allowed_deserializers={"json"})  # type: ignore[arg-type]
    RuntimeConfig(allowed_deserializers={SerializationStrategy.JSON})
    Handle[Calc](
        registration.agent_id, allowed_deserializers={SerializationStrategy.JSON}
    )
    runtime = Runtime(
        Calc(), exchange_factory=factory, registration=registration, config=config
    )
    assert_type(runtime, Runtime[Calc])
    async with runtime:
        await runtime.wait_shutdown(timeout=1)


async def test_an_agent() -> None:
    proxy = ProxyHandle(Calc())
    assert_type(proxy, ProxyHandle[Calc])
    plain: Handle[Calc] = proxy
    await plain.square(3)


def state() -> None:
    with FileState[int]("state") as kept:
        assert_type(kept["a"], int)


def takes_any_agent(handle: Handle[Agent], calc: Handle[Calc]) -> None:
    """Handles are covariant: whoever takes any agent's takes this one's."""
    takes_any_agent(calc, calc)


def transport(local: LocalExchangeTransport) -> ExchangeTransport[Any]:
    return local
