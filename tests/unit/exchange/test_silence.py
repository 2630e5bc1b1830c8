from __future__ import annotations

import asyncio
import time

import pytest

from academy.exchange import silence
from academy.exchange.silence import Silence
from tests.unit.exchange.mail import until


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "TICK", 0.01)


async def test_counts_from_the_question_to_the_answer() -> None:
    ticks: list[float] = []
    quiet = Silence(ticks.append)
    assert quiet.seconds == 0.0
    quiet.begin()
    await until(lambda: quiet.seconds > 0.02)
    before = quiet.seconds
    quiet.begin()  # another question does not begin anew
    assert quiet.seconds == before
    quiet.end()
    quiet.end()
    await asyncio.sleep(0.03)
    assert quiet.seconds == 0.0
    assert len(ticks) >= 3
    assert ticks == sorted(ticks)


async def test_a_busy_loop_is_no_silence() -> None:
    quiet = Silence(lambda seconds: None)
    quiet.begin()
    time.sleep(0.3)  # noqa: ASYNC251 - that is what is tested
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert quiet.seconds <= 0.02
    quiet.end()
