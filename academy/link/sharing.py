"""Memory that two processes of one host share for large segments of messages.

Each process offers *regions* of its own to the other one. The sender of a segment
copies it into a region, and lends that: the receiver uses the segment where it is. When
nobody there refers to it any more, the region is returned, and used again. A result
that is what was lent, and that nobody else refers to, goes back where it is, uncopied.

A region is never used again while anybody, in either process, can still see what was
lent in it. A segment for which there is no region goes in parts, as without all this,
so that nothing waits for a region, and nothing fails for the lack of one.

Pure: frames and segments go in, frames and views come out. What makes and maps memory
is given from outside. It lasts as long as a connection; views of it may last longer.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable

from academy.link.borrowing import Borrower
from academy.link.frame import (
    Back,
    Dropped,
    Frame,
    Lent,
    Mapped,
    Offer,
    RemoteProtocolError,
    Returned,
    Sharing,
    Unmapped,
)
from academy.link.lending import LEAST, MOST, Lender, Regions
from academy.link.parts import Transfer


class SharedMemory:
    """What two processes share on one connection.

    Args:
        regions: Makes and opens regions.
        wake: Called when `take_frames` has something new, since a view has ended: in
            any thread, at any moment. Views refer to it in a way that the garbage
            collector does not see, so it must not refer to who may have views.
    """

    def __init__(self, regions: Regions, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._closed = False
        self._frames: list[Frame] = []
        self._ends: collections.deque[tuple[bool, int]] = collections.deque()
        say = self._frames.append
        lent_here = functools.partial(self._note_end, False)
        self.lender = Lender(regions, say, functools.partial(self._note_end, True))
        """The regions of this process."""
        self.borrower = Borrower(regions, say, lent_here)
        """Those of the other one."""

    def transfer(self, segment: memoryview, owned: bool) -> Transfer | None:
        """Return how a segment goes by shared memory, if it does.

        Args:
            segment: The segment.
            owned: Whether nobody but its message refers to it, or ever will.
        """
        if not LEAST <= len(segment) <= MOST:
            return None
        self._settle()
        passing = self.borrower.pass_back(segment) if owned else None
        return self.lender.lend(segment) if passing is None else passing

    def view(self, frame: Lent | Back) -> memoryview:
        """Return the segment that has come.

        Raises:
            RemoteProtocolError: There is none.
        """
        if isinstance(frame, Lent):
            return self.borrower.take(frame)
        return self.lender.take_back(frame)

    def receive(self, frame: Sharing) -> None:
        """Take what the other process says of regions.

        Raises:
            RemoteProtocolError: It does not fit to what came before.
        """
        self._settle()
        match frame:
            case Offer():
                self.borrower.offered(frame)
            case Mapped(number):
                self.lender.answered(number, True)
            case Unmapped(number):
                self.lender.answered(number, False)
            case Returned(number):
                self.lender.returned(number)
            case Dropped(number):
                self.borrower.dropped(number)
            case _:
                raise RemoteProtocolError(f"{type(frame).__name__} of no message")

    @property
    def has_output(self) -> bool:
        """Whether `take_frames` may give something."""
        return bool(self._frames or self._ends)

    def take_frames(self) -> list[Frame]:
        """Return what is to be sent, once."""
        self._settle()
        frames = self._frames.copy()
        self._frames.clear()
        return frames

    def sweep(self) -> None:
        """Drop what was not used since the last call."""
        self._settle()
        self.lender.sweep()

    def close(self) -> None:
        """Forget all, for the connection has ended; what is seen of it stays."""
        self._closed = True
        self.lender.close()
        self.borrower.close()

    def _note_end(self, ours: bool, number: int) -> None:
        """Note that a view has ended, which may be so amid anything."""
        if not self._closed:
            self._ends.append((ours, number))
            self._wake()

    def _settle(self) -> None:
        """Say which regions are free."""
        while self._ends:
            ours, number = self._ends.popleft()
            if ours:
                self.lender.unseen(number)
            else:
                self.borrower.unseen(number)
