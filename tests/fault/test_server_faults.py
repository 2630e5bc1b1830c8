"""The server dies, stops, is full, or loses its data."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis.asyncio

from academy.embedded import EmbeddedServer
from academy.exchange import MailboxStatus
from academy.handle import Handle
from tests.fault.agents import Recorder
from tests.fault.harness import Scene
from tests.fault.oracle import percentile
from tests.proxy import Proxy
from tests.restricted import Server

FULL = pytest.mark.fault
SLOW = [pytest.mark.fault, pytest.mark.slow]


@pytest.fixture
def kept_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server whose data can be deleted while it is down."""
    with Server(persist=tmp_path / "server") as running:
        yield running


@pytest.mark.parametrize(
    "seconds",
    [10, pytest.param(60, marks=[*SLOW, pytest.mark.timeout(120)])],
)
async def test_down(fresh_server: EmbeddedServer, tmp_path: Path, seconds: int) -> None:
    """Connected peers do not notice that the server is away."""
    name = f"server SIGKILLed, down for {seconds} s, p2p load"
    async with Scene(fresh_server.url, tmp_path, "18", name, worst=1.0) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        scene.load(agent.handle, 4, pause=0.005)
        start = time.monotonic()
        await asyncio.sleep(3)
        down = time.monotonic()
        scene.oracle.fault()
        await asyncio.to_thread(fresh_server.kill)
        await asyncio.sleep(seconds)
        up = time.monotonic()
        await asyncio.to_thread(fresh_server.restart)
        await asyncio.sleep(2)
        await scene.settled(10)
        assert not scene.oracle.errors()
        before, during = _latencies(scene, start, down), _latencies(scene, down, up)
        assert statistics.median(during) < 1.5 * statistics.median(before)
        assert percentile(during, 0.99) < 2 * percentile(before, 0.99) + 0.01
        # What is new works again: another client, and another agent.
        other = await scene.spawn()
        await scene.direct(other.handle)


def _latencies(scene: Scene, start: float, end: float) -> list[float]:
    calls = scene.oracle.calls.values()
    return sorted(
        call.ended - call.begun
        for call in calls
        if call.ended is not None and start < call.begun < end
    )


@pytest.mark.parametrize("rounds", [1, pytest.param(4, marks=FULL)])
async def test_restarted_empty(
    kept_server: EmbeddedServer, tmp_path: Path, rounds: int
) -> None:
    """The owners of mailboxes are back in the directory within 4 s."""
    name = "server restarted empty under load with binds"
    async with Scene(kept_server.url, tmp_path, "19", name, rounds=rounds) as scene:
        agents = [await scene.spawn() for _ in range(3)]
        for agent in agents:
            await scene.direct(agent.handle)
            scene.load(agent.handle, 8, 0.01)
        binder = scene.spawn_task(_bind_again_and_again(scene, agents[0].handle))
        for _ in range(rounds):
            await asyncio.sleep(0.5)
            scene.oracle.fault()
            await asyncio.to_thread(kept_server.kill)
            shutil.rmtree(tmp_path / "server" / "appendonlydir")
            await asyncio.to_thread(kept_server.restart)
            await _registered(scene, {a.registration.agent_id for a in agents})
        await scene.answered(500)
        scene.rest()
        assert await asyncio.wait_for(binder, 20) > rounds
        await scene.settled(20)
        assert set(scene.oracle.errors()) <= {"RequestLostError"}


async def _bind_again_and_again(scene: Scene, handle: Handle[Recorder]) -> int:
    """Make clients that call once; return how many were made."""
    made = 0
    while scene.loading:
        async with await scene.factory.create_user_client() as client:
            mine = scene.handle(handle, client)
            await scene.call(mine, sender=f"binder{made}")
        made += 1
    return made


async def _registered(scene: Scene, agents: set[object]) -> None:
    start = time.monotonic()
    while True:
        found = set(await scene.client.discover(Recorder))
        statuses = [await scene.client.status(agent) for agent in agents]
        if found == agents and set(statuses) == {MailboxStatus.ACTIVE}:
            return
        assert time.monotonic() - start < 4, f"{found}, {statuses}"
        await asyncio.sleep(0.05)


