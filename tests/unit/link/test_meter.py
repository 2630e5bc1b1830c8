from __future__ import annotations

import pytest

from academy.link.meter import MEMORY, Meter


def test_a_steady_rate_is_found_at_once_and_kept() -> None:
    meter = Meter(100.0)
    for tenth in range(1, 301):
        now = 100.0 + tenth / 10
        meter.read(5 * tenth, now)
        if now >= 101.0:
            assert meter.rate(now) == pytest.approx(50.0, rel=0.1)


def test_what_was_long_ago_does_not_count() -> None:
    meter = Meter(0.0)
    meter.read(1000, 1.0)
    assert meter.rate(1.0) > 900
    assert meter.rate(1.0 + 3 * MEMORY) < 20
    assert meter.rate(1000.0) < 1e-6


def test_a_burst_after_silence_counts() -> None:
    meter = Meter(0.0)
    meter.read(100, 1000.0)
    assert meter.rate(1000.0) == pytest.approx(100 / MEMORY)


def test_the_first_message_is_no_thousand_a_second() -> None:
    meter = Meter(0.0)
    meter.read(1, 0.001)
    assert 0 < meter.rate(0.001) < 2
