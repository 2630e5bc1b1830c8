"""Agents in other processes, over a real server."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from academy.embedded import EmbeddedServer
from academy.exception import (
    ActionCancelledError,
    AgentTerminatedError,
    DeliveryError,
)
from academy.exchange.credential import CredentialError
from academy.exchange.hybrid import HybridExchangeFactory
from academy.exchange.transport import MailboxStatus
from academy.executor import EventLoopExecutor, SubprocessExecutor
from academy.identifier import AgentId
from academy.manager import Manager
from tests.launched_agents import (
    Asker,
    BadConstructor,
    BadStartup,
    Counter,
    RaisesUnpicklable,
    Stubborn,
    Tidy,
)


@pytest.fixture
def factory(server: EmbeddedServer, namespace: str) -> HybridExchangeFactory:
    return HybridExchangeFactory.from_url(server.url, namespace=namespace)


def process_pool(method: str, workers: int = 3) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context(method))


EXECUTORS: dict[str, Callable[[], Executor | None]] = {
    "event loop": lambda: None,
    "threads": lambda: ThreadPoolExecutor(3),
    "packed": EventLoopExecutor,
    "fork": lambda: process_pool("fork"),
    "spawn": lambda: process_pool("spawn"),
    "forkserver": lambda: process_pool("forkserver"),
    "subprocess": SubprocessExecutor,
}
PROCESSES = {
    name: EXECUTORS[name] for name in ("fork", "spawn", "forkserver", "subprocess")
}
everywhere = pytest.mark.parametrize("make", EXECUTORS.values(), ids=EXECUTORS)
in_processes = pytest.mark.parametrize("make", PROCESSES.values(), ids=PROCESSES)


async def within(seconds: float, awaitable: Any) -> Any:
    async with asyncio.timeout(seconds):
        return await awaitable


async def call_until_closed(counter: Any) -> None:
    """Call an agent that has ended; the calls that are sent too early may be lost."""
    while True:
        with contextlib.suppress(DeliveryError):
            await counter.add()


@everywhere
async def test_agents_call_each_other(
    factory: HybridExchangeFactory, make: Callable[[], Executor | None], request: Any
) -> None:
    async with await Manager.from_exchange_factory(factory, make()) as manager:
        counter = await manager.launch(Counter, args=(5,), kwargs={"step": 2})
        asker = await manager.launch(Asker, args=(counter,))
        assert await within(30, asker.ask()) == 7
        pids = {(await handle.place())[0] for handle in (counter,)}
        elsewhere = request.node.callspec.id in PROCESSES
        assert (pids == {os.getpid()}) is not elsewhere
        await within(20, manager.shutdown(counter))
        with pytest.raises(AgentTerminatedError):
            await within(20, counter.add())
    assert manager.running() == set()


@everywhere
async def test_collections_are_short_in_workers(
    factory: HybridExchangeFactory, make: Callable[[], Executor | None], request: Any
) -> None:
    """What a worker has loaded is not looked at again; a program's own objects are."""
    async with await Manager.from_exchange_factory(factory, make()) as manager:
        counter = await manager.launch(Counter)
        frozen = await within(30, counter.frozen())
    assert (frozen > 1000) is (request.node.callspec.id in PROCESSES)


@in_processes
async def test_instances_travel(
    factory: HybridExchangeFactory, make: Callable[[], Executor]
) -> None:
    agent = Counter(41)
    async with await Manager.from_exchange_factory(factory, make()) as manager:
        counter = await manager.launch(agent)
        assert await within(30, counter.add()) == 42
    assert agent.value == 41


@in_processes
@pytest.mark.parametrize("agent", [BadConstructor, BadStartup])
async def test_failure_reaches_those_who_wait(
    factory: HybridExchangeFactory, make: Callable[[], Executor], agent: type[Any]
) -> None:
    manager = await Manager.from_exchange_factory(factory, make())
    handle = await manager.launch(agent)
    with pytest.raises(AgentTerminatedError, match="ValueError: no such lattice"):
        await within(30, handle.answer())
    with pytest.raises(ValueError, match="no such lattice") as e:
        await manager.wait([handle], raise_error=True)
    assert "Raised on the worker" in e.value.__notes__[0]
    with pytest.raises(ValueError, match="no such lattice"):
        await manager.close()


