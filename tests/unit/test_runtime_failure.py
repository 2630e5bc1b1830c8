"""How agents end when something goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from academy import runtime as runtime_module
from academy.agent import Agent, loop, timer
from academy.exception import (
    ActionCancelledError,
    AgentTerminatedError,
    FencedError,
    PingCancelledError,
)
from academy.exchange.transport import MailboxStatus
from academy.runtime import Runtime, RuntimeConfig
from academy.serialize import (
    SerializationStrategy,
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


class TestFailure:
    @pytest.mark.parametrize("terminate", [True, False])
    async def test_startup(self, terminate: bool) -> None:
        agent = Recorder(fail="startup")
        config = RuntimeConfig(terminate_on_error=terminate)
        async with prepared(agent, config) as one:
            calls = [
                asyncio.create_task(one.handle.act()),
                asyncio.create_task(one.handle.ping()),
            ]
            await asyncio.sleep(0)
            with pytest.raises(ValueError, match="startup failed"):
                await one.runtime.run_until_complete()
            if terminate:
                errors = await asyncio.wait_for(
                    asyncio.gather(*calls, return_exceptions=True), 5
                )
                assert all(isinstance(e, AgentTerminatedError) for e in errors)
                assert all("ValueError: startup failed" in str(e) for e in errors)
                assert await status(one) is MailboxStatus.TERMINATED
                with pytest.raises(AgentTerminatedError, match="startup failed"):
                    await one.handle.act()
            else:
                # They were not taken, so they wait for another run.
                assert await status(one) is MailboxStatus.INACTIVE
                assert (await one.handle.agent_stats()).queued == 2
                assert not any(task.done() for task in calls)
        await asyncio.gather(*calls, return_exceptions=True)
        assert agent.steps == ["startup"]

    async def test_requests_that_came_during_a_failing_startup(self) -> None:
        agent = Calculator()

        async def startup() -> None:
            agent.entered.set()
            await agent.release.wait()
            raise ValueError("no disk")

        agent.agent_on_startup = startup  # type: ignore[method-assign]
        config = RuntimeConfig(terminate_on_error=False)
        async with prepared(agent, config) as one:
            run = asyncio.create_task(one.runtime.run_until_complete())
            await agent.entered.wait()
            call = asyncio.create_task(one.handle.add(1))
            ping = asyncio.create_task(one.handle.ping())
            ledger = one.factory._state.mailboxes[one.handle.agent_id].ledger
            await eventually(lambda: ledger.incoming == 2)
            agent.release.set()
            with pytest.raises(ValueError, match="no disk"):
                await run
            with pytest.raises(ActionCancelledError):
                await call
            with pytest.raises(PingCancelledError):
                await ping

    async def test_startup_that_exits(self) -> None:
        class Exiting(Agent):
            async def agent_on_startup(self) -> None:
                raise SystemExit(3)

        config = RuntimeConfig(terminate_on_success=False)
        async with prepared(Exiting(), config) as one:
            with pytest.raises(SystemExit):
                await one.runtime.__aenter__()
            assert await status(one) is MailboxStatus.TERMINATED

    async def test_startup_that_times_out_by_itself(self) -> None:
        class Slow(Agent):
            async def agent_on_startup(self) -> None:
                raise TimeoutError("own")

        async with prepared(Slow()) as one:
            with pytest.raises(TimeoutError, match="own"):
                await one.runtime.run_until_complete()

    async def test_shutdown_callback(self, caplog: pytest.LogCaptureFixture) -> None:
        agent = Recorder(fail="shutdown")
        config = RuntimeConfig(terminate_on_success=False)
        async with prepared(agent, config) as one:
            with pytest.raises(ValueError, match="shutdown failed"):
                async with one.runtime:
                    await eventually(lambda: "loop" in agent.steps)
            assert await status(one) is MailboxStatus.TERMINATED
        assert agent.steps[-1] == "loop saw shutdown"
        assert "a step of its shutdown failed" in caplog.text

    async def test_cancelled_run_stays_cancelled(self) -> None:
        agent = Recorder(fail="shutdown")
        async with prepared(agent) as one:
            run = asyncio.create_task(one.runtime.run_until_complete())
            await one.handle.ping()
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            assert await status(one) is MailboxStatus.TERMINATED
        assert "shutdown" in agent.steps

    async def test_several_errors(self) -> None:
        agent = Recorder(fail="shutdown")

        async def work(shutdown: asyncio.Event) -> None:
            raise KeyError("loop")

        agent.work = work  # type: ignore[assignment]
        async with prepared(agent) as one:
            with pytest.raises(ExceptionGroup, match="several errors") as caught:
                await one.runtime.run_until_complete()
        assert {type(e) for e in caught.value.exceptions} == {ValueError, KeyError}

    async def test_an_error_in_the_block_is_not_the_agents(self) -> None:
        config = RuntimeConfig(terminate_on_error=False)
        async with prepared(Calculator(), config) as one:
            with pytest.raises(KeyError, match="block"):
                async with one.runtime:
                    raise KeyError("block")
            assert await status(one) is MailboxStatus.TERMINATED

    async def test_terminating_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def terminate(*args: Any, **kwargs: Any) -> None:
            raise OSError("down")

        async with prepared(Calculator()) as one:
            await one.runtime.__aenter__()
            client = one.runtime.agent.agent_exchange_client
            monkeypatch.setattr(client, "terminate", terminate)
            with pytest.raises(OSError, match="down"):
                await one.runtime.__aexit__(None, None, None)
            # The client was closed all the same.
            assert await status(one) is MailboxStatus.INACTIVE

    async def test_exchange_that_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def hang(*args: Any, **kwargs: Any) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(runtime_module, "EXCHANGE_TIMEOUT", 0.01)
        async with prepared(Calculator()) as one:
            await one.runtime.__aenter__()
            client = one.runtime.agent.agent_exchange_client
            close = client.close
            monkeypatch.setattr(client, "terminate", hang)
            monkeypatch.setattr(client, "close", hang)
            with pytest.raises(ExceptionGroup) as caught:
                await one.runtime.__aexit__(None, None, None)
            assert {type(e) for e in caught.value.exceptions} == {TimeoutError}
            await close()


class TestMailboxEnds:
    async def test_terminated_by_somebody(self) -> None:
        agent = Recorder()
        async with prepared(agent) as one:
            run = asyncio.create_task(one.runtime.run_until_complete())
            await one.handle.ping()
            await one.user.terminate(one.handle.agent_id)
            await asyncio.wait_for(run, 5)
        assert agent.steps[-2:] == ["shutdown", "loop saw shutdown"]

    async def test_taken_over(self) -> None:
        async with prepared(Calculator(offset=1)) as one:
            run = asyncio.create_task(one.runtime.run_until_complete())
            await one.handle.ping()
            newer = Runtime(
                Calculator(offset=2),
                exchange_factory=one.factory,
                registration=one.runtime.registration,
            )
            async with newer:
                with pytest.raises(FencedError):
                    await asyncio.wait_for(run, 5)
                assert await status(one) is MailboxStatus.ACTIVE
                assert await one.handle.add(1) == 3

    async def test_taken_over_while_shutting_down(self) -> None:
        agent = Recorder(hang="shutdown")
        async with prepared(agent) as one:
            run = asyncio.create_task(one.runtime.run_until_complete())
            await one.handle.shutdown()
            await agent.entered.wait()
            newer = Runtime(
                Calculator(),
                exchange_factory=one.factory,
                registration=one.runtime.registration,
            )
            async with newer:
                await one.handle.ping()
                run.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await run
                assert await status(one) is MailboxStatus.ACTIVE

    async def test_listener_fails(self) -> None:
        async with prepared(Calculator()) as one:
            run = asyncio.create_task(one.runtime.run_until_complete())
            await one.handle.ping()
            client = one.runtime.agent.agent_exchange_client
            client._transport.inbox.end(OSError("broken"))
            with pytest.raises(OSError, match="broken"):
                await asyncio.wait_for(run, 5)
            assert await status(one) is MailboxStatus.TERMINATED


class TestLoops:
    @pytest.mark.parametrize("raises", [True, False])
    async def test_error_ends_the_agent(
        self, raises: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        agent = Recorder(fail="loop")
        config = RuntimeConfig(
            raise_loop_errors_on_shutdown=raises, terminate_on_success=False
        )
        async with prepared(agent, config) as one:
            expected = (
                pytest.raises(ValueError, match="loop failed")
                if raises
                else contextlib.nullcontext()
            )
            with expected:
                await asyncio.wait_for(one.runtime.run_until_complete(), 5)
            assert await status(one) is MailboxStatus.TERMINATED
            with pytest.raises(AgentTerminatedError, match="ValueError: loop failed"):
                await one.handle.ping()
        assert "'work' of AgentId<agent> failed" in caplog.text

    async def test_error_need_not_end_the_agent(self) -> None:
        agent = Recorder(fail="loop")
        config = RuntimeConfig(shutdown_on_loop_error=False, terminate_on_error=False)
        async with prepared(agent, config) as one:
            await one.runtime.__aenter__()
            await eventually(lambda: agent.steps[1:])
            assert await one.handle.act() == "acted"
            with pytest.raises(TimeoutError):
                await one.runtime.wait_shutdown(0.01)
            with pytest.raises(ValueError, match="loop failed"):
                await one.runtime.__aexit__(None, None, None)
            assert await status(one) is MailboxStatus.TERMINATED

    async def test_loop_that_exits(self) -> None:
        class Exiting(Agent):
            @loop
            async def work(self, shutdown: asyncio.Event) -> None:
                raise SystemExit(3)

        async with prepared(Exiting()) as one:
            with pytest.raises(RuntimeError, match=r"Loop 'work' of .* SystemExit: 3"):
                await asyncio.wait_for(one.runtime.run_until_complete(), 5)

    async def test_loop_that_ignores_the_shutdown(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runtime_module, "LOOP_GRACE", 0.01)
        agent = Recorder(hang="loop")
        async with running(agent):
            await agent.entered.wait()
        assert agent.steps == ["startup", "loop", "shutdown"]

    async def test_loop_gets_time_to_end(self) -> None:
        class Tidy(Agent):
            tidied = False

            @loop
            async def work(self, shutdown: asyncio.Event) -> None:
                await shutdown.wait()
                await asyncio.sleep(0.01)
                self.tidied = True

        agent = Tidy()
        async with running(agent):
            await asyncio.sleep(0)
        assert agent.tidied

    async def test_timer_runs_beside_actions(self) -> None:
        class Ticking(Calculator):
            ticks = 0

            @timer(0.001)
            async def tick(self) -> None:
                self.ticks += 1

        agent = Ticking()
        async with running(agent) as one:
            await eventually(lambda: agent.ticks > 2)
            assert await one.handle.add(1) == 1
