"""Pieces of memory that messages consist of."""

from __future__ import annotations

import gc
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy import pages
from academy.segment import (
    BYTEARRAY,
    BYTES,
    KINDS,
    MEMORY,
    STEP,
    ZEROED,
    Segment,
    Slot,
    copied,
    detach,
    make_table,
    read_entry,
)

ALL = [BYTES, BYTEARRAY, MEMORY]


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize("kind", ALL)
@given(data=st.binary(max_size=300), steps=st.lists(st.integers(1, 90), min_size=1))
def test_a_slot_is_filled_bit_by_bit(kind: int, data: bytes, steps: list[int]) -> None:
    slot = Slot(kind, len(data))
    rest = memoryview(data)
    turn = 0
    while slot.missing:
        step = steps[turn % len(steps)]
        turn += 1
        if turn % 2:
            room = slot.room(step)
            assert len(room) == min(step, slot.missing)
            room[:] = rest[: len(room)]
            slot.advance(len(room))
            rest = rest[len(room) :]
        else:
            slot.write(rest[:step])
            rest = rest[step:]
        assert slot.missing == len(rest)
    segment = slot.finish()
    assert KINDS[type(segment)] == kind
    assert bytes(segment) == data


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("size", [STEP + 1, ZEROED + 1, pages.FROM + 1])
def test_large_slots(kind: int, size: int) -> None:
    data = memoryview(pattern(size))
    slot = Slot(kind, size)
    while slot.missing:
        start = size - slot.missing
        room = slot.room(3_000_001)
        room[:] = data[start : start + len(room)]
        slot.advance(len(room))
    segment = slot.finish()
    assert KINDS[type(segment)] == kind
    assert segment == data


@pytest.mark.parametrize("kind", ALL)
def test_nothing_large_is_filled_with_zeros_at_once(kind: int) -> None:
    slot = Slot(kind, 1 << 31)
    assert len(slot.room(1 << 40)) >= STEP


@pytest.mark.parametrize("kind", [BYTES, BYTEARRAY, MEMORY])
def test_a_slot_may_be_dropped_half_filled(
    kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    slot = Slot(kind, 10)
    slot.write(memoryview(b"half"))
    cycle: list[object] = [slot]
    cycle.append(cycle)
    del slot, cycle
    gc.collect()
    # The collector of CPython 3.13 tells of buffers that cannot be closed.
    assert not complaints


def test_memory_is_writable() -> None:
    for size in (10, pages.FROM):
        slot = Slot(MEMORY, size)
        slot.write(memoryview(bytes(size)))
        segment = slot.finish()
        assert type(segment) is memoryview
        segment[0] = 5


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("size", [10, ZEROED + 10])
def test_a_reader_that_holds_on_to_its_memory(kind: int, size: int) -> None:
    """What it is given is right nevertheless, but a copy."""
    slot = Slot(kind, size)
    held = []
    data = memoryview(pattern(size))
    while slot.missing:
        start = size - slot.missing
        room = slot.room(STEP)
        room[:] = data[start : start + len(room)]
        held.append(memoryview(room))
        slot.advance(len(room))
    assert slot.finish() == data


@given(
    st.lists(st.tuples(st.sampled_from([bytes, bytearray, memoryview]), st.binary()))
)
def test_tables(found: list[tuple[type[Segment], bytes]]) -> None:
    segments = [kind(data) for kind, data in found]
    table = make_table(segments)
    assert struct.unpack_from("!I", table) == (len(segments),)
    entries = [read_entry(table, i) for i in range(len(segments))]
    assert entries == [(KINDS[type(s)], len(s)) for s in segments]
    with pytest.raises(struct.error):
        read_entry(table, len(segments))


def test_a_table_with_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="kind 3"):
        read_entry(struct.pack("!IQ", 1, 3 << 62 | 5), 0)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("size", [4, pages.FROM, pages.KEEP + 1])
def test_copies(kind: int, size: int) -> None:
    data = bytearray(pattern(size))
    copy = copied(data, kind)
    data[:] = bytes(size)
    assert KINDS[type(copy)] == kind
    assert copy == pattern(size)


def test_a_large_copy_of_memory_is_in_pages_of_its_own() -> None:
    copy = copied(memoryview(bytes(pages.FROM)), MEMORY)
    assert isinstance(copy, memoryview)
    assert type(copy.obj) is pages.Pages
    assert not copy.readonly


def test_detached_segments_are_not_those_of_the_sender() -> None:
    array = bytearray(b"array")
    same, copy, memory = detach([b"same", array, memoryview(array)])
    array[:] = b"?????"
    assert (same, copy, bytes(memory)) == (b"same", b"array", b"array")
    assert type(copy) is bytearray
    assert type(memory) is memoryview
