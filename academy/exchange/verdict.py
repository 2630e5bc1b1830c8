"""What became of a request, judged from the books of the server."""

from __future__ import annotations

import enum
from typing import NamedTuple

from academy.exchange.stream import Mark


class Books(NamedTuple):
    """What the server knows about a destination and one stream to it.

    Attributes:
        state: `'open'`, `'terminated'`, or `'missing'`.
        inc: Current incarnation of the destination.
        live: Whether its owner's lease lives.
        waiting: How many messages are in the queue.
        appended: Highest number of the stream that was put into the queue.
        taken: How far the stream was taken.
        since: First of the unbroken run of incarnations that closed cleanly, one after
            the other, of which `closed` is the last.
        closed: Incarnation that closed cleanly last; 0 if none did.
    """

    state: str
    inc: int
    live: bool
    waiting: int
    appended: int
    taken: Mark
    since: int = 0
    closed: int = 0


class Verdict(enum.Enum):
    """What is to be thought of a request."""

    KEPT = enum.auto()
    """The sender still has it."""
    QUEUED = enum.auto()
    """It waits in the queue."""
    TAKEN = enum.auto()
    """The live owner has it."""
    TERMINATED = enum.auto()
    """The destination is closed for good."""
    PEER_LOST = enum.auto()
    """Who took it, or may have taken it, is gone."""
    VANISHED = enum.auto()
    """The server has lost it."""


def judge(
    books: Books,
    seq: int,
    *,
    direct: int = 0,
    kept: bool = False,
    trust_leases: bool,
) -> Verdict:
    """Judge a request by its number in the stream.

    Args:
        books: What the server knows.
        seq: Number of the request.
        direct: Incarnation that it was sent to directly, and that may have it without
            the server's knowledge; 0 if there is none.
        kept: Whether the sender's outbox still has it. It waits there for a way, but
            not for an incarnation that is gone.
        trust_leases: Whether a missing lease means that its owner is gone; not so
            shortly after the server was away, when nobody could renew.
    """
    if books.state == "terminated":
        return Verdict.TERMINATED
    if books.state == "missing":
        return Verdict.KEPT if kept else Verdict.VANISHED
    gone = trust_leases and not books.live
    queued = books.taken.seq < seq <= books.appended and books.waiting > 0
    # An incarnation that closed cleanly has told the server what it took.
    if direct and not books.since <= direct <= books.closed:
        if direct != books.inc or gone:
            return Verdict.PEER_LOST
        if kept:
            return Verdict.KEPT
        return Verdict.QUEUED if queued else Verdict.TAKEN
    if queued:
        return Verdict.QUEUED
    if seq > books.taken.seq:
        return Verdict.KEPT if kept else Verdict.VANISHED
    if seq <= books.taken.base or books.taken.inc != books.inc or gone:
        return Verdict.PEER_LOST
    return Verdict.TAKEN
