from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from academy.agent import Agent, action
from academy.authorization import authorization
from academy.exception import (
    ActionCancelledError,
    ExchangeError,
    ForbiddenError,
    UnauthorizedActionError,
)
from academy.handle import Handle
from academy.identifier import EntityId
from academy.message import Message, ShutdownRequest, SuccessResponse
from academy.runtime import RuntimeConfig
from academy.serialize import SerializationStrategy
from tests.unit.local_agents import Calculator, Marker, Running, eventually, running

JSON, PICKLE = SerializationStrategy.JSON, SerializationStrategy.PICKLE


def all_but(*names: str) -> Callable[[str, EntityId], bool]:
    return lambda action, source: action not in names


def async_all_but(*names: str) -> Callable[[str, EntityId], Any]:
    async def permits(action: str, source: EntityId) -> bool:
        await asyncio.sleep(0)
        return action not in names

    return permits


class Parent(Agent):
    """Launches agents alongside."""

    @action
    async def launch(self) -> Handle[Calculator]:
        return await self.agent_launch_alongside(Calculator)


def config(hook: Any, **options: Any) -> RuntimeConfig:
    return RuntimeConfig(authorize=hook, **options)


async def ask(one: Running, body: Any) -> Any:
    message = Message.create(one.user.client_id, one.runtime.agent_id, body)
    return (await one.user.request(message)).get_body()


def test_no_hook_asks_nobody() -> None:
    assert authorization("a", RuntimeConfig()) is None


@pytest.mark.parametrize("hook", [all_but("add"), async_all_but("add")])
@pytest.mark.parametrize("strategy", [JSON, PICKLE])
async def test_refused(hook: Any, strategy: SerializationStrategy) -> None:
    agent = Calculator()
    async with running(agent, config(hook)) as one:
        handle = one.new_handle(request_serializer=strategy)
        with pytest.raises(UnauthorizedActionError, match="'add'") as caught:
            await handle.add(1)
        assert caught.value.uid == one.runtime.agent_id
        assert (caught.value.action, caught.value.executed) == ("add", "no")
        assert isinstance(caught.value, (ForbiddenError, ExchangeError))
        agent.release.set()
        assert await handle.hold("x") == "x"


def test_the_error_survives_a_pickle() -> None:
    async def run() -> None:
        async with running(Calculator(), config(all_but("add"))) as one:
            await one.handle.add(1)

    with pytest.raises(UnauthorizedActionError) as caught:
        asyncio.run(run())
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.uid, copy.action) == (caught.value.uid, "add")
    assert str(copy) == str(caught.value)


async def test_the_hook_knows_who_asks_for_what() -> None:
    asked: list[tuple[str, EntityId]] = []

    def hook(action: str, source: EntityId) -> bool:
        asked.append((action, source))
        return True

    async with running(Calculator(), config(hook)) as one:
        assert await one.handle.add(1, b=2) == 3
        assert asked == [("add", one.user.client_id)]


async def test_arguments_of_a_refused_call_stay_undecoded() -> None:
    Marker.read.clear()
    async with running(Calculator(), config(all_but("add"))) as one:
        with pytest.raises(UnauthorizedActionError):
            await one.handle.add(Marker())
        assert Marker.read == []
        with pytest.raises(TypeError):
            await one.handle.hold(Marker(), 1)
        assert Marker.read == ["read"]


@pytest.mark.parametrize("answer", [None, 0, ""])
async def test_only_a_yes_permits(answer: Any) -> None:
    async with running(Calculator(), config(lambda action, source: answer)) as one:
        with pytest.raises(UnauthorizedActionError):
            await one.handle.add(1)


async def test_a_hook_that_fails_refuses_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def hook(action: str, source: EntityId) -> bool:
        raise KeyError("no such user")

    async with running(Calculator(), config(hook)) as one:
        with pytest.raises(UnauthorizedActionError):
            await one.handle.add(1)
    assert "the authorize hook failed for action 'add'" in caplog.text
    assert "no such user" in caplog.text


async def test_refusals_cannot_flood_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with running(Calculator(), config(all_but("add"))) as one:
        for _ in range(20):
            with pytest.raises(UnauthorizedActionError):
                await one.handle.add(1)
    assert caplog.text.count("is not permitted") == 5  # 1, 2, 4, 8, 16


async def test_unknown_actions_are_asked_about_too() -> None:
    """A caller that may nothing does not learn what there is."""
    async with running(Calculator(), config(all_but("nothing"))) as one:
        with pytest.raises(UnauthorizedActionError):
            await one.handle.action("nothing")
        with pytest.raises(AttributeError):
            await one.handle.action("something")


async def test_pings_need_no_permission() -> None:
    async with running(Calculator(), config(lambda action, source: False)) as one:
        assert await one.handle.ping(timeout=5) >= 0


async def test_shutdown_is_asked_about() -> None:
    async with running(Calculator(), config(all_but("shutdown"))) as one:
        refused = await ask(one, ShutdownRequest())
        error = refused.get_exception()
        assert isinstance(error, UnauthorizedActionError)
        assert error.action == "shutdown"
        await one.handle.shutdown()
        assert await one.handle.add(1) == 1
        assert not one.runtime._shutdown_event.is_set()


async def test_a_permitted_shutdown() -> None:
    hook = async_all_but("add")
    async with running(Calculator(), config(hook)) as one:
        assert isinstance(await ask(one, ShutdownRequest()), SuccessResponse)
        await asyncio.wait_for(one.runtime.wait_shutdown(), 5)


async def test_a_call_can_be_cancelled_while_the_hook_thinks() -> None:
    entered, agent = asyncio.Event(), Calculator()

    async def hook(action: str, source: EntityId) -> bool:
        entered.set()
        await asyncio.Event().wait()
        return True

    async with running(agent, config(hook)) as one:
        call = asyncio.create_task(one.handle.hold("x"))
        await entered.wait()
        call.cancel()
        await eventually(lambda: not one.runtime._dispatcher._running)
        with pytest.raises(asyncio.CancelledError):
            await call
    assert not agent.entered.is_set()


async def test_the_agent_can_end_while_the_hook_thinks() -> None:
    entered = asyncio.Event()

    async def hook(action: str, source: EntityId) -> bool:
        entered.set()
        await asyncio.Event().wait()
        return True

    async with running(Calculator(), config(hook)) as one:
        call = asyncio.create_task(one.handle.add(1))
        await entered.wait()
        one.runtime.signal_shutdown()
    with pytest.raises(ActionCancelledError):
        await call


async def test_cancelling_needs_no_permission() -> None:
    agent = Calculator()
    async with running(agent, config(all_but("cancel"))) as one:
        call = asyncio.create_task(one.handle.hold("mine"))
        await agent.entered.wait()
        call.cancel()
        await eventually(lambda: agent.cancelled == ["mine"])


async def test_agents_launched_alongside_have_the_same_hook() -> None:
    async with running(Parent(), config(all_but("add"))) as one:
        child = await one.handle.launch()
        copy = Handle(child.agent_id, exchange=one.user, ignore_context=True)
        with pytest.raises(UnauthorizedActionError) as caught:
            await copy.add(1)
        assert caught.value.uid == child.agent_id


async def test_a_hook_cannot_end_the_process() -> None:
    def hook(action: str, source: EntityId) -> bool:
        raise SystemExit(3)

    async with running(Calculator(), config(hook)) as one:
        with pytest.raises(UnauthorizedActionError):
            await asyncio.wait_for(one.handle.add(1), 5)