@in_processes
async def test_unpicklable_exception(
    factory: HybridExchangeFactory, make: Callable[[], Executor]
) -> None:
    """It fails its own agent and not, as in a plain process pool, all of them."""
    manager = await Manager.from_exchange_factory(factory, make())
    counter = await manager.launch(Counter)
    await within(30, counter.ping())
    failing = await manager.launch(RaisesUnpicklable)
    with pytest.raises(RuntimeError, match="UnpicklableError: stays here"):
        await within(30, manager.wait([failing], raise_error=True))
    assert await within(30, counter.add()) == 1
    with pytest.raises(RuntimeError, match="UnpicklableError: stays here"):
        await manager.close()


async def pid_of(handle: Any) -> int:
    pid, _ = await within(30, handle.place())
    return pid


class TestKilled:
    """Workers that end with SIGKILL."""

    async def test_process_pool_is_replaced(
        self, factory: HybridExchangeFactory
    ) -> None:
        pool = process_pool("fork")
        async with await Manager.from_exchange_factory(
            factory, pool, max_retries=1
        ) as manager:
            counters = [await manager.launch(Counter) for _ in range(3)]
            before = {await pid_of(counter) for counter in counters}
            os.kill(min(before), signal.SIGKILL)
            await until_restarted(counters, before)
            after = {await pid_of(counter) for counter in counters}
            assert len(after) == 3
            assert after.isdisjoint(before)
            assert len(manager.running()) == 3
            another = await manager.launch(Counter, executor="event_loop")
            assert await another.add() == 1
        assert not any(psutil.pid_exists(pid) for pid in before | after)

    async def test_subprocess_alone_is_restarted(
        self, factory: HybridExchangeFactory
    ) -> None:
        async with await Manager.from_exchange_factory(
            factory, SubprocessExecutor(), max_retries=1
        ) as manager:
            counters = [await manager.launch(Counter) for _ in range(2)]
            killed, spared = [await pid_of(counter) for counter in counters]
            os.kill(killed, signal.SIGKILL)
            await until_restarted(counters[:1], {killed})
            assert await pid_of(counters[0]) != killed
            assert await pid_of(counters[1]) == spared

    async def test_worker_that_is_told_to_end(
        self, factory: HybridExchangeFactory, tmp_path: pathlib.Path
    ) -> None:
        """By a batch system, say: the agent ends in good order and runs again."""
        async with await Manager.from_exchange_factory(
            factory, SubprocessExecutor(), max_retries=1
        ) as manager:
            tidy = await manager.launch(Tidy, args=(str(tmp_path / "ended"),))
            pid = await pid_of(tidy)
            os.kill(pid, signal.SIGTERM)
            await until_restarted([tidy], {pid})
            assert (tmp_path / "ended").exists()

    @in_processes
    async def test_waiting_calls_get_the_cause(
        self, factory: HybridExchangeFactory, make: Callable[[], Executor]
    ) -> None:
        manager = await Manager.from_exchange_factory(factory, make())
        counter = await manager.launch(Counter)
        pid = await pid_of(counter)
        calling = asyncio.create_task(counter.sleep())
        await until_taken(counter)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises((AgentTerminatedError, DeliveryError)) as e:
            await within(15, calling)
        assert e.value.executed == "maybe"
        with pytest.raises(AgentTerminatedError, match=r"SIGKILL|BrokenProcessPool"):
            await within(15, call_until_closed(counter))
        with pytest.raises(RuntimeError):
            await manager.close()

    async def test_call_that_kills_every_time(
        self, factory: HybridExchangeFactory
    ) -> None:
        manager = await Manager.from_exchange_factory(
            factory, SubprocessExecutor(), max_retries=1
        )
        counter = await manager.launch(Counter)
        await pid_of(counter)
        for _ in range(2):
            with pytest.raises((AgentTerminatedError, DeliveryError)):
                await within(20, counter.exit(9))
        with pytest.raises(RuntimeError, match="ended with exit code 9"):
            await within(20, manager.wait([counter], raise_error=True))
        with pytest.raises(RuntimeError, match="ended with exit code 9"):
            await manager.close()


