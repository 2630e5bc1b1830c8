"""What is measured, as rows of tables, and the medians of several rounds.

Classes with a `case` compare: ours and others have the same rows but for their figures.
Figures are floats, or `None` where there is none; their names say in which unit, and
those that end in `_per_s` are the better the higher.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

RowT = TypeVar("RowT")


@dataclass(frozen=True)
class Import:
    """Wall time of a fresh interpreter that imports a module and ends."""

    case: str
    module: str
    wall_ms: float
    above_plain_ms: float


@dataclass(frozen=True)
class Calls:
    """No-op calls, so many in flight at a time; CPU time of both processes per call."""

    case: str
    in_flight: int
    p50_us: float
    p99_us: float
    p999_us: float
    calls_per_s: float
    cpu_us: float


@dataclass(frozen=True)
class Echo:
    """Values sent to another process and back; bytes of both ways added."""

    case: str
    kind: str
    size: int
    p50_ms: float | None
    mb_per_s: float | None
    problem: str = ""


@dataclass(frozen=True)
class OneWay:
    """Values sent to another process: the first one, and the median of others."""

    case: str
    kind: str
    size: int
    first_mb_per_s: float | None
    mb_per_s: float | None
    problem: str = ""


@dataclass(frozen=True)
class Beside:
    """No-op calls, alone and while large values go to the same process and back."""

    case: str
    size: int
    alone_p99_us: float
    beside_p50_us: float
    beside_p99_us: float
    mb_per_s: float


@dataclass(frozen=True)
class Fan:
    """One calls many agents, and many call all the others, in two worker processes."""

    case: str
    way: str
    agents: int
    round_p50_ms: float
    calls_per_s: float


@dataclass(frozen=True)
class Find:
    """Agents registered one after the other; half of them discovered by their class."""

    case: str
    agents: int
    registered_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Drain:
    """Messages sent to an agent that is away, then taken by it."""

    messages: int
    in_order: bool
    sent_per_s: float
    taken_per_s: float


@dataclass(frozen=True)
class Launch:
    """Agents registered, launched and answering a ping; then shut down.

    What each costs is that of one process, which they share with who launches them.
    """

    agents: int
    launched_per_s: float
    ended_per_s: float
    kib_each: float
    fds_each: float


@dataclass(frozen=True)
class Mailboxes:
    """What each of many mailboxes costs a process."""

    mailboxes: int
    kib_each: float
    fds_each: float
    fds_of_process: float
    opened_per_s: float


@dataclass(frozen=True)
class Worker:
    """From the launch of an agent in a new process to its first answer."""

    executor: str
    ready_ms: float


@dataclass(frozen=True)
class Many:
    """Agents in one process, and who calls them: rates, costs, time to close."""

    event_loop: str
    agents: int
    launched_per_s: float
    first_calls_per_s: float
    calls_per_s: float
    started_kb_each: float
    answered_kb_each: float
    fds_each: float
    close_s: float
    keys_left: int


@dataclass(frozen=True)
class Discover:
    """Agents of one class that are found among all that are registered."""

    registered: int
    matches: int
    found_ms: float


@dataclass(frozen=True)
class Directory:
    """Operations, one at a time, beside so many mailboxes; memory of the server."""

    registered: int
    register_us: float
    bind_us: float
    lookup_us: float
    ping_us: float
    server_mb: float


@dataclass(frozen=True)
class ServerCost:
    """What one operation costs the server: commands, its time for them, and memory."""

    operation: str
    commands: float
    server_us: float
    bytes_kept: float


@dataclass(frozen=True)
class Link:
    """Time until a new link is proved at both ends, and its round trip of 200 bytes."""

    way: str
    linked_p50_ms: float
    linked_p99_ms: float
    trip_p50_us: float


@dataclass(frozen=True)
class Failure:
    """What could not be measured, and why."""

    case: str
    what: str
    problem: str
    ours: bool


def medians(rows: Iterable[RowT]) -> list[RowT]:
    """Merge rows that differ in their floats only into one with the medians."""
    rounds: dict[tuple[Any, ...], list[RowT]] = {}
    for row in rows:
        values = (getattr(row, field.name) for field in fields(row))  # type: ignore[arg-type]
        key = (type(row), *(v for v in values if not isinstance(v, float)))
        rounds.setdefault(key, []).append(row)
    return [_median(same) for same in rounds.values()]


def ratios(rows: Iterable[RowT], ours: str) -> list[RowT]:
    """Return how many times better ours is than each other case.

    These are rows of the other cases with factors as their figures: their time by
    ours, and our rate by theirs.

    Args:
        rows: Those to compare.
        ours: The case that is ours.
    """
    comparable = [row for row in rows if hasattr(row, "case")]
    own = {_subject(row): row for row in comparable if row.case == ours}
    found = []
    for row in comparable:
        our = own.get(_subject(row))
        if our is not None and row.case != ours:
            factors = {
                name: _factor(name, getattr(our, name), getattr(row, name))
                for name in _figures(row)
            }
            if any(factor is not None for factor in factors.values()):
                found.append(replace(row, **factors))  # type: ignore[type-var]
    return found


def _figures(row: Any) -> list[str]:
    return [name for name, value in vars(row).items() if isinstance(value, float)]


def _subject(row: Any) -> tuple[Any, ...]:
    """Return what was measured, whoever it was measured of."""
    values = {k: v for k, v in vars(row).items() if k not in {"case", "problem"}}
    return (type(row), *(v for v in values.values() if isinstance(v, int | str)))


def _factor(name: str, ours: float | None, theirs: float) -> float | None:
    if ours is None:
        return None
    better, worse = (ours, theirs) if name.endswith("_per_s") else (theirs, ours)
    return better / worse if worse else None


def _median(rows: Sequence[RowT]) -> RowT:
    floats = {
        name: statistics.median(getattr(row, name) for row in rows)
        for name in _figures(rows[0])
    }
    return replace(rows[0], **floats)  # type: ignore[type-var]
