from __future__ import annotations

import dataclasses
import pickle

import pytest

from academy.stats import AgentStats


def test_zero_by_default() -> None:
    assert dataclasses.asdict(AgentStats()) == {
        "incoming": 0,
        "outgoing": 0,
        "completed": 0,
        "in_progress": 0,
        "queued": 0,
    }


def test_value() -> None:
    stats = AgentStats(incoming=3, completed=2, in_progress=1)
    assert stats == AgentStats(3, 0, 2, 1, 0)
    assert stats != AgentStats()
    assert pickle.loads(pickle.dumps(stats)) == stats
    with pytest.raises(AttributeError):
        stats.other = 1  # type: ignore[attr-defined]
