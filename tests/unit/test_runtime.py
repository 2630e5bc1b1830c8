from __future__ import annotations

import asyncio
import logging
import pickle
from typing import Any

import pytest

from academy import runtime as runtime_module
from academy.agent import Agent, action, loop
from academy.exception import (
    ActionCancelledError,
    AgentStartError,
    AgentTerminatedError,
    BadEntityIdError,
)
from academy.exchange.client import exchange_context
from academy.exchange.local import LocalAgentRegistration, LocalExchangeFactory
from academy.exchange.transport import MailboxStatus
from academy.handle import Handle
from academy.identifier import AgentId, UserId
from academy.runtime import Runtime, RuntimeConfig
from academy.serialize import (
    SerializationStrategy,
    allowed_deserializers,
    default_serializer,
)
from tests.unit.local_agents import (
    Calculator,
    Recorder,
    Running,
    eventually,
    prepared,
    running,
)

JSON = SerializationStrategy.JSON


async def status(one: Running) -> MailboxStatus:
    return await one.handle.agent_status()


class TestUse:
    async def test_text(self) -> None:
        async with prepared(Calculator()) as one:
            runtime = one.runtime
            assert str(runtime) == "Runtime<Calculator; AgentId<agent>>"
            assert repr(runtime) == "Runtime(Calculator(), None)"
            async with runtime:
                client = runtime.agent.agent_exchange_client
                assert repr(runtime) == f"Runtime(Calculator(), {client!r})"

    async def test_cannot_be_pickled(self) -> None:
        async with prepared(Calculator()) as one:
            with pytest.raises(pickle.PicklingError, match="Runtime holds"):
                pickle.dumps(one.runtime)

    @pytest.mark.parametrize("agent", [3, Calculator, object()])
    def test_needs_an_agent(self, agent: Any) -> None:
        registration = LocalAgentRegistration[Any](AgentId.new())
        with pytest.raises(TypeError, match="Only instances of Agent classes can run"):
            Runtime(
                agent,
                exchange_factory=LocalExchangeFactory(),
                registration=registration,
            )

    async def test_once(self) -> None:
        async with running(Calculator()) as one:
            with pytest.raises(RuntimeError, match="was used already"):
                await one.runtime.run_until_complete()
        with pytest.raises(RuntimeError, match="was used already"):
            await one.runtime.__aenter__()

    async def test_action(self) -> None:
        async with running(Calculator()) as one:
            source = UserId.new()
            call = one.runtime.action
            assert await call("add", source, args=(1,), kwargs={"b": 2}) == 3
            assert await call("whoami", source, args=(), kwargs={}) == source
            with pytest.raises(AttributeError, match="Did you mean 'add'"):
                await call("addd", source, args=(), kwargs={})

    async def test_wait_shutdown(self) -> None:
        async with running(Calculator()) as one:
            with pytest.raises(TimeoutError):
                await one.runtime.wait_shutdown(0.01)
            one.runtime.signal_shutdown()
            await one.runtime.wait_shutdown(0.01)

    async def test_unregistered_agent(self) -> None:
        runtime = Runtime(
            Calculator(),
            exchange_factory=LocalExchangeFactory(),
            registration=LocalAgentRegistration(AgentId.new()),
        )
        with pytest.raises(BadEntityIdError):
            await runtime.run_until_complete()

    async def test_terminated_agent(self) -> None:
        async with prepared(Recorder()) as one:
            await one.user.terminate(one.handle.agent_id)
            with pytest.raises(AgentTerminatedError):
                await one.runtime.run_until_complete()
            assert one.runtime.agent.steps == []

    async def test_no_port_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def create_agent_client(*args: Any, **kwargs: Any) -> Any:
            raise StopIteration

        async with prepared(Calculator()) as one:
            monkeypatch.setattr(one.factory, "create_agent_client", create_agent_client)
            with pytest.raises(AgentStartError, match="no port left"):
                await one.runtime.run_until_complete()


