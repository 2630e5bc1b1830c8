from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from academy import closing as closing_module
from academy.exception import (
    ActionCancelledError,
    ExchangeError,
    ShutdownTimeoutError,
)
from academy.exchange.transport import MailboxStatus
from academy.executor import EventLoopExecutor
from academy.handle import Handle
from academy.manager import Manager
from academy.runtime import RuntimeConfig
from tests.launched_agents import BadStartup, Counter, Stubborn
from tests.shared_exchange import SharedExchangeFactory


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing_module, "CANCEL_GRACE", 0.3)
    monkeypatch.setattr(closing_module, "POOL_GRACE", 0.3)


async def make(executor: Any = None, **options: Any) -> Manager[Any]:
    options.setdefault("shutdown_timeout", 0.1)
    factory = SharedExchangeFactory()
    return await Manager.from_exchange_factory(factory, executor, **options)


@contextlib.asynccontextmanager
async def watching(manager: Manager[Any]) -> AsyncIterator[Any]:
    """Give a client that outlives the manager."""
    async with await manager.exchange_factory.create_user_client() as client:
        yield client


async def test_agents_are_shut_down_together() -> None:
    class Slow(Counter):
        async def agent_on_shutdown(self) -> None:
            nonlocal ending
            ending += 1
            if ending == 3:
                all_ending.set()
            await all_ending.wait()

    ending, all_ending = 0, asyncio.Event()
    manager = await make(shutdown_timeout=10)
    for _ in range(3):
        await (await manager.launch(Slow)).ping()
    await manager.close()
    assert manager.running() == set()
    assert ending == 3


async def test_many_agents_end_in_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(Counter):
        async def agent_on_shutdown(self) -> None:
            nonlocal ending, most
            ending += 1
            most = max(most, ending)
            await asyncio.sleep(0.01)
            ending -= 1

    monkeypatch.setattr(closing_module, "WAVE", 2)
    monkeypatch.setattr(closing_module, "WAVE_PATIENCE", 10.0)
    ending = most = 0
    manager = await make(shutdown_timeout=10)
    for _ in range(5):
        await (await manager.launch(Counted)).ping()
    await manager.close()
    assert manager.running() == set()
    assert most == 2


@pytest.mark.parametrize(
    ("limit", "seconds"), [("WAVE_PATIENCE", 0.01), ("WAVE_SHARE", 0.001)]
)
async def test_a_wave_that_is_slow_does_not_hold_up_the_others(
    limit: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Counter):
        async def agent_on_shutdown(self) -> None:
            nonlocal ending
            ending += 1
            if ending == 5:
                all_ending.set()
            await all_ending.wait()

    monkeypatch.setattr(closing_module, "WAVE", 2)
    monkeypatch.setattr(closing_module, "WAVE_PATIENCE", 60.0)
    monkeypatch.setattr(closing_module, limit, seconds)
    ending, all_ending = 0, asyncio.Event()
    manager = await make(shutdown_timeout=10)
    for _ in range(5):
        await (await manager.launch(Slow)).ping()
    await manager.close()
    assert ending == 5


async def test_mailboxes_and_client_are_closed() -> None:
    manager = await make()
    async with watching(manager) as client:
        counter = await manager.launch(Counter)
        await counter.ping()
        await manager.close()
        assert await client.status(counter.agent_id) is MailboxStatus.TERMINATED
        assert await client.status(manager.user_id) is MailboxStatus.TERMINATED


async def test_close_twice_and_keeping_the_client() -> None:
    manager = await make()
    await manager.close(close_exchange=False)
    assert await manager.exchange_client.discover(Counter) == ()
    await manager.close()
    with pytest.raises(ExchangeError, match="was closed"):
        await manager.exchange_client.send(None)  # type: ignore[arg-type]


