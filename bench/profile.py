"""`python -m bench.profile`: the bytecode instructions of a call, by function.

Counted, not timed: the figures are the same on every machine with the same Python, and
small changes show. Both sides of a no-op call between two processes are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import functools
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from academy.agent import Agent, action
from academy.embedded import EmbeddedServer
from academy.exchange import HybridExchangeFactory
from academy.executor import SubprocessExecutor
from academy.handle import Handle
from academy.manager import Manager

WARM_UP = 500
LEAST = 5.0
"""Instructions per call below which a function is not shown."""

LAYERS = {
    "academy.link.": "link",
    "academy.exchange.": "exchange",
    **dict.fromkeys(
        ["academy.message.", "academy.header.", "academy.body.", "academy.serialize."],
        "messages",
    ),
    "academy.": "handle, agent",
    "asyncio.": "asyncio",
    "selectors.": "asyncio",
    "_weakrefset.": "asyncio",
}
"""By the beginning of a function's name, the part that it belongs to."""

Count = dict[str, int]


@functools.cache
def place(file: str) -> str:
    """Return the module of a file, as it is called within the package, or at all."""
    path = Path(file)
    parts = path.with_suffix("").parts
    package = next((p for p in ("academy", "asyncio") if p in parts), None)
    return ".".join(parts[parts.index(package) :]) if package else path.stem


def layer(name: str) -> str:
    """Return which part of the way of a call a function belongs to."""
    for prefix, part in LAYERS.items():
        if name.startswith(prefix):
            return part
    return "rest"


class Counter:
    """Counts the instructions that this thread executes, by function."""

    def __init__(self) -> None:
        self.found: collections.Counter[str] = collections.Counter()

    def begin(self) -> None:
        """Count from now on, in the functions that are called."""
        self.found.clear()
        sys.settrace(self._trace)

    def end(self) -> Count:
        """Count no more; return what was counted."""
        sys.settrace(None)
        return dict(self.found)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            code = frame.f_code
            self.found[f"{place(code.co_filename)}.{code.co_qualname}"] += 1
        return self._trace


class Counted(Agent):
    """An agent that counts its own instructions."""

    def __init__(self) -> None:
        self.counter = Counter()

    @action
    async def nop(self) -> None:
        """Do nothing."""

    @action
    async def begin(self) -> None:
        self.counter.begin()

    @action
    async def end(self) -> Count:
        return self.counter.end()


async def call(agent: Handle[Counted], calls: int, in_flight: int) -> None:
    async def one_after_the_other() -> None:
        for _ in range(calls // in_flight):
            await agent.nop()

    await asyncio.gather(*[one_after_the_other() for _ in range(in_flight)])


async def measure(url: str, calls: int, in_flight: int) -> dict[str, Count]:
    factory = HybridExchangeFactory.from_url(url, namespace=None)
    executor = SubprocessExecutor()
    async with await Manager.from_exchange_factory(factory, executor) as manager:
        agent = await manager.launch(Counted)
        await call(agent, WARM_UP, 1)
        counter = Counter()
        await agent.begin()
        counter.begin()
        await call(agent, calls, in_flight)
        return {"caller": counter.end(), "agent": await agent.end()}


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.profile", description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=64)
    options = parser.parse_args()
    # On both sides the event loop of asyncio itself, so that all is counted.
    os.environ.setdefault("ACADEMY_UVLOOP", "0")
    in_flight = min(options.in_flight, options.calls)
    calls = options.calls // in_flight * in_flight
    with EmbeddedServer() as server:
        found = asyncio.run(measure(server.url, calls, in_flight))
    for side, count in found.items():
        print(f"{side}: {sum(count.values()) / calls:.0f} instructions per call")
        parts: collections.Counter[str] = collections.Counter()
        for name, number in count.items():
            parts[layer(name)] += number
        print(", ".join(f"{p} {n / calls:.0f}" for p, n in parts.most_common()))
        for name, number in sorted(count.items(), key=lambda item: -item[1]):
            if number / calls >= LEAST:
                print(f"{number / calls:8.1f}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
