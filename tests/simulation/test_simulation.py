from __future__ import annotations

import pytest

from tests.simulation.__main__ import run
from tests.simulation.check import Result
from tests.simulation.rules import FULL, WITHOUT
from tests.simulation.world import World

CHUNK = 50


def check(total: Result) -> None:
    """All is well, and something has happened."""
    assert total.violations == 0, f"{total}; try python -m tests.simulation --first N"
    assert total.messages > 50 * total.seeds
    assert total.errors < total.messages / 2
    assert total.by_name["PeerLost(maybe)"]
    assert 0 < total.memory <= 8


@pytest.mark.parametrize("first", range(0, 300, CHUNK))
def test_nothing_is_lost_executed_twice_or_left_waiting(first: int) -> None:
    check(run((first, CHUNK, "", ())))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(300, 5300, 1000))
def test_nothing_goes_wrong_with_many_seeds(first: int) -> None:
    check(run((first, 1000, "", ())))


@pytest.mark.parametrize("name", WITHOUT)
def test_every_rule_is_needed(name: str) -> None:
    """Without it a world breaks, in its own way, that is fine with it."""
    without = WITHOUT[name]
    for seed in range(600):
        result = World(seed, without.rules, without.faults).run()
        if getattr(result, without.symptom):
            break
    else:
        pytest.fail(f"Nothing happens without {name!r}.")
    assert World(seed, FULL, without.faults).run().violations == 0


def test_a_seed_decides_everything() -> None:
    first, second = World(11), World(11)
    assert first.run() == second.run()
    assert first.clock.events == second.clock.events
    assert first.clock.now == second.clock.now
    other = World(12)
    other.run()
    assert first.clock.events != other.clock.events
