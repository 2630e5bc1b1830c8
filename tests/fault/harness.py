"""Load on an agent in another process, and the oracle that judges what came of it."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from academy.exchange.hybrid import HybridExchangeFactory
from academy.message import ActionRequest, ActionResponse, Message
from academy.serialize import SerializationStrategy
from tests.fault.responder import Responder


async def until(holds: Callable[[], bool], timeout: float) -> None:
    """Poll until a condition on another process holds."""
    async with asyncio.timeout(timeout):
        while not holds():  # noqa: ASYNC110 - nothing tells this process
            await asyncio.sleep(0.02)


class AgentProcess:
    """The responder in a process of its own."""

    def __init__(self, folder: Path, delay: float = 0.01) -> None:
        program = Path(__file__).with_name("responder.py")
        command = [sys.executable, str(program), str(folder / "agent")]
        command += [str(folder / "log"), str(delay)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        """Let it close its client and end."""
        self._process.communicate(timeout=20)

    def kill(self) -> None:
        """End it without warning."""
        self._process.kill()
        self._process.communicate(timeout=10)


class Load:
    """Calls an agent from several tasks at once and keeps the outcome of each call."""

    def __init__(self, factory: HybridExchangeFactory, folder: Path) -> None:
        self._factory = factory
        self.folder = folder
        self.outcomes: dict[int, str] = {}
        self.errors: collections.Counter[str] = collections.Counter()
        self.times: list[float] = []
        self.calls = 0
        self._running = True
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self.client = await self._factory.create_user_client()
        self.registration = await self.client.register_agent(Responder)
        with (self.folder / "agent").open("wb") as file:
            pickle.dump((self._factory, self.registration), file)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._running = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.client.close()

    def start(self, tasks: int) -> None:
        self._tasks += [asyncio.create_task(self._run()) for _ in range(tasks)]

    async def answered(self, more: int, timeout: float = 30) -> None:
        """Wait until so many more calls have been answered."""
        goal = self.successes + more
        await until(lambda: self.successes >= goal, timeout)

    async def finish(self, timeout: float) -> int:
        """Make no new calls, and return how many have not ended after the timeout."""
        self._running = False
        _, pending = await asyncio.wait(self._tasks, timeout=timeout)
        return len(pending)

    @property
    def successes(self) -> int:
        return sum(1 for o in self.outcomes.values() if o == "ok")

    def judge(self) -> None:
        """Assert what holds under every fault."""
        executed = self._executions()
        twice = [n for n, times in executed.items() if times > 1]
        assert not twice, f"executed twice: {twice[:10]}"
        wrong = [n for n, o in self.outcomes.items() if o == "ok" and n not in executed]
        assert not wrong, f"answered but never executed: {wrong[:10]}"
        denied = [n for n, o in self.outcomes.items() if o == "no" and n in executed]
        assert not denied, f"reported as not executed, but executed: {denied[:10]}"
        assert len(self.outcomes) == self.calls, "calls without an outcome"

    def executed(self) -> set[int]:
        """Return the calls that the agent has begun to execute."""
        return set(self._executions())

    def _executions(self) -> collections.Counter[int]:
        lines = (self.folder / "log").read_text().splitlines()
        return collections.Counter(int(line.split()[0]) for line in lines)

    async def _run(self) -> None:
        while self._running:
            self.calls += 1
            await self._call(self.calls)
            # A closed client refuses at once; others must get their turn.
            await asyncio.sleep(0)

    async def _call(self, number: int) -> None:
        request = ActionRequest(
            action="call", serialization=SerializationStrategy.PICKLE, pargs=(number,)
        )
        message = Message.create(
            self.client.client_id, self.registration.agent_id, request
        )
        start = time.monotonic()
        try:
            body: Any = (await self.client.request(message)).get_body()
            if not isinstance(body, ActionResponse):
                raise body.get_exception()
            assert body.get_result() == number
            self.outcomes[number] = "ok"
        except Exception as e:
            self.errors[type(e).__name__] += 1
            self.outcomes[number] = getattr(e, "executed", f"unnamed: {e!r}")
        self.times.append(time.monotonic() - start)


@contextlib.asynccontextmanager
async def load_on_agent(
    url: str, namespace: str, folder: Path, *, delay: float = 0.01, tasks: int = 32
) -> AsyncIterator[tuple[Load, AgentProcess]]:
    """Start an agent process and load on it, and wait until calls are answered."""
    factory = HybridExchangeFactory.from_url(url, namespace=namespace)
    async with Load(factory, folder) as load:
        agent = await asyncio.to_thread(AgentProcess, folder, delay)
        try:
            load.start(tasks)
            await load.answered(50)
            yield load, agent
        finally:
            agent.kill()
