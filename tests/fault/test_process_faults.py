"""Processes die, stop, or are replaced, while they are called."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from academy.exchange import MailboxStatus
from tests.fault.harness import AgentProcess, load_on_agent, until


async def test_agent_killed_and_restarted(
    redis_url: str, namespace: str, tmp_path: Path
) -> None:
    """Calls that the killed process had taken end with an error as the next one binds;
    calls that it had not taken are executed by the next one.
    """
    async with load_on_agent(redis_url, namespace, tmp_path, delay=0.2) as (
        load,
        agent,
    ):
        agent.kill()
        restarted = await asyncio.to_thread(AgentProcess, tmp_path)
        try:
            start = time.monotonic()
            await load.answered(200)
            assert await load.finish(timeout=30) == 0
            assert time.monotonic() - start < 10
        finally:
            restarted.kill()
        load.judge()
        assert load.errors
        assert set(load.errors) == {"PeerLostError"}
        assert max(load.times) < 5


@pytest.mark.fault
async def test_agent_killed_for_good(
    redis_url: str, namespace: str, tmp_path: Path
) -> None:
    """Calls that the killed process had taken end within 12 s; the others wait."""
    async with load_on_agent(redis_url, namespace, tmp_path, delay=1) as (load, agent):
        agent.kill()
        killed = time.monotonic()
        doomed = load.executed() - load.outcomes.keys()
        assert doomed
        await until(lambda: doomed <= load.outcomes.keys(), 12)
        assert time.monotonic() - killed < 12
        # A last answer may have been on its way.
        assert "maybe" in {load.outcomes[n] for n in doomed} <= {"maybe", "ok"}
        status = await load.client.status(load.registration.agent_id)
        assert status is MailboxStatus.INACTIVE
        assert set(load.errors) == {"PeerLostError"}


async def test_graceful_restart_loses_nothing(
    redis_url: str, namespace: str, tmp_path: Path
) -> None:
    """An agent that closes cleanly and comes back: no call is lost."""
    async with load_on_agent(redis_url, namespace, tmp_path, delay=0) as (load, agent):
        for _ in range(3):
            await asyncio.to_thread(agent.stop)
            agent = await asyncio.to_thread(AgentProcess, tmp_path, 0)
            await load.answered(100)
        assert await load.finish(timeout=30) == 0
        agent.kill()
        load.judge()
        # Only what was being executed at the moment of a close may end in an error.
        assert set(load.errors) <= {"PeerLostError"}
        assert sum(load.errors.values()) <= 3 * 32


async def test_paused_agent_is_fenced(
    redis_url: str, namespace: str, tmp_path: Path
) -> None:
    """A stopped process that another has replaced takes nothing when it goes on."""
    async with load_on_agent(redis_url, namespace, tmp_path) as (load, agent):
        agent.signal(signal.SIGSTOP)
        second = await asyncio.to_thread(AgentProcess, tmp_path)
        try:
            await load.answered(100)
            agent.signal(signal.SIGCONT)
            await load.answered(200)
            assert await load.finish(timeout=30) == 0
        finally:
            second.kill()
        load.judge()
        lines = (tmp_path / "log").read_text().splitlines()
        last = [int(line.split()[1]) for line in lines[-100:]]
        assert set(last) == {second.pid}
