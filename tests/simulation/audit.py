"""The audit of a process: a small model of `academy.exchange.audit`."""

from __future__ import annotations

import functools
import struct
import uuid
from typing import TYPE_CHECKING

from academy.exchange.stream import REQUESTS
from academy.exchange.verdict import Verdict, judge
from tests.simulation.message import PROBE, REPORT, Message, decode
from tests.simulation.server import Entry, Reply

if TYPE_CHECKING:
    from tests.simulation.box import Awaited, Box
    from tests.simulation.process import Process

INTERVAL = 1.5
PROBE_AGE = 10.0
GRACE = 1.0
RECHECK = 0.3
REPORT_TIMEOUT = 5.0


class Auditor:
    """Looks after the requests of all mailboxes of a process."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.clock = process.clock
        self.trust_after = 0.0
        self._due: dict[tuple[Box, uuid.UUID], float] = {}
        self._running = False
        self._number = 0
        self._asked: dict[int, tuple[Box, int, list[Awaited]]] = {}

    def start(self) -> None:
        """Look, from now on, as long as something is awaited."""
        if not self._running and self.process.world.rules.audit:
            self._running = True
            self.clock.after(INTERVAL, self.process, self._round)

    def look_at(self, dest: uuid.UUID) -> None:
        """Look soon at the requests to a mailbox."""
        for pair in self._due:
            if pair[1] == dest:
                self._due[pair] = 0.0

    def look_at_all(self) -> None:
        """Look soon at all requests."""
        self._due = dict.fromkeys(self._due, 0.0)

    def terminated(self, dest: uuid.UUID) -> None:
        """Settle the requests to a terminated mailbox, after a grace."""
        self.clock.after(GRACE, self.process, self._expire, dest)

    def heard(self, box: Box, entry: Entry) -> None:
        """Take a probe or a report."""
        message = decode(entry.segments)
        tags = [tag for (tag,) in struct.iter_unpack("!Q", entry.segments[1])]
        if message.kind == PROBE:
            known = [tag for tag in tags if box.knows(tag)]
            report = Message(REPORT, message.tag, box.eid, message.src)
            packed = struct.pack(f"!{len(known) + 1}Q", box.inc, *known)
            self.process.say(message.src, REPORT, report.encode(packed))
            return
        asked = self._asked.pop(message.tag, None)
        if asked is None:
            return
        asker, inc, requests = asked
        asker.expecting -= 1
        if tags.pop(0) != inc:
            # Another has the mailbox by now, and the books tell of it.
            return
        for awaited in requests:
            if awaited.message.tag in tags:
                awaited.strikes = 0
            else:
                self._suspect(asker, awaited, Verdict.VANISHED)

    def _round(self) -> None:
        now = self.clock.now
        due: dict[tuple[Box, uuid.UUID], float] = {}
        for box in self.process.boxes.values():
            groups: dict[uuid.UUID, list[Awaited]] = {}
            for awaited in box.awaited.values():
                groups.setdefault(awaited.message.dest, []).append(awaited)
            for dest, requests in groups.items():
                first = min(a.since for a in requests) + INTERVAL
                at = self._due.get((box, dest), first)
                if at <= now:
                    at = now + INTERVAL
                    self.process.commands.call(
                        "audit",
                        dest,
                        box.line(dest, REQUESTS).outbox.stream.name,
                        done=functools.partial(self._read, box, dest, requests),
                    )
                due[box, dest] = at
        self._due = due
        self._running = bool(due)
        if due:
            self.clock.after(RECHECK, self.process, self._round)

    def _read(
        self,
        box: Box,
        dest: uuid.UUID,
        requests: list[Awaited],
        reply: Reply | None,
        sent: int,
    ) -> None:
        if reply is None or box.ended:
            return
        box.line(dest, REQUESTS).newer(reply[0].inc)
        linked = box.line(dest, REQUESTS).outbox.incarnation
        heard = 0 < linked == reply[0].inc
        aged = []
        for awaited in requests:
            parcel = awaited.parcel
            verdict = judge(
                reply[0],
                parcel.seq,
                direct=parcel.inc,
                kept=parcel.kept,
                trust_leases=self.clock.now > self.trust_after and not heard,
            )
            if verdict is Verdict.KEPT:
                awaited.strikes = 0
            elif verdict in (Verdict.QUEUED, Verdict.TAKEN):
                if self.clock.now - awaited.since < PROBE_AGE:
                    awaited.strikes = 0
                elif verdict is Verdict.TAKEN:
                    aged.append(awaited)
            else:
                self._suspect(box, awaited, verdict)
        if aged:
            self._due[box, dest] = self.clock.now + PROBE_AGE
            self._ask(box, dest, reply[0].inc, aged)

    def _ask(
        self, box: Box, dest: uuid.UUID, inc: int, requests: list[Awaited]
    ) -> None:
        self._number += 1
        self._asked[self._number] = (box, inc, requests)
        box.expecting += 1
        probe = Message(PROBE, self._number, box.eid, dest)
        tags = [a.message.tag for a in requests]
        packed = struct.pack(f"!{len(tags)}Q", *tags)
        self.process.say(dest, PROBE, probe.encode(packed))
        self.clock.after(REPORT_TIMEOUT, self.process, self._too_late, self._number)

    def _too_late(self, number: int) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            asked[0].expecting -= 1

    def _suspect(self, box: Box, awaited: Awaited, verdict: Verdict) -> None:
        tag = awaited.message.tag
        if box.awaited.get(tag) is not awaited or box.has_answer(tag):
            return
        awaited.strikes += 1
        if awaited.strikes < 2:
            pause = {Verdict.TERMINATED: GRACE, Verdict.VANISHED: 2 * INTERVAL}
            due = self.clock.now + pause.get(verdict, RECHECK)
            self._due[box, awaited.message.dest] = due
            return
        awaited.line.outbox.drop(awaited.parcel)
        name = {
            Verdict.TERMINATED: "MailboxTerminated",
            Verdict.PEER_LOST: "PeerLost",
            Verdict.VANISHED: "RequestLost",
        }[verdict]
        box.settle(tag, name, "maybe")

    def _expire(self, dest: uuid.UUID) -> None:
        for box in list(self.process.boxes.values()):
            for awaited in list(box.awaited.values()):
                if awaited.message.dest == dest:
                    unsent = awaited.line.outbox.withdraw(awaited.parcel)
                    executed = "no" if unsent else "maybe"
                    box.settle(awaited.message.tag, "MailboxTerminated", executed)