class TestStubborn:
    """Agents that do not end when they are asked to."""

    async def test_in_the_event_loop(self, caplog: pytest.LogCaptureFixture) -> None:
        manager = await make()
        async with watching(manager) as client:
            handle = await manager.launch(Stubborn)
            assert await handle.answer() == 42
            other: Handle[Stubborn] = Handle(handle.agent_id, exchange=client)
            calling = asyncio.create_task(other.sleep())
            await manager.close()
            with pytest.raises(ActionCancelledError):
                await asyncio.wait_for(calling, 10)
            assert await client.status(handle.agent_id) is MailboxStatus.TERMINATED
        assert (
            f"{handle.agent_id} has ended: it did not shut down within 0.1 s and was "
            "cancelled." in caplog.messages
        )

    async def test_in_an_event_loop_executor(self) -> None:
        manager = await make(EventLoopExecutor())
        handle = await manager.launch(Stubborn)
        assert await handle.answer() == 42
        await manager.close()

    async def test_mailbox_may_be_kept(self) -> None:
        manager = await make()
        async with watching(manager) as client:
            config = RuntimeConfig(terminate_on_success=False, terminate_on_error=False)
            handle = await manager.launch(Stubborn, config=config)
            assert await handle.answer() == 42
            await manager.close()
            assert await client.status(handle.agent_id) is MailboxStatus.INACTIVE

    async def test_that_ignores_cancellation(self) -> None:
        class Deaf(Stubborn):
            async def agent_on_shutdown(self) -> None:
                while not released.is_set():
                    with contextlib.suppress(asyncio.CancelledError):
                        await released.wait()

        released = asyncio.Event()
        manager = await make()
        handle = await manager.launch(Deaf)
        assert await handle.answer() == 42
        with pytest.raises(ShutdownTimeoutError) as e:
            await manager.close()
        assert e.value.uids == (handle.agent_id,)
        released.set()
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=10)


class TestBlocked:
    """Agents that block the thread they run in."""

    @pytest.mark.parametrize("executor", [ThreadPoolExecutor, EventLoopExecutor])
    async def test_is_named(self, executor: Callable[[], Any]) -> None:
        class Blocked(Counter):
            async def agent_on_shutdown(self) -> None:
                blocked.set()
                released.wait()

        blocked, released = threading.Event(), threading.Event()
        pool = executor()
        manager = await make(pool)
        handle = await manager.launch(Blocked)
        await handle.ping()
        start = time.monotonic()
        with pytest.raises(ShutdownTimeoutError) as e:
            await manager.close()
        assert time.monotonic() - start < 5
        assert blocked.is_set()
        assert e.value.uids == (handle.agent_id,)
        assert f"0.1 s after shutdown was requested: {handle.agent_id}" in str(e.value)
        assert pickle.loads(pickle.dumps(e.value)).uids == e.value.uids
        with pytest.raises(ExchangeError, match="was closed"):
            await manager.exchange_client.send(None)  # type: ignore[arg-type]
        released.set()
        await asyncio.to_thread(pool.shutdown)

    async def test_beside_an_error(self) -> None:
        class Blocked(Counter):
            async def agent_on_shutdown(self) -> None:
                released.wait()

        released = threading.Event()
        pool = ThreadPoolExecutor(2)
        manager = await make(pool)
        failing = await manager.launch(BadStartup)
        await manager.wait([failing])
        await (await manager.launch(Blocked)).ping()
        with pytest.raises(ExceptionGroup, match="Closing the manager") as e:
            await manager.close()
        assert [type(error) for error in e.value.exceptions] == [
            ValueError,
            ShutdownTimeoutError,
        ]
        released.set()
        await asyncio.to_thread(pool.shutdown)

    async def test_agents_that_wait_behind_it_are_not(self) -> None:
        class Blocked(Counter):
            async def agent_on_shutdown(self) -> None:
                released.wait()

        released = threading.Event()
        pool = ThreadPoolExecutor(1)
        manager = await make(pool)
        first = await manager.launch(Blocked)
        await first.ping()
        with pytest.warns(RuntimeWarning, match="Executor overload"):
            await manager.launch(Counter)
        with pytest.raises(ShutdownTimeoutError) as e:
            await manager.close()
        assert e.value.uids == (first.agent_id,)
        released.set()
        await asyncio.to_thread(pool.shutdown)


