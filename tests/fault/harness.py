"""The scene of one fault: agents and callers in their own processes, and a client here.

```python
async with Scene(url, tmp_path, "1", "SIGKILL of the receiver") as scene:
    agent = await scene.spawn()
    calls = scene.call_many(agent.handle, 1_000, hold=60)
    await scene.executed(1_000)
    scene.oracle.fault()
    agent.kill()
```

Leaving it waits for the calls, ends the processes, writes the row of the report, and
lets the oracle judge.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis.asyncio

from academy.exchange.hybrid import HybridExchangeFactory
from academy.handle import Handle
from tests.fault.actor import Part
from tests.fault.agents import Recorder, condition, objects
from tests.fault.caller import CallerPart
from tests.fault.consumer import ConsumerPart
from tests.fault.descriptors import cut_links, open_files
from tests.fault.oracle import Oracle, grown
from tests.fault.process import AgentProcess, CallerProcess, ConsumerProcess, Program
from tests.restricted import member_url

__all__ = [
    "GRACE",
    "MIB",
    "AgentProcess",
    "CallerProcess",
    "ConsumerProcess",
    "Program",
    "Scene",
    "cut_links",
    "nothing_kept",
    "until",
]

MIB = 1 << 20
CALL_COST = 400
"""Bytes that the oracle keeps of a call."""
GRACE = 3.0
"""Seconds after which nothing may be left of what has ended."""


async def until(
    holds: Callable[[], Any], timeout: float, *, pause: float = 0.01
) -> None:
    """Poll until a condition on other processes holds."""
    async with asyncio.timeout(timeout):
        while not holds():  # noqa: ASYNC110 - nothing tells this process
            await asyncio.sleep(pause)


async def nothing_kept(before: dict[str, int], *, slack: int = 20) -> None:
    """Assert that no objects of the package are left, but for some of each class."""
    end = time.monotonic() + GRACE
    while left := grown(before, objects(), slack):
        assert time.monotonic() < end, f"objects left: {left}"
        await asyncio.sleep(0.2)


class Scene:
    """The scene of one test, see the module.

    Args:
        url: The server, as its administrator reaches it from this process.
        folder: For what is written down.
        number: Number in the catalogue of PROTOCOL.md, section 6.
        name: The fault in a few words.
        rounds: How often it is repeated.
        ordered: Whether the calls of each sender are made in order.
        twice: Whether executing twice is the documented outcome.
        worst: Seconds in which every call must have ended, as the oracle times them.
        p99: Seconds in which 99 % of them must.
        settle: Seconds that calls have to end when the test body has ended.
        rss: Bytes that this process may grow by.
        noisy: Whether Python itself writes tracebacks under this fault.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        number: str,
        name: str,
        *,
        rounds: int = 1,
        ordered: bool = False,
        twice: bool = False,
        worst: float | None = None,
        p99: float | None = None,
        settle: float = 30.0,
        rss: int = 20 * MIB,
        noisy: bool = False,
    ) -> None:
        self.url = url
        self.folder = folder
        self.number, self.name, self.rounds = number, name, rounds
        self.oracle = Oracle(folder / "executions")
        namespace = f"f{uuid.uuid4().hex[:12]}"
        self.member_url = member_url(url, namespace)
        self.factory = HybridExchangeFactory.from_url(
            self.member_url, namespace=namespace
        )
        self.processes: list[Program] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self._ordered, self._twice = ordered, twice
        self._bounds = {"worst": worst, "p99": p99}
        self._settle, self._rss, self._noisy = settle, rss, noisy
        self._callers: list[CallerProcess] = []
        self.loading = False

    async def __aenter__(self) -> Self:
        self._outside = set(asyncio.all_tasks())
        self._before = condition()
        self._files = open_files()
        self.client = await self.factory.create_user_client()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        passed = False
        try:
            if exc_type is None:
                await self.settled(self._settle)
                for caller in list(self._callers):
                    await self.collect(caller)
            await self._leave()
            if exc_type is None:
                self._judge()
                await self._clean()
                passed = True
        finally:
            self.oracle.record(
                self.number, self.name, rounds=self.rounds, passed=passed
            )

    @property
    def namespace(self) -> str:
        return str(self.factory.namespace)

    # Processes

    async def register(self, agent: type[Any] = Recorder) -> Any:
        """Register an agent that no process runs yet."""
        return await self.client.register_agent(agent)

    def handle(self, agent: Any, client: Any = None) -> Handle[Any]:
        """Return a handle to an agent, given by its registration or another handle.

        Args:
            agent: The agent.
            client: What it sends with, whatever the context; `None` for the client of
                the scene.
        """
        exchange = client or self.client
        return Handle(agent.agent_id, exchange=exchange, ignore_context=True)

    async def spawn(
        self,
        registration: Any = None,
        agent: type[Any] = Recorder,
        *,
        args: tuple[Any, ...] = (),
        prefix: Sequence[str] = (),
        factory: HybridExchangeFactory | None = None,
        **options: Any,
    ) -> AgentProcess:
        """Run an agent in a process of its own, and wait until it is bound.

        Args:
            registration: Of an agent that ran before; `None` for a new one.
            agent: Its class; the log is its first argument.
            args: Its further arguments.
            prefix: Command to run the process with.
            factory: Exchange as that process reaches it; `None` for the same.
            **options: Further fields of the `Part`.
        """
        registration = registration or await self.register(agent)
        part = Part(
            factory=factory or self.factory,
            registration=registration,
            agent=agent,
            args=(str(self.oracle.path), *args),
            **options,
        )
        process = AgentProcess(
            part, self.handle(registration), self._errors("agent"), prefix
        )
        self.processes.append(process)
        await process.ready()
        return process

    async def spawn_caller(
        self,
        name: str,
        agents: Sequence[Any],
        *,
        prefix: Sequence[str] = (),
        factory: HybridExchangeFactory | None = None,
        **options: Any,
    ) -> CallerProcess:
        """Run a caller in a process of its own, and wait until it calls.

        Args:
            name: Name of the sender, without a colon.
            agents: Registrations of the agents to call, in turn.
            prefix: Command to run the process with.
            factory: Exchange as that process reaches it; `None` for the same.
            **options: Further fields of the `CallerPart`.
        """
        part = CallerPart(
            factory=factory or self.factory,
            agents=[r.agent_id for r in agents],
            journal=self.folder / f"{name}.journal",
            **options,
        )
        process = CallerProcess(part, self._errors(name), prefix)
        self.processes.append(process)
        await process.ready()
        self._callers.append(process)
        return process

    async def spawn_consumer(
        self, registration: Any, **options: Any
    ) -> ConsumerProcess:
        """Bind an agent's mailbox by a bare transport in a process of its own.

        Args:
            registration: Registration of the agent.
            **options: Further fields of the `ConsumerPart`.
        """
        part = ConsumerPart(
            factory=self.factory,
            agent_id=registration.agent_id,
            log=str(self.oracle.path),
            **options,
        )
        handle = self.handle(registration)
        process = ConsumerProcess(part, handle, self._errors("consumer"))
        self.processes.append(process)
        await process.ready()
        return process

    async def collect(self, caller: CallerProcess, timeout: float = 45) -> None:
        """Stop a caller and give its calls to the oracle."""
        self._callers.remove(caller)
        assert await caller.stop(timeout) == "", caller.errors.read_text()[-2000:]
        self.oracle.load(caller.journal)

    def kill_caller(self, caller: CallerProcess) -> None:
        """Kill a caller; what it has called is judged, and what was open is not."""
        self._callers.remove(caller)
        caller.kill()
        self.oracle.load(caller.journal, killed=True)

    def load_journals(self) -> None:
        """Give the oracle the calls that agents have made themselves."""
        for journal in self.folder.glob("*.journal"):
            self.oracle.load(journal)

    # Calls from here

    async def call(
        self,
        handle: Handle[Any],
        *args: Any,
        action: str = "record",
        sender: str = "main",
        timeout: float | None = None,
    ) -> Any:
        """Call an action with a new id and these arguments, and note what comes of it.

        Returns:
            The result; `None` if there is none, for errors are noted, not raised.
        """
        id = self.oracle.begin(sender)
        try:
            # Not `asyncio.timeout`: it is the one that callers use most.
            result = await asyncio.wait_for(handle.action(action, id, *args), timeout)
        except asyncio.CancelledError as e:
            self.oracle.end(id, e)
            raise
        except Exception as e:
            self.oracle.end(id, e)
            return None
        self.oracle.end(id)
        return result

    def call_many(
        self, handle: Handle[Any], count: int, *args: Any, **options: Any
    ) -> list[asyncio.Task[Any]]:
        """Begin so many calls at once, in order; see `call`."""
        return [
            self.spawn_task(self.call(handle, *args, **options)) for _ in range(count)
        ]

    def spawn_task(self, work: Any) -> asyncio.Task[Any]:
        """Run something that must have ended before the scene does."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        return task

    def load(
        self,
        handle: Handle[Any],
        tasks: int = 32,
        *args: Any,
        pause: float = 0.0,
        **options: Any,
    ) -> None:
        """Call from several tasks, again and again, until `rest` or the end."""
        self.loading = True
        for _ in range(tasks):
            self.spawn_task(self._load(handle, args, pause, options))

    def paced(self, handle: Handle[Any], rate: float, *args: Any) -> None:
        """Begin so many calls a second, however many are under way, until `rest`."""
        self.loading = True
        self.spawn_task(self._pace(handle, rate, args))

    async def _pace(self, handle: Handle[Any], rate: float, args: Any) -> None:
        loop = asyncio.get_running_loop()
        start, begun = loop.time(), 0
        async with asyncio.TaskGroup() as group:
            while self.loading:
                while begun < (loop.time() - start) * rate:
                    begun += 1
                    group.create_task(self.call(handle, *args))
                await asyncio.sleep(0.5 / rate)

    def rest(self) -> None:
        """Let the tasks of `load` and `paced` make no more calls."""
        self.loading = False

    async def _load(
        self, handle: Handle[Any], args: Any, pause: float, options: Any
    ) -> None:
        while self.loading:
            await self.call(handle, *args, **options)
            # A closed client refuses at once; others must get their turn.
            await asyncio.sleep(pause)

    async def executed(self, lines: int, timeout: float = 30) -> None:
        """Wait until there are so many executions in all."""
        await until(lambda: self.oracle.lines() >= lines, timeout)

    async def answered(self, more: int, timeout: float = 30) -> None:
        """Wait until so many more calls from here have been answered."""
        goal = len(self.oracle.results()) + more
        await until(lambda: len(self.oracle.results()) >= goal, timeout, pause=0.02)

    async def settled(self, timeout: float) -> None:
        """Wait until all calls from here have ended, or so many seconds."""
        self.rest()
        if self.tasks:
            done, late = await asyncio.wait(self.tasks, timeout=timeout)
            self.tasks.clear()
            self.tasks |= late
            for task in done:
                task.result()

    async def direct(self, handle: Handle[Any], timeout: float = 15) -> None:
        """Call until calls go directly: the server executes nothing for them."""
        async with asyncio.timeout(timeout):
            while True:
                before = await self.commands()
                for _ in range(40):
                    await self.call(handle)
                if await self.commands() - before < 40:
                    return

    async def commands(self) -> int:
        """Return how many scripts the server has run so far."""
        async with redis.asyncio.Redis.from_url(self.url) as admin:
            stats = await admin.info("commandstats")
        return sum(
            stats.get(f"cmdstat_{name}", {}).get("calls", 0)
            for name in ("evalsha", "eval")
        )

    # The end

    async def _leave(self) -> None:
        """End everything, whatever state it is in."""
        self.rest()
        open_ = [task for task in self.tasks if not task.done()]
        outcomes = {c.id for c in self.oracle.unresolved()}
        for task in open_:
            task.cancel()
        await asyncio.gather(*open_, return_exceptions=True)
        for id in outcomes:
            # Ended by us just now; it is unresolved all the same.
            self.oracle.calls[id].ended = None
        start = time.monotonic()
        await self.client.close()
        self.closing = time.monotonic() - start
        for process in self.processes:
            if process.running:
                process.kill()
            else:
                process._close()

    def _judge(self) -> None:
        self.oracle.judge(ordered=self._ordered, twice=self._twice)
        seen = {"worst": self.oracle.worst(), "p99": self.oracle.p99()}
        for name, bound in self._bounds.items():
            assert bound is None or seen[name] <= bound, (
                f"{name} time to resolution is {seen[name]:.2f} s, not {bound:g} s"
            )
        for process in self.processes:
            said = process.errors.read_text()
            loud = "Traceback" in said and not self._noisy
            assert not loud, f"{process.errors}: {said[-3000:]}"
        for handler in logging.getLogger().handlers:
            # Those of pytest keep records, and so errors with their tracebacks.
            getattr(handler, "records", []).clear()

    async def _clean(self) -> None:
        """Assert that nothing is left, after some time for the other ends to close."""
        end = time.monotonic() + GRACE
        while left := self._left():
            assert time.monotonic() < end, f"left: {left}"
            await asyncio.sleep(0.1)

    def _left(self) -> dict[str, Any]:
        now = condition()
        growth = now["rss"] - self._before["rss"] - CALL_COST * len(self.oracle.calls)
        more_files = now["fds"] > self._before["fds"]
        left = {
            "tasks": asyncio.all_tasks() - self._outside,
            "files": more_files and open_files() - self._files,
            "objects": grown(self._before["objects"], now["objects"], slack=20),
            "memory": growth >= self._rss and f"{growth / MIB:.1f} MiB",
        }
        return {name: what for name, what in left.items() if what}

    def _errors(self, name: str) -> Path:
        return self.folder / f"{name}-{len(self.processes)}.err"
