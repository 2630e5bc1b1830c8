"""Two ends that share memory."""

from __future__ import annotations

import collections
import functools
import gc
import random
import weakref

import pytest

from academy.link import lending
from academy.link.frame import (
    Ack,
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
from academy.link.lending import State
from academy.link.parts import Transfer
from academy.link.sharing import SharedMemory
from academy.loan import lent
from tests.unit.link.memory import (
    COUNT,
    LEAST,
    MOST,
    SUM,
    FakeRegions,
    nothing_is_left,
    small,
)

__all__ = ["nothing_is_left", "small"]

pytestmark = pytest.mark.usefixtures("nothing_is_left", "small")


class End:
    """One end, with what it holds.

    Attributes:
        held: Views that it uses, and what is to be in them.
        kept: Views that it has passed back, but still refers to.
    """

    def __init__(self) -> None:
        self._wakes: list[None] = []
        self.regions = FakeRegions()
        self.memory = SharedMemory(
            self.regions, functools.partial(self._wakes.append, None)
        )
        self.line: collections.deque[Frame] = collections.deque()
        """What it has sent and the other end has not received."""
        self.coming: collections.deque[bytes] = collections.deque()
        """What is to be in the segments among that."""
        self.held: list[tuple[memoryview, bytearray]] = []
        self.kept: list[memoryview] = []

    @property
    def wakes(self) -> int:
        """How often it was told that a view has ended."""
        return len(self._wakes)

    def flush(self) -> None:
        self.line.extend(self.memory.take_frames())

    def send(self, segment: memoryview, *, owned: bool = False) -> type[Frame] | None:
        """Send a segment by shared memory; return how it went, if it did."""
        way = self.memory.transfer(segment, owned)
        if way is None:
            self.flush()
            return None
        self.pass_on(way, bytes(segment))
        return type(self.line[-1])

    def pass_on(self, way: Transfer, text: bytes) -> None:
        while not way.done:
            assert way.advance() > 0
        self.line.append(way.frame(1, 1, True))
        self.coming.append(text)
        way.end()

    def receive(self, other: End) -> None:
        """Take one frame of the other end."""
        frame = other.line.popleft()
        if isinstance(frame, Lent | Back):
            view = self.memory.view(frame)
            text = bytearray(other.coming.popleft())
            assert view == text
            self.held.append((view, text))
        else:
            assert isinstance(frame, Sharing)
            self.memory.receive(frame)
        self.flush()


class Ends:
    """Two ends."""

    def __init__(self) -> None:
        self.a, self.b = End(), End()

    def settle(self) -> None:
        """Let all that was said arrive."""
        for _ in range(10):
            for here, there in ((self.a, self.b), (self.b, self.a)):
                here.flush()
                while here.line:
                    there.receive(here)

    def ready(self, size: int = 100) -> None:
        """Let a have a region that is free."""
        assert self.a.send(text(size)) is None
        self.settle()


def text(size: int, seed: int = 1) -> memoryview:
    return memoryview(bytearray((seed + i) % 256 for i in range(size)))


def test_the_first_segment_makes_an_offer_and_the_second_one_uses_it() -> None:
    ends = Ends()
    assert ends.a.send(text(100)) is None
    (offer,) = ends.a.line
    assert isinstance(offer, Offer)
    assert offer.size == 2 * LEAST
    # No other one while there is no answer.
    assert ends.a.send(text(100)) is None
    ends.settle()
    assert len(ends.a.regions.made) == 1
    assert ends.a.regions.made[0].settled == 1
    assert ends.a.send(text(100)) is Lent
    ends.settle()
    assert ends.b.held[0][0] == text(100)


@pytest.mark.parametrize("size", [1, LEAST - 1, MOST + 1])
def test_sizes_that_are_not_lent(size: int) -> None:
    ends = Ends()
    for _ in range(3):
        assert ends.a.send(text(size)) is None
        ends.settle()
    assert not ends.a.regions.made


def test_a_region_is_used_again_when_it_was_returned() -> None:
    ends = Ends()
    ends.ready()
    for seed in range(10):
        assert ends.a.send(text(100, seed)) is Lent
        ends.settle()
        assert ends.b.wakes == seed
        assert ends.a.memory.lender.owned[1].state is State.LENT
        ends.b.held.clear()
        assert ends.b.wakes == seed + 1
        ends.settle()
        assert ends.a.memory.lender.owned[1].state is State.FREE


def test_what_was_lent_goes_back_uncopied() -> None:
    ends = Ends()
    ends.ready()
    ends.a.send(text(100))
    ends.settle()
    (view, _), *_ = ends.b.held
    assert ends.b.send(view[10:90], owned=True) is Back
    ends.b.held.clear()
    ends.a.receive(ends.b)
    (back, _), *_ = ends.a.held
    assert back == text(100)[10:90]
    back[0] = 0
    assert view[10] == 0
    # Neither the one end nor the other is enough.
    (own,) = ends.a.memory.lender.owned.values()
    del view
    ends.settle()
    assert own.state is State.BACK
    del back
    ends.a.held.clear()
    ends.settle()
    assert own.state is State.FREE


def test_it_may_end_first_where_it_went_back_to() -> None:
    ends = Ends()
    ends.ready()
    ends.a.send(text(100))
    ends.settle()
    view, _ = ends.b.held.pop()
    ends.b.send(view, owned=True)
    ends.settle()
    ends.a.held.clear()
    ends.settle()
    (own,) = ends.a.memory.lender.owned.values()
    assert own.state is State.BACK
    assert ends.a.send(text(100)) is None
    del view
    ends.settle()
    assert own.state is State.FREE


def test_what_is_not_only_the_messages_is_copied() -> None:
    ends = Ends()
    ends.ready()
    ends.a.send(text(100))
    ends.settle()
    (view, _), *_ = ends.b.held
    assert ends.b.send(view) is None
    ends.settle()
    assert ends.b.send(view) is Lent
    ends.settle()
    assert ends.a.held[-1][0] == text(100)


def test_it_goes_back_once() -> None:
    ends = Ends()
    ends.ready(200)
    ends.a.send(text(200))
    ends.settle()
    view, _ = ends.b.held.pop()
    assert ends.b.send(view[:100], owned=True) is Back
    assert ends.b.send(view[100:], owned=True) is None


def test_it_may_go_back_when_the_first_attempt_was_given_up() -> None:
    ends = Ends()
    ends.ready()
    ends.a.send(text(100))
    ends.settle()
    view, _ = ends.b.held.pop()
    way = ends.b.memory.transfer(view, True)
    assert way is not None
    assert ends.b.memory.borrower.pass_back(view) is None
    way.end()
    assert ends.b.send(view, owned=True) is Back
    way.end()


def test_a_copy_that_is_given_up_leaves_the_region_free() -> None:
    ends = Ends()
    ends.ready()
    way = ends.a.memory.transfer(text(100), False)
    assert way is not None
    way.advance()
    assert ends.a.send(text(100)) is None
    way.end()
    assert ends.a.send(text(100)) is Lent
    way.end()
    assert ends.a.send(text(100)) is None


def test_a_refusal_is_the_last_word() -> None:
    ends = Ends()
    ends.b.regions.refuses = True
    ends.ready()
    ends.b.regions.refuses = False
    assert ends.a.memory.lender.refused
    assert not ends.a.memory.lender.owned
    assert ends.a.regions.made[0].settled == 1
    for _ in range(3):
        assert ends.a.send(text(100)) is None
        ends.settle()
    assert len(ends.a.regions.made) == 1


def test_no_room_for_a_region() -> None:
    ends = Ends()
    ends.a.regions.fails = True
    ends.ready()
    ends.a.regions.fails = False
    assert ends.a.send(text(100)) is None
    assert not ends.a.line


def test_limits_of_who_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "STALE", 100)
    ends = Ends()
    for _ in range(20):
        ends.a.send(text(MOST))
        ends.settle()
    assert sum(made.size for made in ends.a.regions.made) == SUM
    assert len(ends.b.held) == SUM // MOST
    ends = Ends()
    for _ in range(20):
        ends.a.send(text(LEAST))
        ends.settle()
    assert len(ends.a.regions.made) == len(ends.b.held) == COUNT


