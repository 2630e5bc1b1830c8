"""The server dies, stops, or loses its data, under load."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
import redis.asyncio

from academy.embedded import EmbeddedServer
from academy.exchange import MailboxStatus
from tests.fault.harness import load_on_agent


async def test_server_killed_for_ten_seconds(
    fresh_server: EmbeddedServer, namespace: str, tmp_path: Path
) -> None:
    """Killed, and restarted on its append-only file: every call ends, none runs twice.

    The calls that were under way wait for the server to come back.
    """
    async with load_on_agent(fresh_server.url, namespace, tmp_path) as (load, _):
        await asyncio.to_thread(fresh_server.kill)
        await asyncio.sleep(10)
        await asyncio.to_thread(fresh_server.restart)
        await load.answered(200)
        assert await load.finish(timeout=30) == 0
        load.judge()
        assert load.successes > 0.95 * load.calls
        assert max(load.times) < 30


async def test_data_lost(
    fresh_server: EmbeddedServer, namespace: str, tmp_path: Path
) -> None:
    """After FLUSHALL the owners are back within 4 s, and what was lost is named."""
    async with load_on_agent(fresh_server.url, namespace, tmp_path) as (load, _):
        agent_id = load.registration.agent_id
        admin = redis.asyncio.Redis.from_url(fresh_server.url)
        await admin.flushall()
        await admin.aclose()
        start = time.monotonic()
        while (await load.client.status(agent_id)) is not MailboxStatus.ACTIVE:
            assert time.monotonic() - start < 4
            await asyncio.sleep(0.02)
        (found,) = await load.client.discover("tests.fault.Responder")
        assert found == agent_id
        await load.answered(200)
        assert await load.finish(timeout=30) == 0
        load.judge()
        assert set(load.errors) <= {"RequestLostError"}
        assert max(load.times) < 25


@pytest.mark.fault
async def test_server_stopped(
    fresh_server: EmbeddedServer, namespace: str, tmp_path: Path
) -> None:
    """A server that answers nothing for 12 s: sends are repeated, none taken twice."""
    async with load_on_agent(fresh_server.url, namespace, tmp_path) as (load, _):
        os.kill(fresh_server.pid, signal.SIGSTOP)
        await asyncio.sleep(12)
        os.kill(fresh_server.pid, signal.SIGCONT)
        await load.answered(200)
        assert await load.finish(timeout=30) == 0
        load.judge()
        assert not load.errors


@pytest.mark.fault
async def test_connections_cut(
    fresh_server: EmbeddedServer, namespace: str, tmp_path: Path
) -> None:
    """All connections are cut every 200 ms for 10 s: nothing is lost or taken twice."""
    async with load_on_agent(fresh_server.url, namespace, tmp_path) as (load, _):
        admin = redis.asyncio.Redis.from_url(fresh_server.url)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            await admin.execute_command("CLIENT", "KILL", "TYPE", "normal")
            await asyncio.sleep(0.2)
        await admin.aclose()
        await load.answered(200)
        assert await load.finish(timeout=30) == 0
        load.judge()
        assert not load.errors


async def test_close_without_server(
    fresh_server: EmbeddedServer, namespace: str, tmp_path: Path
) -> None:
    """A client whose server is gone closes within 3 s and leaves no task behind."""
    async with load_on_agent(fresh_server.url, namespace, tmp_path, tasks=1) as (
        load,
        agent,
    ):
        agent.kill()
        await asyncio.to_thread(fresh_server.kill)
        start = time.monotonic()
        await load.client.close()
        assert time.monotonic() - start < 3
        await load.client.close()
        assert await load.finish(timeout=1) == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
