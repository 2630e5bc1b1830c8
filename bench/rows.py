"""What is measured, as rows of tables, and the medians of several rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

RowT = TypeVar("RowT")


@dataclass(frozen=True)
class Import:
    """Wall time of a fresh interpreter that imports a module and ends."""

    module: str
    wall_ms: float
    above_plain_ms: float


@dataclass(frozen=True)
class Calls:
    """No-op calls, so many in flight at a time."""

    case: str
    in_flight: int
    p50_us: float
    p99_us: float
    calls_per_s: float


@dataclass(frozen=True)
class Drain:
    """Messages sent to an agent that is away, then taken by it."""

    messages: int
    in_order: bool
    sent_per_s: float
    taken_per_s: float


@dataclass(frozen=True)
class Launch:
    """Agents registered, launched and answering a ping; then shut down."""

    agents: int
    launched_per_s: float
    ended_per_s: float


@dataclass(frozen=True)
class Mailboxes:
    """What each of many mailboxes costs a process."""

    mailboxes: int
    kib_each: float
    fds_each: float
    fds_of_process: float
    opened_per_s: float


@dataclass(frozen=True)
class Many:
    """Agents in one process: how fast they start, answer for the first time and again,
    what they have cost when they have started and when all have answered, and how long
    they take to close. Where they share the event loop of their manager, or have one of
    their own, both ends of each call are in the process."""

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
    """Operations, one at a time, when so many mailboxes are registered; and the memory
    of the server then."""

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
class Worker:
    """From the launch of an agent in a new process to its first answer."""

    executor: str
    ready_ms: float


@dataclass(frozen=True)
class Link:
    """From the first packet to another process until both have proved themselves, and
    the round trip of 200 bytes on that link."""

    way: str
    linked_p50_ms: float
    linked_p99_ms: float
    trip_p50_us: float


@dataclass(frozen=True)
class Ratio:
    """Ours beside a peer: its time by ours, and our rate by its, so more is better."""

    peer: str
    in_flight: int
    p50_times_faster: float
    p99_times_faster: float
    rate_times_higher: float


def medians(rows: Iterable[RowT]) -> list[RowT]:
    """Merge rows that differ in their floats only into one with the medians."""
    rounds: dict[tuple[Any, ...], list[RowT]] = {}
    for row in rows:
        values = (getattr(row, field.name) for field in fields(row))  # type: ignore[arg-type]
        key = (type(row), *(v for v in values if not isinstance(v, float)))
        rounds.setdefault(key, []).append(row)
    return [_median(same) for same in rounds.values()]


def ratios(rows: Iterable[Any], ours: str, peers: str) -> list[Ratio]:
    """Compare the calls of two cases, for each number in flight that both have."""
    calls = {(r.case, r.in_flight): r for r in rows if isinstance(r, Calls)}
    found = []
    for (case, in_flight), peer in calls.items():
        our = calls.get((ours, in_flight))
        if case == peers and our is not None:
            p50, p99 = peer.p50_us / our.p50_us, peer.p99_us / our.p99_us
            rate = our.calls_per_s / peer.calls_per_s
            found.append(Ratio(peers, in_flight, p50, p99, rate))
    return found


def _median(rows: Sequence[RowT]) -> RowT:
    floats = {
        name: statistics.median(getattr(row, name) for row in rows)
        for name, value in vars(rows[0]).items()
        if isinstance(value, float)
    }
    return replace(rows[0], **floats)  # type: ignore[type-var]