async def until_taken(handle: Any) -> None:
    """Wait until the agent works on a call."""
    async with asyncio.timeout(20):
        while True:
            if (await handle.agent_stats()).in_progress:
                return
            await asyncio.sleep(0.01)


async def until_restarted(handles: list[Any], before: set[int]) -> None:
    """Call until new processes answer; calls that the old ones had are named."""
    async with asyncio.timeout(30):
        for handle in handles:
            while True:
                try:
                    if (await handle.place())[0] not in before:
                        break
                except (DeliveryError, ActionCancelledError):
                    continue


@in_processes
async def test_stubborn_agents_are_killed(
    factory: HybridExchangeFactory, make: Callable[[], Executor]
) -> None:
    manager = await Manager.from_exchange_factory(factory, make(), shutdown_timeout=0.3)
    handle = await manager.launch(Stubborn)
    pid = await pid_of(handle)
    await within(20, manager.close())
    assert not psutil.pid_exists(pid)
    async with await factory.create_user_client() as client:
        assert await client.status(handle.agent_id) is MailboxStatus.TERMINATED


@in_processes
async def test_blocked_agents_are_killed(
    factory: HybridExchangeFactory, make: Callable[[], Executor]
) -> None:
    manager = await Manager.from_exchange_factory(factory, make(), shutdown_timeout=0.3)
    counter = await manager.launch(Counter)
    pid = await pid_of(counter)
    calling = asyncio.create_task(counter.block(1000))
    await within(20, manager.close())
    assert not psutil.pid_exists(pid)
    with pytest.raises(Exception, match=r"closed|terminated"):
        await within(5, calling)


SCRIPT = """
import asyncio, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from academy.agent import Agent, action
from academy.exchange.hybrid import HybridExchangeFactory
from academy.executor import SubprocessExecutor
from academy.manager import Manager

CONSTANT = 40


class MainError(Exception):
    pass


class OfMain(Agent):
    def __init__(self, more: int) -> None:
        self.more = more

    @action
    async def compute(self) -> int:
        await asyncio.sleep(0)
        return helper(self.more)

    @action
    async def fail(self) -> None:
        raise MainError("of main")


class Failing(Agent):
    async def agent_on_startup(self) -> None:
        raise MainError("at the start")


def helper(more: int) -> int:
    return CONSTANT + more


def executor(kind: str):
    if kind == "threads":
        return ThreadPoolExecutor(2)
    if kind == "subprocess":
        return SubprocessExecutor()
    return ProcessPoolExecutor(2, multiprocessing.get_context(kind))


async def main() -> None:
    factory = HybridExchangeFactory.from_url(namespace=sys.argv[1])
    manager = await Manager.from_exchange_factory(factory, executor(sys.argv[2]))
    async with manager:
        handle = await manager.launch(OfMain, args=(2,))
        print(await asyncio.wait_for(handle.compute(), 30))
        try:
            await handle.fail()
        except MainError as e:
            print(type(e) is MainError, e)
        failing = await manager.launch(Failing)
        try:
            await asyncio.wait_for(manager.wait([failing], raise_error=True), 30)
        except MainError as e:
            print(type(e) is MainError, e)
        manager._fleet._supervisors.pop(failing.agent_id)


GUARD
    asyncio.run(main())
"""


