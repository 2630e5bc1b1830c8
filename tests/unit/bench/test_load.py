from __future__ import annotations

import asyncio
import os
import sys
import time

import pytest

from academy.bench.programs.load import cpu_seconds_of, drive, percentile


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1), (0.5, 2), (0.51, 3), (0.99, 4), (1.0, 4)]
)
def test_percentile(share: float, value: float) -> None:
    assert percentile([1, 2, 3, 4], share) == value


def test_percentile_of_one() -> None:
    assert percentile([7.0], 0.99) == 7.0


async def test_drive_keeps_so_many_calls_in_flight() -> None:
    running = peak = calls = 0

    async def call() -> None:
        nonlocal running, peak, calls
        running += 1
        peak = max(peak, running)
        calls += 1
        await asyncio.sleep(0)
        running -= 1

    figures = await drive(call, 5, 0.01)
    assert running == 0
    assert peak == figures["in_flight"] == 5
    assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["p999_us"]
    assert 0 < figures["calls_per_s"] <= calls / 0.01
    assert figures["cpu_us"] > 0


async def test_drive_calls_at_least_once() -> None:
    async def call() -> None:
        await asyncio.sleep(0)

    assert (await drive(call, 3, 0.0))["calls_per_s"] > 0


async def test_drive_ends_with_the_error_of_a_call() -> None:
    async def call() -> None:
        raise LookupError("no such agent")

    with pytest.raises(ExceptionGroup) as caught:
        await drive(call, 3, 60)
    assert {type(e) for e in caught.value.exceptions} == {LookupError}


async def test_drive_counts_the_cpu_time_of_others() -> None:
    async def call() -> None:
        await asyncio.sleep(0)

    # This process twice: the clocks of it and of "another" are the same.
    alone = await drive(call, 1, 0.02)
    twice = await drive(call, 1, 0.02, [os.getpid()])
    assert twice["cpu_us"] * twice["calls_per_s"] > alone["cpu_us"]


@pytest.mark.skipif(sys.platform != "linux", reason="psutil counts in steps elsewhere")
def test_cpu_time_of_a_process() -> None:
    before = time.process_time()
    found = cpu_seconds_of(os.getpid())
    assert before <= found <= time.process_time()


def test_cpu_time_of_no_process() -> None:
    with pytest.raises(Exception, match=r"Invalid argument|no process|not found|exist"):
        cpu_seconds_of(2**22 + 1)
