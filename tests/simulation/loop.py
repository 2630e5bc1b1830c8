"""The channel between two mailboxes of the same process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from academy.link.channel import ChannelKey, Reason
from academy.segment import Segment
from tests.simulation.server import Entry

if TYPE_CHECKING:
    from tests.simulation.box import Box
    from tests.simulation.line import Line


class Loop:
    """Is to both sides what a peer and its session are between processes."""

    def __init__(self, line: Line, box: Box) -> None:
        self.session = self
        self._line = line
        self._box = box

    def touch(self) -> None:
        """Nothing waits here."""

    def acknowledge(self) -> None:
        """Nothing waits here."""

    # What the sender calls

    def send(
        self,
        key: ChannelKey,
        seq: int,
        segments: Sequence[Segment],
        size: int | None,
        lent: bool,
    ) -> None:
        kind = "r" if key.lane else "q"
        name = self._line.outbox.stream.name
        copies = [bytes(segment) for segment in segments]
        self._box.receive(Entry(0, name, seq, kind, 0, copies), queued=False)

    def take_back(self, key: ChannelKey, seq: int) -> bool:
        """What is sent is there."""
        return False

    def close(self, key: ChannelKey) -> None:
        self._box.channels.pop(self._line.outbox.stream.name, None)

    # What the receiver calls

    def accept(self, channel: int, inc: int, accepted: int) -> None:
        self._line.accepted(inc, accepted)

    def taken(self, channel: int, seq: int, now: float) -> None:
        self._line.taken(seq)

    def refuse(self, channel: int, reason: Reason) -> None:
        self._line.rejected()
