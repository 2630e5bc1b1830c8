"""What the demo has found out, and whether it is as it should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from academy.demo.calls import Calls
from academy.exchange.link_info import LinkInfo, ProcessInfo

TOLERANCE = 0.03
"""How far the accuracy may stay below that of the centralised reference."""

RELAY = "relay"


@dataclass(frozen=True)
class Plan:
    """What the demo is to do.

    Attributes:
        rounds: How many rounds of training.
        sites: How many sites.
        seed: Determines who has which data, and the weights to begin with.
    """

    rounds: int = 6
    sites: int = 4
    seed: int = 0

    @property
    def blocked(self) -> int:
        """Index of the site that cannot be reached directly."""
        return self.sites - 1


@dataclass(frozen=True)
class Accident:
    """A worker process that was killed while it trained.

    Attributes:
        site: Index of the site that ran there.
        round: The round it trained for.
        pid: The process that was killed.
        new_pid: The process that the site runs in since then.
    """

    site: int
    round: int
    pid: int
    new_pid: int


@dataclass(frozen=True)
class Path:
    """Which way messages go between a site and the coordinator.

    Attributes:
        way: `'uds'`, `'tcp'` or `'relay'`.
        reason: Why they do not go directly; empty if they do.
        direct: How many have gone directly, in both directions.
    """

    way: str
    reason: str = ""
    direct: int = 0

    @classmethod
    def between(cls, site: ProcessInfo, coordinator: ProcessInfo) -> Path | None:
        """Return what two processes tell; `None` if one has nothing to tell.

        It is the direct way only if both say so.
        """
        there = _link(site, coordinator.process)
        back = _link(coordinator, site.process)
        if there is None or back is None:
            return None
        slower = there if there.path == RELAY else back
        direct = max(there.sent + there.received, back.sent + back.received)
        return cls(slower.path, slower.reason, direct)


def _link(info: ProcessInfo, process: str) -> LinkInfo | None:
    """Return the link to a process, or what stands for all that are not known."""
    links = {link.process: link for link in info.links}
    return links.get(process) or links.get("")


@dataclass(frozen=True)
class Report:
    """How the demo went.

    Attributes:
        plan: What was to be done.
        accuracies: Accuracy on the test images after each round.
        reference: Accuracy of the same model trained with all data in one place.
        applied: How often the update of each (site, round) was applied.
        calls: What became of all calls.
        accident: The worker that was killed, if one was.
        paths: Which way messages went in the end, by site, as far as is known.
        seconds: How long it took.
    """

    plan: Plan
    accuracies: tuple[float, ...]
    reference: float
    applied: Mapping[tuple[int, int], int]
    calls: Calls
    accident: Accident | None
    paths: Mapping[int, Path]
    seconds: float

    @property
    def accuracy(self) -> float:
        """Accuracy after the last round."""
        return self.accuracies[-1]

    def as_json(self) -> dict[str, Any]:
        """Return the report as objects that JSON has types for."""
        return {
            "plan": vars(self.plan),
            "accuracies": list(self.accuracies),
            "reference": self.reference,
            "updates_applied": sum(self.applied.values()),
            "calls": {
                "made": self.calls.made,
                "answered": self.calls.answered,
                "failed": dict(self.calls.failed),
                "unanswered": self.calls.unanswered,
            },
            "accident": self.accident and vars(self.accident),
            "paths": [
                {"site": site, **vars(path)} for site, path in self.paths.items()
            ],
            "seconds": round(self.seconds, 2),
            "problems": problems(self),
        }


def problems(report: Report) -> list[str]:
    """Return what is not as it should be, as sentences; empty if all is well."""
    return [
        *_call_problems(report.calls),
        *_update_problems(report),
        *_accident_problems(report.accident),
        *_path_problems(report),
        *_accuracy_problems(report),
    ]


def _call_problems(calls: Calls) -> list[str]:
    if calls.unanswered == 0:
        return []
    return [
        f"{calls.unanswered} of {calls.made} calls ended neither with a result nor "
        "with an error."
    ]


def _update_problems(report: Report) -> list[str]:
    found = []
    for number in range(1, report.plan.rounds + 1):
        for site in range(report.plan.sites):
            times = report.applied.get((site, number), 0)
            if times == 0:
                found.append(f"site-{site} is missing from round {number}.")
            elif times > 1:
                found.append(
                    f"The update of site-{site} for round {number} was applied "
                    f"{times} times."
                )
    return found


def _accident_problems(accident: Accident | None) -> list[str]:
    if accident is None:
        return ["No worker could be killed while it trained: nothing was recovered."]
    if accident.new_pid == accident.pid:
        return [
            f"site-{accident.site} still runs in process {accident.pid}, which was "
            "killed."
        ]
    return []


def _path_problems(report: Report) -> list[str]:
    found = []
    for site in range(report.plan.sites):
        path = report.paths.get(site)
        if path is None:
            found.append(f"It is not known which way messages to site-{site} went.")
        elif site == report.plan.blocked:
            if path.way != RELAY or path.direct:
                found.append(
                    f"site-{site} is blocked, but {path.direct} messages went directly "
                    f"and the path is {path.way}."
                )
        elif path.way == RELAY:
            found.append(
                f"site-{site} is not blocked, but messages went by relay: "
                f"{path.reason}."
            )
    return found


def _accuracy_problems(report: Report) -> list[str]:
    if report.accuracy >= report.reference - TOLERANCE:
        return []
    return [
        f"The accuracy {report.accuracy:.1%} is more than {100 * TOLERANCE:g} points "
        f"below the reference {report.reference:.1%}."
    ]


def told(plan: Plan, paths: Mapping[int, Path]) -> str:
    """Return the path of each site, for people."""
    return ", ".join(
        f"site-{site} {paths[site].way if site in paths else 'unknown'}"
        f"{' (blocked)' if site == plan.blocked else ''}"
        for site in range(plan.sites)
    )


def summary(report: Report) -> list[str]:
    """Return what came of the demo, as lines for people."""
    calls, accident = report.calls, report.accident
    failed = ", ".join(f"{n} by {name}" for name, n in sorted(calls.failed.items()))
    lines = [
        f"Accuracy   {report.accuracy:.1%} with the data at {report.plan.sites} "
        f"sites, {report.reference:.1%} with all data in one place",
        f"Updates    {sum(report.applied.values())} of "
        f"{report.plan.rounds * report.plan.sites} applied",
        f"Calls      {calls.answered} answered, {calls.failed.total()} failed"
        f"{f' ({failed})' if failed else ''}, {calls.unanswered} unanswered",
        f"Paths      {told(report.plan, report.paths)}",
    ]
    if accident is not None:
        lines.append(
            f"Accident   process {accident.pid} of site-{accident.site} killed in "
            f"round {accident.round}; process {accident.new_pid} took over"
        )
    verdict = "something is wrong" if problems(report) else "all is as it should be"
    return [*lines, f"Time       {report.seconds:.1f} s; {verdict}"]
