"""Calls among many: from one to all, and from each to all others.

Standard library only. A member has `noop()`, and `call_others(others, rounds)`, which
is `call_all`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from load import percentile

PROCESSES = 2
"""Over how many worker processes the members are spread."""


async def call_all(others: list[Any], rounds: int) -> None:
    """Call all of them at a time, so many times."""
    for _ in range(rounds):
        await asyncio.gather(*(other.noop() for other in others))


async def measure_ways(members: list[Any], seconds: float) -> list[dict[str, Any]]:
    """Measure both ways for so long each."""
    await call_all(members, 1)  # now all are connected
    return [await one_to_many(members, seconds), await all_to_all(members, seconds)]


async def one_to_many(members: list[Any], seconds: float) -> dict[str, Any]:
    trips: list[float] = []
    begin = time.perf_counter()
    while not trips or time.perf_counter() < begin + seconds:
        start = time.perf_counter()
        await call_all(members, 1)
        trips.append(time.perf_counter() - start)
    return {
        "way": "one to many",
        "agents": len(members),
        "round_p50_ms": percentile(sorted(trips), 0.5) * 1e3,
        "calls_per_s": len(members) * len(trips) / sum(trips),
    }


async def all_to_all(members: list[Any], seconds: float) -> dict[str, Any]:
    others = [[other for other in members if other is not member] for member in members]

    async def rounds(count: int) -> float:
        begin = time.perf_counter()
        await asyncio.gather(
            *(m.call_others(o, count) for m, o in zip(members, others, strict=True))
        )
        return time.perf_counter() - begin

    await rounds(1)
    count = max(1, min(500, int(seconds / await rounds(1))))
    elapsed = await rounds(count)
    return {
        "way": "all to all",
        "agents": len(members),
        "round_p50_ms": elapsed / count * 1e3,
        "calls_per_s": len(members) * (len(members) - 1) * count / elapsed,
    }