async def test_exchange_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The shutdown request cannot be sent, so the agent is cancelled."""

    async def send(message: Any) -> None:
        await asyncio.sleep(1000)

    async def refuse(message: Any) -> None:
        raise OSError("the exchange is gone")

    for broken in (send, refuse):
        manager = await make()
        counter = await manager.launch(Counter)
        await counter.ping()
        monkeypatch.setattr(manager.exchange_client, "send", broken)
        await manager.close()
        assert manager.running() == set()
        assert f"{counter.agent_id} has ended: it did not shut down" in caplog.text
    assert "Cannot ask" in caplog.text
    assert "the exchange is gone" in caplog.text


async def test_cancelled_while_closing() -> None:
    """The agents are cancelled at once, and everything is closed all the same."""
    manager = await make(ThreadPoolExecutor(1), shutdown_timeout=1000)
    here = await manager.launch(Stubborn, executor="event_loop")
    there = await manager.launch(Counter)
    assert await here.answer() == 42
    await there.ping()
    closing = asyncio.create_task(manager.close())
    await manager.wait([there])
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert manager.running() == set()
    with pytest.raises(ExchangeError, match="was closed"):
        await manager.exchange_client.send(None)  # type: ignore[arg-type]


class TestForeignExecutors:
    class Foreign:
        def __init__(self) -> None:
            self.pool = ThreadPoolExecutor(2)

        def submit(self, fn: Callable[..., Any], *args: Any) -> Future[Any]:
            return self.pool.submit(fn, *args)

    @pytest.mark.parametrize("kind", ["wait", "nothing", "any", "both", "builtin"])
    async def test_shutdown_gets_what_it_takes(self, kind: str) -> None:
        given: list[Any] = []
        foreign = self.Foreign()
        shutdown: Any = {
            "wait": lambda wait=False: given.append({"wait": wait}),
            "nothing": lambda: given.append({}),
            "any": lambda **options: given.append(options),
            "both": lambda wait, cancel_futures: given.append((wait, cancel_futures)),
            "builtin": given.clear,
        }[kind]
        foreign.shutdown = shutdown  # type: ignore[attr-defined]
        manager = await make(foreign)
        assert await (await manager.launch(Counter)).add() == 1
        await manager.close()
        assert (
            given
            == {
                "wait": [{"wait": True}],
                "nothing": [{}],
                "any": [{"wait": True, "cancel_futures": True}],
                "both": [(True, True)],
                "builtin": [],
            }[kind]
        )
        foreign.pool.shutdown()

    async def test_without_shutdown(self) -> None:
        foreign = self.Foreign()
        manager = await make(foreign)
        assert await (await manager.launch(Counter)).add() == 1
        await manager.close()
        foreign.pool.shutdown()

    async def test_shutdown_that_fails(self) -> None:
        def shutdown() -> None:
            raise OSError("the cluster is gone")

        foreign = self.Foreign()
        foreign.shutdown = shutdown  # type: ignore[attr-defined]
        manager = await make(foreign)
        with pytest.raises(OSError, match="the cluster is gone"):
            await manager.close()
        with pytest.raises(ExchangeError, match="was closed"):
            await manager.exchange_client.send(None)  # type: ignore[arg-type]
        foreign.pool.shutdown()

    async def test_shutdown_that_takes_for_ever(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        released = threading.Event()
        foreign = self.Foreign()
        foreign.shutdown = released.wait  # type: ignore[attr-defined]
        manager = await make(foreign)
        await manager.close()
        released.set()
        foreign.pool.shutdown()
        [record] = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert record.getMessage() == (
            "Executor 'default' has not shut down within 0.3 s and is left to itself."
        )
