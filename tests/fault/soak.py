"""All faults at random, for as long as you like: `python -m tests.fault.soak`.

Several processes call several agents, while agents are killed, stopped, restarted and
taken over, callers are killed, and the server is killed, stopped and cut off. In the
end the oracle judges all calls, and what has lived all the time must not have grown.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import redis.asyncio

from academy.embedded import EmbeddedServer
from tests.fault import report
from tests.fault.harness import MIB, AgentProcess, CallerProcess, Program, Scene

AGENTS = 4
"""Agents that faults befall; one more is left alone."""
CALLERS = 3
"""Callers that are killed; one more is left alone."""
WARM_UP = 0.2
"""Share of the time after which nothing may grow any more."""
SETTLE = 60.0
"""Seconds that the last calls have to end."""
GROWTH = 20 * MIB
MORE_FILES = 4
"""Files that a process may have open beside those it had: connections come and go."""


class Soak:
    """One run.

    Args:
        scene: The scene.
        server: Its server.
        seconds: How long it takes.
        chance: Source of all randomness.
    """

    def __init__(
        self,
        scene: Scene,
        server: EmbeddedServer,
        seconds: float,
        chance: random.Random,
    ) -> None:
        self._scene = scene
        self._server = server
        self._chance = chance
        self._start = time.monotonic()
        self._end = self._start + seconds
        self._agents: list[AgentProcess] = []
        self._callers: list[CallerProcess] = []
        self._names = 0
        self.faults: collections.Counter[str] = collections.Counter()
        """How often each fault happened."""
        self.growth: dict[str, tuple[int, int]] = {}
        """Of each process that has lived all the time: bytes and files more."""

    async def run(self) -> None:
        """Start everything, let the faults happen, and wait for the calls to end."""
        scene = self._scene
        steady = await scene.spawn()
        self._agents = [await scene.spawn() for _ in range(AGENTS)]
        self._everybody = [a.registration for a in (steady, *self._agents)]
        witness = await self._new_caller()
        self._callers = [await self._new_caller() for _ in range(CALLERS)]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._drive(self._agent_faults(), 0.2, 2.0))
            group.create_task(self._drive(self._caller_faults(), 3.0, 15.0))
            group.create_task(self._drive(self._server_faults(), 2.0, 15.0))
            group.create_task(self._watch({"agent": steady, "caller": witness}))
        for caller in (witness, *self._callers):
            await scene.collect(caller, SETTLE + 15)

    def problems(self) -> list[str]:
        """Return which processes have grown."""
        return [
            f"{name} has grown by {more / MIB:.1f} MiB and {files} files"
            for name, (more, files) in self.growth.items()
            if more > GROWTH or files > MORE_FILES
        ]

    async def _drive(
        self, faults: Sequence[Callable[[], Awaitable[None]]], least: float, most: float
    ) -> None:
        """Let one fault after the other happen; each cleans up after itself."""
        await asyncio.sleep(1)
        while time.monotonic() < self._end:
            fault = self._chance.choice(faults)
            self.faults[fault.__name__.strip("_").replace("_", " ")] += 1
            await fault()
            await asyncio.sleep(self._chance.uniform(least, most))

    async def _watch(self, processes: dict[str, Program]) -> None:
        """Compare processes that live all the time: after a while, and at the end."""
        seen = {name: psutil.Process(p.pid) for name, p in processes.items()}
        await asyncio.sleep((self._end - self._start) * WARM_UP)
        before = {name: _size(process) for name, process in seen.items()}
        await asyncio.sleep(self._end - time.monotonic())
        for name, process in seen.items():
            now = _size(process)
            self.growth[name] = (now[0] - before[name][0], now[1] - before[name][1])

    # Agents

    def _agent_faults(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self._agent_killed,
            self._agent_stopped,
            self._agent_restarted,
            self._agent_taken_over,
            self._stopped_agent_taken_over,
        ]

    async def _agent_killed(self) -> None:
        n, agent = self._pick_agent()
        agent.kill()
        await asyncio.sleep(self._chance.choice((0.0, 0.0, 1.0, 5.0)))
        await self._start_agent(n)

    async def _agent_stopped(self) -> None:
        _, agent = self._pick_agent()
        agent.pause()
        await asyncio.sleep(self._chance.choice((0.3, 3.0, 8.0, 14.0)))
        agent.resume()

    async def _agent_restarted(self) -> None:
        n, agent = self._pick_agent()
        await agent.stop(30)
        await self._start_agent(n)

    async def _agent_taken_over(self) -> None:
        n, agent = self._pick_agent()
        await self._start_agent(n)
        await agent.ended(30)

    async def _stopped_agent_taken_over(self) -> None:
        n, agent = self._pick_agent()
        agent.pause()
        await self._start_agent(n)
        await asyncio.sleep(self._chance.choice((0.0, 1.0, 5.0)))
        agent.resume()
        await agent.ended(30)

    def _pick_agent(self) -> tuple[int, AgentProcess]:
        n = self._chance.randrange(AGENTS)
        return n, self._agents[n]

    async def _start_agent(self, n: int) -> None:
        """Run an agent once more, as its supervisor would: until it has started."""
        while True:
            try:
                self._agents[n] = await self._scene.spawn(self._agents[n].registration)
                return
            except AssertionError:
                # The server is away for longer than a start waits for it.
                await asyncio.sleep(0.5)

    # Callers

    def _caller_faults(self) -> list[Callable[[], Awaitable[None]]]:
        return [self._caller_killed, self._caller_ended]

    async def _caller_killed(self) -> None:
        self._scene.kill_caller(self._callers.pop(0))
        self._callers.append(await self._new_caller())

    async def _caller_ended(self) -> None:
        await self._scene.collect(self._callers.pop(0), SETTLE + 15)
        self._callers.append(await self._new_caller())

    async def _new_caller(self) -> CallerProcess:
        while True:
            self._names += 1
            try:
                return await self._scene.spawn_caller(
                    f"caller{self._names}",
                    self._everybody,
                    tasks=16,
                    hold=0.01,
                    pause=0.1,
                    settle=SETTLE,
                )
            except AssertionError:
                await asyncio.sleep(0.5)

    # The server

    def _server_faults(self) -> list[Callable[[], Awaitable[None]]]:
        return [self._server_killed, self._server_stopped, self._connections_cut]

    async def _server_killed(self) -> None:
        await asyncio.to_thread(self._server.kill)
        await asyncio.sleep(self._chance.choice((0.0, 2.0, 12.0)))
        await asyncio.to_thread(self._server.restart)

    async def _server_stopped(self) -> None:
        os.kill(self._server.pid, signal.SIGSTOP)
        await asyncio.sleep(self._chance.choice((0.5, 4.0, 12.0)))
        os.kill(self._server.pid, signal.SIGCONT)

    async def _connections_cut(self) -> None:
        async with redis.asyncio.Redis.from_url(self._server.url) as admin:
            for _ in range(self._chance.randrange(1, 10)):
                await admin.execute_command("CLIENT", "KILL", "TYPE", "normal")
                await asyncio.sleep(0.1)


def _size(process: psutil.Process) -> tuple[int, int]:
    return process.memory_info().rss, process.num_fds()


async def soak(minutes: float, seed: int, folder: Path) -> list[str]:
    """Run for some minutes, print what happened, and return what was wrong."""
    with EmbeddedServer() as server:
        name = f"soak of {minutes:g} min, seed {seed}"
        scene = Scene(server.url, folder, "57", name, rss=1 << 40, settle=SETTLE)
        run = Soak(scene, server, 60 * minutes, random.Random(seed))
        problems: list[str] = []
        try:
            async with scene:
                await run.run()
        except AssertionError as e:
            problems.append(str(e))
    print(report.table(report.rows()))
    print("faults:", ", ".join(f"{n} x {f}" for f, n in sorted(run.faults.items())))
    for process, (more, files) in run.growth.items():
        print(f"{process}: {more / MIB:+.1f} MiB, {files:+} files")
    return problems + run.problems()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    arguments: Any = parser.parse_args(argv)
    print(f"{report.title()}, seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="academy-soak-") as folder:
        problems = asyncio.run(soak(arguments.minutes, arguments.seed, Path(folder)))
    for problem in problems:
        print("FAILED:", problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
