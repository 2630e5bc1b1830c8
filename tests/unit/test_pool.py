from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

from academy.capsule import WorkerFailure
from academy.executor import EventLoopExecutor, SubprocessExecutor
from academy.pool import Attempt, Pool


@pytest.fixture
def processes() -> Iterator[Pool]:
    context = multiprocessing.get_context("fork")
    # A broken pool tells its processes to end by a signal that these do not hear.
    options = {
        "initializer": signal.signal,
        "initargs": (signal.SIGTERM, signal.SIG_IGN),
    }
    pool = Pool("p", ProcessPoolExecutor(2, context, **options))
    yield pool
    pool.kill()
    assert pool.executor is not None
    pool.executor.shutdown()


def kill_workers(pool: Pool) -> None:
    """Break a process pool, and wait until it knows."""
    executor: Any = pool.executor
    future = executor.submit(os.getpid)
    os.kill(future.result(20), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while not executor._broken:
        assert time.monotonic() < deadline, "the pool does not break"
        time.sleep(0.005)


def submit(pool: Pool) -> Attempt:
    """Submit what is not a capsule, which a worker answers at once."""
    return pool.submit(b"no body", final=True, submit_kwargs={})


async def test_broken_process_pool_is_replaced(processes: Pool) -> None:
    broken: Any = processes.executor
    kill_workers(processes)
    attempts = [submit(processes) for _ in range(3)]
    replaced: Any = processes.executor
    assert replaced is not broken
    for attempt in attempts:
        with pytest.raises(WorkerFailure):
            await attempt.outcome
    assert processes.executor is replaced  # once for all of them
    for option in ("max_workers", "mp_context", "initializer", "initargs"):
        assert getattr(replaced, f"_{option}") == getattr(broken, f"_{option}")
    with pytest.raises((BrokenProcessPool, RuntimeError)):
        broken.submit(os.getpid)


async def test_pool_of_another_class_is_not_replaced() -> None:
    class Special(ProcessPoolExecutor):
        """One whose constructor nobody here knows."""

    pool = Pool("p", Special(1, multiprocessing.get_context("fork")))
    kill_workers(pool)
    with pytest.raises(BrokenProcessPool):
        submit(pool)
    assert pool.executor is not None
    pool.executor.shutdown()


async def test_kill_ends_worker_processes(processes: Pool) -> None:
    assert processes.executor is not None
    future = processes.executor.submit(time.sleep, 1000)
    processes.kill()
    with pytest.raises(BrokenProcessPool):
        await asyncio.wrap_future(future)


@pytest.mark.parametrize("make", [ThreadPoolExecutor, lambda: None])
async def test_kill_leaves_other_executors_alone(make: Any) -> None:
    pool = Pool("p", make())
    pool.kill()
    if pool.executor is not None:
        assert pool.executor.submit(os.getpid).result(10) == os.getpid()
        pool.executor.shutdown()


def test_kill_of_a_pool_that_is_shut_down(processes: Pool) -> None:
    assert processes.executor is not None
    processes.executor.shutdown()
    processes.kill()


@pytest.mark.parametrize(
    ("executor", "slots"),
    [
        (None, None),
        (ThreadPoolExecutor(3), 3),
        (SubprocessExecutor(4), 4),
        (SubprocessExecutor(), None),
        (EventLoopExecutor(), None),
    ],
)
def test_slots(executor: Any, slots: int | None) -> None:
    assert Pool("p", executor).slots == slots


async def test_queued() -> None:
    future: Future[None] = Future()
    attempt = Attempt(asyncio.wrap_future(future), future)
    assert attempt.queued
    future.set_running_or_notify_cancel()
    assert not attempt.queued
    future.set_result(None)
    assert not attempt.queued
    assert not Attempt(asyncio.ensure_future(asyncio.sleep(0)), None).queued
    await asyncio.sleep(0)


async def test_shutdown_that_ends_after_the_event_loop() -> None:
    """Nobody waits for it any more, and nothing is reported."""
    pool = Pool("p", ThreadPoolExecutor(1))
    assert pool.executor is not None
    pool.executor.submit(time.sleep, 0.2)

    def run() -> bool:
        return asyncio.run(pool.shutdown(0.01))

    assert not await asyncio.to_thread(run)
    pool.executor.shutdown()
