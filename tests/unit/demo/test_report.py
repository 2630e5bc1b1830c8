from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from academy.demo.calls import Calls
from academy.demo.report import Accident, Path, Plan, Report, problems, summary
from academy.exchange.link_info import LinkInfo, ProcessInfo

RELAYED = Path("relay", "no direct links")

GOOD = Report(
    plan=Plan(rounds=2, sites=2, seed=5),
    accuracies=(0.9, 0.95),
    reference=0.97,
    applied={(0, 1): 1, (1, 1): 1, (0, 2): 1, (1, 2): 1},
    calls=Calls(10, 9, Counter(PeerLostError=1)),
    accident=Accident(site=0, round=2, pid=100, new_pid=101),
    paths={0: Path("uds", direct=7), 1: RELAYED},
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
        (
            replace(GOOD, paths={**GOOD.paths, 1: Path("uds", direct=3)}),
            "site-1 is blocked, but 3 messages went directly and the path is uds.",
        ),
        (
            replace(GOOD, paths={**GOOD.paths, 1: replace(RELAYED, direct=2)}),
            "site-1 is blocked, but 2 messages went directly and the path is relay.",
        ),
        (
            replace(GOOD, paths={**GOOD.paths, 0: RELAYED}),
            "site-0 is not blocked, but messages went by relay: no direct links.",
        ),
        (
            replace(GOOD, paths={1: RELAYED}),
            "It is not known which way messages to site-0 went.",
        ),
        (
            replace(GOOD, paths={0: Path("tcp")}),
            "It is not known which way messages to site-1 went.",
        ),
    ],
)
def test_what_is_wrong_is_said(report: Report, problem: str) -> None:
    assert problems(report) == [problem]
    assert "something is wrong" in summary(report)[-1]


def test_accuracy_at_the_limit_is_good() -> None:
    assert problems(replace(GOOD, accuracies=(0.9401,))) == []


def test_both_direct_ways_are_good() -> None:
    assert problems(replace(GOOD, paths={**GOOD.paths, 0: Path("tcp")})) == []


def test_all_problems_are_said() -> None:
    bad = replace(
        GOOD, calls=Calls(1), applied={}, accuracies=(0.1,), accident=None, paths={}
    )
    assert len(problems(bad)) == 1 + 4 + 1 + 1 + 2


SITE, OTHER = "a" * 32, "b" * 32
QUEUES = LinkInfo("", reason="no direct links")


def process(name: str, *links: LinkInfo) -> ProcessInfo:
    return ProcessInfo(name, "host", 1, links)


def test_path_is_direct_if_both_ends_say_so() -> None:
    site = process(SITE, LinkInfo(OTHER, path="uds", sent=2, received=3))
    other = process(OTHER, QUEUES, LinkInfo(SITE, path="uds", sent=4, received=2))
    assert Path.between(site, other) == Path("uds", direct=6)


@pytest.mark.parametrize("swapped", [False, True])
def test_path_is_the_relay_if_one_end_says_so(swapped: bool) -> None:
    one = process(SITE, LinkInfo(OTHER, path="uds", sent=2))
    two = process(OTHER, LinkInfo(SITE, path="relay", reason="being connected"))
    path = Path.between(two, one) if swapped else Path.between(one, two)
    assert path == Path("relay", "being connected", direct=2)


def test_path_without_any_link_is_that_of_unknown_processes() -> None:
    site = process(SITE, QUEUES)
    other = process(OTHER, LinkInfo("c" * 32, path="uds", sent=9), QUEUES)
    assert Path.between(site, other) == Path("relay", "no direct links")


def test_no_path_where_nothing_was_sent() -> None:
    elsewhere = LinkInfo("c" * 32, path="uds", sent=9)
    assert Path.between(process(SITE, QUEUES), process(OTHER, elsewhere)) is None
    assert Path.between(process(SITE, elsewhere), process(OTHER, QUEUES)) is None


def test_summary() -> None:
    text = "\n".join(summary(GOOD))
    assert "95.0% with the data at 2 sites, 97.0% with all data" in text
    assert "4 of 4 applied" in text
    assert "9 answered, 1 failed (1 by PeerLostError), 0 unanswered" in text
    assert "Paths      site-0 uds, site-1 relay (blocked)" in text
    assert "process 100 of site-0 killed in round 2; process 101 took over" in text
    assert "12.3 s; all is as it should be" in text


def test_summary_without_an_accident() -> None:
    text = "\n".join(summary(replace(GOOD, accident=None, calls=Calls(3, 3))))
    assert "killed" not in text
    assert "3 answered, 0 failed, 0 unanswered" in text


def test_summary_of_an_unknown_path() -> None:
    text = "\n".join(summary(replace(GOOD, paths={1: RELAYED})))
    assert "Paths      site-0 unknown, site-1 relay (blocked)" in text


def test_json() -> None:
    read = json.loads(json.dumps(GOOD.as_json()))
    assert read["plan"] == {"rounds": 2, "sites": 2, "seed": 5}
    assert read["calls"]["failed"] == {"PeerLostError": 1}
    assert read["accident"]["new_pid"] == 101
    assert read["updates_applied"] == 4
    assert read["paths"] == [
        {"site": 0, "way": "uds", "reason": "", "direct": 7},
        {"site": 1, "way": "relay", "reason": "no direct links", "direct": 0},
    ]
    assert read["problems"] == []
    assert replace(GOOD, accident=None).as_json()["accident"] is None
