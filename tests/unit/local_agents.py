"""Agents that run on a local exchange, for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from academy.agent import Agent, action, loop
from academy.context import ActionContext
from academy.exchange.client import UserExchangeClient
from academy.exchange.local import LocalExchangeFactory
from academy.handle import Handle
from academy.runtime import Runtime, RuntimeConfig


class Calculator(Agent):
    """Calculates."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled: list[str] = []

    @action
    async def add(self, a: int, b: int = 0) -> int:
        """Return a sum."""
        return a + b + self.offset

    @action(context=True)
    async def whoami(self, *, context: ActionContext) -> Any:
        """Return who calls."""
        return context.source_id

    @action
    async def fail(self, text: str = "no") -> None:
        raise ValueError(text)

    @action
    async def give(self, name: str) -> Any:
        """Return an attribute."""
        return getattr(self, name)

    @action
    async def hold(self, name: str = "") -> str:
        """Wait until the test releases it."""
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        return name


class Recorder(Agent):
    """Records the steps of its life; a step fails or hangs when told so."""

    def __init__(self, fail: str = "", hang: str = "") -> None:
        self.fail = fail
        self.hang = hang
        self.steps: list[str] = []
        self.entered = asyncio.Event()

    async def step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.hang:
            self.entered.set()
            await asyncio.Event().wait()
        if name == self.fail:
            raise ValueError(f"{name} failed")

    async def agent_on_startup(self) -> None:
        await self.step("startup")

    async def agent_on_shutdown(self) -> None:
        await self.step("shutdown")

    @loop
    async def work(self, shutdown: asyncio.Event) -> None:
        await self.step("loop")
        await shutdown.wait()
        self.steps.append("loop saw shutdown")

    @action
    async def act(self) -> str:
        await self.step("act")
        return "acted"


@dataclass
class Running:
    """An agent that runs, with a user and a handle of that user."""

    runtime: Runtime[Any]
    user: UserExchangeClient[Any]
    factory: LocalExchangeFactory
    handle: Handle[Any]

    def new_handle(self, **options: Any) -> Handle[Any]:
        """Return another handle of the user."""
        return Handle(
            self.runtime.agent_id, exchange=self.user, ignore_context=True, **options
        )


@contextlib.asynccontextmanager
async def prepared(
    agent: Agent, config: RuntimeConfig | None = None
) -> AsyncGenerator[Running]:
    """Register an agent and make a runtime for it, which the test enters itself."""
    factory = LocalExchangeFactory()
    user = await factory.create_user_client()
    try:
        registration = await user.register_agent(type(agent), name="agent")
        runtime = Runtime(
            agent, exchange_factory=factory, registration=registration, config=config
        )
        handle: Handle[Any] = Handle(
            registration.agent_id, exchange=user, ignore_context=True
        )
        yield Running(runtime, user, factory, handle)
    finally:
        await user.close()


@contextlib.asynccontextmanager
async def running(
    agent: Agent, config: RuntimeConfig | None = None
) -> AsyncGenerator[Running]:
    """Run an agent."""
    async with prepared(agent, config) as one, one.runtime:
        yield one


async def eventually(condition: Callable[[], object]) -> None:
    """Let other tasks and threads run until a condition holds, 10 s at most."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - not everything has an event
            await asyncio.sleep(0)


class Marker:
    """Notes when it is read."""

    read: list[str] = []  # noqa: RUF012

    def __reduce__(self) -> Any:
        return Marker.note, ()

    @staticmethod
    def note() -> None:
        Marker.read.append("read")