def test_limits_of_who_accepts() -> None:
    ends = Ends()
    made = FakeRegions()
    answers = []
    for number, size in enumerate(
        [LEAST - 1, LEAST + 1, 0, MOST + LEAST, *[MOST] * 5, LEAST], 1
    ):
        region = made.create(size or 1)
        ends.b.memory.receive(Offer(number, 3, size, region.inode))
        answers += ends.b.memory.take_frames()
    kinds = [Unmapped] * 4 + [Mapped] * 4 + [Unmapped] * 2
    assert answers == [kind(number) for number, kind in enumerate(kinds, 1)]


def test_stale_regions_make_room_for_others() -> None:
    ends = Ends()
    for size in (MOST, MOST):
        ends.ready(size)
        assert ends.a.send(text(size)) is Lent
    ends.settle()
    ends.b.held.clear()
    ends.settle()
    sent = 0
    while ends.a.send(text(LEAST)) is None:
        ends.settle()
        sent += 1
    assert 5 < sent < 15
    sizes = [own.region.size for own in ends.a.memory.lender.owned.values()]
    assert sorted(sizes) == [LEAST, MOST]
    assert len(ends.b.memory.borrower.opened) == 2


def send_much(ends: Ends, segments: int = 60) -> None:
    for number in range(segments):
        ends.a.send(text(MOST, number))
        ends.settle()
        owned = ends.a.memory.lender.owned.values()
        assert sum(own.region.size for own in owned) <= SUM
    for end in (ends.a, ends.b):
        assert all(view == content for view, content in end.held)


