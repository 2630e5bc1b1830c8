"""Entries of the queues on the server: how messages look while they wait there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from academy.exchange.secret import NamespaceSecret
from academy.exchange.server import Argument
from academy.serialize import Segment, join, split

REQUEST = "q"
RESPONSE = "r"
PROBE = "p"
REPORT = "a"


class Entry(NamedTuple):
    """A message in a queue.

    Attributes:
        stream: Name of its stream.
        seq: Its number there.
        kind: `REQUEST`, `RESPONSE`, `PROBE` or `REPORT`.
        tag: Tag of the message.
        head: Its first segment.
        rest: Its other segments, joined; empty if there are none.
        stamp: Incarnation that may have it already; 0 if none. The server may drop
            it, so it is not signed.
        age: Seconds for which it has waited, by the clock of the server.
    """

    stream: str
    seq: int
    kind: str
    tag: bytes
    head: Segment
    rest: Segment
    stamp: int = 0
    age: float = 0.0

    def segments(self) -> list[Segment]:
        """Return the segments of the message.

        Raises:
            ValueError: The entry is damaged.
        """
        return [self.head, *(split(self.rest) if self.rest else [])]

    def sealed(self, secret: NamespaceSecret, dest: str) -> list[Argument]:
        """Return the fields, signed for one mailbox, as scripts take them."""
        mac = secret.sign(self._signed(dest))
        head, rest = bytes(self.head), bytes(self.rest)
        fields: list[Argument] = [self.stream, self.seq, self.kind, self.tag]
        return [*fields, head, rest, mac, self.stamp]

    def _signed(self, dest: str) -> list[Segment]:
        plain = f"{dest} {self.stream} {self.seq} {self.kind}".encode()
        return [plain, self.tag, self.head, self.rest]


def make_entry(
    stream: str,
    seq: int,
    kind: str,
    tag: bytes,
    segments: Sequence[Segment],
    stamp: int = 0,
) -> Entry:
    """Make an entry of a message's segments."""
    rest = join(segments[1:]) if len(segments) > 1 else b""
    return Entry(stream, seq, kind, tag, segments[0], rest, stamp)


def open_entry(
    fields: Sequence[bytes], secrets: Sequence[NamespaceSecret], dest: str
) -> Entry | None:
    """Read the fields of a queue entry, a flat list of names and values.

    Returns:
        The entry, or `None` when it is not signed by a member of the namespace or is
        damaged: such an entry is not decoded any further.
    """
    found = dict(zip(fields[::2], fields[1::2], strict=False))
    try:
        entry = Entry(
            stream=found[b"s"].decode(),
            seq=int(found[b"q"]),
            kind=found[b"k"].decode(),
            tag=found[b"g"],
            head=found[b"m"],
            rest=found[b"b"],
            stamp=int(found.get(b"x", b"0")),
        )
        mac = found[b"h"]
    except (KeyError, ValueError):
        return None
    signed = entry._signed(dest)
    return entry if any(s.verify(signed, mac) for s in secrets) else None
