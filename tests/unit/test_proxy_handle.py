from __future__ import annotations

import pickle
from typing import Any

import pytest

from academy.agent import Agent, action
from academy.exception import AgentTerminatedError
from academy.exchange.transport import MailboxStatus
from academy.handle import Handle, ProxyHandle
from academy.identifier import UserId
from tests.unit.local_agents import Calculator


class Caller(Agent):
    def __init__(self, helper: Handle[Any]) -> None:
        self.helper = helper

    @action
    async def ask(self) -> Any:
        return await self.helper.add(1, b=2)

    @action
    async def whoami(self) -> Any:
        return await self.helper.whoami()


class Portable(Agent):
    @action
    async def one(self) -> int:
        return 1


def test_text() -> None:
    proxy = ProxyHandle(Calculator())
    assert isinstance(proxy, Handle)
    assert repr(proxy) == "ProxyHandle(agent=Calculator())"
    assert str(proxy) == "ProxyHandle<Agent<Calculator>>"


async def test_stands_in_for_a_handle() -> None:
    proxy = ProxyHandle(Calculator(offset=10))
    assert await Caller(proxy).ask() == 13
    assert await proxy.action("add", 1) == 11
    assert proxy.agent_id == proxy.agent_id


async def test_source_is_a_user_of_its_own() -> None:
    proxy = ProxyHandle(Calculator())
    source = await Caller(proxy).whoami()
    assert isinstance(source, UserId)
    assert await proxy.whoami() == source
    assert await ProxyHandle(Calculator()).whoami() != source


async def test_errors_of_actions() -> None:
    proxy = ProxyHandle(Calculator())
    with pytest.raises(ValueError, match="mine"):
        await proxy.fail("mine")
    with pytest.raises(TypeError, match="missing 1 required"):
        await proxy.add()


@pytest.mark.parametrize("name", ["ad", "offset", "agent_on_startup", "_x"])
async def test_what_is_no_action(name: str) -> None:
    proxy = ProxyHandle(Calculator())
    with pytest.raises(AttributeError):
        getattr(proxy, name)
    with pytest.raises(AttributeError):
        await proxy.action(name)


async def test_control() -> None:
    proxy = ProxyHandle(Calculator())
    assert await proxy.ping(timeout=1) == 0.0
    assert await proxy.agent_status() is MailboxStatus.ACTIVE
    await proxy.add(1)
    stats = await proxy.agent_stats()
    assert (stats.incoming, stats.completed, stats.in_progress) == (1, 1, 0)


async def test_shutdown() -> None:
    proxy = ProxyHandle(Calculator())
    await proxy.shutdown(terminate=True)
    assert await proxy.agent_status() is MailboxStatus.TERMINATED
    for call in (proxy.add(1), proxy.ping(), proxy.shutdown()):
        with pytest.raises(AgentTerminatedError):
            await call


async def test_pickles_with_its_agent() -> None:
    proxy = ProxyHandle(Portable())
    twin = pickle.loads(pickle.dumps(proxy))
    assert twin.agent_id == proxy.agent_id
    assert await twin.one() == 1


@pytest.mark.parametrize("agent", [3, Calculator, object()])
def test_needs_an_agent(agent: Any) -> None:
    with pytest.raises(TypeError, match="ProxyHandle needs an Agent instance"):
        ProxyHandle(agent)
