"""The regions of this process, and which of them the other one has; see `sharing`."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from academy.link.frame import (
    Back,
    Dropped,
    Frame,
    Lent,
    Offer,
    RemoteProtocolError,
)

LEAST = 1 << 20
"""Bytes of the smallest segment that is lent; the sizes of regions are multiples."""
MOST = 16 << 20
"""Bytes of the largest one."""
SUM = 32 << 20
"""Bytes of the regions that a process offers on a link."""
COUNT = 8
"""How many those are at most."""
STEP = 4 << 20
"""Bytes that are copied in one turn of the event loop."""
SHARE = 8
"""So many bytes that are copied take as long as one that is written to a socket."""
STALE = 8
"""Segments that were lent since a region was used; then it may go for another one."""


class Region(Protocol):
    """Memory that both processes see."""

    descriptor: int
    size: int
    inode: int
    view: memoryview

    def settle(self) -> None:
        """Let go of the file."""
        ...

    def lend(self, offset: int, size: int, ended: Callable[[], None]) -> memoryview:
        """Return a view; what is given is called when nobody refers to it any more."""
        ...

    def find(self, view: memoryview) -> int | None:
        """Return where in the region a view begins, if it is in it."""
        ...


class Regions(Protocol):
    """Makes regions, and opens those of the other process."""

    def create(self, size: int) -> Region:
        """Make a region.

        Raises:
            OSError: That is not possible.
        """
        ...

    def open(self, offer: Offer) -> Region | None:
        """Open what the other process offers, if that is possible."""
        ...


class State(enum.Enum):
    """What a region of this process is used for."""

    OFFERED = enum.auto()
    """Nothing yet: the other process has not answered."""
    FREE = enum.auto()
    FILLING = enum.auto()
    """A segment is being copied into it."""
    LENT = enum.auto()
    """The other process has it."""
    BACK = enum.auto()
    """It has sent back what it had, which has not ended on both sides."""
    LEFT = enum.auto()
    """The other process may keep it, and has not heard of that yet."""


@dataclass(slots=True, eq=False)
class _Own:
    """A region of this process.

    Attributes:
        number: Its number.
        region: The memory.
        used: When it was last used, in segments that were to be lent.
        swept: What that was at the last look for those that nobody uses.
        state: What it is used for.
        lent: Bytes that are lent.
        seen: Whether this process refers to what came back.
        returned: Whether the other process does not refer to it any more.
    """

    number: int
    region: Region
    used: int
    swept: int = -1
    state: State = State.OFFERED
    lent: int = 0
    seen: bool = False
    returned: bool = False

    @property
    def is_here(self) -> bool:
        """Whether the other process has nothing of it."""
        back = self.state is State.BACK and self.returned
        return back or self.state is State.FREE


class Copying:
    """A segment on its way into a region.

    Args:
        own: The region.
        segment: The segment.
    """

    def __init__(self, own: _Own, segment: memoryview) -> None:
        own.state = State.FILLING
        self._own = own
        self._segment = segment
        self._copied = 0
        self.size = len(segment)
        """Bytes of the segment."""

    @property
    def done(self) -> bool:
        """Whether all of it is copied."""
        return self._copied == self.size

    def advance(self) -> int:
        """Copy some of it; return what that is worth in bytes written to a socket."""
        start, end = self._copied, min(self._copied + STEP, self.size)
        self._own.region.view[start:end] = self._segment[start:end]
        self._copied = end
        return (end - start) // SHARE

    def frame(self, channel: int, seq: int, last: bool) -> Frame:
        """Lend it; return what says so."""
        own = self._own
        own.state = State.LENT
        own.lent = self.size
        own.seen = own.returned = False
        return Lent(channel, seq, last, own.number, self.size)

    def end(self) -> None:
        """Let the region be used for others, if this was not lent. Idempotent."""
        if self._own.state is State.FILLING:
            self._own.state = State.FREE


class Lender:
    """The regions of this process.

    Args:
        regions: Makes them.
        say: Called with what is to be sent.
        ended: Called with the number of a region when this process does not refer to
            what came back in it any more: in any thread, at any moment.
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
        self._asked = 0
        self.refused = False
        """Whether there is no use in offering any more."""
        self.owned: dict[int, _Own] = {}
        """Those that there are, by number."""

    def lend(self, segment: memoryview) -> Copying | None:
        """Begin to copy a segment; `None`, and an offer, if no region is free."""
        self._asked += 1
        size = len(segment)
        fit = [o for o in self._free() if size <= o.region.size <= 2 * size]
        if not fit:
            self._offer(-(-size // LEAST) * LEAST)
            return None
        own = min(fit, key=lambda o: o.region.size)
        own.used = self._asked
        return Copying(own, segment)

    def _free(self) -> list[_Own]:
        return [own for own in self.owned.values() if own.state is State.FREE]

    def _offer(self, size: int) -> None:
        """Offer a region, one at a time, and drop others for it if there are many."""
        waits = any(own.state is State.OFFERED for own in self.owned.values())
        if self.refused or waits or not self._make_room(size):
            return
        try:
            region = self._regions.create(size)
        except (OSError, ImportError):
            self.refused = True
            return
        self._last += 1
        self.owned[self._last] = _Own(self._last, region, self._asked)
        self._say(Offer(self._last, region.descriptor, region.size, region.inode))

    def _make_room(self, size: int) -> bool:
        """Drop regions that were not used for long; return whether that is enough.

        Else the one that was lent for the longest time is left to who keeps it: there
        is room when that has heard of it.
        """
        total = sum(own.region.size for own in self.owned.values())
        stale, dropped = self._stale(), list[_Own]()
        while total + size > SUM or len(self.owned) - len(dropped) >= COUNT:
            if not stale:
                self._leave()
                return False
            dropped.append(stale.pop(0))
            total -= dropped[-1].region.size
        for own in dropped:
            self._drop(own)
        return True

    def _stale(self, *, lent: bool = False) -> list[_Own]:
        """Return what was not used for long, and is here, or is lent; oldest first."""
        found = [
            own
            for own in self.owned.values()
            if own.used < self._asked - STALE
            and (own.state is State.LENT if lent else own.is_here)
        ]
        return sorted(found, key=lambda own: own.used)

    def _leave(self) -> None:
        if not any(own.state is State.LEFT for own in self.owned.values()):
            for own in self._stale(lent=True)[:1]:
                own.state = State.LEFT
                self._say(Dropped(own.number))

    def _drop(self, own: _Own) -> None:
        del self.owned[own.number]
        own.region.settle()
        self._say(Dropped(own.number))

    def answered(self, number: int, mapped: bool) -> None:
        """Note whether the other process accepts what was offered.

        Raises:
            RemoteProtocolError: It was not.
        """
        own = self._get(number)
        if own.state is not State.OFFERED:
            raise RemoteProtocolError(f"a second answer to region {number}")
        own.region.settle()
        if mapped:
            own.state = State.FREE
        else:
            del self.owned[number]
            self.refused = True

    def take_back(self, frame: Back) -> memoryview:
        """Return the view of what comes back.

        Raises:
            RemoteProtocolError: It is not what was lent.
        """
        own = self._get(frame.region)
        if own.state not in (State.LENT, State.LEFT) or own.seen:
            raise RemoteProtocolError(f"region {frame.region}, which it does not have")
        if not 0 < frame.size <= own.lent - frame.offset:
            raise RemoteProtocolError(f"more of region {frame.region} than was lent")
        if own.state is State.LENT:
            own.state = State.BACK
        own.seen = True
        ended = functools.partial(self._ended, own.number)
        return own.region.lend(frame.offset, frame.size, ended)

    def returned(self, number: int) -> None:
        """Note that the other process does not refer to what was lent any more.

        Raises:
            RemoteProtocolError: It could not.
        """
        own = self._get(number)
        if own.state is State.LEFT:
            del self.owned[number]
            return
        if own.state not in (State.LENT, State.BACK) or own.returned:
            raise RemoteProtocolError(f"the return of region {number}, not lent")
        own.returned = True
        if not own.seen:
            own.state = State.FREE

    def unseen(self, number: int) -> None:
        """Note that this process does not refer to what came back any more."""
        own = self.owned.get(number)
        if own is not None and own.state is State.BACK:
            own.seen = False
            if own.returned:
                own.state = State.FREE

    def sweep(self) -> None:
        """Drop what was not used since the last call."""
        for own in self._free():
            if own.swept == own.used:
                self._drop(own)
            own.swept = own.used

    def close(self) -> None:
        """Forget all; what is seen of it stays."""
        for own in self.owned.values():
            own.region.settle()
        self.owned.clear()
        self.refused = True

    def _get(self, number: int) -> _Own:
        own = self.owned.get(number)
        if own is None:
            raise RemoteProtocolError(f"a word about region {number}, never offered")
        return own
