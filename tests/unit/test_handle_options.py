from __future__ import annotations

import asyncio
import contextlib
import pickle
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from academy.agent import Agent, action
from academy.exception import (
    AgentInactiveError,
    AgentTerminatedError,
    BadEntityIdError,
    PeerLostError,
)
from academy.exchange.local import LocalExchangeTransport
from academy.exchange.transport import MailboxStatus
from academy.handle import Handle, ProxyHandle
from academy.identifier import AgentId
from academy.message import ActionRequest
from academy.serialize import SerializationStrategy
from academy.trace import traceparent
from tests.unit.local_agents import Calculator, Running, eventually, prepared, running

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Store(Agent):
    """An agent with an action that may run twice."""

    def __init__(self) -> None:
        self.stored: list[str] = []

    @action(idempotent=True)
    async def put(self, what: str) -> str:
        self.stored.append(what)
        return what

    @action
    async def append(self, what: str) -> None:
        self.stored.append(what)


class Deputy(Agent):
    """An agent that asks another one."""

    def __init__(self, other: Handle[Any]) -> None:
        self.other = other

    @action
    async def ask(self, name: str) -> Any:
        return await self.other.action(name)


class Tracer(Agent):
    @action
    async def trace(self) -> str | None:
        return traceparent.get()


@contextlib.asynccontextmanager
async def dead(agent: Agent) -> AsyncIterator[Running]:
    """An agent whose first process takes a request and dies of it."""
    async with prepared(agent) as one:

        async def die(message: Any) -> None:
            mailbox = one.user._transport._state.mailboxes[one.handle.agent_id]
            await mailbox.owner.close()

        registration = one.runtime.registration
        client = await one.factory.create_agent_client(registration, die)
        yield one
        await client.close()


class TestHandle:
    def test_same_agent_same_way(self) -> None:
        json = SerializationStrategy.JSON
        handle: Handle[Any] = Handle(
            AgentId.new(), request_serializer=json, polling_interval=3
        )
        quick = handle.options(timeout=3)
        assert type(quick) is Handle
        assert quick.agent_id == handle.agent_id
        assert quick.request_serializer is json
        assert quick.polling_interval == 3
        assert repr(quick) == repr(handle)

    async def test_same_client(self) -> None:
        async with prepared(Calculator()) as one:
            assert one.handle.options(timeout=3).exchange is one.user
            assert one.handle.options(timeout=3).ignore_context

    def test_leaves_the_handle_as_it_is(self) -> None:
        handle: Handle[Any] = Handle(AgentId.new())
        before = dict(handle.__dict__)
        handle.options(timeout=3, retry=True, offline="fail")
        assert handle.__dict__ == before

    def test_composes(self) -> None:
        handle: Handle[Any] = Handle(AgentId.new())
        options = handle.options(timeout=3, retry=True).options(offline="fail")._options
        assert (options.timeout, options.retry, options.offline) == (3, True, "fail")
        options = handle.options(timeout=3).options(timeout=None)._options
        assert options.timeout is None

    def test_pickles(self) -> None:
        handle: Handle[Any] = Handle(AgentId.new())
        quick = handle.options(timeout=3, offline="fail")
        twin = pickle.loads(pickle.dumps(quick))
        assert twin.agent_id == quick.agent_id
        assert twin._options == quick._options

    def test_bad_values(self) -> None:
        handle: Handle[Any] = Handle(AgentId.new())
        with pytest.raises(ValueError, match="timeout"):
            handle.options(timeout=-1)
        with pytest.raises(ValueError, match="offline"):
            handle.options(offline="wait")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="retry"):
            handle.options(retry="yes")  # type: ignore[arg-type]

    def test_needs_an_agent(self) -> None:
        with pytest.raises(RuntimeError, match="not bound to an agent yet"):
            Handle().options(timeout=3)

    def test_is_cheap(self) -> None:
        handle: Handle[Any] = Handle(AgentId.new())
        start = time.perf_counter()
        for _ in range(1000):
            handle.options(timeout=3)
        assert time.perf_counter() - start < 0.5


