from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from academy import supervisor as supervisor_module
from academy.agent import action
from academy.capsule import WorkerFailure
from academy.exception import (
    AgentTerminatedError,
    BadEntityIdError,
    ExchangeError,
    FencedError,
    PeerLostError,
    WorkerMismatchError,
)
from academy.exchange.local import LocalExchangeFactory
from academy.exchange.transport import MailboxStatus
from academy.manager import Manager
from academy.runtime import RuntimeConfig
from tests.launched_agents import BadConstructor, BadLoop, BadStartup, Counter, Flaky
from tests.shared_exchange import SharedExchangeFactory

KEEP = RuntimeConfig(terminate_on_error=False)


@contextlib.asynccontextmanager
async def managing(executor: Any = None, **options: Any) -> AsyncIterator[Manager[Any]]:
    """Manage agents whose errors the test has looked at."""
    factory = SharedExchangeFactory()
    manager = await Manager.from_exchange_factory(factory, executor, **options)
    async with manager.exchange_client:
        try:
            yield manager
        finally:
            with contextlib.suppress(Exception):
                await manager.close()


class OwnFutures:
    """An executor whose futures the test sets, as it pleases."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


class TestFailure:
    @pytest.mark.parametrize("threads", [True, False])
    @pytest.mark.parametrize("agent", [BadConstructor, BadStartup])
    async def test_waiting_calls_get_the_cause(
        self, agent: type[Any], threads: bool
    ) -> None:
        pool = ThreadPoolExecutor(1) if threads else None
        async with managing(pool) as manager:
            handle = await manager.launch(agent)
            with pytest.raises(
                AgentTerminatedError, match="ValueError: no such lattice"
            ):
                await asyncio.wait_for(handle.answer(), 10)
            with pytest.raises(AgentTerminatedError, match="no such lattice"):
                await asyncio.wait_for(handle.answer(), 10)
            with pytest.raises(ValueError, match="no such lattice"):
                await manager.wait([handle], raise_error=True)

    async def test_cause_is_the_exception_itself(self) -> None:
        async with managing() as manager:
            handle = await manager.launch(BadConstructor)
            with pytest.raises(AgentTerminatedError) as e:
                await handle.answer()
            assert type(e.value.__cause__) is ValueError

    async def test_other_users_get_the_cause_too(self) -> None:
        async with managing() as manager:
            registration = await manager.register_agent(BadConstructor)
            client = await manager.exchange_factory.create_user_client()
            async with client:
                handle = manager.get_handle(registration)
                waiting = asyncio.create_task(handle.answer())
                await asyncio.sleep(0)
                await manager.launch(BadConstructor, registration=registration)
                with pytest.raises(AgentTerminatedError, match="no such lattice"):
                    await asyncio.wait_for(waiting, 10)

    async def test_mailbox_may_be_kept(self) -> None:
        """Those who wait are told anyway, and the agent can run again."""
        async with managing() as manager:
            registration = await manager.register_agent(Counter)
            waiting = asyncio.create_task(manager.get_handle(registration).add())
            await until(lambda: manager.exchange_client._pending)
            failing = await manager.launch(
                BadConstructor, config=KEEP, registration=registration
            )
            with pytest.raises(PeerLostError, match="no such lattice") as e:
                await waiting
            assert type(e.value.__cause__) is ValueError
            await manager.wait([failing])
            assert await failing.agent_status() is MailboxStatus.INACTIVE
            counter = await manager.launch(Counter, registration=registration)
            assert await counter.add() == 2  # the first call has waited

    async def test_loop_error(self) -> None:
        async with managing() as manager:
            handle = await manager.launch(BadLoop)
            await manager.wait([handle])
            with pytest.raises(AgentTerminatedError, match="KeyError: 'lattice'"):
                await handle.answer()

    async def test_exchange_that_does_not_answer(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def terminate(*args: Any, **kwargs: Any) -> None:
            await asyncio.sleep(1000)

        monkeypatch.setattr(supervisor_module, "EXCHANGE_TIMEOUT", 0.01)
        async with managing() as manager:
            monkeypatch.setattr(manager.exchange_client, "terminate", terminate)
            handle = await manager.launch(BadConstructor)
            await manager.wait([handle])
            monkeypatch.undo()
        assert f"Cannot close the mailbox of {handle.agent_id}" in caplog.text

    async def test_failure_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        async with managing() as manager:
            handle = await manager.launch(BadStartup)
            await manager.wait([handle])
        [record] = [r for r in caplog.records if "has failed" in r.message]
        assert record.getMessage() == f"{handle.agent_id} has failed."
        assert record.exc_info is not None


class TestRestart:
    @pytest.mark.parametrize("threads", [True, False])
    async def test_until_it_works(self, tmp_path, threads: bool) -> None:
        pool = ThreadPoolExecutor(1) if threads else None
        async with managing(pool, max_retries=2) as manager:
            handle = await manager.launch(Flaky, args=(str(tmp_path / "starts"), 2))
            await until(lambda: len(lines(tmp_path / "starts")) == 3)
            assert await handle.answer() == 42
            assert manager.running() == {handle.agent_id}

    async def test_not_more_often_than_allowed(self, tmp_path) -> None:
        async with managing(max_retries=2) as manager:
            handle = await manager.launch(Flaky, args=(str(tmp_path / "starts"), 9))
            with pytest.raises(RuntimeError, match="not this time"):
                await manager.wait([handle], raise_error=True)
            assert len(lines(tmp_path / "starts")) == 3
            assert await handle.agent_status() is MailboxStatus.TERMINATED

    async def test_mailbox_stays_open_between_tries(self, tmp_path) -> None:
        """A message that came before the first try is answered by the second."""

        class Second(Flaky):
            def __init__(self, path: str) -> None:
                super().__init__(path, 0)
                if self.note_start() == 1:
                    raise RuntimeError("the first time")

        async with managing(max_retries=1) as manager:
            registration = await manager.register_agent(Second)
            waiting = asyncio.create_task(manager.get_handle(registration).answer())
            await until(lambda: manager.exchange_client._pending)
            await manager.launch(
                Second, args=(str(tmp_path / "starts"),), registration=registration
            )
            assert await asyncio.wait_for(waiting, 10) == 42

    async def test_not_when_it_was_told_to_end(self, tmp_path) -> None:
        class BadShutdown(Flaky):
            async def agent_on_shutdown(self) -> None:
                raise OSError("cannot let go")

        async with managing(max_retries=3) as manager:
            handle = await manager.launch(
                BadShutdown, args=(str(tmp_path / "starts"), 0)
            )
            assert await handle.answer() == 42
            with pytest.raises(OSError, match="cannot let go"):
                await manager.shutdown(handle)
            assert len(lines(tmp_path / "starts")) == 1

    async def test_not_when_the_mailbox_is_gone(self, tmp_path) -> None:
        async with managing(max_retries=3) as manager:
            registration = await manager.register_agent(Flaky)
            await manager.exchange_client.terminate(registration.agent_id)
            starts = tmp_path / "starts"
            handle = await manager.launch(
                Flaky, args=(str(starts), 0), registration=registration
            )
            with pytest.raises(AgentTerminatedError):
                await manager.wait([handle], raise_error=True)
            assert not starts.exists()

    async def test_executor_that_takes_no_more(self) -> None:
        executor = OwnFutures()
        async with managing(executor, max_retries=3) as manager:
            handle = await manager.launch(Counter)
            executor.submit = full  # type: ignore[method-assign]
            executor.futures[0].set_exception(OSError("the node is gone"))
            with pytest.raises(RuntimeError, match="takes no more"):
                await manager.wait([handle], raise_error=True)
            with pytest.raises(AgentTerminatedError, match="takes no more"):
                await handle.add()


def full(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("this executor takes no more")


def lines(path: Any) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


class TestForeignFutures:
    """What may come out of the executors of others."""

    async def ended_with(self, error: BaseException, retries: int = 0) -> Exception:
        executor = OwnFutures()
        async with managing(executor, max_retries=retries) as manager:
            handle = await manager.launch(Counter)
            executor.futures[0].set_exception(error)
            try:
                await manager.wait([handle], raise_error=True)
            except Exception as e:
                self.tries = len(executor.futures)
                return e
        raise AssertionError("it has ended without an error")

    async def test_carried_failure(self) -> None:
        error = await self.ended_with(WorkerFailure.wrap(KeyError("lattice")))
        assert type(error) is KeyError

    async def test_worker_that_left(self) -> None:
        error = await self.ended_with(SystemExit(3))
        assert type(error) is RuntimeError
        assert "ended its worker: SystemExit(3)" in str(error)

    async def test_mismatch_is_not_tried_again(self) -> None:
        mismatch = WorkerFailure.wrap(WorkerMismatchError("Python is too new"))
        error = await self.ended_with(mismatch, retries=5)
        assert type(error) is WorkerMismatchError
        assert self.tries == 1

    @pytest.mark.parametrize("kind", [BadEntityIdError, FencedError])
    async def test_lost_mailbox_is_left_alone(self, kind: type[Any]) -> None:
        executor = OwnFutures()
        async with managing(executor, max_retries=5) as manager:
            handle = await manager.launch(Counter)
            executor.futures[0].set_exception(kind(handle.agent_id))
            with pytest.raises(kind):
                await manager.wait([handle], raise_error=True)
            assert len(executor.futures) == 1
            assert await handle.agent_status() is MailboxStatus.INACTIVE

    async def test_errors_about_others_are_errors_of_the_agent(self) -> None:
        executor = OwnFutures()
        async with managing(executor, max_retries=1) as manager:
            handle = await manager.launch(Counter)
            executor.futures[0].set_exception(BadEntityIdError(manager.user_id))
            await until(lambda: len(executor.futures) == 2)
            assert manager.running() == {handle.agent_id}
            await manager.shutdown(handle)

    async def test_cancelled_by_its_executor(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        executor = OwnFutures()
        async with managing(executor, max_retries=5) as manager:
            handle = await manager.launch(Counter)
            waiting = asyncio.create_task(handle.add())
            await until(lambda: manager.exchange_client._pending)
            executor.futures[0].cancel()
            with pytest.raises(AgentTerminatedError, match="cancelled by its executor"):
                await waiting
            await manager.wait([handle], raise_error=True)
            assert len(executor.futures) == 1
        assert f"{handle.agent_id} has ended: it was cancelled" in caplog.text


class TestQueued:
    async def test_shutdown_of_one_that_waits_for_a_worker(self) -> None:
        async with managing(ThreadPoolExecutor(1)) as manager:
            first = await manager.launch(Counter)
            await first.ping()
            with pytest.warns(RuntimeWarning, match="Executor overload"):
                second = await manager.launch(Counter)
            waiting = asyncio.create_task(second.add())
            await until(lambda: manager.exchange_client._pending)
            await manager.shutdown(second, timeout=10)
            with pytest.raises(
                AgentTerminatedError, match="shut down before it had started"
            ):
                await waiting
            assert manager.running() == {first.agent_id}

    async def test_mailbox_may_be_kept(self) -> None:
        async with managing(OwnFutures()) as manager:
            handle = await manager.launch(Counter)
            await manager.shutdown(handle, terminate=False)
            assert await handle.agent_status() is MailboxStatus.INACTIVE

    async def test_executor_that_does_not_tell(self) -> None:
        """Its future is pending although the agent runs: it must not be cancelled."""
        executor = OwnFutures()
        async with managing(executor) as manager:
            handle = await manager.launch(Counter)
            client = await manager.exchange_factory.create_agent_client(
                _registration(handle), lambda _: asyncio.sleep(0)
            )
            shutdown = asyncio.create_task(manager.shutdown(handle))
            await until(lambda: client._transport._ledger.incoming)
            assert not shutdown.done()
            executor.futures[0].set_result(None)
            await shutdown
            await client.close()
        assert not executor.futures[0].cancelled()

    async def test_warning_once_when_nothing_starts(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(supervisor_module, "START_PATIENCE", 0.01)
        pool = ThreadPoolExecutor(1)
        held = threading.Event()
        pool.submit(held.wait)
        async with managing(pool) as manager:
            first = await manager.launch(Counter)
            await until(lambda: "has not started" in caplog.text)
            with pytest.warns(RuntimeWarning, match="Executor overload"):
                second = await manager.launch(Counter)
            await asyncio.sleep(0.05)
            held.set()
            assert await first.add() == 1
            await manager.shutdown(first)
            assert await second.add() == 1
        [message] = [m for m in caplog.messages if "has not started" in m]
        assert message == (
            f"{first.agent_id} has not started 0.01 s after its launch: executor "
            "'default' seems to have no worker free for it. It has 1 workers. "
            "Messages to it wait."
        )

    async def test_no_warning_when_it_runs(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(supervisor_module, "START_PATIENCE", 0.01)
        asked = asyncio.Event()
        executor = OwnFutures()
        async with managing(executor) as manager:
            client = manager.exchange_client

            async def status(*args: Any) -> Any:
                asked.set()
                raise ExchangeError("no answer")

            monkeypatch.setattr(client, "status", status)
            handle = await manager.launch(Counter)
            await asyncio.wait_for(asked.wait(), 10)
            executor.futures[0].set_result(None)
            await manager.wait([handle])
        assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def _registration(handle: Any) -> Any:
    from academy.exchange.local import LocalAgentRegistration

    return LocalAgentRegistration(handle.agent_id)


async def test_own_actions_may_end_the_agent() -> None:
    class Ending(Counter):
        @action
        async def finish(self) -> int:
            self.agent_shutdown()
            return 7

    async with await Manager.from_exchange_factory(LocalExchangeFactory()) as manager:
        handle = await manager.launch(Ending)
        assert await handle.finish() == 7
        await manager.wait([handle], timeout=10)
        with pytest.raises(AgentTerminatedError):
            await handle.finish()