@pytest.mark.parametrize("source", ["script", "stdin"])
@pytest.mark.parametrize(
    "kind", ["threads", "fork", "spawn", "forkserver", "subprocess"]
)
def test_agent_of_main(
    server: EmbeddedServer,
    namespace: str,
    tmp_path: pathlib.Path,
    kind: str,
    source: str,
) -> None:
    """As in a script, and as in a notebook or a shell, where there is no file."""
    if source == "stdin" and kind in ("spawn", "forkserver"):
        pytest.skip("the standard library's own pools need a file for that")
    script = SCRIPT.replace("GUARD", 'if __name__ == "__main__":')
    path = tmp_path / "script.py"
    path.write_text(script)
    done = subprocess.run(
        [sys.executable, str(path) if source == "script" else "-", namespace, kind],
        input=script if source == "stdin" else None,
        capture_output=True,
        text=True,
        timeout=50,
        env={
            **os.environ,
            "ACADEMY_REDIS_URL": server.url,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
    )
    assert done.stdout.splitlines() == [
        "42",
        "True of main",
        "True at the start",
    ], done.stderr
    assert done.returncode == 0


def test_workers_end_with_a_killed_manager(
    server: EmbeddedServer, namespace: str, tmp_path: pathlib.Path
) -> None:
    script = textwrap.dedent(
        """
        import asyncio, os, sys
        from academy.exchange.hybrid import HybridExchangeFactory
        from academy.executor import SubprocessExecutor
        from academy.manager import Manager
        from tests.launched_agents import Counter

        async def main():
            factory = HybridExchangeFactory.from_url(namespace=sys.argv[1])
            manager = await Manager.from_exchange_factory(
                factory, SubprocessExecutor()
            )
            handle = await manager.launch(Counter)
            print((await handle.place())[0])
            print(handle.agent_id.model_dump_json(), flush=True)
            os.kill(os.getpid(), 9)

        asyncio.run(main())
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, namespace],
        capture_output=True,
        text=True,
        timeout=50,
        env={
            **os.environ,
            "ACADEMY_REDIS_URL": server.url,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid, agent_id = done.stdout.splitlines()
    wait_until_ended(int(pid))

    async def status() -> MailboxStatus:
        factory = HybridExchangeFactory.from_url(server.url, namespace=namespace)
        async with await factory.create_user_client() as client:
            return await client.status(AgentId.model_validate_json(agent_id))

    assert asyncio.run(status()) is MailboxStatus.TERMINATED


def wait_until_ended(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        # Who it belongs to now may take its time to notice that it has ended.
        while process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)


def test_fork_while_a_subprocess_starts() -> None:
    """Both kinds of executors may be used by one program, at the same time."""
    with SubprocessExecutor() as executor, process_pool("fork", 8) as pool:
        futures = []
        for _ in range(8):
            futures += [executor.submit(os.getpid), pool.submit(os.getpid)]
        done, _ = concurrent.futures.wait(futures, timeout=40)
        assert len(done) == 16


class OtherHost(SubprocessExecutor):
    """Its workers do not see the files that this process leaves for its own."""

    home: pathlib.Path

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        for path in (self.home / "credentials").iterdir():
            path.unlink()
        return super().submit(fn, *args, **kwargs)


@pytest.mark.parametrize("told", [False, True])
async def test_the_password_on_another_host(
    server: EmbeddedServer,
    factory: HybridExchangeFactory,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    told: bool,
) -> None:
    monkeypatch.setenv("ACADEMY_HOME", str(tmp_path / "home"))
    password = server.redis_kwargs["password"]
    executor = OtherHost(env={"ACADEMY_REDIS_PASSWORD": password} if told else {})
    executor.home = tmp_path / "home"
    manager = await Manager.from_exchange_factory(factory, executors=executor)
    if told:
        async with manager, asyncio.timeout(20):
            assert await (await manager.launch(Counter)).add() == 1
        return
    with pytest.raises(CredentialError, match="Set ACADEMY_REDIS_PASSWORD or") as e:
        async with manager, asyncio.timeout(20):
            await manager.wait([await manager.launch(Counter)])
    assert password not in "".join(traceback.format_exception(e.value))
