"""Which memory is only a message's own."""

from __future__ import annotations

import ctypes
import mmap
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from academy import ownership, pages
from academy.loan import Lendable
from academy.ownership import own
from academy.segment import MEMORY, Segment, Slot
from academy.serialize import SerializationStrategy, pack, unpack

SIZE = 100_000
PICKLE = SerializationStrategy.PICKLE


def kept(result: Any, hold: Callable[[Any], Any] = lambda result: None) -> bool:
    """Return whether a result is sent as it is, while somebody holds on to it.

    Args:
        result: Makes it.
        hold: Returns what is kept of it.
    """
    value = result()
    held = hold(value)
    packed = pack(value, PICKLE, what="result")
    del value
    segments: list[Segment] = [b"head", *packed]
    found = own(segments)
    assert [bytes(s) for s in found] == [bytes(s) for s in segments]
    same = [a is b for a, b in zip(segments, found, strict=True)]
    assert same[:2] == [True, True]
    assert len(same) == 3
    del held
    return same[2]


def received(size: int) -> Any:
    """Return an array as it comes in."""
    slot = Slot(MEMORY, size)
    slot.write(memoryview(bytes(size)))
    stream, _ = pack(np.zeros(size, dtype=np.uint8), PICKLE, what="result")
    return unpack([stream, slot.finish()], PICKLE, what="result")


def shared(size: int = SIZE) -> Any:
    """Return an array as it comes in by shared memory."""
    lendable = Lendable(mmap.mmap(-1, 1 << 20))
    view = lendable.lend(0, size, lambda: None)
    stream, _ = pack(np.zeros(size, dtype=np.uint8), PICKLE, what="result")
    return unpack([stream, view], PICKLE, what="result")


def zeros() -> Any:
    return np.zeros(SIZE, dtype=np.uint8)


@pytest.mark.parametrize(
    "result",
    [
        zeros,
        lambda: bytearray(SIZE),
        lambda: zeros().reshape(100, -1),
        lambda: zeros().reshape(100, -1).T,
        lambda: zeros()[5:],
        lambda: np.frombuffer(bytearray(SIZE), np.uint8),
        lambda: received(SIZE),
        lambda: received(pages.FROM),
        lambda: received(pages.KEEP + 1),
        shared,
        lambda: shared()[5:],
        lambda: bytes(SIZE),
    ],
)
def test_what_nobody_else_has_is_not_copied(result: Any) -> None:
    assert kept(result)


@pytest.mark.parametrize("result", [zeros, lambda: bytearray(SIZE)])
@pytest.mark.parametrize("hold", [lambda r: r, memoryview, lambda r: {"a": [r]}])
def test_what_somebody_has_is_copied(result: Any, hold: Any) -> None:
    assert not kept(result, hold)


@pytest.mark.parametrize(
    "hold", [weakref.ref, lambda r: r[::2], lambda r: r.reshape(100, -1), lambda r: r.T]
)
@pytest.mark.parametrize("result", [zeros, lambda: received(SIZE), shared])
def test_arrays_that_can_be_reached_are_copied(result: Any, hold: Any) -> None:
    assert not kept(result, hold)


@pytest.mark.parametrize("size", [SIZE, pages.FROM, pages.KEEP + 1])
@pytest.mark.parametrize(
    "hold",
    [
        lambda r: r.base,
        lambda r: r.base.base,
        lambda r: r.base.base[3:],
        lambda r: r.base.base.obj,
    ],
)
def test_the_memory_below_a_received_array(hold: Any, size: int) -> None:
    assert not kept(lambda: received(size), hold)


@pytest.mark.parametrize(
    "hold",
    [
        lambda r: r,
        lambda r: r.base,
        lambda r: r.base.base,
        lambda r: r.base.base[3:],
        lambda r: r.base.base.obj,
        lambda r: ctypes.c_char.from_buffer(r.base.base),
    ],
)
def test_shared_memory_below_an_array(hold: Any) -> None:
    assert not kept(shared, hold)


def test_memory_of_others() -> None:
    array, memory = np.zeros(SIZE, dtype=np.uint8), bytearray(SIZE)
    assert not kept(lambda: array[10:])
    assert not kept(lambda: np.frombuffer(memory, np.uint8))


def test_nothing_is_known_where_references_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ownership, "_count", None)
    assert not kept(zeros)
    assert not kept(lambda: bytearray(SIZE))
    assert kept(lambda: bytes(SIZE))


def test_copies_have_the_type_of_what_was_there() -> None:
    array = bytearray(b"abc")
    copy, view = own([array, memoryview(array)])
    array[:] = b"???"
    assert (bytes(copy), bytes(view)) == (b"abc", b"abc")
    assert type(copy) is bytearray
    assert type(view) is memoryview
    assert not view.readonly