class TestTimeout:
    async def test_cancels_the_action(self) -> None:
        agent = Calculator()
        async with running(agent) as one:
            with pytest.raises(TimeoutError, match=r"'hold' within 0.02 s"):
                await one.handle.options(timeout=0.02).hold("slow")
            await eventually(lambda: agent.cancelled == ["slow"])

    async def test_agent_that_starts_too_late_does_not_begin(self) -> None:
        agent = Store()
        async with prepared(agent) as one:
            with pytest.raises(TimeoutError):
                await one.handle.options(timeout=0.01).put("late")
            async with one.runtime:
                await one.handle.put("later")
                assert agent.stored == ["later"]

    async def test_enough_time(self) -> None:
        async with running(Calculator()) as one:
            assert await one.handle.options(timeout=10).add(1, 2) == 3

    async def test_what_an_action_calls_does_not_inherit_it(
        self, monkeypatch: Any
    ) -> None:
        deadlines: dict[str, float | None] = {}
        send = LocalExchangeTransport.send

        async def watched(self: Any, message: Any) -> None:
            body = message.get_body()
            if isinstance(body, ActionRequest):
                deadlines[body.action] = message.header.deadline
            await send(self, message)

        monkeypatch.setattr(LocalExchangeTransport, "send", watched)
        async with running(Tracer()) as one, running(Deputy(one.handle)) as deputy:
            await deputy.handle.options(timeout=10).ask("trace")
        assert deadlines["ask"] is not None
        assert deadlines["trace"] is None


class TestNetwork:
    """The exchange hangs: nothing that is sent gets anywhere."""

    @pytest.fixture
    async def stuck(self, monkeypatch: Any) -> AsyncIterator[Running]:
        black_hole = asyncio.Event()

        async def send(self: Any, message: Any) -> None:
            await black_hole.wait()

        async with prepared(Calculator()) as one:
            with monkeypatch.context() as patch:
                patch.setattr(LocalExchangeTransport, "send", send)
                yield one
                black_hole.set()

    async def test_wait_for_returns_on_time(self, stuck: Running) -> None:
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stuck.handle.add(1), 0.05)
        assert time.monotonic() - start < 1

    @pytest.mark.parametrize("retry", [True, False])
    async def test_timeout_is_on_time(self, stuck: Running, retry: bool) -> None:
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            await stuck.handle.options(timeout=0.05, retry=retry).add(1)
        assert time.monotonic() - start < 1

    async def test_status_that_cannot_be_had(
        self, stuck: Running, monkeypatch: Any
    ) -> None:
        async def status(self: Any, uid: Any) -> MailboxStatus:
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(LocalExchangeTransport, "status", status)
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            await stuck.handle.options(timeout=0.05, offline="fail").add(1)
        assert time.monotonic() - start < 1


class TestRetry:
    async def test_without(self) -> None:
        async with dead(Store()) as one:
            with pytest.raises(PeerLostError):
                await one.handle.append("x")

    async def test_waits_for_the_next_run(self) -> None:
        agent = Store()
        async with dead(agent) as one:
            task = asyncio.create_task(one.handle.options(retry=True).put("x"))
            await eventually(lambda: is_inactive(one))
            async with one.runtime:
                assert await asyncio.wait_for(task, 10) == "x"
        assert agent.stored == ["x"]

    async def test_termination_is_final(self) -> None:
        async with dead(Store()) as one:
            task = asyncio.create_task(one.handle.options(retry=True).put("x"))
            await eventually(lambda: is_inactive(one))
            await one.user.terminate(one.handle.agent_id)
            with pytest.raises(AgentTerminatedError):
                await asyncio.wait_for(task, 10)


def is_inactive(one: Running) -> bool:
    return one.user._transport._state.mailboxes[one.handle.agent_id].owner is None


