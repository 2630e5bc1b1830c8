"""Large messages take turns, and memory that may change is whole or not sent."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.link.frame import Buffer, Frame, Lent, Part
from academy.link.part_queue import TAIL, PartQueue
from academy.link.parts import Assembly

SEGMENTS = st.lists(st.binary(max_size=60), max_size=12)
LIMIT = 10_000


def ignore(before: int, after: int) -> None:
    """Keep no account."""


def assembled(parts: Sequence[Buffer]) -> list[Buffer]:
    assembly = Assembly(1, 1 << 30, ignore)
    for part in parts:
        assembly.add(part)
    return assembly.finish()


def messages(parts: Sequence[Part]) -> list[tuple[int, int]]:
    return [(part.channel, part.seq) for part in parts]


def test_parts_of_channels_go_in_turn() -> None:
    queue = PartQueue(size=10, limit=1000)
    for channel in (1, 2, 3):
        queue.add(channel, 5, [bytes(22)])
    assert queue
    assert 2 in queue.messages
    assert [p.channel for p in queue.take(10_000)] == [1, 2, 3] * 5
    assert not queue.messages


def test_messages_of_a_channel_keep_their_order() -> None:
    queue = PartQueue(size=20, limit=1000)
    queue.add(1, 5, [bytes(12)])
    queue.add(1, 6, [b"x"])
    queue.add(2, 1, [b"y"])
    parts = queue.take(10_000)
    assert messages(parts) == [(1, 5), (2, 1), (1, 5), (1, 6)]
    assert [part.last for part in parts] == [False, True, True, True]
    assert 1 not in queue.messages


def test_the_budget_is_kept_to_the_part() -> None:
    queue = PartQueue(size=20, limit=1000)
    queue.add(1, 1, [bytes(200)])
    assert len(queue.take(0)) == 0
    assert len(queue.take(1)) == 1
    assert len(queue.take(40)) == 2
    assert len(queue.take(41)) == 3


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
    assert order == [1] * 12 + [2, 2]


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
        assembly = assemblies.setdefault(
            part.channel, Assembly(part.seq, LIMIT, ignore)
        )
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


class TestLentMemory:
    SIZE = 4 * TAIL

    def queue(self, text: bytearray) -> PartQueue:
        queue = PartQueue(self.SIZE, 1 << 30)
        queue.add(1, 1, [b"head", text], lent=True)
        return queue

    @pytest.mark.parametrize("more", [-1, 0, 1, TAIL, TAIL + 1])
    def test_the_last_part_is_a_small_copy(self, more: int) -> None:
        text = bytearray(range(256)) * (TAIL // 32) + bytearray(abs(more))
        queue = self.queue(text)
        parts: list[Part] = []
        while queue.messages:
            parts += queue.take(1)
        assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
        assert type(parts[-1].data) is bytes
        assert len(parts[-1].data) <= TAIL
        assert assembled([p.data for p in parts]) == [b"head", text]

    def test_the_last_part_waits_until_the_others_are_written(self) -> None:
        queue = self.queue(bytearray(2 * self.SIZE))
        queue.add(2, 1, [bytes(self.SIZE)])
        parts = queue.take(1 << 30)
        assert queue.waits_for_end
        assert not any(part.last for part in parts if part.channel == 1)
        # Nothing large goes meanwhile: it would put that off.
        assert queue.take(1 << 30, drained=False) == []
        first, *_ = queue.take(1 << 30)
        assert (first.channel, first.last) == (1, True)
        assert not queue.messages

    def test_taken_back_before_it_was_begun(self) -> None:
        queue = self.queue(bytearray(self.SIZE))
        queue.add(1, 2, [b"next"])
        assert queue.take_back(1, 1) is False
        assert messages(queue.take(1 << 30)) == [(1, 2)]
        assert not queue.messages

    def test_taken_back_behind_another(self) -> None:
        queue = PartQueue(self.SIZE, 1 << 30)
        queue.add(1, 1, [b"first"])
        queue.add(1, 2, [bytearray(self.SIZE)], lent=True)
        assert queue.take_back(1, 2) is False
        assert messages(queue.take(1 << 30)) == [(1, 1)]

    def test_taken_back_amid_its_parts(self) -> None:
        queue = PartQueue(self.SIZE, 2 * self.SIZE)
        queue.add(1, 1, [bytearray(2 * self.SIZE)], lent=True)
        queue.add(1, 2, [b"next"])
        queue.add(2, 1, [bytearray(self.SIZE)])
        queue.take(1)
        assert queue.take_back(1, 1) is True
        assert queue.take_back(1, 1) is None
        found = queue.take(1 << 30)
        assert {(1, 2), (2, 1)} == set(messages(found))
        assert not queue.messages
        assert queue._begun == 0

    def test_too_late(self) -> None:
        queue = self.queue(bytearray(10))
        queue.take(1 << 30)
        assert queue.take_back(1, 1) is None


LARGE = 2 * TAIL


class Way:
    """A segment that is copied in two steps, of which each is worth a part."""

    def __init__(self, segment: memoryview, owned: bool) -> None:
        self.size = len(segment)
        self.owned = owned
        self.steps = 0
        self.gone = False
        self.ended = False

    @property
    def done(self) -> bool:
        return self.steps == 2

    def advance(self) -> int:
        self.steps += 1
        return 100

    def frame(self, channel: int, seq: int, last: bool) -> Frame:
        self.gone = True
        return Lent(channel, seq, last, 1, self.size)

    def end(self) -> None:
        self.ended = True


class Ways:
    """Where large segments go otherwise."""

    def __init__(self) -> None:
        self.ways: list[Way] = []

    def transfer(self, segment: memoryview, owned: bool) -> Way | None:
        if len(segment) < 500:
            return None
        self.ways.append(Way(segment, owned))
        return self.ways[-1]


class TestOtherWays:
    def queue(self, **how: bool) -> tuple[PartQueue, Ways]:
        ways = Ways()
        queue = PartQueue(100, 1 << 20, ways)
        segments = [b"head", memoryview(bytearray(700)), b"end"]
        queue.add(1, 1, segments, **how)
        return queue, ways

    def test_it_is_copied_step_by_step_and_goes_with_what_is_before_it(self) -> None:
        queue, ways = self.queue()
        found: list[list[Frame]] = []
        while queue.messages:
            found.append(queue.take(1))
        *nothing, head, lent, end = found
        assert nothing == [[], []]
        assert isinstance(head[0], Part)
        assert lent == [Lent(1, 1, False, 1, 700)]
        assert isinstance(end[0], Part)
        assert (bytes(end[0].data), end[0].last) == (b"end", True)
        (way,) = ways.ways
        assert way.gone
        assert way.ended
        assert not way.owned
        queue, _ = self.queue()
        for _ in range(2):
            queue.take(1)
        assert [type(frame) for frame in queue.take(1 << 20)] == [Part, Lent, Part]

    def test_nothing_before_it(self) -> None:
        queue = PartQueue(40, 1 << 20, Ways())
        # The table and the head fill a part.
        queue.add(1, 1, [bytes(40 - 4 - 16), memoryview(bytearray(700))])
        frames = queue.take(1 << 20)
        assert [type(frame) for frame in frames] == [Part, Lent]
        assert not queue.messages

    def test_others_take_turns_with_it(self) -> None:
        queue, _ = self.queue(owned=True)
        queue.add(2, 1, [bytes(350)])
        found = [queue.take(1) for _ in range(9)]
        kinds = [
            f"{frames[0].channel} {type(frames[0]).__name__}" if frames else ""  # type: ignore[union-attr]
            for frames in found
        ]
        second = ["2 Part"] * 4
        assert kinds[1::2] == second
        assert kinds[::2] == ["", "", "1 Part", "1 Lent", "1 Part"]

    def test_whether_it_is_the_messages_own(self) -> None:
        queue, ways = self.queue(owned=True)
        queue.take(1 << 20)
        assert ways.ways[0].owned

    @pytest.mark.parametrize("taken", [1, 2, 3])
    @pytest.mark.parametrize("drop", [False, True])
    def test_given_up_amid_it(self, taken: int, drop: bool) -> None:
        queue, ways = self.queue()
        queue.add(1, 2, [b"next"])
        for _ in range(taken):
            queue.take(1)
        if drop:
            queue.drop(1)
        else:
            assert queue.take_back(1, 1) is (taken > 2)
            assert messages(queue.take(1 << 20)) == [(1, 2)]
        assert not queue.messages
        assert all(way.ended for way in ways.ways)
        assert not any(way.gone for way in ways.ways)

    def test_what_may_change_ends_when_all_else_is_written(self) -> None:
        ways = Ways()
        queue = PartQueue(200, 1 << 20, ways)
        segments = [bytes(90), memoryview(bytearray(490)), memoryview(bytearray(LARGE))]
        queue.add(1, 1, segments, lent=True)
        frames = queue.take(1 << 20)
        assert all(isinstance(frame, Part) for frame in frames)
        assert ways.ways[0].done
        assert queue.waits_for_end
        assert queue.take(1 << 20, drained=False) == []
        assert queue.take(1 << 20) == [Lent(1, 1, True, 1, LARGE)]

    def test_what_is_all_copied_need_not_wait(self) -> None:
        queue = PartQueue(TAIL, 1 << 20, Ways())
        queue.add(1, 1, [bytearray(90), memoryview(bytearray(LARGE))], lent=True)
        frames = queue.take(1 << 20, drained=False)
        assert [type(frame) for frame in frames] == [Part, Lent]

    def test_what_follows_may_be_the_end(self) -> None:
        queue = PartQueue(TAIL, 1 << 20, Ways())
        queue.add(1, 1, [memoryview(bytearray(LARGE)), bytearray(b"end")], lent=True)
        frames = queue.take(1 << 20)
        assert isinstance(frames[-1], Lent)
        assert queue.waits_for_end
        (end,) = queue.take(1 << 20)
        assert isinstance(end, Part)
        assert type(end.data) is bytes
