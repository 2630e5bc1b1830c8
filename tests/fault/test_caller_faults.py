"""The process that calls dies, gives up, or ends in a hurry."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from academy.body import ActionRequest
from academy.embedded import EmbeddedServer
from academy.handle import Handle
from academy.message import Message
from academy.serialize import SerializationStrategy
from tests.fault.agents import LoopClock, objects
from tests.fault.harness import AgentProcess, Scene, cut_links, nothing_kept, until
from tests.fault.oracle import grown

FULL = pytest.mark.fault
TEN_MB = 10_000_000


@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=FULL)])
async def test_caller_killed(redis_url: str, tmp_path: Path, rounds: int) -> None:
    """Nothing of it is left in the agent, which is there for others."""
    name = "SIGKILL of the caller, 200 calls in flight"
    async with Scene(redis_url, tmp_path, "3", name, rounds=rounds) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        before = await agent.condition()
        for number in range(rounds):
            lines = scene.oracle.lines()
            caller = await scene.spawn_caller(
                f"doomed{number}", [agent.registration], tasks=200, hold=1.0
            )
            await scene.executed(lines + 200)
            scene.kill_caller(caller)
            await scene.call(agent.handle)
        killed = time.monotonic()
        while True:
            after = await agent.condition()
            left = {
                name: after[name]
                for name in ("tasks", "fds")
                if after[name] > before[name]
            } | grown(before["objects"], after["objects"], slack=5 + rounds)
            # Of a caller that did not say goodbye the numbers of its streams are kept.
            if not left:
                break
            assert time.monotonic() - killed < 15, f"left in the agent: {left}"
            await asyncio.sleep(0.25)


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=FULL)])
async def test_killed_in_a_large_frame(
    redis_url: str, tmp_path: Path, rounds: int
) -> None:
    """Half a message holds nobody up: not the loop of who gets it, not others."""
    chance = random.Random(5)
    name = "SIGKILL of the sender of 10 MB frames"
    async with Scene(redis_url, tmp_path, "5", name, rounds=rounds) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        for number in range(rounds):
            caller = await scene.spawn_caller(
                f"large{number}", [agent.registration], tasks=2, size=TEN_MB
            )
            # It always sends, so this is in the middle of a frame.
            await asyncio.sleep(chance.uniform(0.0, 0.05))
            await agent.condition()
            scene.kill_caller(caller)
            for _ in range(10):
                await scene.call(agent.handle)
            assert (await agent.condition())["lag"] < 0.5


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=FULL)])
async def test_killed_in_a_large_result(
    redis_url: str, tmp_path: Path, rounds: int
) -> None:
    chance = random.Random(6)
    clock = LoopClock()
    name = "SIGKILL of an agent that answers with 10 MB"
    async with Scene(redis_url, tmp_path, "5b", name, rounds=rounds, rss=80 << 20) as s:
        registration = await s.register()
        for _ in range(rounds):
            agent = await s.spawn(registration)
            await s.direct(agent.handle)
            before = s.oracle.lines()
            s.call_many(agent.handle, 4, TEN_MB, action="produce")
            await s.executed(before + 4)
            await asyncio.sleep(chance.uniform(0.0, 0.02))
            clock.start()
            agent.signal_kill()
            await s.settled(20)
            await clock.stop()
            agent.kill()
        assert set(s.oracle.errors()) <= {"PeerLostError"}
        # A result of 10 MB is also joined and unpickled in this loop.
        assert clock.worst < 0.5


@pytest.mark.parametrize("running", [True, False])
async def test_closed_right_after_it_has_sent(
    redis_url: str, tmp_path: Path, running: bool
) -> None:
    """What a short-lived client sent is taken, though it waited for nothing."""
    where = "running" if running else "offline"
    name = f"close of a client right after 100 one-way sends, agent {where}"
    rounds = 5
    async with Scene(redis_url, tmp_path, "8", name, rounds=rounds, ordered=True) as s:
        registration = await s.register()
        agent = await s.spawn(registration) if running else None
        sent = []
        for number in range(rounds):
            client = await s.factory.create_user_client()
            for _ in range(100):
                id = s.oracle.begin(f"short{number}")
                request = ActionRequest(
                    action="record",
                    serialization=SerializationStrategy.PICKLE,
                    pargs=(id,),
                )
                await client.send(
                    Message.create(client.client_id, registration.agent_id, request)
                )
                sent.append(id)
            await client.close()
        agent = agent or await s.spawn(registration)
        await s.executed(len(sent), 10)
        assert sorted(s.oracle.executed()) == sorted(sent)
        for id in sent:
            s.oracle.end(id)


@pytest.mark.parametrize("rounds", [1_000, pytest.param(10_000, marks=FULL)])
async def test_cancelled_at_any_moment(
    redis_url: str, tmp_path: Path, rounds: int
) -> None:
    """Nothing is kept about calls that nobody waits for any more."""
    chance = random.Random(51)
    name = "calls cancelled or timed out at random moments"
    async with Scene(redis_url, tmp_path, "51", name, rounds=rounds) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        for count in (100, rounds):
            # The first ones are for what is made once and kept.
            await _cancel_calls(scene, agent.handle, count, chance)
            await scene.direct(agent.handle)
            if count == 100:
                before, there = objects(), await agent.condition()
        await nothing_kept(before, slack=10)
        await asyncio.sleep(0.1)  # for the acknowledgements of the last answers
        after = await agent.condition()
        left = grown(there["objects"], after["objects"], slack=10)
        assert not left, f"left in the agent: {left}"
        assert after["tasks"] <= there["tasks"]
        assert not scene.oracle.errors()


async def _cancel_calls(
    scene: Scene, handle: Handle[object], count: int, chance: random.Random
) -> None:
    for _ in range(count // 100):
        calls = []
        for n in range(100):
            hold = chance.choice((0.0, 0.005))
            limit = chance.uniform(0.0, 0.015)
            if n % 2:
                calls += scene.call_many(handle, 1, hold, timeout=limit)
            else:
                (call,) = scene.call_many(handle, 1, hold)
                asyncio.get_running_loop().call_later(limit, call.cancel)
                calls.append(call)
        await asyncio.wait(calls)
        scene.tasks.clear()


@pytest.mark.parametrize("kind", ["server", "links", "agent", "all"])
async def test_close_under_faults(
    fresh_server: EmbeddedServer, tmp_path: Path, kind: str
) -> None:
    """Whatever is broken, closing takes at most 3 s, and once is enough."""
    name = f"close() with calls under way, dead: {kind}"
    async with Scene(fresh_server.url, tmp_path, "52", name) as scene:
        agent = await scene.spawn()
        await _close_clients(scene, agent, fresh_server, kind)


async def _close_clients(
    scene: Scene, agent: AgentProcess, server: EmbeddedServer, kind: str
) -> None:
    clients = [await scene.factory.create_user_client() for _ in range(10)]
    for client in clients:
        handle = scene.handle(agent.registration, client)
        scene.call_many(handle, 10, 60.0)
    await scene.executed(100)
    scene.oracle.fault()
    if kind in ("agent", "all"):
        agent.kill()
    if kind in ("server", "all"):
        await asyncio.to_thread(server.kill)
    if kind in ("links", "all"):
        cut_links(server.port)
    start = time.monotonic()
    await asyncio.gather(*(client.close() for client in clients))
    assert time.monotonic() - start < 3
    await asyncio.gather(*(client.close() for client in clients))
    await until(lambda: all(task.done() for task in scene.tasks), 1)
    await scene.client.close()
    assert time.monotonic() - start < 6