async def test_data_deleted(fresh_server: EmbeddedServer, tmp_path: Path) -> None:
    """What only the server had is reported lost; the rest goes on."""
    name = "FLUSHALL with 100 relay-held calls"
    async with Scene(fresh_server.url, tmp_path, "20", name, worst=25.0) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        scene.load(agent.handle, 8, 0.01)
        offline = await scene.register()
        held = scene.call_many(scene.handle(offline), 100, sender="held")
        await _queued(scene, 100)
        scene.oracle.fault()
        async with redis.asyncio.Redis.from_url(fresh_server.url) as admin:
            await admin.flushall()
        await asyncio.wait(held, timeout=25)
        await scene.settled(10)
        assert scene.oracle.errors() == {"RequestLostError": 100}
        assert await agent.handle.agent_status() is MailboxStatus.ACTIVE


async def _queued(scene: Scene, count: int) -> None:
    """Wait until so many messages are in queues on the server."""
    async with (
        asyncio.timeout(10),
        redis.asyncio.Redis.from_url(scene.url) as admin,
    ):
        while True:
            lengths = [
                await admin.xlen(key)
                async for key in admin.scan_iter(f"{{{scene.namespace}}}:q:*")
            ]
            if sum(lengths) >= count:
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("seconds", [3, pytest.param(12, marks=SLOW)])
async def test_stopped(
    fresh_server: EmbeddedServer, tmp_path: Path, seconds: int
) -> None:
    """Sends that got no answer are repeated, and taken once."""
    name = f"server SIGSTOPped for {seconds} s during offline sends"
    async with Scene(fresh_server.url, tmp_path, "21", name, ordered=True) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        offline = await scene.register()
        handle = scene.handle(offline)
        scene.call_many(handle, 20, sender="offline")
        await _queued(scene, 20)
        os.kill(fresh_server.pid, signal.SIGSTOP)
        scene.oracle.fault()
        scene.load(agent.handle, 8, 0.01)
        for _ in range(20):
            scene.call_many(handle, 1, sender="offline")
            await asyncio.sleep(seconds / 20)
        os.kill(fresh_server.pid, signal.SIGCONT)
        await scene.spawn(offline)
        await scene.settled(20)
        assert not scene.oracle.errors()


@pytest.mark.parametrize("seconds", [2, pytest.param(30, marks=SLOW)])
async def test_connections_cut(
    fresh_server: EmbeddedServer, tmp_path: Path, seconds: int
) -> None:
    """Nothing is lost or taken twice, directly or by the queues."""
    name = f"CLIENT KILL TYPE normal every 200 ms for {seconds} s"
    async with Scene(fresh_server.url, tmp_path, "22", name) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        registration = await scene.register()
        scene.load(agent.handle, 16, 0.01)
        # Started anew again and again, so that its messages go by the queue.
        scene.load(scene.handle(registration), 16, 0.01, sender="queue")
        scene.oracle.fault()
        end = time.monotonic() + seconds
        cutter = scene.spawn_task(_cut(fresh_server.url, end))
        while time.monotonic() < end:
            second = await scene.spawn_consumer(registration)
            await asyncio.sleep(0.5)
            assert await second.stop() == ""
        await cutter
        await scene.spawn_consumer(registration)
        await scene.answered(200)
        await scene.settled(20)
        # What was being executed at a clean close is not answered any more.
        assert set(scene.oracle.errors()) <= {"PeerLostError"}
        direct = [c for c in scene.oracle.calls.values() if c.sender == "main"]
        assert all(c.outcome == "ok" for c in direct)


