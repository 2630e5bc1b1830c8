"""Memory that two ends in one process share, and limits that are small."""

from __future__ import annotations

import gc
import itertools
import mmap
import sys
import weakref
from collections.abc import Callable, Iterator

import pytest

from academy.link import borrowing, lending, sharing
from academy.link.frame import Offer
from academy.link.sharing import SharedMemory
from academy.loan import Lendable, lent

LEAST, MOST, SUM, COUNT, STEP = 64, 1024, 2048, 4, 128
"""Limits of the tests; see `lending`."""


ONLY_LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has such memory"
)


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """Look for loans that have not ended, before a test and after it."""
    gc.collect()
    assert not lent()
    yield
    gc.collect()
    assert not lent()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let regions be small, so that tests are fast."""
    limits = {"LEAST": LEAST, "MOST": MOST, "SUM": SUM, "COUNT": COUNT, "STEP": STEP}
    for module in (lending, borrowing, sharing):
        for name, value in limits.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(borrowing, "PEER_SUM", 2 * SUM)
    monkeypatch.setattr(borrowing, "PEER_COUNT", 2 * COUNT)


class FakeRegion:
    """What one end has of a region."""

    def __init__(self, memory: mmap.mmap, inode: int) -> None:
        self._lendable = Lendable(memory)
        self.view = memoryview(memory)
        self.size = len(memory)
        self.descriptor = 3
        self.inode = inode
        self.settled = 0

    def settle(self) -> None:
        self.settled += 1

    def lend(self, offset: int, size: int, ended: Callable[[], None]) -> memoryview:
        return self._lendable.lend(offset, size, ended)

    def find(self, view: memoryview) -> int | None:
        return self._lendable.find(view)


_all: weakref.WeakValueDictionary[int, mmap.mmap] = weakref.WeakValueDictionary()
_numbers = itertools.count(1)


class FakeRegions:
    """Makes regions of which everybody in this process knows.

    Attributes:
        fails: Whether none can be made any more.
        refuses: Whether none can be opened any more.
    """

    def __init__(self) -> None:
        self.fails = False
        self.refuses = False
        self.made: list[FakeRegion] = []

    def create(self, size: int) -> FakeRegion:
        if self.fails:
            raise OSError("no room")
        inode = next(_numbers)
        memory = _all[inode] = mmap.mmap(-1, size)
        self.made.append(FakeRegion(memory, inode))
        return self.made[-1]

    def open(self, offer: Offer) -> FakeRegion | None:
        memory = _all.pop(offer.inode, None)
        if memory is None or self.refuses or len(memory) != offer.size:
            return None
        return FakeRegion(memory, offer.inode)


def shared() -> SharedMemory:
    """Return one end."""
    return SharedMemory(FakeRegions(), lambda: None)
