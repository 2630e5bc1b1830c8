"""The regions of the other process, and which of them this one has; see `sharing`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from academy.link.frame import (
    Back,
    Frame,
    Lent,
    Mapped,
    Offer,
    RemoteProtocolError,
    Returned,
    Unmapped,
)
from academy.link.lending import COUNT, LEAST, MOST, SUM, Region, Regions

PEER_SUM, PEER_COUNT = 2 * SUM, 2 * COUNT
"""Bytes of regions that are taken from the other process, and how many, at most."""


@dataclass(slots=True, eq=False)
class _Foreign:
    """A region of the other process.

    Attributes:
        number: Its number.
        region: The memory.
        lent: Whether this process has it.
        passed: Whether what was lent goes back, or has gone.
        left: Whether it is to be forgotten when it is not lent any more.
    """

    number: int
    region: Region
    lent: bool = False
    passed: bool = False
    left: bool = False


class Passing:
    """A segment that goes back where it is.

    Args:
        foreign: The region.
        offset: Where it begins there.
        size: Its bytes.
    """

    done = True
    """Whether it can go."""

    def __init__(self, foreign: _Foreign, offset: int, size: int) -> None:
        foreign.passed = True
        self._foreign = foreign
        self._offset = offset
        self._sent = False
        self.size = size
        """Bytes of the segment."""

    def advance(self) -> int:
        """Do nothing: there is nothing to copy."""
        return 0

    def frame(self, channel: int, seq: int, last: bool) -> Frame:
        """Return what says that it comes back."""
        self._sent = True
        number = self._foreign.number
        return Back(channel, seq, last, number, self.size, self._offset)

    def end(self) -> None:
        """Let it stay here, if it was not sent. Idempotent."""
        if not self._sent:
            self._foreign.passed = False


class Borrower:
    """The regions of the other process.

    Args:
        regions: Opens them.
        say: Called with what is to be sent.
        ended: Called with the number of a region when this process does not refer to
            what was lent in it any more: in any thread, at any moment.
    """

    def __init__(
        self,
        regions: Regions,
        say: Callable[[Frame], None],
        ended: Callable[[int], None],
    ) -> None:
        self._regions = regions
        self._say = say
        self._ended = ended
        self._last = 0
        self.opened: dict[int, _Foreign] = {}
        """Those that are open here, by number."""

    def offered(self, offer: Offer) -> None:
        """Open a region, and say whether that was possible.

        Raises:
            RemoteProtocolError: They are not counted upwards.
        """
        number = offer.region
        if number <= self._last:
            raise RemoteProtocolError(f"region {number} after {self._last}")
        self._last = number
        region = self._regions.open(offer) if self._may_open(offer.size) else None
        if region is None:
            self._say(Unmapped(number))
        else:
            self.opened[number] = _Foreign(number, region)
            self._say(Mapped(number))

    def _may_open(self, size: int) -> bool:
        total = sum(foreign.region.size for foreign in self.opened.values())
        return (
            LEAST <= size <= MOST
            and size % LEAST == 0
            and total + size <= PEER_SUM
            and len(self.opened) < PEER_COUNT
        )

    def take(self, frame: Lent) -> memoryview:
        """Return the view of what is lent.

        Raises:
            RemoteProtocolError: It cannot be lent.
        """
        foreign = self._get(frame.region)
        if foreign.lent:
            raise RemoteProtocolError(f"region {frame.region}, which is lent")
        if not 0 < frame.size <= foreign.region.size:
            raise RemoteProtocolError(f"more than region {frame.region} has")
        foreign.lent, foreign.passed = True, False
        ended = functools.partial(self._ended, foreign.number)
        return foreign.region.lend(0, frame.size, ended)

    def pass_back(self, segment: memoryview) -> Passing | None:
        """Let a segment that nobody else refers to go back, if it was lent."""
        for foreign in self.opened.values():
            if foreign.lent and not (foreign.passed or foreign.left):
                offset = foreign.region.find(segment)
                if offset is not None:
                    return Passing(foreign, offset, len(segment))
        return None

    def unseen(self, number: int) -> None:
        """Return a region: this process does not refer to it any more."""
        foreign = self.opened.get(number)
        if foreign is not None and foreign.lent:
            foreign.lent = False
            self._say(Returned(number))
            if foreign.left:
                del self.opened[number]

    def dropped(self, number: int) -> None:
        """Close a region; what is lent in it may be kept.

        Raises:
            RemoteProtocolError: That was said before.
        """
        foreign = self._get(number)
        if foreign.left:
            raise RemoteProtocolError(f"the second end of region {number}")
        if foreign.lent and foreign.passed:
            # It may still be about to go back, which must not come after its return.
            foreign.left = True
            return
        del self.opened[number]
        if foreign.lent:
            self._say(Returned(number))

    def close(self) -> None:
        """Forget all; what is seen of it stays."""
        self.opened.clear()

    def _get(self, number: int) -> _Foreign:
        foreign = self.opened.get(number)
        if foreign is None:
            raise RemoteProtocolError(f"region {number}, which is not open")
        return foreign
