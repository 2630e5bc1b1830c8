"""What must hold: the oracle that sees everything, and its verdict on a run."""

from __future__ import annotations

import collections
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.message import REQUEST, Message

if TYPE_CHECKING:
    from tests.simulation.box import Box
    from tests.simulation.line import Line
    from tests.simulation.server import Entry


EXPECTED = ("Cancelled", "Ended", "Crashed", "MailboxFull", "MessageTooLarge")
"""Outcomes of requests whose sender did not wait, is not there any more, or has sent
more than the mailbox or its queue holds."""


@dataclass
class Request:
    """All that is known about a request."""

    outcome: str = ""
    executed: str = ""
    runs: list[int] = field(default_factory=list)
    refusals: int = 0
    taken: bool = False
    """Whether its consumption was acknowledged or recorded."""
    hung: bool = False


@dataclass
class Result:
    """What came of one or more runs."""

    seeds: int = 0
    messages: int = 0
    twice: int = 0
    hung: int = 0
    lost: int = 0
    disorder: int = 0
    lies: int = 0
    """Errors that said 'not executed' of what was, and results of what was not."""
    needless: int = 0
    """Errors for what was not executed, where nothing worse happened than that
    connections failed and mailboxes moved."""
    errors: int = 0
    ran: int = 0
    memory: int = 0
    overflow: int = 0
    by_name: collections.Counter[str] = field(default_factory=collections.Counter)
    bad: list[int] = field(default_factory=list)
    """Seeds of runs with a violation."""

    @property
    def violations(self) -> int:
        return (
            self.twice
            + self.hung
            + self.lost
            + self.disorder
            + self.lies
            + self.needless
            + self.overflow
        )

    def add(self, other: Result) -> None:
        for name in (
            "seeds",
            "messages",
            "twice",
            "hung",
            "lost",
            "disorder",
            "lies",
            "needless",
            "errors",
            "ran",
            "overflow",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.memory = max(self.memory, other.memory)
        self.by_name += other.by_name
        self.bad += other.bad


class Ledger:
    """Sees what is submitted, executed, refused, acknowledged and resolved."""

    def __init__(self) -> None:
        self.requests: dict[int, Request] = {}
        self.unresolved = 0
        self.disorder = 0
        self.memory = 0
        self.overflow = 0
        self.excused = False
        """Whether the server has lost data, or was away for longer than anybody waits:
        then requests may be lost, and their senders be told so."""
        self.gentle = False
        """Whether nothing happens that would excuse an error."""
        self._order: dict[tuple[uuid.UUID, str], list[tuple[int, int]]] = {}

    def submitted(self, tag: int) -> None:
        self.requests[tag] = Request()
        self.unresolved += 1

    def executed(self, message: Message, box: Box, entry: Entry) -> None:
        self.requests[message.tag].runs.append(box.inc)
        # An incarnation must not go back behind what it, or one before it, executed.
        order = self._order.setdefault((box.eid, entry.stream), [])
        if any(inc <= box.inc and seq >= entry.seq for inc, seq in order):
            self.disorder += 1
        order[:] = [(i, s) for i, s in order if i != box.inc]
        order.append((box.inc, entry.seq))

    def refused(self, message: Message, inc: int) -> None:
        self.requests[message.tag].refusals += 1

    def confirmed(self, message: Message) -> None:
        """The sender was told that a message was taken."""
        if message.kind == REQUEST:
            self.requests[message.tag].taken = True

    def consumed(self, message: Message) -> None:
        """The owner has told, or will, that a message was taken."""
        if message.kind == REQUEST:
            self.requests[message.tag].taken = True

    def resolved(self, tag: int, outcome: str, executed: str) -> None:
        request = self.requests[tag]
        assert not request.outcome
        request.outcome, request.executed = outcome, executed
        self.unresolved -= 1

    def out_of_time(self) -> None:
        """Everything should be resolved by now."""
        for request in self.requests.values():
            request.hung = not request.outcome

    def measure(self, line: Line) -> None:
        """Look at the memory that a line needs."""
        outbox = line.outbox
        window = line.process.node.config.window_messages
        if line.key.lane == 0:
            self.memory = max(self.memory, outbox.unconfirmed)
            self.overflow += outbox.unconfirmed > window

    def result(self, seed: int) -> Result:
        """Judge the run, when it is over."""
        result = Result(
            seeds=1,
            disorder=self.disorder,
            memory=self.memory,
            overflow=self.overflow,
        )
        for request in self.requests.values():
            self._judge(request, result)
        if result.violations:
            result.bad.append(seed)
        return result

    def _judge(self, request: Request, result: Result) -> None:
        ran = len(request.runs)
        result.messages += 1
        result.twice += ran > 1
        result.hung += request.hung
        if request.outcome == "result":
            result.lies += ran == 0
        elif request.outcome:
            result.errors += 1
            result.ran += ran > 0
            result.lies += ran > 0 and request.executed == "no"
            expected = request.outcome in EXPECTED
            result.needless += self.gentle and not ran and not expected
            result.by_name[f"{request.outcome}({request.executed})"] += 1
        silent = request.taken and not ran and not request.refusals
        vanished = request.outcome == "RequestLost" and not self.excused
        result.lost += silent or vanished
