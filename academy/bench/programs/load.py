"""Calls, so many in flight, and how long each took. Standard library only."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any


def percentile(ordered: list[float], share: float) -> float:
    """Return the smallest value that at least that share of all does not exceed.

    Args:
        ordered: The values, ascending; at least one.
        share: Between 0 and 1.
    """
    return ordered[max(0, -int(-len(ordered) * share // 1) - 1)]


def cpu_seconds_of(pid: int) -> float:
    """Return the CPU time that another process has had."""
    if sys.platform == "linux":
        # What clock_getcpuclockid(3) returns there; psutil counts in steps of 10 ms,
        # and not every interpreter that is measured has it.
        return time.clock_gettime(~pid << 3 | 2)
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def drive(
    call: Callable[[], Awaitable[Any]],
    in_flight: int,
    seconds: float,
    others: Sequence[int] = (),
) -> dict[str, float]:
    """Repeat a call, always so many at a time, and return how it went.

    Args:
        call: Is called without arguments.
        in_flight: How many calls wait for their answer at a time.
        seconds: After these no new call is made.
        others: The processes that work for the calls, beside this one.
    """
    clock = time.perf_counter
    latencies: list[float] = []

    async def repeat() -> None:
        while True:
            start = clock()
            await call()
            end = clock()
            latencies.append(end - start)
            if end >= deadline:
                return

    def cpu_seconds() -> float:
        return time.process_time() + sum(map(cpu_seconds_of, others))

    cpu, begin = cpu_seconds(), clock()
    deadline = begin + seconds
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(repeat())
    elapsed, cpu = clock() - begin, cpu_seconds() - cpu
    latencies.sort()
    return {
        "in_flight": in_flight,
        "p50_us": percentile(latencies, 0.5) * 1e6,
        "p99_us": percentile(latencies, 0.99) * 1e6,
        "p999_us": percentile(latencies, 0.999) * 1e6,
        "calls_per_s": len(latencies) / elapsed,
        "cpu_us": cpu / len(latencies) * 1e6,
    }
