"""Entries of the queues on the server: how messages look while they wait there."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from academy.exchange.cipher import StreamCipher
from academy.exchange.secret import NamespaceSecret
from academy.exchange.server import Argument
from academy.segment import Segment
from academy.serialize import join, split

REQUEST = "q"
RESPONSE = "r"
PROBE = "p"
REPORT = "a"
ENCRYPTED = "+"
"""Ends the kind of an entry, as it is stored, whose head and rest are encrypted."""


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

    def sealed(
        self, secret: NamespaceSecret, dest: str, *, encrypt: bool = False
    ) -> list[Argument]:
        """Return the fields, signed for one mailbox, as scripts take them.

        Args:
            secret: Secret of the namespace.
            dest: The mailbox.
            encrypt: Whether to encrypt what the message says.
        """
        entry = self._encrypted(secret, dest) if encrypt else self
        mac = secret.sign(entry._signed(dest))
        head, rest = bytes(entry.head), bytes(entry.rest)
        fields: list[Argument] = [entry.stream, entry.seq, entry.kind, entry.tag]
        return [*fields, head, rest, mac, entry.stamp]

    def _signed(self, dest: str) -> list[Segment]:
        return [*self._readable(dest), self.head, self.rest]

    def _readable(self, dest: str) -> list[Segment]:
        """Return what everybody can read, and what the rest is bound to."""
        return [f"{dest} {self.stream} {self.seq} {self.kind}".encode(), self.tag]

    def _encrypted(self, secret: NamespaceSecret, dest: str) -> Entry:
        marked = self._replace(kind=self.kind + ENCRYPTED)
        cipher = StreamCipher(secret.stored(), self.stream)
        readable = marked._readable(dest)
        head = cipher.seal(self.head, readable)
        # The server may lack the rest where it gives heads back.
        rest = cipher.seal(self.rest, [*readable, head]) if self.rest else b""
        return marked._replace(head=head, rest=rest)

    def _decrypted(self, secret: NamespaceSecret, dest: str) -> Entry:
        """Return the entry in the clear; raises as `StreamCipher.open` does."""
        cipher = StreamCipher(secret.stored(), self.stream)
        readable = self._readable(dest)
        head = cipher.open(self.head, readable)
        rest = cipher.open(self.rest, [*readable, self.head]) if self.rest else b""
        kind = self.kind.removesuffix(ENCRYPTED)
        return self._replace(kind=kind, head=head, rest=rest)


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
        entry = _parse(found)
        signed, mac = entry._signed(dest), found[b"h"]
        for secret in secrets:
            if secret.verify(signed, mac):
                if entry.kind.endswith(ENCRYPTED):
                    return entry._decrypted(secret, dest)
                return entry
    except (KeyError, ValueError):
        return None
    return None


def open_head(
    fields: Sequence[bytes], secrets: Sequence[NamespaceSecret], dest: str
) -> Segment | None:
    """Return the head of an entry without its rest, which nothing vouches for.

    Only a head that was encrypted is known to be from a member of the namespace.

    Returns:
        The head; `None` if it was encrypted and cannot be read, or is damaged.
    """
    try:
        entry = _parse({b"b": b"", **dict(zip(fields[::2], fields[1::2], strict=True))})
    except (KeyError, ValueError):
        return None
    if not entry.kind.endswith(ENCRYPTED):
        return entry.head
    for secret in secrets:
        with contextlib.suppress(ValueError):
            return entry._decrypted(secret, dest).head
    return None


def _parse(found: Mapping[bytes, bytes]) -> Entry:
    return Entry(
        stream=found[b"s"].decode(),
        seq=int(found[b"q"]),
        kind=found[b"k"].decode(),
        tag=found[b"g"],
        head=found[b"m"],
        rest=found[b"b"],
        stamp=int(found.get(b"x", b"0")),
    )
