from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from academy.agent import Agent, action
from academy.context import ActionContext, AgentContext
from academy.handle import Handle
from academy.identifier import AgentId, UserId
from academy.runtime import Runtime
from tests.unit.local_agents import Calculator, running


def test_user_as_source() -> None:
    user = UserId.new(name="u")
    context = ActionContext(user, None)
    assert context.source_id is user
    assert context.is_user_source()
    assert not context.is_agent_source()
    with pytest.raises(TypeError, match="UserId<u>, which is a user"):
        _ = context.source_handle
    assert repr(context) == f"ActionContext(source_id={user!r})"


def test_agent_as_source() -> None:
    agent = AgentId[Any].new()
    context = ActionContext(agent, None)
    assert context.is_agent_source()
    assert not context.is_user_source()
    assert context.source_handle.agent_id == agent


async def test_an_action_calls_its_caller_back() -> None:
    class Server(Agent):
        @action(context=True)
        async def relay(self, *, context: ActionContext) -> int:
            result: int = await context.source_handle.add(20, 2)
            return result

    class Client(Calculator):
        def __init__(self, server: Handle[Server]) -> None:
            super().__init__()
            self.server = server

        @action
        async def ask(self) -> Any:
            return await self.server.relay()

    async with running(Server()) as server:
        user = server.user
        registration = await user.register_agent(Client)
        async with Runtime(
            Client(Handle(server.runtime.agent_id)),
            exchange_factory=server.factory,
            registration=registration,
        ):
            client: Handle[Client] = Handle(registration.agent_id, exchange=user)
            async with asyncio.timeout(5):
                assert await client.ask() == 22


def test_agent_context_is_a_value() -> None:
    client: Any = None
    with ThreadPoolExecutor(1) as executor:
        parts = (AgentId[Any].new(), client, executor, asyncio.Event())
        context = AgentContext(*parts)
        assert context == AgentContext(*parts)
        assert hash(context) == hash(AgentContext(*parts))
        assert context.launch is None
        assert "sync_calls" not in repr(context)
