from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.link.frame import (
    Buffer,
    Frame,
    Lent,
    LocalProtocolError,
    RemoteProtocolError,
)
from academy.link.parts import Assembly, check_size, cut, weigh
from academy.segment import make_table
from tests.unit.link.pair import plain

SEGMENTS = st.lists(st.binary(max_size=60), max_size=12)
TYPED = st.lists(
    st.tuples(st.sampled_from([bytes, bytearray, memoryview]), st.binary(max_size=60)),
    max_size=12,
).map(lambda found: [kind(data) for kind, data in found])
LIMIT = 10_000


def ignore(before: int, after: int) -> None:
    """Keep no account."""


def assembled(parts: Sequence[Buffer], limit: int = LIMIT) -> list[Buffer]:
    assembly = Assembly(1, limit, ignore)
    for part in parts:
        assembly.add(part)
    return assembly.finish()


@given(TYPED, st.integers(1, 200))
def test_round_trip(segments: list[Buffer], size: int) -> None:
    parts = list(cut(segments, size))
    assert all(0 < len(p) <= size for p in parts)
    found = assembled(parts)
    assert plain(found) == plain(segments)
    assert [type(s) for s in found] == [type(s) for s in segments]


@given(TYPED, st.integers(1, 200), st.integers(1, 200))
def test_the_sizes_of_parts_do_not_matter(
    segments: list[Buffer], size: int, other: int
) -> None:
    stream = b"".join(cut(segments, size))
    parts = [stream[i : i + other] for i in range(0, len(stream), other)]
    assert plain(assembled(parts)) == plain(segments)


@given(TYPED, st.lists(st.tuples(st.booleans(), st.integers(1, 50)), min_size=1))
def test_pieces_may_be_read_to_their_place(
    segments: list[Buffer], steps: list[tuple[bool, int]]
) -> None:
    stream = memoryview(b"".join(cut(segments, 1000)))
    assembly = Assembly(1, LIMIT, ignore)
    for direct, size in itertools.cycle(steps):
        if not stream:
            break
        room = assembly.room(min(size, len(stream))) if direct else None
        if room is None:
            assembly.add(stream[:size])
            stream = stream[size:]
        else:
            room[:] = stream[: len(room)]
            assembly.advance(len(room))
            stream = stream[len(room) :]
    assert plain(assembly.finish()) == plain(segments)


def test_the_last_byte_is_never_read_to_its_place() -> None:
    """Or the reader might still hold on to the memory of a segment that is done."""
    assembly = Assembly(1, LIMIT, ignore)
    assert assembly.room(10) is None
    (part,) = cut([bytes(10)], 1000)
    assembly.add(part[:-5])
    for missing in (4, 3, 2, 1):
        room = assembly.room(100)
        assert room is not None
        assert len(room) == missing
        assembly.advance(1)
    assert assembly.room(100) is None
    with pytest.raises(ValueError, match="more than its memory"):
        assembly.advance(1)
    assembly.add(b"\0")
    assert assembly.finish() == [bytes(10)]


def test_large_segments_are_not_copied() -> None:
    large = bytearray(1000)
    *_, last = pieces = list(cut([b"head", large], 100))
    assert [len(piece) for piece in pieces] == [4 + 2 * 8 + 4, *[100] * 10]
    assert all(type(p) is memoryview and p.obj is large for p in pieces[1:])
    assert len(last) == 100


def test_what_is_assembled_is_a_copy() -> None:
    buffer = bytearray(b"".join(cut([b"a", b"b", b"ccc"], 1000)))
    assembly = Assembly(1, LIMIT, ignore)
    assembly.add(memoryview(buffer))
    buffer[:] = b"?" * len(buffer)
    assert assembly.finish() == [b"a", b"b", b"ccc"]


@given(SEGMENTS, st.integers(1, 200))
def test_the_weight_grows_up_to_that_of_the_message(
    segments: list[bytes], size: int
) -> None:
    grown = [0]

    def account(before: int, after: int) -> None:
        assert before == grown[-1]
        grown.append(after)

    assembly = Assembly(1, LIMIT, account)
    for part in cut(segments, size):
        assembly.add(part)
        assert assembly.weight == grown[-1]
    assert grown == sorted(grown)
    assert grown[-1] == weigh(segments) + 4 + 8 * len(segments)


def test_memory_counts_before_it_is_taken() -> None:
    """A peer that lies about sizes is stopped before anything is allocated."""

    def account(before: int, after: int) -> None:
        if after > 5000:
            raise RemoteProtocolError("too many")

    assembly = Assembly(1, 1 << 62, account)
    with pytest.raises(RemoteProtocolError):
        assembly.add(make_table([b"x" * 6000]) + b"x")
    assert assembly._slot is None


def test_weight_of_a_message() -> None:
    assert weigh([]) == 0
    assert weigh([b"", b"abc"]) == 2 * 64 + 3


@given(SEGMENTS, st.integers(1, 200), st.data())
def test_incomplete_messages(
    segments: list[bytes], size: int, data: st.DataObject
) -> None:
    stream = b"".join(cut(segments, size))
    cut_at = data.draw(st.integers(0, len(stream) - 1))
    with pytest.raises(ValueError, match=r"missing|add up"):
        assembled([stream[:cut_at]])


