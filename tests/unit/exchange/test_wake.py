from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from academy.exchange import wake
from academy.exchange.connection import RedisConnectionInfo
from academy.exchange.keys import Keys
from academy.exchange.wake import GAP, News, WakeReader
from tests.proxy import Proxy


class Listener:
    """Keeps the news of a reader as they come."""

    def __init__(self, reader: WakeReader) -> None:
        self.heard: list[News] = []
        self._task = asyncio.create_task(self._listen(reader))

    async def _listen(self, reader: WakeReader) -> None:
        async for news in reader.news():
            self.heard += news

    async def until(self, count: int) -> list[News]:
        async with asyncio.timeout(10):
            while len(self.heard) < count:  # noqa: ASYNC110 - simplest
                await asyncio.sleep(0.005)
        return self.heard

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


@pytest.fixture
async def listener(info: RedisConnectionInfo, keys: Keys) -> AsyncIterator[Listener]:
    reader = WakeReader(info, keys.wake("p"))
    made = Listener(reader)
    yield made
    await made.stop()
    await reader.close()


async def test_news_come_in_order(
    raw: redis.asyncio.Redis, keys: Keys, listener: Listener
) -> None:
    key = keys.wake("p")
    await raw.xadd(key, {"t": "m", "e": "A", "i": "", "r": ""})
    assert await listener.until(1) == [News("m", "A")]
    await raw.xadd(key, {"t": "g", "e": "A", "i": "12", "r": "grün"})
    for n in range(50):
        await raw.xadd(key, {"t": "f", "e": "B", "i": str(n), "r": ""})
    heard = await listener.until(52)
    assert heard[1:] == [News("g", "A", 12, "grün")] + [
        News("f", "B", n) for n in range(50)
    ]


async def test_what_came_before_is_heard_too(
    info: RedisConnectionInfo, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    await raw.xadd(keys.wake("p"), {"t": "m", "e": "A"})
    reader = WakeReader(info, keys.wake("p"))
    listener = Listener(reader)
    assert await listener.until(1) == [News("m", "A")]
    await listener.stop()
    await reader.close()


@pytest.mark.parametrize(
    ("fields", "news"),
    [
        ({"x": "y"}, News("")),
        ({"t": "m", "i": "many"}, News("m")),
        ({"t": "m", "i": "²"}, News("m")),
        ({"t": "m", "i": "9" * 5000}, News("m")),
        ({"t": b"\xff", "e": b"\xfe"}, News("�", "�")),
    ],
)
async def test_damaged_news(
    raw: redis.asyncio.Redis,
    keys: Keys,
    listener: Listener,
    fields: dict[str, str],
    news: News,
) -> None:
    await raw.xadd(keys.wake("p"), fields)
    await raw.xadd(keys.wake("p"), {"t": "m", "e": "A"})
    assert await listener.until(2) == [news, News("m", "A")]


async def test_a_flood_of_news_is_reported_as_a_gap(
    raw: redis.asyncio.Redis,
    info: RedisConnectionInfo,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When as many have come as the stream keeps, older ones may be missing."""
    monkeypatch.setattr(wake, "CAPACITY", 5)
    for _ in range(6):
        await raw.xadd(keys.wake("p"), {"t": "m", "e": "A"})
    reader = WakeReader(info, keys.wake("p"))
    listener = Listener(reader)
    one = News("m", "A")
    assert await listener.until(7) == [*[one] * 5, GAP, one]
    await listener.stop()
    await reader.close()


async def test_nothing_comes_for_longer_than_a_read_waits(
    raw: redis.asyncio.Redis,
    info: RedisConnectionInfo,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wake, "BLOCK", 0.05)
    reader = WakeReader(info, keys.wake("p"))
    listener = Listener(reader)
    await asyncio.sleep(0.3)
    assert listener.heard == []
    await raw.xadd(keys.wake("p"), {"t": "m", "e": "A"})
    assert await listener.until(1) == [News("m", "A")]
    await listener.stop()
    await reader.close()


@pytest.mark.parametrize("how", ["drop", "cut", "hold"])
async def test_a_reader_comes_back_and_reports_a_gap(
    raw: redis.asyncio.Redis,
    proxy: Proxy,
    proxied: RedisConnectionInfo,
    keys: Keys,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing that was said meanwhile is missed."""
    monkeypatch.setattr(wake, "BLOCK", 0.1)
    monkeypatch.setattr(wake, "OVERDUE", 0.1)
    reader = WakeReader(proxied, keys.wake("p"))
    listener = Listener(reader)
    await raw.xadd(keys.wake("p"), {"t": "m", "e": "A"})
    await listener.until(1)
    if how == "hold":
        proxy.hold()
        await raw.xadd(keys.wake("p"), {"t": "m", "e": "B"})
        await asyncio.sleep(0.5)
        proxy.let_go()
    else:
        await (proxy.cut() if how == "cut" else proxy.drop())
        await raw.xadd(keys.wake("p"), {"t": "m", "e": "B"})
        await asyncio.sleep(0.2)
        if how == "cut":
            await proxy.mend()
    heard = await listener.until(3)
    assert heard == [News("m", "A"), News("m", "B"), GAP]
    await raw.xadd(keys.wake("p"), {"t": "m", "e": "C"})
    assert (await listener.until(4))[-1] == News("m", "C")
    await listener.stop()
    await reader.close()


async def test_a_killed_reader_comes_back(
    raw: redis.asyncio.Redis, keys: Keys, listener: Listener
) -> None:
    # A reader that is back does not wait for news before it says so.
    async with asyncio.timeout(3 * wake.BLOCK / 2):
        for turn in range(3):
            await raw.xadd(keys.wake("p"), {"t": "m", "e": "A"})
            await listener.until(2 * turn + 1)
            await raw.execute_command(
                "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"
            )
            await listener.until(2 * turn + 2)
    assert listener.heard == [News("m", "A"), GAP] * 3


async def test_closing_twice(info: RedisConnectionInfo) -> None:
    reader = WakeReader(info, "{x}:wake:p")
    await reader.close()
    await reader.close()
