"""Agents that get, keep, change and return arrays."""

from __future__ import annotations

import gc
import os
from typing import Any

import numpy as np
import psutil

from academy.agent import Agent, action
from academy.context import AgentContext
from academy.handle import Handle


def array(seed: int, size: int) -> Any:
    """Return an array of so many bytes that tells its seed everywhere."""
    return np.arange(seed, seed + size // 8 + 1, dtype=np.int64).view(np.uint8)[:size]


def is_array(value: Any, seed: int, size: int) -> bool:
    return bool(np.array_equal(value, array(seed, size)))


def shared(context: AgentContext[Any] | Any) -> list[Any]:
    """Return what a process shares with others, given one of its clients."""
    peers = context._transport.engine.links.node.peers.values()
    return [p.session._memory for p in peers if p.session._memory is not None]


def regions(context: Any) -> tuple[int, int]:
    """Return how many regions a process has offered, and how many it has opened."""
    found = shared(context)
    return (
        sum(len(memory.lender.owned) for memory in found),
        sum(len(memory.borrower.opened) for memory in found),
    )


class Arrays(Agent):
    """Does things with arrays."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    @action
    async def pid(self) -> int:
        return os.getpid()

    @action
    async def echo(self, value: Any) -> Any:
        return value

    @action
    async def part(self, value: Any, start: int, end: int) -> Any:
        return value[start:end]

    @action
    async def shout(self, value: Any) -> Any:
        """Change a value, and return it."""
        value += 1
        return value

    @action
    async def keep(self, value: Any) -> int:
        self.kept.append(value)
        return len(self.kept)

    @action
    async def keep_and_return(self, value: Any) -> Any:
        self.kept.append(value)
        return value

    @action
    async def change(self, index: int, by: int) -> None:
        self.kept[index] += by

    @action
    async def right(self, index: int, seed: int, size: int) -> bool:
        return is_array(self.kept[index], seed, size)

    @action
    async def forget(self) -> None:
        self.kept.clear()
        gc.collect()

    @action
    async def fresh(self, seed: int, size: int) -> Any:
        return array(seed, size)

    @action
    async def regions(self) -> tuple[int, int]:
        return regions(self.agent_exchange_client)

    @action
    async def condition(self) -> tuple[int, int]:
        """Return bytes of memory, and descriptors."""
        process = psutil.Process()
        return process.memory_info().rss, process.num_fds()


class Middle(Agent):
    """Sends arrays to another agent."""

    def __init__(self, target: Handle[Arrays]) -> None:
        self.target = target

    @action
    async def pid(self) -> int:
        return os.getpid()

    @action
    async def keep_there(self, seeds: list[int], size: int) -> None:
        for seed in seeds:
            await self.target.keep(array(seed, size))

    @action
    async def echo(self, value: Any) -> Any:
        return await self.target.echo(value)
