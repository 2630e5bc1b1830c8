"""What must hold after every fault, and what is written down about it.

Agents append a line to a file before the effect of each call, callers note when calls
begin and end. The oracle compares the two.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import math
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fault import report


@dataclasses.dataclass(slots=True)
class Call:
    """One call, as its caller saw it. Times are those of `time.monotonic`."""

    id: str
    begun: float
    ended: float | None = None
    outcome: str = ""
    """`ok`, `cancelled`, or the name of the error."""
    executed: str = ""
    """What the error says: `no`, `maybe`, or nothing."""

    @property
    def sender(self) -> str:
        return self.id.partition(":")[0]

    @property
    def number(self) -> int:
        return int(self.id.partition(":")[2])


@dataclasses.dataclass(frozen=True, slots=True)
class Execution:
    """One line of the file that the agents append to."""

    id: str
    incarnation: int
    pid: int


@functools.cache
def _open_log(path: str) -> int:
    """Return the descriptor of a log: one for all agents of a process."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


class ExecutionLog:
    """What an agent writes down; appends of any number of processes are atomic."""

    def __init__(self, path: str) -> None:
        self._fd = _open_log(path)
        # Grows from process to process of a host, and is not the one of the exchange.
        self.incarnation = time.monotonic_ns()

    def add(self, id: str) -> None:
        os.write(self._fd, f"{id} {self.incarnation} {os.getpid()}\n".encode())


class Journal:
    """Where a caller in a process of its own writes down its calls.

    Args:
        path: The file; its stem is the name of the sender.
    """

    def __init__(self, path: Path) -> None:
        self._sender = path.stem
        self._file = path.open("a", buffering=1)

    async def watch(self, number: int, call: Callable[[str], Awaitable[Any]]) -> Any:
        """Make a call with its id, and note what comes of it.

        Returns:
            The result; `None` if there is none, for errors are noted, not raised.
        """
        id = f"{self._sender}:{number}"
        self._file.write(f"b {id} {time.monotonic()}\n")
        result, error = None, None
        try:
            result = await call(id)
        except Exception as e:
            error = e
        outcome, executed = describe(error)
        self._file.write(f"e {id} {time.monotonic()} {outcome} {executed}\n")
        return result

    def close(self) -> None:
        self._file.close()