def test_what_is_kept_is_left_to_who_keeps_it() -> None:
    ends = Ends()
    send_much(ends)
    assert len(ends.b.held) > 2 * SUM // MOST
    assert len(ends.b.memory.borrower.opened) <= SUM // MOST
    ends.b.held.clear()
    ends.settle()
    assert ends.a.send(text(MOST)) is Lent


def test_what_came_back_and_is_kept_is_forgotten() -> None:
    ends = Ends()
    for _ in range(2):
        ends.ready(MOST)
        ends.a.send(text(MOST))
        ends.settle()
        view, _ = ends.b.held.pop()
        ends.b.send(view, owned=True)
        del view
        ends.settle()
    assert len(ends.a.held) == 2
    send_much(ends)
    assert len(ends.a.held) == 2


def left(ends: Ends) -> None:
    """Let a say that b may keep what it has; b has not heard it."""
    ends.ready(MOST)
    assert ends.a.send(text(MOST)) is Lent
    ends.settle()
    ends.a.memory.lender._asked += 100
    for _ in range(2):
        assert ends.a.send(text(MOST)) is None
        if isinstance(ends.a.line[-1], Offer):
            ends.settle()
            assert ends.a.send(text(MOST)) is Lent
            ends.settle()
    assert list(ends.a.line) == [Dropped(1)]


def test_what_is_left_may_just_be_returned() -> None:
    ends = Ends()
    left(ends)
    ends.b.held.pop(0)
    ends.b.flush()
    assert list(ends.b.line) == [Returned(1)]
    ends.settle()
    assert 1 not in ends.a.memory.lender.owned
    assert 1 not in ends.b.memory.borrower.opened


@pytest.mark.parametrize("gone", [False, True])
def test_what_is_left_may_just_go_back(gone: bool) -> None:
    ends = Ends()
    left(ends)
    view, content = ends.b.held.pop(0)
    way = ends.b.memory.transfer(view, True)
    assert way is not None
    if gone:
        ends.b.pass_on(way, bytes(content))
    ends.b.receive(ends.a)
    with pytest.raises(RemoteProtocolError, match="the second end of region 1"):
        ends.b.memory.receive(Dropped(1))
    if not gone:
        ends.b.pass_on(way, bytes(content))
    del view, way
    ends.settle()
    assert ends.a.held[0][0] == content
    assert 1 not in ends.a.memory.lender.owned
    assert 1 not in ends.b.memory.borrower.opened
    ends.a.held.clear()
    ends.settle()


def test_what_is_left_may_not_go_back_after_all() -> None:
    ends = Ends()
    left(ends)
    view, _ = ends.b.held.pop(0)
    way = ends.b.memory.transfer(view, True)
    assert way is not None
    ends.b.receive(ends.a)
    way.end()
    assert ends.b.send(view, owned=True) is None
    del view, way
    ends.settle()
    assert 1 not in ends.a.memory.lender.owned
    assert 1 not in ends.b.memory.borrower.opened


