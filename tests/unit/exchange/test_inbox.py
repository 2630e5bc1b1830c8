from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from academy.exchange.inbox import Inbox


class Ended(Exception):
    pass


def in_thread(function: Any, *args: Any) -> Coroutine[Any, Any, Any]:
    return asyncio.to_thread(function, *args)


@pytest.fixture
async def inbox() -> Inbox[int]:
    return Inbox()


async def test_order(inbox: Inbox[int]) -> None:
    for i in range(3):
        inbox.put(i)
    assert len(inbox) == 3
    assert [await inbox.get() for _ in range(3)] == [0, 1, 2]
    assert len(inbox) == 0


async def test_waits_for_an_item(inbox: Inbox[int]) -> None:
    waiting = asyncio.ensure_future(inbox.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    inbox.put(7)
    assert await waiting == 7


async def test_again_after_a_wait(inbox: Inbox[int]) -> None:
    for i in range(3):
        waiting = asyncio.ensure_future(inbox.get())
        await asyncio.sleep(0)
        inbox.put(i)
        assert await waiting == i


async def test_put_from_another_thread(inbox: Inbox[int]) -> None:
    waiting = asyncio.ensure_future(inbox.get())
    await asyncio.sleep(0)
    await in_thread(inbox.put, 7)
    assert await waiting == 7


async def test_nothing_is_lost_between_threads(inbox: Inbox[int]) -> None:
    count = 5000
    thread = threading.Thread(target=lambda: [inbox.put(i) for i in range(count)])
    thread.start()
    taken = [await inbox.get(timeout=10) for _ in range(count)]
    thread.join()
    assert taken == list(range(count))


async def test_put_while_the_consumer_goes_to_sleep(
    inbox: Inbox[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item that comes from another thread just before the flag is cleared."""
    with pytest.raises(TimeoutError):
        await inbox.get(timeout=0)
    assert inbox._arrived is not None
    clear = inbox._arrived.clear

    def late_clear() -> None:
        inbox.put(7)
        clear()

    monkeypatch.setattr(inbox._arrived, "clear", late_clear)
    assert await inbox.get(timeout=10) == 7


async def test_put_while_the_first_consumer_makes_its_flag(
    inbox: Inbox[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item that comes from another thread, which sees no flag to set."""
    make = asyncio.Event

    def late() -> asyncio.Event:
        inbox.put(7)
        return make()

    monkeypatch.setattr(asyncio, "Event", late)
    assert await inbox.get(timeout=10) == 7


async def test_timeout(inbox: Inbox[int]) -> None:
    with pytest.raises(TimeoutError):
        await inbox.get(timeout=0.001)
    with pytest.raises(TimeoutError):
        await inbox.get(timeout=0)
    inbox.put(7)
    assert await inbox.get(timeout=0) == 7


async def test_cancelling_loses_nothing(inbox: Inbox[int]) -> None:
    waiting = asyncio.ensure_future(inbox.get())
    await asyncio.sleep(0)
    inbox.put(7)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await inbox.get() == 7


class TestEnd:
    async def test_wakes_the_consumer(self, inbox: Inbox[int]) -> None:
        waiting = asyncio.ensure_future(inbox.get())
        await asyncio.sleep(0)
        assert inbox.error is None
        error = Ended()
        inbox.end(error)
        assert inbox.error is error
        with pytest.raises(Ended):
            await waiting

    async def test_from_another_thread(self, inbox: Inbox[int]) -> None:
        waiting = asyncio.ensure_future(inbox.get())
        await asyncio.sleep(0)
        await in_thread(inbox.end, Ended())
        with pytest.raises(Ended):
            await waiting

    async def test_first_error_stays(self, inbox: Inbox[int]) -> None:
        inbox.end(Ended("first"))
        inbox.end(ValueError("second"))
        for _ in range(2):
            with pytest.raises(Ended, match="first"):
                await inbox.get()

    async def test_items_are_kept_for_drain(self, inbox: Inbox[int]) -> None:
        inbox.put(1)
        inbox.end(Ended())
        inbox.put(2)
        with pytest.raises(Ended):
            await inbox.get()
        assert inbox.items() == [1, 2]
        assert inbox.drain() == [1, 2]
        assert inbox.items() == []
        assert inbox.drain() == []


def test_consumer_whose_loop_is_closed() -> None:
    async def make() -> Inbox[int]:
        return Inbox()

    inbox = asyncio.run(make())
    inbox.put(1)
    inbox.end(Ended())
    assert inbox.drain() == [1]


def test_needs_a_loop() -> None:
    with pytest.raises(RuntimeError):
        Inbox()
