"""The process that is called dies, stops, or is busy."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import pytest

from academy.embedded import EmbeddedServer
from academy.exchange import MailboxStatus
from academy.exchange.hybrid import HybridExchangeFactory
from tests.fault.agents import Host, shift_clock
from tests.fault.harness import Scene, until

FULL = pytest.mark.fault


@pytest.mark.parametrize(
    ("rounds", "calls"), [(2, 200), pytest.param(20, 1_000, marks=FULL)]
)
async def test_killed_while_it_executes(
    redis_url: str, tmp_path: Path, rounds: int, calls: int
) -> None:
    name = f"SIGKILL of the receiver, {calls:,} calls in flight, same host"
    async with Scene(redis_url, tmp_path, "1", name, rounds=rounds, p99=1.0) as scene:
        registration = await scene.register()
        for number in range(1, rounds + 1):
            agent = await scene.spawn(registration)
            scene.call_many(agent.handle, calls, 60.0)
            await scene.executed(number * calls)
            scene.oracle.fault()
            agent.kill()
            await scene.settled(20)
        assert scene.oracle.errors() == {"PeerLostError": rounds * calls}


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=FULL)])
async def test_killed_at_any_moment_and_restarted(
    redis_url: str, tmp_path: Path, rounds: int
) -> None:
    """What the killed process had not got is executed by the next one."""
    chance = random.Random(1)
    name = "SIGKILL of the receiver at a random moment, and restart"
    async with Scene(
        redis_url, tmp_path, "1b", name, rounds=rounds, ordered=True
    ) as scene:
        agent = await scene.spawn()
        for _ in range(rounds):
            await scene.direct(agent.handle)
            before = scene.oracle.lines()
            scene.call_many(agent.handle, 1_000, 0.02)
            await scene.executed(before + chance.randrange(1, 1_000))
            scene.oracle.fault()
            agent.kill()
            agent = await scene.spawn(agent.registration)
            await scene.settled(20)
        assert set(scene.oracle.errors()) <= {"PeerLostError"}


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_stopped_for_longer_than_its_lease(
    redis_url: str, tmp_path: Path
) -> None:
    name = "SIGSTOP of the receiver for 30 s, SIGCONT"
    async with Scene(redis_url, tmp_path, "4", name, worst=12.0) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        before = scene.oracle.lines()
        calls = scene.call_many(agent.handle, 200, 2.0)
        await scene.executed(before + 200)
        scene.oracle.fault()
        agent.pause()
        stopped = time.monotonic()
        await asyncio.wait(calls, timeout=12)
        assert scene.oracle.errors() == {"PeerLostError": 200}
        await asyncio.sleep(30 - (time.monotonic() - stopped))
        agent.resume()
        scene.oracle.fault()
        # Its late answers are dropped, and it is of use.
        results = await asyncio.gather(*scene.call_many(agent.handle, 200))
        assert None not in results
        assert await agent.handle.agent_status() is MailboxStatus.ACTIVE


async def test_stopped_for_a_moment(redis_url: str, tmp_path: Path) -> None:
    """Nobody is declared dead who comes back before its lease is over."""
    async with Scene(redis_url, tmp_path, "4b", "SIGSTOP for 2 s, SIGCONT") as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        before = scene.oracle.lines()
        scene.call_many(agent.handle, 200, 0.2)
        await scene.executed(before + 200)
        scene.oracle.fault()
        agent.pause()
        scene.call_many(agent.handle, 200)
        await asyncio.sleep(2)
        agent.resume()
        await scene.settled(20)
        assert not scene.oracle.errors()


async def test_deadline_of_the_caller(redis_url: str, tmp_path: Path) -> None:
    """Whatever has stopped, `wait_for` returns on time."""
    name = "wait_for(call, 3), receiver stopped"
    async with Scene(redis_url, tmp_path, "13b", name, worst=3.3) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        agent.pause()
        start = time.monotonic()
        calls = scene.call_many(agent.handle, 100, timeout=3.0)
        first, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert first
        assert time.monotonic() - start >= 3.0
        await asyncio.wait(calls)
        assert time.monotonic() - start < 3.3
        agent.resume()


@pytest.mark.parametrize(
    "seconds", [3, pytest.param(20, marks=[FULL, pytest.mark.slow])]
)
async def test_event_loop_blocked(redis_url: str, tmp_path: Path, seconds: int) -> None:
    """It is busy, not dead: the lease is renewed by a thread of its own."""
    name = f"event loop of the receiver blocked for {seconds} s"
    async with Scene(redis_url, tmp_path, "50", name) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        before = scene.oracle.lines()
        scene.call_many(agent.handle, 1, float(seconds), action="block")
        await scene.executed(before + 1)
        scene.call_many(agent.handle, 100)
        end = time.monotonic() + seconds - 1
        while time.monotonic() < end:
            assert await agent.handle.agent_status() is MailboxStatus.ACTIVE
            await asyncio.sleep(0.25)
        await scene.settled(20)
        assert not scene.oracle.errors()


async def test_port_is_used_by_another_process(
    redis_url: str, tmp_path: Path, free_port: int
) -> None:
    """What was for a dead process does not reach the one that has its port now."""
    name = "port of a killed process used by another agent"
    async with Scene(redis_url, tmp_path, "48", name) as scene:
        factory = HybridExchangeFactory.from_url(
            scene.member_url, namespace=scene.namespace, ports=[free_port]
        )
        first = await scene.spawn(factory=factory)
        await scene.direct(first.handle)
        before = scene.oracle.lines()
        scene.call_many(first.handle, 100, 60.0)
        await scene.executed(before + 100)
        known = set(scene.oracle.calls)
        first.kill()
        second = await scene.spawn(factory=factory)
        await scene.direct(second.handle)
        to_first = scene.call_many(first.handle, 20, timeout=1.0)
        await asyncio.gather(*to_first)
        await scene.settled(10)
        assert scene.oracle.errors() == {"PeerLostError": 100}
        own = {e.id for e in scene.oracle.executions() if e.pid == second.pid}
        assert not own & known
        open_ = {c.id for c in scene.oracle.calls.values() if c.outcome == "cancelled"}
        assert len(open_) == 20
        assert not own & open_


@pytest.mark.parametrize(
    "seconds", [1, pytest.param(13, marks=[FULL, pytest.mark.slow])]
)
async def test_wall_clock_jumps(redis_url: str, tmp_path: Path, seconds: int) -> None:
    """Only monotonic clocks decide anything."""
    name = f"wall clock + 1 day, then - 1 day, {seconds} s each"
    async with Scene(redis_url, tmp_path, "49", name, worst=2.0) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        scene.load(agent.handle, 16, 0.01)
        for jump in (86_400.0, -86_400.0):
            await agent.handle.shift_clock(jump)
            undo = shift_clock(-jump)
            try:
                await asyncio.sleep(seconds)
            finally:
                undo()
            assert await agent.handle.agent_status() is MailboxStatus.ACTIVE
        assert not scene.oracle.errors()


@pytest.mark.parametrize(
    "seconds", [1, pytest.param(12, marks=[FULL, pytest.mark.slow])]
)
async def test_everything_suspended(
    fresh_server: EmbeddedServer, tmp_path: Path, seconds: int
) -> None:
    """As when a laptop is closed: all goes on where it was, leases or not."""
    name = f"agent, caller and server SIGSTOPped for {seconds} s"
    async with Scene(fresh_server.url, tmp_path, "49b", name) as scene:
        agent = await scene.spawn()
        caller = await scene.spawn_caller(
            "asleep", [agent.registration], tasks=32, hold=0.02
        )
        await scene.executed(500)
        pids = [agent.pid, caller.pid, fresh_server.pid]
        for order in (pids, pids[::-1]):
            for pid in order:
                os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
            lines = scene.oracle.lines()
            for pid in order:
                os.kill(pid, signal.SIGCONT)
            await scene.executed(lines + 500)
        await scene.collect(caller)
        assert not scene.oracle.errors()


@pytest.mark.parametrize(
    ("files", "guests"), [(64, 50), pytest.param(64, 200, marks=FULL)]
)
async def test_few_files(
    redis_url: str, tmp_path: Path, files: int, guests: int
) -> None:
    """Descriptors grow with processes, and the want of them is survived."""
    name = f"RLIMIT_NOFILE {files}, {guests} agents in one process, EMFILE"
    async with Scene(redis_url, tmp_path, "47", name, noisy=True) as scene:
        host = await scene.spawn(agent=Host, files=files)
        registrations = await _guests(scene, guests)
        await host.handle.host(registrations)
        handles = [scene.handle(r) for r in registrations]
        for handle in handles:
            scene.call_many(handle, 10)
        await scene.settled(20)
        assert await host.handle.use_up_files() > 0
        caller = await scene.spawn_caller("late", registrations, tasks=8, pause=0.01)
        journal = caller.journal
        await until(lambda: journal.read_text().count(" ok ") > 200, 15)
        await host.handle.give_files_back()
        answered = journal.read_text().count(" ok ")
        await until(lambda: journal.read_text().count(" ok ") > answered + 500, 15)
        await scene.collect(caller)
        assert not scene.oracle.errors()
        # A call that opens a link after the storm, too.
        await scene.direct(handles[0])


@pytest.mark.parametrize("guests", [20, pytest.param(100, marks=FULL)])
async def test_all_to_all(redis_url: str, tmp_path: Path, guests: int) -> None:
    """Two processes with many agents have one link."""
    name = f"{2 * guests} agents in two processes, all to all"
    async with Scene(redis_url, tmp_path, "47b", name) as scene:
        hosts, groups = [], []
        for _ in range(2):
            host = await scene.spawn(agent=Host)
            registrations = await _guests(scene, guests)
            await host.handle.host(registrations)
            hosts.append(host)
            groups.append([r.agent_id for r in registrations])
        right = await asyncio.gather(
            hosts[0].handle.mesh(groups[1], "a"), hosts[1].handle.mesh(groups[0], "b")
        )
        assert right == [guests**2, guests**2]
        scene.load_journals()
        assert len(scene.oracle.executed()) == 2 * guests**2
        for host in hosts:
            assert (await host.condition())["fds"] <= 40


async def _guests(scene: Scene, count: int) -> list[object]:
    return await scene.client.register_agents([(Host, None)] * count)
