from __future__ import annotations

import asyncio

import pytest

from academy.event import wait_event_async


def other_tasks() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_event_set_before() -> None:
    first, second = asyncio.Event(), asyncio.Event()
    second.set()
    assert await wait_event_async(first, second) is second
    first.set()
    assert await wait_event_async(first, second) is first
    assert await wait_event_async(second, first, timeout=0) is second


async def test_event_set_while_waiting() -> None:
    first, second = asyncio.Event(), asyncio.Event()
    waiter = asyncio.create_task(wait_event_async(first, second))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(second.set)
    assert await waiter is second
    assert second.is_set()
    assert not other_tasks()


async def test_event_cleared_at_once_still_counts() -> None:
    event = asyncio.Event()
    waiter = asyncio.create_task(wait_event_async(event))
    for _ in range(3):  # the waiter starts its task, and that starts to wait
        await asyncio.sleep(0)
    event.set()
    event.clear()
    assert await waiter is event


async def test_timeout_leaves_no_task() -> None:
    events = [asyncio.Event(), asyncio.Event()]
    with pytest.raises(TimeoutError, match=r"None of 2 event\(s\) was set in 0.01 s"):
        await wait_event_async(*events, timeout=0.01)
    assert not other_tasks()


async def test_cancel_leaves_no_task() -> None:
    waiter = asyncio.create_task(wait_event_async(asyncio.Event(), asyncio.Event()))
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(other_tasks()) == 3  # the waiter, and one for each event
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert not other_tasks()


async def test_no_events() -> None:
    with pytest.raises(ValueError, match="at least one event"):
        await wait_event_async()


def test_event_of_another_loop() -> None:
    event = asyncio.Event()

    async def wait(timeout: float) -> None:
        with pytest.raises(TimeoutError):
            await wait_event_async(event, timeout=timeout)

    asyncio.run(wait(0.01))
    with pytest.raises(RuntimeError, match="different event loop"):
        asyncio.run(wait(5))