class Oracle:
    """Judges the calls of one test.

    Args:
        executions: The file that the agents append to.
    """

    def __init__(self, executions: Path) -> None:
        self.path = executions
        self.path.touch(0o600)
        self.calls: dict[str, Call] = {}
        self.faults: list[float] = []
        self._numbers = itertools.count(1)

    # Callers

    def begin(self, sender: str = "main") -> str:
        """Note that a call begins and return its id, `sender:number`."""
        id = f"{sender}:{next(self._numbers)}"
        self.calls[id] = Call(id, time.monotonic())
        return id

    def end(self, id: str, error: BaseException | None = None) -> None:
        """Note how a call has ended."""
        call = self.calls[id]
        call.ended = time.monotonic()
        call.outcome, call.executed = describe(error)

    def load(self, journal: Path, *, killed: bool = False) -> None:
        """Add the calls of another process; a killed one leaves some open."""
        for line in journal.read_text().splitlines():
            kind, id, when, *rest = line.split(" ")
            if kind == "b":
                self.calls[id] = Call(id, float(when))
            else:
                call = self.calls[id]
                call.ended = float(when)
                call.outcome, call.executed = rest
        if killed:
            prefix = f"{journal.stem}:"
            open_ = [c for c in self.unresolved() if c.id.startswith(prefix)]
            for call in open_:
                del self.calls[call.id]

    def fault(self) -> None:
        """Note that a fault begins now; from here on calls are timed."""
        self.faults.append(time.monotonic())

    # What was seen

    def executions(self) -> list[Execution]:
        """Return what the agents have written down, in order."""
        found = []
        for line in self.path.read_text().splitlines():
            id, incarnation, pid = line.split()
            found.append(Execution(id, int(incarnation), int(pid)))
        return found

    def executed(self) -> collections.Counter[str]:
        """Return how often each call was executed."""
        return collections.Counter(e.id for e in self.executions())

    def lines(self) -> int:
        """Return how many executions there were so far."""
        return self.path.read_bytes().count(b"\n")

    def results(self) -> list[Call]:
        return [c for c in self.calls.values() if c.outcome == "ok"]

    def errors(self) -> collections.Counter[str]:
        """Return the errors of calls, by name."""
        names = (c.outcome for c in self.calls.values() if c.ended is not None)
        return collections.Counter(n for n in names if n not in ("ok", "cancelled"))

    def unresolved(self) -> list[Call]:
        return [c for c in self.calls.values() if c.ended is None]

    def twice(self) -> list[str]:
        return [id for id, times in self.executed().items() if times > 1]

    def times(self) -> list[float]:
        """Return the seconds that calls took from their begin, or from the last fault
        while they were under way, whichever is later.
        """
        return sorted(self._time(c) for c in self.calls.values() if c.ended is not None)

    def worst(self) -> float:
        return max(self.times(), default=0.0)

    def p99(self) -> float:
        return percentile(self.times(), 0.99)

    def _time(self, call: Call) -> float:
        assert call.ended is not None
        since = [f for f in self.faults if call.begun < f < call.ended]
        return call.ended - max(since, default=call.begun)

    # Judgement

    def record(self, number: str, name: str, *, rounds: int, passed: bool) -> None:
        """Write a row of the report."""
        report.add(
            report.Row(
                number=number,
                name=name,
                rounds=rounds,
                calls=len(self.calls),
                results=len(self.results()),
                errors=dict(self.errors()),
                unresolved=len(self.unresolved()),
                twice=len(self.twice()),
                worst=self.worst(),
                p99=self.p99(),
                passed=passed,
            )
        )

    def judge(self, *, ordered: bool = False, twice: bool = False) -> None:
        """Assert what holds under every fault.

        Args:
            ordered: Whether the calls of each sender were made in order.
            twice: Whether this is the documented exception, where calls may be
                executed twice.
        """
        problems = dict(self._problems())
        if twice:
            problems.pop("executed twice", None)
        if ordered:
            problems |= self._disorder()
        assert not any(problems.values()), "; ".join(
            f"{len(ids)} {what}, such as {ids[:5]}"
            for what, ids in problems.items()
            if ids
        )

    def _problems(self) -> Iterator[tuple[str, list[str]]]:
        executed = self.executed()
        calls = self.calls.values()
        yield "executed twice", self.twice()
        yield (
            "answered but not executed",
            [c.id for c in calls if c.outcome == "ok" and not executed[c.id]],
        )
        yield (
            "called not executed, but executed",
            [c.id for c in calls if c.executed == "no" and executed[c.id]],
        )
        yield "unresolved", [c.id for c in self.unresolved()]
        # An error of ours always says what it knows about the execution.
        yield (
            "ended with an error that is none of the exchange",
            [c.id for c in calls if c.outcome.startswith("foreign-")],
        )

    def _disorder(self) -> dict[str, list[str]]:
        last: dict[str, int] = {}
        wrong = []
        for execution in self.executions():
            sender, _, number = execution.id.partition(":")
            if int(number) <= last.get(sender, 0):
                wrong.append(execution.id)
            last[sender] = int(number)
        return {"out of order": wrong}


def describe(error: BaseException | None) -> tuple[str, str]:
    """Return how a call has ended, in two words."""
    if error is None:
        return "ok", ""
    name = type(error).__name__
    if name in ("CancelledError", "TimeoutError"):
        return "cancelled", ""
    if not type(error).__module__.startswith("academy."):
        name = f"foreign-{name}"
    return name, str(getattr(error, "executed", ""))


def percentile(values: list[float], share: float) -> float:
    """Return the value that so much of the sorted values does not exceed."""
    if not values:
        return 0.0
    return values[max(0, math.ceil(share * len(values)) - 1)]


def grown(before: dict[str, Any], after: dict[str, Any], slack: int) -> dict[str, Any]:
    """Return which of these counts have grown by more than the slack."""
    return {
        name: (before.get(name, 0), count)
        for name, count in after.items()
        if count > before.get(name, 0) + slack
    }
