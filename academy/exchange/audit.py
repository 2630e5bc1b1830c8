"""The audit: no request waits for ever for an answer that will not come.

Every request that has waited for a while is looked up: in the books of the server, and
with whoever has taken it. What two looks in a row find lost is answered with a named
error (PROTOCOL.md, section 2.6).
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping

import msgspec

from academy.exception import (
    ExchangeError,
    Executed,
    PeerLostError,
    PeerUnreachableError,
    RequestLostError,
)
from academy.exchange.bound import BoundMailbox
from academy.exchange.courier import Courier
from academy.exchange.delivery_failure import failure_body
from academy.exchange.directory import Directory
from academy.exchange.grace import GRACE, Graces
from academy.exchange.keys import base32_to_uuid
from academy.exchange.lease import LEASE
from academy.exchange.ledger import Awaited
from academy.exchange.link_info import ProcessInfo
from academy.exchange.mailbox import PROBE, REPORT, Entry
from academy.exchange.outbox import UNREACHABLE_TIMEOUT
from academy.exchange.probe import Probe, Report
from academy.exchange.router import Router, terminated
from academy.exchange.server import ServerUnavailableError
from academy.exchange.stream import REPLIES, REQUESTS
from academy.exchange.verdict import Books, Verdict, judge
from academy.identifier import EntityId
from academy.stats import AgentStats

logger = logging.getLogger(__name__)

INTERVAL = 1.5
"""Seconds between two looks at the same destination, and the age of a request at the
first one."""
PROBE_AGE = 10.0
"""Age in seconds at which the owner is asked whether it still knows a request."""
RECHECK = 0.3
"""Seconds after which a suspicion is looked at again."""
STATS_TIMEOUT = 5.0


class Auditor:
    """Audits the requests of all mailboxes of a process.

    Args:
        directory: The directory.
        router: Sends probes and reports.
        boxes: The mailboxes bound in this process.
        courier: Knows what is still on its way.
    """

    def __init__(
        self,
        directory: Directory,
        router: Router,
        boxes: Mapping[EntityId, BoundMailbox],
        courier: Courier,
    ) -> None:
        self._directory = directory
        self._router = router
        self._boxes = boxes
        self._courier = courier
        self._loop = asyncio.get_running_loop()
        self._due: dict[tuple[EntityId, EntityId], float] = {}
        self._not_before: dict[tuple[EntityId, EntityId], float] = {}
        self._alone_since: dict[tuple[EntityId, EntityId], float] = {}
        self._urgent = asyncio.Event()
        router.ended = Graces(self._expire).start
        self._trust_after = 0.0
        self._number = 0
        self._reports: dict[int, asyncio.Future[Report]] = {}
        self.settled = 0
        """How many requests were answered with an error by the audit."""
        self.inspect: Callable[[], ProcessInfo | None] = lambda: None
        """Tells how this process talks to others."""

    async def run(self) -> None:
        """Audit for ever."""
        while True:
            try:
                await self._round()
            except ExchangeError as e:
                logger.debug("An audit was put off: %s", e)
            except Exception:
                # The last resort of all requests must not end with one of them.
                logger.exception("An audit failed")
            try:
                async with asyncio.timeout(RECHECK):
                    await self._urgent.wait()
            except TimeoutError:
                pass
            self._urgent.clear()

    def distrust_leases(self) -> None:
        """Do not judge by leases until all have had the time to be renewed."""
        self._trust_after = self._loop.time() + LEASE

    def look_at(self, key: str) -> None:
        """Look soon at the requests to a mailbox, given by its key."""
        uid = base32_to_uuid(key)
        for box in self._router.senders(uid):
            dest = box.destination(uid)
            if dest is not None and box.ledger.awaited:
                self._hurry((box.uid, dest))

    def look_at_all(self) -> None:
        """Look soon at all requests."""
        for pair in self._pairs():
            self._hurry(pair)

    async def stats(self, uid: EntityId) -> AgentStats | None:
        """Ask the owner of a mailbox for its counts; `None` if it does not answer."""
        box = self._boxes.get(uid)
        if box is not None:
            return box.ledger.stats(len(box.inbox))
        report = await self._question(uid, process=False)
        return None if report is None else AgentStats(*report.stats)

    async def process_of(self, uid: EntityId) -> ProcessInfo | None:
        """Ask the process that has a mailbox for its links; `None` as in `stats`."""
        if uid in self._boxes:
            return self.inspect()
        report = await self._question(uid, process=True)
        return None if report is None else report.process

    async def _question(self, uid: EntityId, *, process: bool) -> Report | None:
        asker = next(iter(self._boxes.values()), None)
        if asker is None:
            return None
        try:
            return await self._probe(asker, uid, [], process=process)
        except (ExchangeError, TimeoutError):
            return None

    def heard(self, box: BoundMailbox, entry: Entry) -> None:
        """Take a probe or a report; damaged ones are dropped."""
        try:
            if entry.kind == PROBE:
                probe = msgspec.msgpack.decode(entry.head, type=Probe)
                self._answer(box, probe)
            else:
                report = msgspec.msgpack.decode(entry.head, type=Report)
                future = self._reports.pop(report.number, None)
                if future is not None and not future.done():
                    future.set_result(report)
        except ValueError as e:
            logger.warning("%s received a damaged control message: %s", box.uid, e)

    def _hurry(self, pair: tuple[EntityId, EntityId]) -> None:
        # Not before a suspicion is due: the answer may be on its way.
        self._due[pair] = self._not_before.get(pair, 0.0)
        self._urgent.set()

    def _pairs(self) -> set[tuple[EntityId, EntityId]]:
        return {
            (box.uid, awaited.header.dest)
            for box in self._boxes.values()
            for awaited in box.ledger.awaited.values()
        }

    async def _round(self) -> None:
        now = self._loop.time()
        work = []
        due: dict[tuple[EntityId, EntityId], float] = {}
        for box in [b for b in self._boxes.values() if b.ledger.awaited]:
            for dest, requests in _by_destination(box).items():
                pair = (box.uid, dest)
                first = min(a.since for a in requests) + INTERVAL
                due[pair] = self._due.get(pair, first)
                if due[pair] <= now:
                    due[pair] = now + INTERVAL
                    if not self._known_directly(box, requests, now):
                        work.append((box, dest, requests))
        self._due = due
        self._not_before = {p: t for p, t in self._not_before.items() if t > now}
        await asyncio.gather(*(self._audit(*item) for item in work))

    def _known_directly(
        self, box: BoundMailbox, requests: list[Awaited], now: float
    ) -> bool:
        """Return whether the books need not be asked about requests yet.

        Their destination has them on a link, which would tell if it ended.
        """
        return all(
            now - awaited.since < PROBE_AGE
            and self._courier.lines.has_directly(box, awaited)
            for awaited in requests
        )

    async def _audit(
        self, box: BoundMailbox, dest: EntityId, requests: list[Awaited]
    ) -> None:
        if dest in self._boxes:
            self._audit_here(box, self._boxes[dest], requests)
            return
        aged: list[Awaited] = []
        inc, began = 0, self._loop.time()
        for lane in (REQUESTS, REPLIES):
            group = [awaited for awaited in requests if awaited.lane == lane]
            if group:
                stream = box.open_outlet(dest, lane).stream.name
                try:
                    books = await self._directory.audit(dest, stream)
                except ServerUnavailableError:
                    self._audit_alone(box, dest, requests, began)
                    return
                aged += self._judge(box, books, group)
                inc = books.inc
        self._alone_since.pop((box.uid, dest), None)
        self._courier.newer(dest.uid, inc)
        if aged:
            self._due[box.uid, dest] = self._loop.time() + PROBE_AGE
            await self._ask(box, dest, inc, aged)

    def _audit_alone(
        self, box: BoundMailbox, dest: EntityId, requests: list[Awaited], began: float
    ) -> None:
        """Audit without the server: who can be reached directly has them still."""
        pair = (box.uid, dest)
        if self._courier.lines.reaches(box, dest, 0):
            self._alone_since.pop(pair, None)
            return
        # The first look may have come by one interval later than what it saw.
        since = self._alone_since.setdefault(pair, began - INTERVAL)
        if self._loop.time() - since < UNREACHABLE_TIMEOUT:
            return
        del self._alone_since[pair]
        for awaited in requests:
            unsent = self._courier.lines.withdraw(box, awaited)
            executed: Executed = "no" if unsent else "maybe"
            detail = "neither its process nor the Redis server answers"
            error = PeerUnreachableError(dest, executed, detail)
            self.settled += 1
            box.report(awaited.header, failure_body(dest, error))

    def _judge(
        self, box: BoundMailbox, books: Books, requests: list[Awaited]
    ) -> list[Awaited]:
        """Judge requests, and return those about which their taker is to be asked."""
        dest = requests[0].header.dest
        # Who is heard on a link lives, whatever the server knows of its lease.
        heard = self._courier.lines.reaches(box, dest, books.inc)
        trust = self._loop.time() > self._trust_after and not heard
        aged = []
        for awaited in requests:
            parcel = awaited.parcel
            verdict = judge(
                books,
                awaited.seq,
                direct=0 if parcel is None else parcel.inc,
                kept=parcel is not None and parcel.kept,
                trust_leases=trust,
            )
            if verdict in (Verdict.KEPT, Verdict.QUEUED, Verdict.TAKEN):
                if self._loop.time() - awaited.since < PROBE_AGE:
                    awaited.strikes = 0
                elif verdict is Verdict.TAKEN:
                    aged.append(awaited)
            else:
                self._suspect(box, awaited, verdict)
        return aged

    def _audit_here(
        self, box: BoundMailbox, target: BoundMailbox, requests: list[Awaited]
    ) -> None:
        """Audit requests to a mailbox of this process."""
        waiting = target.waiting_tags()
        for awaited in requests:
            tag = awaited.header.tag
            stream = box.open_outlet(target.uid, awaited.lane).stream.name
            if tag.int in target.ledger.open or tag in waiting:
                awaited.strikes = 0
            elif target.received.former(stream, awaited.seq):
                self._suspect(box, awaited, Verdict.PEER_LOST)
            elif target.dirty or target.take is not None:
                awaited.strikes = 0
            else:
                self._suspect(box, awaited, Verdict.VANISHED)
                # News of it may be late: before the next look the queue is asked.
                target.wake()

    async def _ask(
        self, box: BoundMailbox, dest: EntityId, inc: int, requests: list[Awaited]
    ) -> None:
        try:
            report = await self._probe(
                box, dest, [a.header.tag.bytes for a in requests]
            )
        except TimeoutError:
            # Its lease lives, but its event loop does not answer: it is busy.
            logger.debug("%s is alive but does not answer: stalled", dest)
            return
        if report.inc != inc:
            # Another one has the mailbox by now; the books will tell.
            return
        known = set(report.known)
        for awaited in requests:
            if awaited.header.tag.bytes in known:
                awaited.strikes = 0
            else:
                self._suspect(box, awaited, Verdict.VANISHED)

    def _suspect(self, box: BoundMailbox, awaited: Awaited, verdict: Verdict) -> None:
        """Count a bad sign; the second one in a row settles the request."""
        header = awaited.header
        current = box.ledger.awaited.get(header.tag.int)
        if current is not awaited or box.has_answer(header.tag):
            return
        awaited.strikes += 1
        if awaited.strikes < 2:
            pause = {Verdict.TERMINATED: GRACE, Verdict.VANISHED: 2 * INTERVAL}
            due = self._loop.time() + pause.get(verdict, RECHECK)
            self._due[box.uid, header.dest] = due
            self._not_before[box.uid, header.dest] = due
            return
        self.settled += 1
        self._courier.lines.withdraw(box, awaited)
        if verdict is Verdict.TERMINATED:
            box.report(header, terminated(header.dest, "", "maybe"))
        elif verdict is Verdict.PEER_LOST:
            lost = PeerLostError(header.dest, "maybe", "it ended before it answered")
            box.report(header, failure_body(header.dest, lost))
        else:
            detail = "neither the queue nor the agent knows it"
            gone = RequestLostError(header.dest, "maybe", detail)
            box.report(header, failure_body(header.dest, gone))

    def _expire(self, box: BoundMailbox, awaited: Awaited, reason: str) -> None:
        """Settle a request to a terminated mailbox, which has not answered it."""
        self.settled += 1
        unsent = self._courier.lines.withdraw(box, awaited)
        executed: Executed = "no" if unsent else "maybe"
        box.report(awaited.header, terminated(awaited.header.dest, reason, executed))

    async def _probe(
        self,
        asker: BoundMailbox,
        dest: EntityId,
        tags: list[bytes],
        *,
        process: bool = False,
    ) -> Report:
        """Ask the owner of a mailbox; its answer comes to the asker's mailbox.

        Raises:
            TimeoutError: No answer came in time.
            ExchangeError: The question could not be sent.
        """
        self._number += 1
        number = self._number
        future: asyncio.Future[Report] = self._loop.create_future()
        self._reports[number] = future
        probe = Probe(number, str(asker.uid.uid), asker.uid.role, tags, process)
        asker.expecting += 1
        try:
            async with asyncio.timeout(STATS_TIMEOUT):
                await self._router.control(dest, PROBE, msgspec.msgpack.encode(probe))
                return await future
        finally:
            asker.expecting -= 1
            self._reports.pop(number, None)

    def _answer(self, box: BoundMailbox, probe: Probe) -> None:
        waiting = box.waiting_tags()
        tags = [uuid.UUID(bytes=t) for t in probe.tags if len(t) == 16]
        answering = self._courier.lines.answering(box)
        known = [
            t.bytes
            for t in tags
            if t.int in box.ledger.open or t in waiting or t in answering
        ]
        s = box.ledger.stats(len(box.inbox))
        counts = (s.incoming, s.outgoing, s.completed, s.in_progress, s.queued)
        info = self.inspect() if probe.process else None
        report = Report(probe.number, known, box.inc, counts, info)
        payload = msgspec.msgpack.encode(report)
        self._router.control_soon(probe.asked_by(), REPORT, payload)


def _by_destination(box: BoundMailbox) -> dict[EntityId, list[Awaited]]:
    groups: dict[EntityId, list[Awaited]] = {}
    for awaited in box.ledger.awaited.values():
        groups.setdefault(awaited.header.dest, []).append(awaited)
    return groups
