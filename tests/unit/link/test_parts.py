from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.link.frame import Buffer, Part
from academy.link.parts import Assembly, PartQueue, cut, weigh

SEGMENTS = st.lists(st.binary(max_size=60), max_size=12)
LIMIT = 10_000


def assembled(parts: Sequence[Buffer], limit: int = LIMIT) -> list[bytes | bytearray]:
    assembly = Assembly(1, limit)
    for part in parts:
        assembly.add(part)
    return assembly.finish()


@given(SEGMENTS, st.integers(1, 200))
def test_round_trip(segments: list[bytes], size: int) -> None:
    parts = list(cut(segments, size))
    assert all(len(p) == size for p in parts[:-1])
    assert 0 < len(parts[-1]) <= size
    found = assembled(parts)
    assert found == segments
    assert [type(s) for s in found] == [bytes] * len(found[:2]) + [bytearray] * len(
        found[2:]
    )


@given(SEGMENTS, st.integers(1, 200), st.integers(1, 200))
def test_the_sizes_of_parts_do_not_matter(
    segments: list[bytes], size: int, other: int
) -> None:
    stream = b"".join(cut(segments, size))
    parts = [stream[i : i + other] for i in range(0, len(stream), other)]
    assert assembled(parts) == segments


def test_large_segments_are_not_copied() -> None:
    large = bytearray(1000)
    pieces = [p for p in cut([b"head", large], 100) if isinstance(p, memoryview)]
    assert len(pieces) >= 9
    assert all(piece.obj is large for piece in pieces)


def test_what_is_assembled_is_a_copy() -> None:
    buffer = bytearray(b"".join(cut([b"a", b"b", b"ccc"], 1000)))
    assembly = Assembly(1, LIMIT)
    assembly.add(memoryview(buffer))
    buffer[:] = b"?" * len(buffer)
    assert assembly.finish() == [b"a", b"b", b"ccc"]


@given(SEGMENTS, st.integers(1, 200))
def test_the_weight_grows_up_to_that_of_the_message(
    segments: list[bytes], size: int
) -> None:
    assembly = Assembly(1, LIMIT)
    weights = []
    for part in cut(segments, size):
        assembly.add(part)
        weights.append(assembly.weight)
    assert weights == sorted(weights)
    assert weights[-1] == weigh(segments) + 4 * (1 + len(segments))


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
    assembly = Assembly(1, 1000)
    with pytest.raises(ValueError, match="larger than allowed"):
        assembly.add(struct.pack("!III", 2, 900, 101) + bytes(901))
    assert assembled(list(cut([bytes(900), bytes(100)], 64)), limit=1000)


def test_limit_of_segments() -> None:
    assert len(assembled(list(cut([b""] * 10, 64)), limit=640)) == 10
    with pytest.raises(ValueError, match="11 segments"):
        assembled(list(cut([b""] * 11, 64)), limit=640)


def test_nothing_is_allocated_from_a_length() -> None:
    assembly = Assembly(1, 1 << 32)
    assembly.add(struct.pack("!II", 1, 0xFFFFFFFF) + b"abc")
    assert assembly._open.__sizeof__() < 200


def messages(parts: Sequence[Part]) -> list[tuple[int, int]]:
    return [(part.channel, part.seq) for part in parts]


def test_parts_of_channels_go_in_turn() -> None:
    queue = PartQueue(size=10, limit=1000)
    for channel in (1, 2, 3):
        queue.add(channel, 5, [bytes(22)])
    assert queue
    assert 2 in queue.messages
    assert [p.channel for p in queue.take(10_000)] == [1, 2, 3] * 3
    assert not queue.messages


def test_messages_of_a_channel_keep_their_order() -> None:
    queue = PartQueue(size=10, limit=1000)
    queue.add(1, 5, [bytes(12)])
    queue.add(1, 6, [b"x"])
    queue.add(2, 1, [b"y"])
    parts = queue.take(10_000)
    assert messages(parts) == [(1, 5), (2, 1), (1, 5), (1, 6)]
    assert [part.last for part in parts] == [False, True, True, True]
    assert 1 not in queue.messages


def test_the_budget_is_kept_to_the_part() -> None:
    queue = PartQueue(size=10, limit=1000)
    queue.add(1, 1, [bytes(100)])
    assert len(queue.take(0)) == 0
    assert len(queue.take(1)) == 1
    assert len(queue.take(20)) == 2
    assert len(queue.take(21)) == 3


def test_only_so_many_messages_are_begun() -> None:
    queue = PartQueue(size=10, limit=400)
    for channel in (1, 2, 3, 4):
        queue.add(channel, 1, [bytes(100)])  # weighs 172
    parts = queue.take(100_000)
    order = [p.channel for p in parts]
    assert order[:4] == [1, 2, 1, 2]
    first_end = next(i for i, p in enumerate(parts) if p.last)
    assert order.index(3) == first_end + 1 or order.index(3) == first_end + 2
    unfinished, worst = set(), 0
    for part in parts:
        unfinished.add(part.channel)
        worst = max(worst, len(unfinished))
        if part.last:
            unfinished.remove(part.channel)
    assert worst == 2


def test_a_message_above_the_limit_goes_alone() -> None:
    queue = PartQueue(size=10, limit=50)
    queue.add(1, 1, [bytes(100)])
    queue.add(2, 1, [b"small"])
    order = [p.channel for p in queue.take(100_000)]
    assert order == [1] * 11 + [2, 2]


def test_dropping_a_channel_makes_room() -> None:
    queue = PartQueue(size=10, limit=200)
    for channel in (1, 2):
        queue.add(channel, 1, [bytes(100)])
    queue.take(30)
    queue.drop(1)
    assert {p.channel for p in queue.take(100_000)} == {2}
    queue.drop(2)
    assert not queue.messages


def test_dropping_a_channel_that_waits() -> None:
    queue = PartQueue(size=10, limit=10)
    for channel in (1, 2):
        queue.add(channel, 1, [bytes(100)])
    queue.take(10)
    queue.drop(2)
    assert 2 not in queue.messages
    assert {p.channel for p in queue.take(100_000)} == {1}


@given(
    st.lists(st.tuples(st.integers(1, 4), SEGMENTS), max_size=12),
    st.integers(1, 100),
    st.integers(1, 2000),
    st.lists(st.integers(0, 300), min_size=1),
)
def test_any_interleaving_joins_again(
    sent: list[tuple[int, list[bytes]]], size: int, limit: int, budgets: list[int]
) -> None:
    queue = PartQueue(size, limit)
    for seq, (channel, segments) in enumerate(sent, 1):
        queue.add(channel, seq, segments)
    parts: list[Part] = []
    for budget in budgets:
        parts += queue.take(budget)
    parts += queue.take(1 << 30)
    assemblies: dict[int, Assembly] = {}
    found: dict[int, list[tuple[int, list[bytes | bytearray]]]] = {}
    for part in parts:
        assembly = assemblies.setdefault(part.channel, Assembly(part.seq, LIMIT))
        assert assembly.seq == part.seq
        assembly.add(part.data)
        assert sum(a.weight for a in assemblies.values()) <= max(limit, assembly.weight)
        if part.last:
            del assemblies[part.channel]
            found.setdefault(part.channel, []).append((part.seq, assembly.finish()))
    assert not assemblies
    for channel in found:
        mine = [(s, segs) for s, (c, segs) in enumerate(sent, 1) if c == channel]
        assert found[channel] == mine
    assert sum(map(len, found.values())) == len(sent)
