"""Streams: what one incarnation of a sender sends to one mailbox, in order.

Every message has its stream and a number in it. The numbers travel on every path, so
that whatever the path, a message is taken once and in order (PROTOCOL.md, section 2).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import NamedTuple

REQUESTS = 0
"""Lane of requests."""
REPLIES = 1
"""Lane of responses and cancels: bounded by what the other side asked for, so that no
limit holds them up."""


def stream_name(source: str, inc: int, lane: int) -> str:
    """Return the name of a stream, by which its receiver keeps it apart."""
    return f"{source}:{inc}:{lane}"


class SendStream:
    """The sending end of a stream.

    Args:
        source: Name of the sender: its key, or `p` and the identifier of a process.
        inc: Incarnation of the sender.
        lane: `REQUESTS` or `REPLIES`.
    """

    __slots__ = ("known", "lane", "name", "relayed", "seq")

    def __init__(self, source: str, inc: int, lane: int) -> None:
        self.name = stream_name(source, inc, lane)
        self.lane = lane
        self.seq = 0
        """Number of the last message."""
        self.relayed = 0
        """Number of the last message that went into the queue on the server."""
        self.known = False
        """Whether the destination has existed."""

    def next(self) -> int:
        """Return the number of the next message."""
        self.seq += 1
        return self.seq


class Mark(NamedTuple):
    """How far a stream was taken, as recorded on the server.

    Attributes:
        seq: Highest number taken.
        inc: By which incarnation of the mailbox.
        base: Highest number taken by the incarnations before that.
    """

    seq: int = 0
    inc: int = 0
    base: int = 0

    def __str__(self) -> str:
        return f"{self.seq}:{self.inc}:{self.base}"

    @classmethod
    def parse(cls, text: str) -> Mark:
        """Read what `str` gives.

        Raises:
            ValueError: It is anything else.
        """
        parts = text.split(":")
        if len(parts) != 3 or not all(p.isascii() and p.isdigit() for p in parts):
            raise ValueError(f"Not the mark of a stream: {text!r}.")
        return cls(*map(int, parts))


class Offer(enum.Enum):
    """What a received message is to its mailbox."""

    NEW = enum.auto()
    DUPLICATE = enum.auto()
    """This incarnation has it already."""
    FORMER = enum.auto()
    """A former incarnation took it and did not say that it gave it back: it may have
    been executed."""


_NEW = Offer.NEW  # to look it up on the class takes longer


class Received:
    """The receiving end of all streams to one incarnation of a mailbox.

    Args:
        inc: The incarnation.
        recorded: What former incarnations took, per stream.
    """

    def __init__(self, inc: int, recorded: Mapping[str, Mark]) -> None:
        self.inc = inc
        self._base = {name: mark.seq for name, mark in recorded.items()}
        self._accepted: dict[str, int] = {}
        self._consumed: dict[str, int] = {}

    def offer(self, stream: str, seq: int) -> Offer:
        """Say what a message is; a new one counts as accepted from now on."""
        if self._base and self.former(stream, seq):
            return Offer.FORMER
        if seq <= self._accepted.get(stream, 0):
            return Offer.DUPLICATE
        self._accepted[stream] = seq
        return _NEW

    def former(self, stream: str, seq: int) -> bool:
        """Return whether a former incarnation took a message."""
        return seq <= self._base.get(stream, 0)

    def accepted(self, stream: str) -> int:
        """Return the highest number that has arrived in a stream."""
        return self._accepted.get(stream) or self._base.get(stream, 0)

    def consumed(self, stream: str, seq: int) -> None:
        """Note that the consumer has taken a message."""
        self._consumed[stream] = seq

    def taken(self, stream: str) -> int:
        """Return the highest number that the consumer has taken in a stream."""
        return self._consumed.get(stream) or self._base.get(stream, 0)

    def given_back(self) -> list[tuple[str, Mark]]:
        """Return the marks when what was not consumed goes back into the queue."""
        return self._marks(self._consumed)

    def held(self) -> list[tuple[str, Mark]]:
        """Return the marks of a live owner: all that has arrived is taken."""
        return self._marks(self._accepted)

    def _marks(self, reached: Mapping[str, int]) -> list[tuple[str, Mark]]:
        return [
            (name, Mark(reached.get(name, base), self.inc, base))
            for name in self._accepted
            for base in [self._base.get(name, 0)]
        ]


def parse_marks(pairs: Iterable[bytes]) -> dict[str, Mark]:
    """Read a Redis hash of marks, given as a flat list; damaged ones are left out."""
    items = [item.decode("utf-8", "replace") for item in pairs]
    marks = {}
    for name, text in zip(items[::2], items[1::2], strict=True):
        try:
            marks[name] = Mark.parse(text)
        except ValueError:
            continue
    return marks
