"""Mailboxes pass from one process to another, or end for good."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest
import redis.asyncio

from academy.body import ActionRequest
from academy.exception import MailboxTerminatedError
from academy.exchange import RedisExchangeFactory
from academy.exchange.keys import Keys
from academy.handle import Handle
from academy.message import Message
from academy.serialize import SerializationStrategy
from tests.fault.agents import Host, objects
from tests.fault.harness import Scene, nothing_kept

FULL = pytest.mark.fault


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=FULL)])
async def test_graceful_restart(redis_url: str, tmp_path: Path, rounds: int) -> None:
    """Nothing is lost, nothing runs twice, and nobody sees an error."""
    name = "graceful restart under 500 calls/s of 10 ms"
    async with Scene(
        redis_url, tmp_path, "6", name, rounds=rounds, ordered=True
    ) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        scene.paced(agent.handle, 500, 0.01)
        for _ in range(rounds):
            await scene.answered(100)
            scene.oracle.fault()
            assert await agent.stop() == ""
            agent = await scene.spawn(agent.registration)
        await scene.answered(100)
        await scene.settled(20)
        assert not scene.oracle.errors()


@pytest.mark.parametrize("calls", [300, pytest.param(1_000, marks=FULL)])
async def test_closed_with_unread_requests(
    redis_url: str, tmp_path: Path, calls: int
) -> None:
    """What the first process has not taken is taken by the second, in order."""
    name = f"clean close with {calls:,} unread, bound elsewhere"
    async with Scene(redis_url, tmp_path, "7", name, ordered=True) as scene:
        registration = await scene.register()
        first = await scene.spawn_consumer(registration, take=200)
        for _ in range(200):
            await scene.call(first.handle)
        scene.call_many(first.handle, calls)
        await asyncio.sleep(0.5)  # for them to be on their way
        scene.oracle.fault()
        assert await first.stop() == ""
        second = await scene.spawn_consumer(registration)
        await scene.settled(20)
        assert not scene.oracle.errors()
        by_second = [e for e in scene.oracle.executions() if e.pid == second.pid]
        assert len(by_second) == calls


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=FULL)])
async def test_taken_over(redis_url: str, tmp_path: Path, rounds: int) -> None:
    """The newest owner gets all, and the one before learns that it is none."""
    name = "second process binds the mailbox under load"
    async with Scene(
        redis_url, tmp_path, "9", name, rounds=rounds, ordered=True
    ) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        scene.load(agent.handle, 32, 0.01)
        for _ in range(rounds):
            await scene.answered(100)
            scene.oracle.fault()
            newer = await scene.spawn(agent.registration)
            bound = time.monotonic()
            assert await agent.ended(5) == "FencedError"
            assert time.monotonic() - bound < 3.5
            await scene.answered(200)
            agent = newer
        await scene.settled(20)
        assert set(scene.oracle.errors()) <= {"PeerLostError"}
        last = scene.oracle.executions()[-100:]
        assert {e.pid for e in last} == {agent.pid}


@pytest.mark.parametrize("rounds", [2, pytest.param(10, marks=FULL)])
async def test_stopped_owner_taken_over(
    redis_url: str, tmp_path: Path, rounds: int
) -> None:
    """When it goes on, it takes nothing that was sent after it was replaced."""
    name = "SIGSTOP of the owner, takeover, SIGCONT"
    async with Scene(redis_url, tmp_path, "10", name, rounds=rounds) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        scene.load(agent.handle, 32, 0.01)
        for _ in range(rounds):
            await scene.answered(100)
            scene.oracle.fault()
            agent.pause()
            newer = await scene.spawn(agent.registration)
            bound = time.monotonic()
            await scene.answered(100)
            lines = scene.oracle.lines()
            agent.resume()
            assert await agent.ended(5) == "FencedError"
            await scene.answered(100)
            late = [
                e.id for e in scene.oracle.executions()[lines:] if e.pid == agent.pid
            ]
            after = [id for id in late if scene.oracle.calls[id].begun > bound]
            assert not after
            agent = newer
        await scene.settled(20)
        assert set(scene.oracle.errors()) <= {"PeerLostError"}


@pytest.mark.fault
@pytest.mark.slow
async def test_owner_stopped_for_long_and_taken_over(
    redis_url: str, tmp_path: Path
) -> None:
    """Its lease has run out: it takes nothing before it has looked."""
    name = "SIGSTOP of the owner for 12 s, takeover, SIGCONT"
    async with Scene(redis_url, tmp_path, "10b", name, ordered=True) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        scene.load(agent.handle, 32, 0.01)
        await scene.answered(100)
        scene.oracle.fault()
        agent.pause()
        newer = await scene.spawn(agent.registration)
        await asyncio.sleep(12)
        lines = scene.oracle.lines()
        agent.resume()
        assert await agent.ended(5) == "FencedError"
        await scene.answered(100)
        later = {e.pid for e in scene.oracle.executions()[lines:]}
        assert later == {newer.pid}


@pytest.mark.parametrize("untaken", [200, pytest.param(500, marks=FULL)])
async def test_terminated(redis_url: str, tmp_path: Path, untaken: int) -> None:
    """All who wait are answered, whichever way their requests went."""
    name = f"terminate: {untaken} direct untaken, 100 running, 100 relay"
    async with Scene(redis_url, tmp_path, "26", name, worst=1.5) as scene:
        registration = await scene.register()
        agent = await scene.spawn_consumer(registration, take=100, hold=60.0)
        await _terminate(scene, agent.handle, untaken)
        assert scene.oracle.errors() == {"AgentTerminatedError": untaken + 200}


async def _terminate(scene: Scene, handle: Handle[object], untaken: int) -> None:
    """Fill a mailbox that takes 100 requests, and terminate it."""
    scene.call_many(handle, 100)
    await scene.executed(100)
    _, port, kwargs = scene.factory.redis_info
    relay = RedisExchangeFactory("127.0.0.1", port, namespace=scene.namespace, **kwargs)
    async with await relay.create_user_client() as far:
        client = await scene.factory.create_user_client()
        request = ActionRequest(
            action="record",
            serialization=SerializationStrategy.PICKLE,
            pargs=("unknown:1",),
        )
        unknown = Message.create(client.client_id, handle.agent_id, request)
        await client.send(unknown)
        await client.close()
        scene.call_many(scene.handle(handle, far), 100, sender="far")
        scene.call_many(handle, untaken)
        await asyncio.sleep(0.5)  # for them to be on their way
        scene.oracle.fault()
        await scene.client.terminate(handle.agent_id)
        await scene.settled(5)


@pytest.mark.parametrize("rounds", [200, pytest.param(1_000, marks=FULL)])
async def test_sent_while_it_is_terminated(
    redis_url: str, tmp_path: Path, rounds: int
) -> None:
    """Each request is taken or refused, and no queue is left."""
    name = "send racing terminate, agents running and offline"
    async with Scene(redis_url, tmp_path, "27", name, rounds=rounds) as scene:
        host = await scene.spawn(agent=Host)
        chance = random.Random(27)
        await scene.direct(host.handle)
        before = objects()
        async with await scene.factory.create_user_client() as other:
            for _ in range(rounds // 100):
                registrations = await scene.client.register_agents([(Host, None)] * 100)
                await host.handle.host(registrations[::2])
                races = (_race(scene, other, r, chance) for r in registrations)
                await asyncio.gather(*races)
        scene.tasks.clear()
        # Nothing is kept about mailboxes that have ended.
        await nothing_kept(before)
        assert set(scene.oracle.errors()) <= {"AgentTerminatedError"}
        await _no_queue_left(scene)


async def _race(
    scene: Scene, other: object, registration: object, chance: random.Random
) -> None:
    """Call an agent and terminate it at the same time, from two clients."""
    agent_id = registration.agent_id
    calls = scene.call_many(scene.handle(registration), 2)
    await asyncio.sleep(chance.uniform(0.0, 0.2))
    calls += scene.call_many(scene.handle(registration, other), 1)
    await other.terminate(agent_id)
    calls += scene.call_many(scene.handle(registration), 1)
    await asyncio.wait(calls, timeout=10)


async def _no_queue_left(scene: Scene) -> None:
    prefix = Keys(scene.namespace).prefix
    async with redis.asyncio.Redis.from_url(scene.url) as admin:
        gone = [key.decode() for key in await admin.zrange(f"{prefix}gone", 0, -1)]
        assert gone
        kinds = ("mb", "q", "r", "ap", "tk", "watch")
        left = [
            f"{kind}:{key}"
            for key in gone
            for kind in kinds
            if await admin.exists(f"{prefix}{kind}:{key}")
        ]
    assert not left


async def test_bind_what_is_terminated(redis_url: str, tmp_path: Path) -> None:
    name = "bind of a terminated mailbox"
    async with Scene(redis_url, tmp_path, "28", name, worst=0.5) as scene:
        registration = await scene.register()
        await scene.client.terminate(registration.agent_id)
        start = time.monotonic()
        with pytest.raises(MailboxTerminatedError):
            await scene.factory.create_agent_client(registration, _never)
        assert time.monotonic() - start < 0.5
        with pytest.raises(AssertionError, match="AgentTerminatedError"):
            await scene.spawn(registration)
        await scene.call(scene.handle(registration))
        assert scene.oracle.errors() == {"AgentTerminatedError": 1}


async def _never(message: Message[object]) -> None:
    raise AssertionError(f"{message} came for a terminated agent")
