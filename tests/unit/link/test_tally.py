from __future__ import annotations

import logging

import pytest

from academy.link.refusal import Refusal
from academy.link.tally import QUIET, SOURCES, Tally


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_counts_by_reason() -> None:
    tally = Tally(Clock())
    assert (tally.total, tally.counts) == (0, {})
    for reason in (Refusal.LATE, Refusal.LATE, Refusal.SECRET):
        tally.count(reason, "192.0.2.1", "why")
    assert (tally.total, tally.counts) == (3, {"late": 2, "secret": 1})


def test_one_line_per_source_and_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    tally = Tally(clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            tally.count(Refusal.SECRET, "192.0.2.1", "it does not know the secret")
        tally.count(Refusal.SECRET, "192.0.2.2", "it does not know the secret")
        assert len(caplog.records) == 2
        assert "192.0.2.1: it does not know the secret" in caplog.text
        clock.now = QUIET
        tally.count(Refusal.LATE, "192.0.2.1", "it did not prove itself in time")
    assert len(caplog.records) == 3
    assert tally.counts == {"secret": 101, "late": 1}


def test_many_sources_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Nor the memory."""
    clock = Clock()
    tally = Tally(clock)
    with caplog.at_level(logging.WARNING):
        for n in range(10_000):
            clock.now += 0.001
            tally.count(Refusal.GARBAGE, f"source {n}", "garbage")
    assert len(caplog.records) == SOURCES == len(tally._told)
    assert tally.counts == {"garbage": 10_000}
