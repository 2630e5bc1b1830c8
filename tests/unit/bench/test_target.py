from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SETTINGS: dict[str, Any] = {
    "seconds": 0.0,
    "in_flight": [1, 3],
    "sizes": [10, 1000],
    "kinds": ["bytes", "bytearray", "numpy"],
    "size": 100,
    "repeats": 2,
}


class Other:
    """What is called: here, it is in this process."""

    def __init__(self, limit: int = 10_000) -> None:
        self.limit = limit
        self.kinds: set[type] = set()

    async def noop(self) -> None:
        await asyncio.sleep(0)

    async def echo(self, value: Any) -> Any:
        await asyncio.sleep(0)
        if len(value) > self.limit:
            raise OverflowError("too\nlarge " + "x" * 200)
        self.kinds.add(type(value))
        return value

    async def size(self, value: Any) -> int:
        return memoryview(await self.echo(value)).nbytes


async def measure(target: ModuleType, other: Other, what: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = await target.measure(
        target.Target(other.noop, other.echo, other.size),
        {**SETTINGS, "measure": what},
    )
    return rows


async def test_calls(target: ModuleType) -> None:
    rows = await measure(target, Other(), "calls")
    assert [row["in_flight"] for row in rows] == [1, 3]


async def test_echoes(target: ModuleType) -> None:
    other = Other()
    rows = await measure(target, other, "echoes")
    assert [(row["size"], row["kind"]) for row in rows] == [
        (size, kind) for size in SETTINGS["sizes"] for kind in SETTINGS["kinds"]
    ]
    assert all(row["mb_per_s"] > 0 and not row["problem"] for row in rows)
    assert other.kinds == {bytes, bytearray, np.ndarray}


async def test_what_is_refused_is_told_and_the_rest_goes_on(target: ModuleType) -> None:
    rows = await measure(target, Other(limit=10), "echoes")
    fine, refused = rows[:3], rows[3:]
    assert all(row["mb_per_s"] for row in fine)
    for row in refused:
        assert row["mb_per_s"] is row["p50_ms"] is None
        assert row["problem"].startswith("OverflowError: too large xxx")
        assert len(row["problem"]) == 80


async def test_an_echo_that_lost_something_is_told(target: ModuleType) -> None:
    class Deaf(Other):
        async def echo(self, value: Any) -> Any:
            return value[1:]

    rows = await measure(target, Deaf(), "echoes")
    assert rows[0]["problem"] == "AssertionError: sent 10 bytes, got 9"


async def test_one_way(target: ModuleType) -> None:
    rows = await measure(target, Other(limit=10), "one way")
    fine, refused = rows[:3], rows[3:]
    assert [row["kind"] for row in fine] == SETTINGS["kinds"]
    for row in fine:
        assert row["first_mb_per_s"] > 0
        assert row["mb_per_s"] > 0
        assert not row["problem"]
    for row in refused:
        assert row["mb_per_s"] is row["first_mb_per_s"] is None
        assert row["problem"].startswith("OverflowError")


async def test_what_has_not_come_is_told(target: ModuleType) -> None:
    class Deaf(Other):
        async def size(self, value: Any) -> int:
            return 9

    rows = await measure(target, Deaf(), "one way")
    assert rows[0]["problem"] == "AssertionError: sent 10 bytes, got 9"


async def test_beside(target: ModuleType) -> None:
    (row,) = await measure(target, Other(), "beside")
    assert row["size"] == 100
    assert 0 < row["beside_p50_us"] <= row["beside_p99_us"]
    assert row["mb_per_s"] >= 0


async def test_no_such_measure(target: ModuleType) -> None:
    with pytest.raises(KeyError):
        await measure(target, Other(), "weight")


async def test_what_the_machine_cannot_hold_is_not_tried(
    target: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "memory", lambda: 100)
    rows = await measure(target, Other(), "echoes")
    assert [bool(row["problem"]) for row in rows] == [False] * 3 + [True] * 3
    assert rows[-1]["problem"] == "MemoryError: needs 1e-05 GB"


def test_memory_of_this_machine(target: ModuleType) -> None:
    assert target.memory() > 1e8