def test_a_region_that_is_much_too_large_is_not_taken() -> None:
    ends = Ends()
    ends.ready(MOST)
    assert ends.a.send(text(MOST // 2 - 1)) is None
    assert ends.a.send(text(MOST // 2)) is Lent


def test_what_nobody_uses_is_dropped() -> None:
    ends = Ends()
    ends.ready()
    ends.a.memory.sweep()
    assert ends.a.memory.lender.owned
    assert ends.a.send(text(100)) is Lent
    ends.settle()
    for _ in range(3):
        ends.a.memory.sweep()
    assert ends.a.memory.lender.owned
    ends.b.held.clear()
    ends.settle()
    ends.a.memory.sweep()
    ends.a.memory.sweep()
    ends.settle()
    assert not ends.a.memory.lender.owned
    assert not ends.b.memory.borrower.opened


def test_after_the_end_of_the_connection_views_stay_and_nothing_is_said() -> None:
    ends = Ends()
    ends.ready()
    ends.a.send(text(100))
    ends.settle()
    ends.ready()
    ends.a.memory.close()
    ends.b.memory.close()
    assert ends.b.held[0][0] == text(100)
    wakes = ends.b.wakes
    ends.b.held.clear()
    assert ends.b.wakes == wakes
    assert not ends.b.memory.has_output
    assert ends.a.send(text(100)) is None
    assert all(made.settled for made in ends.a.regions.made)


def test_views_that_are_in_a_cycle_with_who_has_them() -> None:
    ends = Ends()
    ends.ready()
    ends.a.send(text(100))
    ends.settle()
    gone = weakref.ref(ends.b)
    assert len(lent()) == 1
    ends.b.memory.itself = ends.b.memory  # type: ignore[attr-defined]
    del ends
    gc.collect()
    assert gone() is None
    assert not lent()


def test_what_is_to_be_said() -> None:
    ends = Ends()
    assert not ends.a.memory.has_output
    ends.a.memory.transfer(text(100), False)
    assert ends.a.memory.has_output
    ends.settle()
    assert not ends.a.memory.has_output
    ends.a.send(text(100))
    ends.settle()
    assert not ends.b.memory.has_output
    ends.b.held.clear()
    assert ends.b.memory.has_output
    assert ends.b.memory.take_frames() == [Returned(1)]


WRONG: list[tuple[str, list[Frame]]] = [
    ("never offered", [Mapped(5)]),
    ("never offered", [Unmapped(5)]),
    ("never offered", [Returned(5)]),
    ("never offered", [Back(1, 1, True, 5, 10, 0)]),
    ("not open", [Lent(1, 1, True, 5, 10)]),
    ("not open", [Dropped(5)]),
    ("a second answer", [Mapped(1)]),
    ("not lent", [Returned(1)]),
    ("does not have", [Back(1, 1, True, 1, 10, 0)]),
    ("of no message", [Ack(((1, 1),))]),
]
LATER: list[tuple[str, list[Frame]]] = [
    ("more of region", [Back(1, 1, True, 1, 101, 0)]),
    ("more of region", [Back(1, 1, True, 1, 0, 0)]),
    ("more of region", [Back(1, 1, True, 1, 10, 91)]),
    ("more of region", [Back(1, 1, True, 1, 2**63, 2**64 - 1)]),
    ("does not have", [Back(1, 1, True, 1, 9, 0), Back(1, 1, True, 1, 9, 0)]),
    ("not lent", [Returned(1), Returned(1)]),
    ("does not have", [Returned(1), Back(1, 1, True, 1, 9, 0)]),
]


def receive_all(memory: SharedMemory, frames: list[Frame]) -> None:
    views = []
    for frame in frames:
        if isinstance(frame, Lent | Back):
            views.append(memory.view(frame))
        else:
            memory.receive(frame)  # type: ignore[arg-type]


@pytest.mark.parametrize(("problem", "frames"), WRONG)
def test_what_does_not_fit(problem: str, frames: list[Frame]) -> None:
    ends = Ends()
    ends.ready()
    with pytest.raises(RemoteProtocolError, match=problem):
        receive_all(ends.a.memory, frames)


@pytest.mark.parametrize(("problem", "frames"), LATER)
def test_what_does_not_fit_to_a_loan(problem: str, frames: list[Frame]) -> None:
    ends = Ends()
    ends.ready()
    ends.a.send(text(100))
    ends.settle()
    with pytest.raises(RemoteProtocolError, match=problem):
        receive_all(ends.a.memory, frames)


@pytest.mark.parametrize(
    ("problem", "frames"),
    [
        ("region 1 after 1", [Offer(1, 3, LEAST, 1)]),
        ("more than region 1", [Lent(1, 1, True, 1, 2 * LEAST + 1)]),
        ("more than region 1", [Lent(1, 1, True, 1, 0)]),
        ("which is lent", [Lent(1, 1, True, 1, 9), Lent(1, 1, True, 1, 9)]),
        ("not open", [Lent(1, 1, True, 1, 9), Dropped(1), Dropped(1)]),
    ],
)
def test_what_a_borrower_refuses(problem: str, frames: list[Frame]) -> None:
    ends = Ends()
    ends.ready()
    with pytest.raises(RemoteProtocolError, match=problem):
        receive_all(ends.b.memory, frames)


class Walk:
    """Two ends that do what chance says."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.ends = Ends()
        self.begun: list[tuple[End, Transfer, memoryview]] = []
        self.ways: collections.Counter[object] = collections.Counter()
        self.acts = [
            *(self.send, self.carry, self.carry, self.drop, self.answer, self.write),
            *(self.begin, self.go_on, self.give_up, self.forget),
            self.pass_on_a_copy,
        ]

    def step(self) -> None:
        a, b = self.ends.a, self.ends.b
        here, there = self.chance.choice([(a, b), (b, a)])
        self.chance.choice(self.acts)(here, there)
        if self.chance.random() < 0.01:
            here.memory.sweep()
        self.check()

    def size(self) -> int:
        return self.chance.choice([LEAST, 100, 300, 500, MOST])

    def send(self, here: End, there: End) -> None:
        segment = text(self.size(), self.chance.randrange(256))
        self.ways[here.send(segment)] += 1
        # Its owner goes on.
        segment[:] = bytes(len(segment))

    def carry(self, here: End, there: End) -> None:
        for _ in range(self.chance.randrange(1, 10)):
            here.flush()
            if here.line:
                there.receive(here)

    def drop(self, here: End, there: End) -> None:
        if here.held:
            here.held.pop(self.chance.randrange(len(here.held)))

    def forget(self, here: End, there: End) -> None:
        here.kept.clear()

    def answer(self, here: End, there: End) -> None:
        if here.held:
            view, _ = here.held.pop(self.chance.randrange(len(here.held)))
            self.ways[here.send(view, owned=True)] += 1
            here.kept.append(view)

    def pass_on_a_copy(self, here: End, there: End) -> None:
        if here.held:
            view, _ = self.chance.choice(here.held)
            self.ways["of a loan", here.send(view)] += 1

    def write(self, here: End, there: End) -> None:
        if here.held:
            view, found = self.chance.choice(here.held)
            view[0] = found[0] = self.chance.randrange(256)

    def begin(self, here: End, there: End) -> None:
        segment = text(self.size(), self.chance.randrange(256))
        owned = bool(here.held) and self.chance.random() < 0.3
        if owned:
            segment, _ = here.held.pop(self.chance.randrange(len(here.held)))
        way = here.memory.transfer(segment, owned)
        if way is not None:
            self.begun.append((here, way, segment))

    def go_on(self, here: End, there: End) -> None:
        for index, (end, way, segment) in enumerate(self.begun):
            if end is here:
                way.advance()
                if way.done:
                    del self.begun[index]
                    end.pass_on(way, bytes(segment))
                    end.kept.append(segment)
                    self.ways["slowly"] += 1
                return

    def give_up(self, here: End, there: End) -> None:
        if self.begun and self.chance.random() < 0.3:
            _, way, _ = self.begun.pop()
            way.end()
            self.ways["given up"] += 1

    def check(self) -> None:
        for end in (self.ends.a, self.ends.b):
            for view, content in end.held:
                assert view == content
            owned = end.memory.lender.owned.values()
            assert sum(own.region.size for own in owned) <= SUM
            assert len(owned) <= COUNT

    def finish(self) -> None:
        while self.begun:
            self.begun.pop()[1].end()
        for _ in range(3):
            for end in (self.ends.a, self.ends.b):
                end.held.clear()
                end.kept.clear()
            self.ends.settle()
        for here, there in ((self.ends.a, self.ends.b), (self.ends.b, self.ends.a)):
            owned = here.memory.lender.owned
            assert {own.state for own in owned.values()} <= {State.FREE}
            opened = there.memory.borrower.opened
            assert set(owned) == set(opened)
            assert not any(foreign.lent for foreign in opened.values())


def test_nobody_ever_sees_what_somebody_else_writes() -> None:
    ways: collections.Counter[object] = collections.Counter()
    for seed in range(60):
        walk = Walk(seed)
        for _ in range(400):
            walk.step()
        walk.finish()
        ways += walk.ways
    # Nothing of this is rare.
    for way in (Lent, Back, None, "slowly", "given up", ("of a loan", Lent)):
        assert ways[way] > 100, ways