class TestIdempotent:
    @pytest.mark.parametrize("how", ["argument", "alias", "pickled"])
    async def test_known_by_the_class(self, how: str) -> None:
        async with dead(Store()) as one:
            handle = known(one, how)
            assert handle._retries("put")
            assert not handle._retries("append")
            assert not handle._retries("nothing")
            assert not handle.options(retry=False)._retries("put")
            task = asyncio.create_task(handle.put("x"))
            await eventually(lambda: is_inactive(one))
            async with one.runtime:
                assert await asyncio.wait_for(task, 10) == "x"

    async def test_others_of_the_agent_are_not(self) -> None:
        async with dead(Store()) as one:
            with pytest.raises(PeerLostError):
                await known(one, "argument").append("x")

    def test_class_that_is_not_known(self) -> None:
        for handle in (Handle[Any](AgentId.new()), Handle(AgentId.new())):
            assert not handle._retries("put")

    def test_pickles_carry_names_and_not_the_class(self) -> None:
        class Here(Agent):
            """It cannot be imported anywhere else."""

            @action(idempotent=True)
            async def put(self) -> None: ...

        for handle in (
            Handle(AgentId.new(), agent_class=Here),
            Handle[Here](AgentId.new()),
        ):
            twin = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(handle))))
            assert twin._retries("put")
            assert not twin._retries("agent_describe")

    async def test_launched_alongside(self) -> None:
        class Parent(Agent):
            @action
            async def launch(self) -> bool:
                child = await self.agent_launch_alongside(Store)
                return child._retries("put")

        async with running(Parent()) as one:
            assert await one.handle.launch()


def known(one: Running, how: str) -> Handle[Any]:
    options: dict[str, Any] = {"exchange": one.user}
    if how == "alias":
        return Handle[Store](one.handle.agent_id, **options)
    handle: Handle[Any] = Handle(one.handle.agent_id, agent_class=Store, **options)
    if how == "pickled":
        handle = pickle.loads(pickle.dumps(handle))
        handle._exchange = one.user
    return handle


class TestOffline:
    @pytest.mark.parametrize("name", ["add", "ping"])
    async def test_fails_at_once(self, name: str) -> None:
        async with prepared(Calculator()) as one:
            quick = one.handle.options(offline="fail")
            with pytest.raises(AgentInactiveError):
                await getattr(quick, name)()
            assert (await one.handle.agent_stats()).queued == 0

    async def test_running(self) -> None:
        async with running(Calculator()) as one:
            assert await one.handle.options(offline="fail").add(1) == 1

    async def test_terminated_and_unknown(self) -> None:
        async with prepared(Calculator()) as one:
            await one.user.terminate(one.handle.agent_id)
            with pytest.raises(AgentTerminatedError):
                await one.handle.options(offline="fail").add(1)
            stranger: Handle[Any] = Handle(AgentId.new(), exchange=one.user)
            with pytest.raises(BadEntityIdError):
                await stranger.options(offline="fail").add(1)

    async def test_queued_by_default(self, monkeypatch: Any) -> None:
        async def status(self: Any, uid: Any) -> MailboxStatus:
            raise AssertionError("nobody asked for it")

        monkeypatch.setattr(LocalExchangeTransport, "status", status)
        async with prepared(Calculator()) as one:
            task = asyncio.create_task(one.handle.add(1))
            async with one.runtime:
                assert await task == 1

    async def test_asked_at_the_call_only(self) -> None:
        agent = Store()
        async with dead(agent) as one:
            handle = one.handle.options(offline="fail", retry=True)
            task = asyncio.create_task(handle.put("x"))
            await eventually(lambda: is_inactive(one))
            async with one.runtime:
                assert await asyncio.wait_for(task, 10) == "x"


class TestTrace:
    async def test_reaches_the_action_and_goes_on(self) -> None:
        async with running(Tracer()) as one, running(Deputy(one.handle)) as deputy:
            assert await deputy.handle.ask("trace") is None
            token = traceparent.set(PARENT)
            try:
                assert await deputy.handle.ask("trace") == PARENT
            finally:
                traceparent.reset(token)
            assert await one.handle.trace() is None

    async def test_of_who_started_the_agent_is_none_of_its_callers(self) -> None:
        token = traceparent.set(PARENT)
        async with prepared(Tracer()) as one, one.runtime:
            traceparent.reset(token)
            assert await one.handle.trace() is None


class TestProxy:
    async def test_shares_its_life(self) -> None:
        proxy = ProxyHandle(Calculator())
        quick = proxy.options(timeout=10, retry=True, offline="fail")
        assert type(quick) is ProxyHandle
        assert await quick.add(1, 2) == 3
        assert (await proxy.agent_stats()).completed == 1
        await quick.shutdown()
        with pytest.raises(AgentTerminatedError):
            await proxy.add(1)

    async def test_timeout(self) -> None:
        agent = Calculator()
        with pytest.raises(TimeoutError):
            await ProxyHandle(agent).options(timeout=0.01).hold("slow")
        assert agent.cancelled == ["slow"]