@given(SEGMENTS, st.binary(min_size=1))
def test_more_than_a_message(segments: list[bytes], more: bytes) -> None:
    with pytest.raises(ValueError, match="do not add up"):
        assembled([*cut(segments, 50), more])


@given(st.lists(st.binary(max_size=30)))
def test_random_parts(parts: list[bytes]) -> None:
    try:
        found = assembled(parts)
    except ValueError:
        return
    assert b"".join(cut(found, 10)) == b"".join(parts)


def test_limit_of_bytes_counts_before_they_come() -> None:
    assembly = Assembly(1, 1000, ignore)
    with pytest.raises(ValueError, match="larger than allowed"):
        assembly.add(struct.pack("!IQQ", 2, 900, 101) + bytes(901))
    assert assembled(list(cut([bytes(900), bytes(100)], 64)), limit=1000)


def test_limit_of_segments() -> None:
    assert len(assembled(list(cut([b""] * 10, 64)), limit=640)) == 10
    with pytest.raises(ValueError, match="11 segments"):
        assembled(list(cut([b""] * 11, 64)), limit=640)


def test_a_segment_of_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="kind 3"):
        assembled([struct.pack("!IQ", 1, 3 << 62)])


def test_limit_of_a_message() -> None:
    check_size([bytes(100)], 100)
    check_size([b""] * 10, 640)
    for segments in ([bytes(101)], [b""] * 11):
        with pytest.raises(LocalProtocolError, match="is too large"):
            check_size(segments, 100)


class Way:
    """A segment that does not go in parts."""

    done = True

    def __init__(self, segment: memoryview) -> None:
        self.segment = segment
        self.size = len(segment)
        self.ends = 0
        self.times = 0

    def advance(self) -> int:
        return 0

    def frame(self, channel: int, seq: int, last: bool) -> Frame:
        return Lent(channel, seq, last, 1, self.size)

    def end(self) -> None:
        self.ends += 1


@given(TYPED, st.integers(1, 200), st.data())
def test_segments_that_go_another_way(
    segments: list[Buffer], size: int, data: st.DataObject
) -> None:
    asked = []

    def transfer(segment: memoryview) -> Way | None:
        asked.append(segment)
        return Way(segment) if len(segment) and data.draw(st.booleans()) else None

    assembly = Assembly(1, LIMIT, ignore)
    for step in cut(segments, size, transfer):
        if isinstance(step, Way):
            step.times += 1
            if step.times == 2:
                assembly.add_whole(step.segment)
        else:
            assert isinstance(step, bytes | bytearray | memoryview)
            assembly.add(step)
    found = assembly.finish()
    assert plain(found) == plain(segments)
    assert [type(s) for s in found] == [type(s) for s in segments]
    assert asked == [s for s in segments if type(s) is memoryview]


def test_a_way_ends_when_it_was_gone_or_given_up() -> None:
    ways: list[Way] = []

    def transfer(segment: memoryview) -> Way:
        ways.append(Way(segment))
        return ways[-1]

    segment = memoryview(bytearray(10))
    steps = cut([b"head", segment, segment, segment], 1000, transfer)
    assert not ways
    assert next(steps) is ways[0]
    assert isinstance(next(steps), bytes)
    assert next(steps) is ways[0]
    assert [way.ends for way in ways] == [0]
    # With nothing before it.
    assert next(steps) is next(steps) is ways[1]
    assert [way.ends for way in ways] == [1, 0]
    steps.close()
    assert [way.ends for way in ways] == [1, 1]
    # Also when what is before it has not even gone.
    steps = cut([segment], 1000, transfer)
    next(steps)
    steps.close()
    assert [way.ends for way in ways] == [1, 1, 1]


def test_whole_segments_where_they_do_not_belong() -> None:
    segment = memoryview(bytearray(10))
    for segments, before, problem in (
        ([segment], 3, "before the table"),
        ([segment, segment], 10 + 10 + 5, "amid another"),
        ([b"0123456789"], None, "for another segment"),
        ([memoryview(bytearray(9))], None, "for another segment"),
        ([memoryview(bytearray(11))], None, "for another segment"),
        ([b"", bytearray()], None, "too many"),
        ([], None, "too many"),
    ):
        stream = b"".join(cut(segments, 1000))
        table = 4 + 8 * len(segments)
        assembly = Assembly(1, LIMIT, ignore)
        assembly.add(stream[: table if before is None else before])
        with pytest.raises(ValueError, match=problem):
            assembly.add_whole(segment)


def test_no_memory_is_taken_for_what_comes_whole() -> None:
    segments = [b"head", bytearray(), memoryview(bytearray(1 << 20)), b""]
    assembly = Assembly(1, 1 << 30, ignore)
    assembly.add(b"".join(cut(segments, 1 << 30))[: 4 + 8 * 4 + 4])
    assembly.add_whole(segments[2])
    assert assembly._slot is None
    found = assembly.finish()
    assert found[2] is segments[2]
    assert plain(found) == plain(segments)
