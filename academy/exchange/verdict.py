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
    """

    state: str
    inc: int
    live: bool
    waiting: int
    appended: int
    taken: Mark


class Verdict(enum.Enum):
    """What is to be thought of a request."""

    QUEUED = enum.auto()
    """It waits in the queue."""
    TAKEN = enum.auto()
    """The live owner has it."""
    TERMINATED = enum.auto()
    """The destination is closed for good."""
    PEER_LOST = enum.auto()
    """Who took it is gone."""
    VANISHED = enum.auto()
    """The server has lost it."""


def judge(books: Books, seq: int, *, trust_leases: bool) -> Verdict:
    """Judge a request by its number in the stream.

    Args:
        books: What the server knows.
        seq: Number of the request.
        trust_leases: Whether a missing lease means that its owner is gone; not so
            shortly after the server was away, when nobody could renew.
    """
    if books.state == "terminated":
        return Verdict.TERMINATED
    if books.state == "missing":
        return Verdict.VANISHED
    if seq > books.taken.seq:
        queued = seq <= books.appended and books.waiting > 0
        return Verdict.QUEUED if queued else Verdict.VANISHED
    if seq <= books.taken.base or books.taken.inc != books.inc:
        return Verdict.PEER_LOST
    if not books.live and trust_leases:
        return Verdict.PEER_LOST
    return Verdict.TAKEN
