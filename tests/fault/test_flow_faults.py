"""Slow consumers, full windows and queues, large messages, and changing paths."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from pathlib import Path

import psutil
import pytest
import redis.asyncio

from academy.handle import Handle
from tests.fault.agents import Host
from tests.fault.harness import MIB, Scene, cut_links, until
from tests.fault.oracle import percentile

FULL = pytest.mark.fault
WINDOW = 4 * MIB
QUICK = 1_000
"""Messages after which a sender surely has a direct way."""


@pytest.mark.parametrize(
    "seconds", [2, pytest.param(20, marks=[FULL, pytest.mark.slow])]
)
async def test_slow_consumer(redis_url: str, tmp_path: Path, seconds: int) -> None:
    """The sender waits, in little memory, and nobody else does."""
    name = f"1 message/s taken, 50 kB sent one-way as fast as possible for {seconds} s"
    async with Scene(redis_url, tmp_path, "29", name, settle=60) as scene:
        slow = await scene.register()
        consumer = await scene.spawn_consumer(slow, quick=QUICK, pause=1.0)
        other = await scene.spawn()
        await scene.direct(other.handle)
        sender = await scene.spawn_caller(
            "sender", [slow], tasks=8, size=50_000, one_way=True
        )
        journal = sender.journal
        processes = [psutil.Process(p.pid) for p in (sender, consumer)]
        before = [p.memory_info().rss for p in processes]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await scene.call(other.handle)
            for process, rss in zip(processes, before, strict=True):
                assert process.memory_info().rss - rss < WINDOW + 20 * MIB
            await asyncio.sleep(0.01)
        assert scene.oracle.p99() < 0.05
        # What was accepted is in the window, or has been taken.
        accepted = journal.read_text().count(" ok ")
        least = QUICK + WINDOW // 50_000
        assert least <= accepted < least + seconds + 10
        # The rest is for one that keeps up.
        assert await consumer.stop() == ""
        await scene.spawn_consumer(slow)
        await until(lambda: journal.read_text().count(" ok ") > accepted + 500, 20)
        await scene.collect(sender)
        # While the mailbox moves, they go through its queue, which has a limit.
        refused = scene.oracle.errors()
        assert set(refused) <= {"MailboxFullError"}
        await scene.executed(len(scene.oracle.calls) - sum(refused.values()))


@pytest.mark.parametrize("calls", [300, pytest.param(2_000, marks=FULL)])
async def test_calls_in_both_directions(
    redis_url: str, tmp_path: Path, calls: int
) -> None:
    """Two agents that fill each other's windows both go on."""
    name = f"two agents call each other, {calls:,} x 50 kB at once each"
    async with Scene(redis_url, tmp_path, "30", name) as scene:
        left, right = await scene.spawn(), await scene.spawn()
        for agent in (left, right):
            await scene.direct(agent.handle)
        answers = await asyncio.gather(
            scene.call(left.handle, right.handle, calls, 50_000, action="flood"),
            scene.call(right.handle, left.handle, calls, 50_000, action="flood"),
        )
        assert answers == [calls, calls]
        scene.load_journals()


@pytest.mark.parametrize("total", [20, pytest.param(100, marks=FULL)])
async def test_large_and_small_at_once(
    redis_url: str, tmp_path: Path, total: int
) -> None:
    """All arrive intact, and small ones are not held up by large ones."""
    name = f"8 x 1 MB and 64 of {total} MB in all, with small calls"
    async with Scene(
        redis_url, tmp_path, "31", name, rss=20 * MIB + 3 * total * MIB
    ) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        # Of another sender, for those of one sender stay in order; by the same link.
        async with await scene.factory.create_user_client() as client:
            small = scene.handle(agent.handle, client)
            await scene.direct(small)
            await _large_and_small(scene, agent.handle, small, total)
        assert not scene.oracle.errors()