async def _cut(url: str, end: float) -> None:
    async with redis.asyncio.Redis.from_url(url) as admin:
        while time.monotonic() < end:
            await admin.execute_command("CLIENT", "KILL", "TYPE", "normal")
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("fault", ["full", "read-only"])
@pytest.mark.parametrize("seconds", [2, pytest.param(15, marks=SLOW)])
async def test_refuses_to_write(
    fresh_server: EmbeddedServer, tmp_path: Path, fault: str, seconds: int
) -> None:
    """Who needs the server gets a named error; who does not, notices nothing."""
    name = f"server {fault} for {seconds} s"
    async with Scene(fresh_server.url, tmp_path, "24", name) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        scene.load(agent.handle, 8, 0.01)
        offline = await scene.register()
        admin = redis.asyncio.Redis.from_url(fresh_server.url)
        scene.oracle.fault()
        await _refuse_writes(admin, fault)
        calls = scene.call_many(scene.handle(offline), 20, sender="offline")
        await asyncio.sleep(seconds)
        await _accept_writes(admin)
        await admin.aclose()
        await scene.spawn(offline)
        await asyncio.wait(calls, timeout=35)
        await scene.settled(10)
        direct = [c for c in scene.oracle.calls.values() if c.sender == "main"]
        assert {c.outcome for c in direct} == {"ok"}
        named = {"MailboxFullError", "PeerUnreachableError"}
        assert set(scene.oracle.errors()) <= named
        assert await agent.handle.agent_status() is MailboxStatus.ACTIVE


async def _refuse_writes(admin: redis.asyncio.Redis, fault: str) -> None:
    if fault == "full":
        await admin.config_set("maxmemory", "1")
    else:
        await admin.replicaof("127.0.0.1", "1")


async def _accept_writes(admin: redis.asyncio.Redis) -> None:
    await admin.config_set("maxmemory", "0")
    await admin.replicaof("NO", "ONE")


class Failover(Proxy):
    """An address behind which the server is replaced by another."""

    def point_at(self, port: int) -> None:
        self._target = port


@pytest.mark.fault
@pytest.mark.parametrize("calls", [100, 500])
async def test_promotion_with_lost_writes(
    fresh_server: EmbeddedServer, tmp_path: Path, calls: int
) -> None:
    """All calls end. What was taken since the loss may be taken again (pitfall 1)."""
    name = f"replica promoted without the last writes, {calls} calls"
    password = fresh_server.password
    with EmbeddedServer(password=password) as replica:
        async with Failover(fresh_server.port) as address:
            url = fresh_server.url.replace(str(fresh_server.port), str(address.port))
            async with Scene(
                url, tmp_path, "25", name, twice=True, worst=25.0
            ) as scene:
                await _fail_over(scene, fresh_server, replica, address, calls)
                await scene.settled(25)
                assert set(scene.oracle.errors()) <= {
                    "PeerLostError",
                    "RequestLostError",
                }


async def _fail_over(
    scene: Scene,
    server: EmbeddedServer,
    replica: EmbeddedServer,
    address: Failover,
    calls: int,
) -> None:
    """Let half of the calls be known to the replica, but not that they were taken."""
    async with redis.asyncio.Redis.from_url(replica.url) as admin:
        await admin.config_set("masterauth", server.password)
        await admin.replicaof("127.0.0.1", server.port)
        registration = await scene.register()
        handle = scene.handle(registration)
        scene.call_many(handle, calls)
        await _queued(scene, calls)
        await _replicated(server, admin)
        await admin.replicaof("NO", "ONE")
    first = await scene.spawn_consumer(registration, take=calls // 2, hold=0.2)
    await scene.executed(calls // 2)
    scene.call_many(handle, calls, sender="lost")
    await asyncio.sleep(0.5)
    scene.oracle.fault()
    await asyncio.to_thread(server.kill)
    address.point_at(replica.port)
    await address.drop()
    first.kill()
    await scene.spawn_consumer(registration)


async def _replicated(server: EmbeddedServer, replica: redis.asyncio.Redis) -> None:
    async with (
        asyncio.timeout(10),
        redis.asyncio.Redis.from_url(server.url) as master,
    ):
        while True:
            there = (await master.info("replication"))["master_repl_offset"]
            here = await replica.info("replication")
            up = here.get("master_link_status") == "up"
            if up and here.get("slave_repl_offset", -1) >= there:
                return
            await asyncio.sleep(0.02)
