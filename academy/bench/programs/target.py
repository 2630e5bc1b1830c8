"""What is measured of anything that can be called in another process.

Standard library only: the same code measures agents, their peers, and bare sockets.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from load import drive, percentile

PATIENCE = 30.0
"""Seconds that the echo of one value may take."""
COPIES = 10
"""How often the memory of the machine must hold a value before it is tried: in both
processes there is one that is sent and one that is received, in parts and whole."""

METHODS: dict[str, Callable[[Any], Any]] = {
    "noop": lambda value: None,
    "echo": lambda value: value,
    "size": lambda value: memoryview(value).nbytes,
}
"""What the other process does, where it is told by name."""


@dataclass
class Target:
    """Another process, and how it is called.

    Attributes:
        noop: Has it do nothing.
        echo: Sends it a value and returns what comes back.
        size: Sends it a value and returns how many bytes have come.
        pids: Which processes that is, if it is not this one.
    """

    noop: Callable[[], Awaitable[Any]]
    echo: Callable[[Any], Awaitable[Any]]
    size: Callable[[Any], Awaitable[int]]
    pids: Sequence[int] = ()


async def measure(target: Target, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Measure what the settings name, and return the rows."""
    rows: list[dict[str, Any]] = await MEASURES[settings["measure"]](target, settings)
    return rows


async def calls(target: Target, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Warm up, then measure with each number in flight that the settings name."""
    seconds = settings["seconds"]
    await drive(target.noop, min(16, max(settings["in_flight"])), seconds / 4)
    return [
        await drive(target.noop, number, seconds, target.pids)
        for number in settings["in_flight"]
    ]


async def echoes(target: Target, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Send values of each size and kind there and back, one at a time."""
    rows = []
    for size in settings["sizes"]:
        for kind in settings["kinds"]:
            row = {"kind": kind, "size": size, "p50_ms": None, "mb_per_s": None}
            try:
                row |= await echo(target, kind, size, settings["seconds"])
            except Exception as e:
                # Too large for it is a result, too; the next one may be as well.
                row["problem"] = problem(e)
            rows.append(row)
    return rows


async def echo(
    target: Target, kind: str, size: int, seconds: float
) -> dict[str, float | str]:
    check_memory(size)
    value = make_value(kind, size)
    if size < 100e6:  # what is larger takes long, and warms up by itself
        await asyncio.wait_for(target.echo(value), PATIENCE)
    trips: list[float] = []
    deadline = time.perf_counter() + seconds
    while not trips or time.perf_counter() < deadline:
        begin = time.perf_counter()
        answer = await asyncio.wait_for(target.echo(value), PATIENCE)
        trips.append(time.perf_counter() - begin)
        check_size(size, memoryview(answer).nbytes)
        del answer  # at most one at a time, when they are large
    trip = percentile(sorted(trips), 0.5)
    return {"p50_ms": trip * 1e3, "mb_per_s": 2 * size / trip / 1e6, "problem": ""}


async def one_way(target: Target, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Send large values there: first to a process that had none, then again."""
    rows = []
    for size in settings["sizes"]:
        for kind in settings["kinds"]:
            row = {"kind": kind, "size": size}
            row |= dict.fromkeys(("first_mb_per_s", "mb_per_s"))
            try:
                trips = await send(target, kind, size, 1 + settings["repeats"])
                rates = [size / trip / 1e6 for trip in trips]
                row |= {
                    "first_mb_per_s": rates[0],
                    "mb_per_s": percentile(sorted(rates[1:]), 0.5),
                    "problem": "",
                }
            except Exception as e:
                row["problem"] = problem(e)
            rows.append(row)
    return rows


async def send(target: Target, kind: str, size: int, times: int) -> list[float]:
    """Return how many seconds it takes each time to send a value."""
    check_memory(size)
    value = make_value(kind, size)
    trips = []
    for _ in range(times):
        begin = time.perf_counter()
        found = await asyncio.wait_for(target.size(value), PATIENCE)
        trips.append(time.perf_counter() - begin)
        check_size(size, found)
    return trips


def check_memory(size: int) -> None:
    if COPIES * size > memory():
        raise MemoryError(f"needs {COPIES * size / 1e9:g} GB")


def check_size(sent: int, found: int) -> None:
    if sent != found:
        raise AssertionError(f"sent {sent} bytes, got {found}")


def memory() -> int:
    """Return how many bytes of memory this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def make_value(kind: str, size: int) -> Any:
    if kind == "numpy":
        import numpy as np

        return np.full(size, 0x5A, dtype=np.uint8)
    return {"bytes": bytes, "bytearray": bytearray}[kind](b"\x5a") * size


def problem(error: Exception) -> str:
    """Return the class of an error and the beginning of what it says, in one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
    return text if len(text) <= 80 else f"{text[:79]}…"


async def beside(target: Target, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Make small calls, alone and while large values go there and back."""
    seconds, size = settings["seconds"], settings["size"]
    value = make_value("bytes", size)
    await target.echo(value)
    alone = await drive(target.noop, 1, seconds)
    enough = asyncio.Event()
    echoed = 0

    async def transfer() -> None:
        nonlocal echoed
        while not enough.is_set():
            await target.echo(value)
            echoed += 1

    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(transfer())
        busy = await drive(target.noop, 1, seconds)
        enough.set()
    elapsed = time.perf_counter() - begin
    return [
        {
            "size": size,
            "alone_p99_us": alone["p99_us"],
            "beside_p50_us": busy["p50_us"],
            "beside_p99_us": busy["p99_us"],
            "mb_per_s": 2 * size * echoed / elapsed / 1e6,
        }
    ]


MEASURES = {"calls": calls, "echoes": echoes, "one way": one_way, "beside": beside}