async def _large_and_small(
    scene: Scene, handle: Handle[object], small: Handle[object], total: int
) -> None:
    chance = random.Random(31)
    shares = [chance.uniform(0.1, 1.0) for _ in range(64)]
    sizes = [MIB] * 8 + [int(s / sum(shares) * total * MIB) for s in shares]
    payloads = [chance.randbytes(size) for size in sizes]
    right = [hashlib.sha256(payload).hexdigest() for payload in payloads]
    large = []
    for payload in payloads:
        for action in ("digest", "echo"):
            call = scene.call(handle, payload, action=action, sender="large")
            large.append(scene.spawn_task(call))
            # One after the other: this process has other things to do, too.
            await asyncio.sleep(0)
    took = []
    while not all(task.done() for task in large):
        start = time.monotonic()
        await scene.call(small, sender="small")
        took.append(time.monotonic() - start)
        await asyncio.sleep(0.005)
    assert percentile(sorted(took), 0.99) < 0.05, sorted(took)[-10:]
    digests, echoes = large[::2], large[1::2]
    assert [task.result() for task in digests] == right
    assert [hashlib.sha256(t.result()).hexdigest() for t in echoes] == right


@pytest.mark.fault
async def test_queue_full(redis_url: str, tmp_path: Path) -> None:
    """Who comes too late is told so; nobody's message is dropped for it."""
    name = "10,200 calls to an offline agent, 10,000 fit"
    async with Scene(redis_url, tmp_path, "32", name, ordered=True, rss=90 * MIB) as s:
        offline = await s.register()
        handle = s.handle(offline)
        s.call_many(handle, 10_200)
        await until(lambda: s.oracle.errors().total() >= 200, 30, pause=0.1)
        async with redis.asyncio.Redis.from_url(redis_url) as admin:
            keys = [k async for k in admin.scan_iter(f"{{{s.namespace}}}:q:*")]
            assert [await admin.xlen(key) for key in keys] == [10_000]
        await s.spawn(offline)
        await s.settled(30)
        assert s.oracle.errors() == {"MailboxFullError": 200}
        assert len(s.oracle.results()) == 10_000


@pytest.mark.parametrize(
    ("part", "stop"), [(100, 1), pytest.param(1_250, 7, marks=FULL)]
)
async def test_order_across_paths(
    redis_url: str, tmp_path: Path, part: int, stop: int
) -> None:
    """Whichever way a message takes, it does not overtake another."""
    name = f"{8 * part:,} calls: offline, relay, direct, cut, relay, direct"
    async with Scene(redis_url, tmp_path, "33", name, ordered=True, rss=60 * MIB) as s:
        registration = await s.register()
        handle = s.handle(registration)
        port = s.factory.redis_info.port
        s.call_many(handle, part)  # into the queue
        agent = await s.spawn(registration)
        s.call_many(handle, part)  # while the queue is emptied
        await s.direct(handle)
        s.call_many(handle, part)
        for _ in range(3):
            assert cut_links(port) > 0
            s.call_many(handle, part)
            await s.direct(handle)
        agent.pause()
        s.call_many(handle, part)
        # Suspected after 6 s: what is sent then goes into the queue.
        await asyncio.sleep(stop)
        s.call_many(handle, part)
        agent.resume()
        await s.direct(handle)
        await s.settled(20)
        assert not s.oracle.errors()


@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=FULL)])
async def test_links_cut_under_load(
    redis_url: str, tmp_path: Path, rounds: int
) -> None:
    """A broken connection costs nothing but a moment."""
    name = "all direct connections of a caller cut every 100 ms"
    async with Scene(
        redis_url, tmp_path, "17b", name, rounds=rounds, ordered=True, worst=2.0
    ) as scene:
        agent = await scene.spawn(agent=Host)
        await scene.direct(agent.handle)
        scene.load(agent.handle, 64, 0.01)
        port = scene.factory.redis_info.port
        for _ in range(rounds):
            await asyncio.sleep(0.1)
            scene.oracle.fault()
            cut_links(port)
        await scene.answered(500)
        await scene.settled(10)
        assert not scene.oracle.errors()
