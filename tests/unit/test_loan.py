"""Views of memory whose end is seen."""

from __future__ import annotations

import ctypes
import gc
import mmap
import threading
from typing import Any

import numpy as np
import pytest

from academy import loan
from academy.loan import Lendable, is_loan

SIZE = 1 << 16


class Ground:
    """Memory that is lent, and how many loans have ended."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, SIZE)
        self.lendable = Lendable(self.memory)
        self.ended = 0

    def lend(self, offset: int = 0, size: int = SIZE) -> memoryview:
        return self.lendable.lend(offset, size, self._end)

    def _end(self) -> None:
        self.ended += 1


@pytest.fixture
def ground() -> Ground:
    return Ground()


def test_a_view_is_that_memory(ground: Ground) -> None:
    view = ground.lend(100, 20)
    view[:3] = b"abc"
    assert ground.memory[100:103] == b"abc"
    assert (view.format, view.nbytes, view.readonly) == ("B", 20, False)


@pytest.mark.parametrize(
    "made",
    [
        lambda view: view,
        lambda view: view[5:10],
        lambda view: view.cast("I"),
        memoryview,
        lambda view: np.frombuffer(view, np.uint8)[3:],
        lambda view: np.frombuffer(view, np.uint8).reshape(2, -1).T,
        lambda view: {"deep": [np.frombuffer(view, np.uint8)]},
        lambda view: ctypes.c_char.from_buffer(view),
    ],
)
def test_it_ends_with_the_last_thing_that_refers_to_it(
    ground: Ground, made: Any
) -> None:
    view = ground.lend()
    kept = made(view)
    assert ground.ended == 0
    del view
    assert ground.ended == 0
    del kept
    # NumPy and ctypes make no cycles; what is in one is for the next test.
    assert ground.ended == 1


def test_it_ends_when_a_cycle_is_collected(ground: Ground) -> None:
    cycle: list[Any] = [ground.lend()]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert ground.ended == 1


class Last:
    """Looks at its memory when it is finalized, and may bring it back."""

    saved: list[memoryview]
    seen: list[int]

    def __init__(self, ground: Ground, save: bool) -> None:
        self.view = ground.lend()
        self.ground = ground
        self.save = save
        self.cycle = self

    def __del__(self) -> None:
        self.seen.append(self.ground.ended)
        if self.save:
            self.saved.append(self.view)


@pytest.mark.parametrize("save", [False, True])
def test_it_does_not_end_while_a_finalizer_can_look_at_it(
    ground: Ground, save: bool
) -> None:
    Last.seen, Last.saved = [], []
    for _ in range(10):
        Last(ground, save)
    gc.collect()
    assert Last.seen == [0] * 10
    assert ground.ended == (0 if save else 10)
    Last.saved.clear()
    gc.collect()
    assert ground.ended == 10


def test_the_collector_does_not_know_what_tells_the_end(ground: Ground) -> None:
    assert not gc.is_tracked(ground.lend().obj.end)


def test_it_may_end_in_another_thread(ground: Ground) -> None:
    views = [ground.lend()]
    thread = threading.Thread(target=views.clear)
    thread.start()
    thread.join()
    assert ground.ended == 1


def test_views_outlive_what_gave_them(ground: Ground) -> None:
    view = ground.lend()
    ground.memory[:1] = b"x"
    del ground
    gc.collect()
    assert view[0] == ord("x")


def test_where_a_view_is(ground: Ground) -> None:
    view = ground.lend()
    find = ground.lendable.find
    assert find(view) == 0
    assert find(view[7:9]) == 7
    assert find(view[-1:]) == SIZE - 1
    assert find(memoryview(np.frombuffer(view, np.uint8)[40:])) == 40
    assert find(ground.lend(10, 5)) == 10


def test_what_is_not_in_it(ground: Ground) -> None:
    find = ground.lendable.find
    assert find(memoryview(bytearray(10))) is None
    assert find(Ground().lend()) is None
    view = ground.lend()
    assert find(view[5:5]) is None
    assert find(view[::2]) is None
    assert find(view.toreadonly()) is None


def test_what_is_a_loan(ground: Ground) -> None:
    assert is_loan(ground.lend().obj)
    form = ctypes.c_char * SIZE
    for other in (form(), form.from_buffer(ground.memory), ground.memory, b"", None):
        assert not is_loan(other)
    # One type of each size, however often.
    Lendable(mmap.mmap(-1, SIZE))
    assert list(loan._forms).count(SIZE) == 1
