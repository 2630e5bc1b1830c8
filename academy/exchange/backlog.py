"""What the mailboxes of a process hold that nobody has taken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from academy.segment import Segment

BACKLOG_BYTES = 256 << 20
"""Bytes of messages that a process holds for consumers that have not taken them, before
it accepts no more in its mailboxes than what is on its way already."""


class Backlog:
    """Counts what consumers have not taken, over all mailboxes of a process."""

    def __init__(self) -> None:
        self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether consumers have to catch up first."""
        return self.bytes >= BACKLOG_BYTES

    def add(self, segments: Iterable[Segment]) -> None:
        """Count a message that waits for its consumer."""
        self.bytes += sum(map(len, segments))

    def remove(self, messages: Iterable[Sequence[Segment]]) -> None:
        """Count messages off: they were taken, or are no longer here."""
        for segments in messages:
            self.bytes -= sum(map(len, segments))
