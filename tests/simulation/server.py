"""The server: what each Lua script does, on dicts.

All calls are atomic. The same call may come twice in a row, when its first reply was
lost; then the second must change nothing that matters. What is new for the direct path:

Clean runs. A mailbox keeps three incarnations: `closed`, which closed cleanly last;
`since`, with which the unbroken run of clean closes began that ended with `closed`; and
`joins`, which `since` becomes if the current one closes cleanly, too. So it is known of
every incarnation from `since` to `closed` that it took nothing beyond the marks, and
that it has answered all that it took. All three are 0 at first.

send(dest, src, src_inc, stream, seq, stamp, process, kind, segments, ahead)
    `stamp` is the incarnation that may have the message already; 0 if none. It is
    looked at before anything else is done with the queue:

    - since <= stamp <= closed: if seq <= tk[stream].seq, the message was taken:
      `('ok', 0)`, nothing appended. Else it counts as unstamped from here on.
    - else, `stamp` is the current incarnation: it is appended with its stamp.
    - else nobody can tell: `('lost',)`, nothing appended; the sender reports
      PeerLost(maybe).

    A number that is not above ap[stream] was appended, or given back, already: nothing
    is appended. Else, if the queue is full (of requests, or of their bytes, which are
    not counted here): `('full', live)`, where `live` is whether its owner lives, so
    that it is worth while to wait; and so for the request right behind one that was
    refused, whose number it names as `ahead`, so that none is overtaken. If messages
    behind it found room nevertheless, `('full', False)` when the call is repeated.

    The reply is `('ok', s)`, where s is the stamp that the message has in the queue, or
    0: from now on s is its `direct` for `judge`, and the books tell its fate.

    Responses are sent unstamped: one that arrives twice, or at an incarnation that does
    not await it, is dropped. Stamped ones could get lost with a former incarnation.

    Any other reply is an error for the sender. It says `executed='no'`, and the message
    may be sent again under another number, only if it is certain that nobody has it:
    the message is fresh (never sent directly), and the call was sent only once.

take: as before; the entries come with their stamps. What has a stamp that is neither
    its own incarnation nor in the clean run that was on record when it was bound, the
    owner refuses when the consumer comes to it; only then does it count as consumed.

bind: joins = since if inc == closed, else the new incarnation. Also replies since and
    closed, which stay on record.

close: as before. Records closed = inc, since = joins. What is given back counts as
    appended, so ap[stream] = max(ap[stream], seq), and not as refused. This includes
    what had arrived directly. The marks include streams that have come on channels
    only.

room(dest): how many requests find room, if the owner lives.

resolve(eid, process): also makes the process a watcher of the mailbox.

audit: also replies since and closed.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from academy.exchange.stream import Mark
from academy.exchange.verdict import Books
from tests.simulation.clock import Clock

LEASE = 10.0

Stream = str
Process = bytes
Reply = tuple[Any, ...]


class Entry(NamedTuple):
    """A message in a queue."""

    id: int
    stream: Stream
    seq: int
    kind: str
    stamp: int
    segments: Sequence[bytes]


@dataclass
class Mailbox:
    """What the server keeps of one mailbox."""

    inc: int = 0
    owner: Process = b""
    joins: int = 0
    since: int = 0
    closed: int = 0
    queue: list[Entry] = field(default_factory=list)
    back: list[Entry] = field(default_factory=list)
    appended: dict[Stream, int] = field(default_factory=dict)
    taken: dict[Stream, Mark] = field(default_factory=dict)
    refused: set[tuple[Stream, int]] = field(default_factory=set)
    watchers: set[Process] = field(default_factory=set)


@dataclass
class Data:
    """All that FLUSHALL deletes."""

    mailboxes: dict[uuid.UUID, Mailbox] = field(default_factory=dict)
    gone: set[uuid.UUID] = field(default_factory=set)
    leases: dict[Process, float] = field(default_factory=dict)


class Server:
    """The server, and its scripts.

    Args:
        clock: The time.
        tell: Puts news on the wake stream of a process: process, kind, mailbox, inc.
    """

    def __init__(
        self, clock: Clock, tell: Callable[[Process, str, uuid.UUID, int], None]
    ) -> None:
        self.clock = clock
        self.down = False
        self.capacity = 10_000
        """Requests that may wait in a mailbox."""
        self.data = Data()
        self.calls = 0
        self._tell = tell
        self._id = 0
        self._snapshot: Data | None = None

    def run(self, name: str, args: Sequence[Any]) -> Reply:
        """Run a script."""
        self.calls += 1
        reply: Reply = getattr(self, name)(*args)
        return reply

    def flush(self) -> None:
        """FLUSHALL."""
        self.data = Data()

    def save(self) -> None:
        """Remember everything for `roll_back`."""
        self._snapshot = copy.deepcopy(self.data)

    def roll_back(self) -> None:
        """Fail over to a replica that has not seen the last writes."""
        if self._snapshot is not None:
            self.data = copy.deepcopy(self._snapshot)

    # Processes

    def renew(self, process: Process) -> bool:
        """Renew a lease; return whether it was there."""
        had = self.alive(process)
        self.data.leases[process] = self.clock.now + LEASE
        return had

    def leave(self, process: Process) -> Reply:
        """Drop a lease: the process ends."""
        self.data.leases.pop(process, None)
        return ("ok",)

    def alive(self, process: Process) -> bool:
        return self.data.leases.get(process, 0.0) > self.clock.now

    def tell(self, process: Process, kind: str, eid: uuid.UUID, inc: int) -> None:
        if self.alive(process):
            self._tell(process, kind, eid, inc)

    def tell_watchers(self, box: Mailbox, kind: str, eid: uuid.UUID) -> None:
        for process in sorted(box.watchers):
            self.tell(process, kind, eid, box.inc)

    # Scripts about mailboxes

    def register(self, eid: uuid.UUID) -> Reply:
        if eid not in self.data.gone:
            self.data.mailboxes.setdefault(eid, Mailbox())
        return ("ok",)

    def resolve(self, eid: uuid.UUID, process: Process) -> Reply:
        box = self.data.mailboxes.get(eid)
        if box is None or eid in self.data.gone:
            return ("missing",)
        box.watchers.add(process)
        return ("ok", box.inc, box.owner if self.alive(box.owner) else b"")

    def bind(self, eid: uuid.UUID, process: Process) -> Reply:
        if eid in self.data.gone:
            return ("terminated",)
        box = self.data.mailboxes.get(eid)
        if box is None:
            return ("missing",)
        former, box.owner = box.owner, process
        clean = box.inc and box.inc == box.closed
        box.inc = max(box.inc + 1, int(self.clock.now * 1e6))
        box.joins = box.since if clean else box.inc
        if former != process:
            self.tell(former, "f", eid, box.inc)
        self.tell_watchers(box, "b", eid)
        return ("ok", box.inc, dict(box.taken), box.since, box.closed)

    def close(
        self,
        eid: uuid.UUID,
        inc: int,
        after: tuple[int, int],
        marks: Sequence[tuple[Stream, Mark]],
        untaken: Sequence[Entry],
    ) -> Reply:
        box = self.data.mailboxes.get(eid)
        if box is not None and box.closed == inc:
            return ("ok",)
        refused = self.check_owner(eid, inc)
        if refused is not None or box is None:
            return (refused,)
        rest = [e for e in box.back if e.id > after[0]]
        box.queue = [e for e in box.queue if e.id > after[1]]
        box.taken.update(marks)
        for entry in untaken:
            highest = max(box.appended.get(entry.stream, 0), entry.seq)
            box.appended[entry.stream] = highest
            box.refused.discard((entry.stream, entry.seq))
        box.back = [e._replace(id=self._next()) for e in (*untaken, *rest)]
        box.owner, box.since, box.closed = b"", box.joins, inc
        self.tell_watchers(box, "c", eid)
        return ("ok",)

    def reassert(
        self,
        eid: uuid.UUID,
        process: Process,
        inc: int,
        marks: Sequence[tuple[Stream, Mark]],
    ) -> Reply:
        if eid in self.data.gone:
            return ("terminated",)
        box = self.data.mailboxes.setdefault(eid, Mailbox())
        if box.inc > inc:
            return ("fenced",)
        if box.closed == inc:
            return ("closed",)
        if box.inc < inc:
            box.inc = box.joins = inc
        box.owner = process
        for stream, mark in marks:
            if mark.seq > box.taken.get(stream, Mark()).seq:
                box.taken[stream] = mark
        return ("ok",)

    def terminate(self, eid: uuid.UUID) -> Reply:
        if eid in self.data.gone:
            return ("ok", [])
        box = self.data.mailboxes.pop(eid, None)
        if box is None:
            return ("missing",)
        self.data.gone.add(eid)
        waiting = [
            (e, e.seq <= box.taken.get(e.stream, Mark()).seq or bool(e.stamp))
            for e in (*box.back, *box.queue)
        ]
        self.tell(box.owner, "g", eid, box.inc)
        self.tell_watchers(box, "g", eid)
        return ("ok", waiting)

    def check_owner(self, eid: uuid.UUID, inc: int) -> str | None:
        """What is wrong with one who claims to own a mailbox, if anything is."""
        box = self.data.mailboxes.get(eid)
        if box is not None and box.inc == inc:
            return None
        if eid in self.data.gone:
            return "terminated"
        return "missing" if box is None else "fenced"

    # Scripts about messages

    def send(
        self,
        dest: uuid.UUID,
        src: uuid.UUID | None,
        src_inc: int,
        stream: Stream,
        seq: int,
        stamp: int,
        process: Process,
        kind: str,
        segments: Sequence[bytes],
        ahead: int = 0,
    ) -> Reply:
        if src is not None:
            refused = self.check_owner(src, src_inc)
        else:
            refused = None if self.alive(process) else "missing"
        if refused is not None:
            return ("sender", refused)
        if dest in self.data.gone:
            return ("terminated",)
        box = self.data.mailboxes.get(dest)
        if box is None:
            return ("missing",)
        if stamp and box.since <= stamp <= box.closed:
            if seq <= box.taken.get(stream, Mark()).seq:
                return ("ok", 0)
            stamp = 0
        elif stamp and stamp != box.inc:
            return ("lost",)
        if seq > box.appended.get(stream, 0):
            full = len(box.queue) >= self.capacity or (stream, ahead) in box.refused
            if kind == "q" and full:
                box.refused.add((stream, seq))
                return ("full", self.alive(box.owner))
            box.refused.discard((stream, seq))
            entry = Entry(self._next(), stream, seq, kind, stamp, segments)
            box.queue.append(entry)
            box.appended[stream] = seq
        elif (stream, seq) in box.refused:
            return ("full", False)
        box.watchers.add(process)
        self.tell(box.owner, "m", dest, 0)
        return ("ok", stamp)

    def room(self, dest: uuid.UUID) -> Reply:
        box = self.data.mailboxes.get(dest)
        if box is None or not self.alive(box.owner):
            return ("none",)
        return ("ok", self.capacity - len(box.queue))

    def take(
        self, eid: uuid.UUID, inc: int, count: int, after: tuple[int, int]
    ) -> Reply:
        refused = self.check_owner(eid, inc)
        if refused is not None:
            return (refused,)
        box = self.data.mailboxes[eid]
        box.back = [e for e in box.back if e.id > after[0]]
        box.queue = [e for e in box.queue if e.id > after[1]]
        back = box.back[:count]
        queue = box.queue[: count - len(back)]
        for entry in (*back, *queue):
            had = box.taken.get(entry.stream, Mark())
            base = had.base if had.inc == inc else had.seq
            if entry.seq > had.seq:
                box.taken[entry.stream] = Mark(entry.seq, inc, base)
        return ("ok", back, queue)

    def audit(self, dest: uuid.UUID, stream: Stream) -> Reply:
        if dest in self.data.gone:
            return (Books("terminated", 0, False, 0, 0, Mark()),)
        box = self.data.mailboxes.get(dest)
        state = "open" if box is not None else "missing"
        box = box or Mailbox()
        return (
            Books(
                state,
                box.inc,
                self.alive(box.owner),
                len(box.back) + len(box.queue),
                box.appended.get(stream, 0),
                box.taken.get(stream, Mark()),
                box.since,
                box.closed,
            ),
        )

    def _next(self) -> int:
        self._id += 1
        return self._id
