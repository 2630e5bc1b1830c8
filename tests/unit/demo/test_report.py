from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from academy.demo.calls import Calls
from academy.demo.report import Accident, Plan, Report, problems, summary

GOOD = Report(
    plan=Plan(rounds=2, sites=2, seed=5),
    accuracies=(0.9, 0.95),
    reference=0.97,
    applied={(0, 1): 1, (1, 1): 1, (0, 2): 1, (1, 2): 1},
    calls=Calls(10, 9, Counter(PeerLostError=1)),
    accident=Accident(site=1, round=2, pid=100, new_pid=101),
    seconds=12.345,
)


def test_nothing_is_wrong() -> None:
    assert problems(GOOD) == []


@pytest.mark.parametrize(
    ("report", "problem"),
    [
        (
            replace(GOOD, calls=Calls(10, 8, Counter(PeerLostError=1))),
            "1 of 10 calls ended neither with a result nor with an error.",
        ),
        (
            replace(GOOD, applied={**GOOD.applied, (1, 2): 2}),
            "The update of site-1 for round 2 was applied 2 times.",
        ),
        (
            replace(GOOD, applied={(0, 1): 1, (1, 1): 1, (0, 2): 1}),
            "site-1 is missing from round 2.",
        ),
        (
            replace(GOOD, accuracies=(0.98, 0.9)),
            "The accuracy 90.0% is more than 3 points below the reference 97.0%.",
        ),
        (
            replace(GOOD, accident=None),
            "No worker could be killed while it trained: nothing was recovered.",
        ),
        (
            replace(GOOD, accident=Accident(1, 2, 100, 100)),
            "site-1 still runs in process 100, which was killed.",
        ),
    ],
)
def test_what_is_wrong_is_said(report: Report, problem: str) -> None:
    assert problems(report) == [problem]
    assert "something is wrong" in summary(report)[-1]


def test_accuracy_at_the_limit_is_good() -> None:
    assert problems(replace(GOOD, accuracies=(0.9401,))) == []


def test_all_problems_are_said() -> None:
    bad = replace(GOOD, calls=Calls(1), applied={}, accuracies=(0.1,), accident=None)
    assert len(problems(bad)) == 1 + 4 + 1 + 1


def test_summary() -> None:
    text = "\n".join(summary(GOOD))
    assert "95.0% with the data at 2 sites, 97.0% with all data" in text
    assert "4 of 4 applied" in text
    assert "9 answered, 1 failed (1 by PeerLostError), 0 unanswered" in text
    assert "process 100 of site-1 killed in round 2; process 101 took over" in text
    assert "12.3 s; all is as it should be" in text


def test_summary_without_an_accident() -> None:
    text = "\n".join(summary(replace(GOOD, accident=None, calls=Calls(3, 3))))
    assert "killed" not in text
    assert "3 answered, 0 failed, 0 unanswered" in text


def test_json() -> None:
    read = json.loads(json.dumps(GOOD.as_json()))
    assert read["plan"] == {"rounds": 2, "sites": 2, "seed": 5}
    assert read["calls"]["failed"] == {"PeerLostError": 1}
    assert read["accident"]["new_pid"] == 101
    assert read["updates_applied"] == 4
    assert read["problems"] == []
    assert replace(GOOD, accident=None).as_json()["accident"] is None
