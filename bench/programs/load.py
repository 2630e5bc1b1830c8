"""Calls, so many in flight, and how long each took. Standard library only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any


def percentile(ordered: list[float], share: float) -> float:
    """Return the smallest value that at least that share of all does not exceed.

    Args:
        ordered: The values, ascending; at least one.
        share: Between 0 and 1.
    """
    return ordered[max(0, -int(-len(ordered) * share // 1) - 1)]


async def drive(
    call: Callable[[], Awaitable[Any]], in_flight: int, seconds: float
) -> dict[str, float]:
    """Repeat a call, always so many at a time, and return how it went."""
    clock = time.perf_counter
    latencies: list[float] = []

    async def repeat() -> None:
        while (start := clock()) < deadline:
            await call()
            latencies.append(clock() - start)

    begin = clock()
    deadline = begin + seconds
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(repeat())
    elapsed = clock() - begin
    latencies.sort()
    return {
        "in_flight": in_flight,
        "p50_us": percentile(latencies, 0.5) * 1e6,
        "p99_us": percentile(latencies, 0.99) * 1e6,
        "calls_per_s": len(latencies) / elapsed,
    }


async def drive_all(
    call: Callable[[], Awaitable[Any]], settings: dict[str, Any]
) -> list[dict[str, float]]:
    """Warm up, then measure with each number in flight that the settings name."""
    seconds = settings["seconds"]
    await drive(call, 16, seconds / 4)
    return [await drive(call, number, seconds) for number in settings["in_flight"]]