class TestOrder:
    async def test_steps(self) -> None:
        agent = Recorder()
        async with running(agent) as one:
            await eventually(lambda: "loop" in agent.steps)
            assert await one.handle.act() == "acted"
        assert agent.steps == [
            "startup",
            "loop",
            "act",
            "shutdown",
            "loop saw shutdown",
        ]

    async def test_requests_wait_for_the_startup(self) -> None:
        agent = Calculator()

        async def startup() -> None:
            agent.entered.set()
            await agent.release.wait()
            agent.offset = 10

        agent.agent_on_startup = startup  # type: ignore[method-assign]
        async with prepared(agent) as one:
            run = asyncio.create_task(one.runtime.run_until_complete())
            calls = [asyncio.create_task(one.handle.add(n)) for n in range(3)]
            ping = asyncio.create_task(one.handle.ping())
            await agent.entered.wait()
            for _ in range(10):
                await asyncio.sleep(0)
            assert not any(task.done() for task in [*calls, ping])
            agent.release.set()
            assert await asyncio.gather(*calls) == [10, 11, 12]
            await ping
            await one.handle.shutdown()
            await asyncio.wait_for(run, 5)

    async def test_signal_before_the_start(self) -> None:
        agent = Recorder()
        async with prepared(agent) as one:
            call = asyncio.create_task(one.handle.act())
            await asyncio.sleep(0)
            one.runtime.signal_shutdown()
            await asyncio.wait_for(one.runtime.run_until_complete(), 5)
            assert agent.steps == []
            with pytest.raises((ActionCancelledError, AgentTerminatedError)):
                await asyncio.wait_for(call, 5)
            assert await status(one) is MailboxStatus.TERMINATED

    async def test_shutdown_requested_in_the_startup(self) -> None:
        class Brief(Recorder):
            async def agent_on_startup(self) -> None:
                self.agent_shutdown()

        agent = Brief()
        async with prepared(agent) as one:
            await asyncio.wait_for(one.runtime.run_until_complete(), 5)
        assert agent.steps == ["shutdown"]

    async def test_startup_that_outlasts_the_shutdown_request(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(runtime_module, "STARTUP_GRACE", 0.01)
        agent = Recorder(hang="startup")
        async with prepared(agent) as one:
            run = asyncio.create_task(one.runtime.run_until_complete())
            await agent.entered.wait()
            await one.handle.shutdown()
            await asyncio.wait_for(run, 5)
            assert await status(one) is MailboxStatus.TERMINATED
        assert agent.steps == ["startup"]
        assert "agent_on_startup was cancelled" in caplog.text

    async def test_first_signal_counts(self) -> None:
        async with prepared(Calculator()) as one:
            async with one.runtime as runtime:
                runtime.signal_shutdown(terminate=False)
                runtime.signal_shutdown(expected=False, terminate=True)
            assert await status(one) is MailboxStatus.INACTIVE

    async def test_restart_on_the_same_mailbox(self) -> None:
        agent = Calculator()
        async with prepared(agent, RuntimeConfig(terminate_on_success=False)) as one:
            async with one.runtime:
                assert await one.handle.add(1) == 1
            waiting = asyncio.create_task(one.handle.add(2))
            again = Runtime(
                agent,
                exchange_factory=one.factory,
                registration=one.runtime.registration,
            )
            async with again:
                assert await waiting == 2


class TestContext:
    async def test_variables_are_set_and_restored(self) -> None:
        class Curious(Agent):
            seen: Any = ()

            def look(self) -> tuple[Any, ...]:
                return (
                    exchange_context.get(),
                    default_serializer.get(),
                    allowed_deserializers.get(),
                )

            async def agent_on_startup(self) -> None:
                self.in_startup = self.look()

            @loop
            async def work(self, shutdown: asyncio.Event) -> None:
                self.in_loop = self.look()

            @action
            async def act(self) -> None:
                self.in_action = self.look()

        agent = Curious()
        config = RuntimeConfig(default_serializer=JSON, allowed_deserializers={JSON})
        before = (default_serializer.get(), allowed_deserializers.get())
        async with running(agent, config) as one:
            await one.new_handle(request_serializer=JSON).act()
            await eventually(lambda: hasattr(agent, "in_loop"))
            expected = (agent.agent_exchange_client, JSON, {JSON})
            assert agent.look() == expected
        assert agent.in_startup == agent.in_loop == agent.in_action == expected
        assert (default_serializer.get(), allowed_deserializers.get()) == before
        assert exchange_context.get(None) is None

    async def test_leaving_in_another_task(self) -> None:
        async with prepared(Calculator()) as one:
            await asyncio.create_task(one.runtime.__aenter__())
            await asyncio.create_task(one.runtime.__aexit__(None, None, None))
            assert exchange_context.get(None) is None
            assert await status(one) is MailboxStatus.TERMINATED

    async def test_handles_in_attributes_use_the_client_of_the_agent(self) -> None:
        class Holder(Agent):
            def __init__(self, *handles: Any) -> None:
                self.one = handles[0]
                self.listed = [handles[1]]
                self.mapped = {"x": handles[2]}

            @action
            async def sources(self) -> list[Any]:
                handles = [self.one, *self.listed, *self.mapped.values()]
                return [await handle.whoami() for handle in handles]

        async with running(Calculator()) as one:
            handles = [Handle[Any](one.runtime.agent_id) for _ in range(3)]
            registration = await one.user.register_agent(Holder)
            async with Runtime(
                Holder(*handles),
                exchange_factory=one.factory,
                registration=registration,
            ):
                holder = Handle[Any](registration.agent_id, exchange=one.user)
                assert await holder.sources() == [registration.agent_id] * 3


async def test_life_is_logged_without_what_is_carried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "academy")
    async with running(Calculator()) as one:
        await one.handle.add(123456789)
        with pytest.raises(ValueError, match="secret"):
            await one.handle.fail("secret")
    assert "Runtime<Calculator; AgentId<agent>> runs" in caplog.text
    assert "Runtime<Calculator; AgentId<agent>> ended" in caplog.text
    assert "123456789" not in caplog.text
    assert "secret" not in caplog.text
