from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.exchange.flight import Room
from academy.exchange.outbox import (
    BARRIER_TIMEOUT,
    DIRECT_TIMEOUT,
    RECONNECT_GRACE,
    SLOW,
    UNREACHABLE_TIMEOUT,
    Outbox,
)
from academy.exchange.parcel import Append, Effect, GiveUp, Parcel, Refuse, SendDirect
from academy.exchange.stream import REPLIES, REQUESTS, SendStream

X, Y = 700, 701
"""Two incarnations of the destination."""


def outbox(window: int = 0, size: int = 1000) -> Outbox:
    return Outbox(SendStream("aKEY", 7, REQUESTS), window, size)


def submit(box: Outbox, now: float = 0.0, size: int = 3) -> tuple[Parcel, list[Effect]]:
    parcel, effects = box.submit("q", b"tag", [b"x" * (size - 1), b"y"], now)
    return parcel, [SendDirect(parcel)] if effects is None else effects


def direct(effects: list[Effect]) -> list[int]:
    """Numbers of what is sent directly, if that is all."""
    assert all(isinstance(e, SendDirect) for e in effects)
    return [e.parcel.seq for e in effects]


def appends(effects: list[Effect]) -> list[tuple[int, int]]:
    """Numbers and stamps of what is appended, if that is all."""
    assert all(isinstance(e, Append) for e in effects)
    return [(e.parcel.seq, e.stamp) for e in effects if isinstance(e, Append)]


def linked(count: int, inc: int = X) -> tuple[Outbox, list[Parcel]]:
    """An outbox that has sent so many messages directly."""
    box = outbox()
    assert box.channel_open(inc, 0, 0.0) == []
    return box, [submit(box)[0] for _ in range(count)]


def test_without_a_channel_messages_are_appended() -> None:
    box = outbox()
    assert (box.incarnation, box.is_direct) == (0, False)
    first, effects = submit(box)
    assert appends(effects) == [(1, 0)]
    second, effects = submit(box)
    assert appends(effects) == [(2, 0)]
    assert (len(box), box.stream.relayed) == (2, 2)
    assert first.kept
    assert box.appended(first, 0.0, arrived=True) == []
    assert not first.kept
    assert first.segments == ()
    assert box.appended(second, 0.0, arrived=True) == []
    assert (len(box), box.stream.relayed) == (0, 2)


def test_a_parcel_is_what_was_submitted() -> None:
    parcel, _ = outbox().submit("q", b"tag", [b"abc", b"de"], 4.5)
    assert (parcel.seq, parcel.kind, parcel.tag) == (1, "q", b"tag")
    assert (list(parcel.segments), parcel.size, parcel.since) == (
        [b"abc", b"de"],
        5,
        4.5,
    )
    assert (parcel.inc, parcel.fresh, parcel.kept) == (0, True, True)
    assert parcel.note is None
    parcel.note = "secret"
    assert "secret" not in repr(parcel)


def test_on_a_channel_messages_go_directly_and_stay_until_they_are_confirmed() -> None:
    box, (first, second, third) = linked(3)
    assert (box.incarnation, box.is_direct, box.unconfirmed) == (X, True, 3)
    assert [p.inc for p in (first, second, third)] == [X, X, X]
    assert box.taken(2, 0.0) == ([first, second], [])
    assert [p.kept for p in (first, second, third)] == [False, False, True]
    assert box.taken(2, 0.0) == ([], [])
    assert (len(box), box.unconfirmed) == (1, 1)
    assert box.stream.relayed == 0


# What a lost channel means (R1, R2, R5)


def test_a_channel_that_comes_back_in_time_carries_on() -> None:
    box, parcels = linked(3)
    assert box.channel_lost(1.0, grace=True) == []
    assert (box.incarnation, box.unconfirmed) == (0, 0)
    assert box.next_timer() == 1.0 + RECONNECT_GRACE
    fourth, effects = submit(box, 1.1)
    assert effects == []
    # The first has arrived, and is not sent again; it is not confirmed.
    assert direct(box.channel_open(X, 1, 1.2)) == [2, 3, 4]
    assert box.next_timer() is None
    assert box.unconfirmed == 4
    assert box.taken(4, 1.3) == ([*parcels, fourth], [])


def test_a_channel_that_does_not_come_back_leaves_stamped_appends() -> None:
    box, _ = linked(2)
    box.channel_lost(1.0, grace=True)
    submit(box, 1.1)
    assert box.handle_timer(1.2, relay_up=True) == []
    effects = box.handle_timer(1.0 + RECONNECT_GRACE, relay_up=True)
    assert appends(effects) == [(1, X), (2, X), (3, 0)]
    assert box.next_timer() is None
    assert box.handle_timer(9.0, relay_up=True) == []
    assert appends(submit(box, 1.5)[1]) == [(4, 0)]


def test_a_channel_that_is_not_expected_back_is_not_waited_for() -> None:
    box, _ = linked(2)
    assert appends(box.channel_lost(1.0, grace=False)) == [(1, X), (2, X)]
    assert box.next_timer() is None


def test_new_messages_wait_for_a_channel_that_may_be_back() -> None:
    box, _ = linked(0)
    assert box.channel_lost(1.0, grace=True) == []
    assert submit(box, 1.1)[1] == []
    assert direct(box.channel_open(X, 0, 1.2)) == [1]


def test_nothing_is_sent_again_to_another_incarnation() -> None:
    box, parcels = linked(2)
    box.channel_lost(1.0, grace=True)
    third, _ = submit(box, 1.1)
    assert appends(box.channel_open(Y, 0, 1.2)) == [(1, X), (2, X)]
    # What the other one takes it has from the queue.
    assert box.taken(2, 1.3) == ([], [SendDirect(third)])
    assert [p.inc for p in (*parcels, third)] == [X, X, Y]
    assert all(p.kept for p in parcels)


def test_what_has_arrived_elsewhere_says_nothing_of_what_was_sent_here() -> None:
    box, _ = linked(2)
    box.channel_lost(1.0, grace=True)
    assert appends(box.channel_open(Y, 2, 1.2)) == [(1, X), (2, X)]


def test_another_channel_replaces_one_that_was_open() -> None:
    box, _ = linked(2)
    assert appends(box.channel_open(Y, 0, 1.0)) == [(1, X), (2, X)]
    assert (box.incarnation, box.unconfirmed) == (Y, 0)


def test_what_an_incarnation_has_not_taken_when_it_ends_is_free() -> None:
    box, (first, second) = linked(2)
    assert box.taken(1, 0.5) == ([first], [])
    assert second.inc == X
    assert box.channel_lost(1.0, grace=True, ended=True) == []
    assert (second.inc, second.fresh) == (0, False)
    # It may have been given back to the queue.
    assert not box.withdraw(second)
    assert appends(box.handle_timer(2.0, relay_up=True)) == [(2, 0)]


def test_what_was_sent_before_the_last_connection_is_not_free() -> None:
    """The end of a channel says nothing about what it has not carried."""
    box, _ = linked(1)
    box.channel_lost(1.0, grace=True)
    assert appends(box.channel_lost(1.1, grace=False, ended=True)) == [(1, X)]


# The barrier (R4)


def test_nothing_overtakes_what_is_in_the_queue() -> None:
    box = outbox()
    first, _ = submit(box)
    assert box.channel_open(X, 0, 0.0) == []
    assert not box.is_direct
    _, effects = submit(box, 0.1)
    assert effects == []
    assert box.next_timer() == 0.1 + BARRIER_TIMEOUT
    submit(box, 0.2)
    assert box.next_timer() == 0.1 + BARRIER_TIMEOUT
    assert box.appended(first, 0.3, arrived=True) == []
    confirmed, effects = box.taken(1, 0.4)
    assert confirmed == []
    assert direct(effects) == [2, 3]
    assert box.is_direct
    assert box.next_timer() is None


def test_the_barrier_is_open_when_the_queue_has_arrived() -> None:
    box = outbox()
    for _ in range(2):
        box.appended(submit(box)[0], 0.0, arrived=True)
    assert box.channel_open(X, 2, 0.0) == []
    assert direct(submit(box)[1]) == [3]


def test_messages_queue_up_when_the_barrier_does_not_open() -> None:
    box = outbox()
    box.appended(submit(box)[0], 0.0, arrived=True)
    box.channel_open(X, 0, 0.0)
    submit(box, 0.0)
    submit(box, 0.5)
    effects = box.handle_timer(BARRIER_TIMEOUT, relay_up=True)
    assert appends(effects) == [(2, 0), (3, 0)]
    assert box.next_timer() is None


def test_nothing_waits_at_the_barrier_again_for_a_consumer_that_is_slow() -> None:
    box = outbox()
    box.appended(submit(box)[0], 0.0, arrived=True)
    box.channel_open(X, 0, 0.0)
    submit(box, 0.0)
    box.handle_timer(BARRIER_TIMEOUT, relay_up=True)
    soon = BARRIER_TIMEOUT + SLOW / 2
    assert appends(submit(box, soon)[1]) == [(3, 0)]
    assert box.next_timer() is None
    later = BARRIER_TIMEOUT + SLOW
    assert submit(box, later)[1] == []
    assert box.next_timer() == later + BARRIER_TIMEOUT
    assert direct(box.taken(3, later + 0.1)[1]) == [4]


def test_messages_wait_for_a_channel_that_is_expected() -> None:
    box = outbox()
    box.expect(0.0)
    assert submit(box, 0.0)[1] == []
    assert box.next_timer() == RECONNECT_GRACE
    assert direct(box.channel_open(X, 0, 0.1)) == [1]


def test_messages_wait_for_an_expected_channel_only_so_long() -> None:
    box = outbox()
    box.expect(0.0)
    submit(box, 0.0)
    assert appends(box.handle_timer(RECONNECT_GRACE, relay_up=True)) == [(1, 0)]


def test_tags_of_what_is_on_the_way() -> None:
    box = outbox()
    box.channel_open(X, 0, 0.0)
    for tag in (b"one", b"two"):
        box.submit("q", tag, [b""], 0.0)
    box.taken(1, 0.0)
    box.channel_lost(0.0, grace=True)
    box.submit("q", b"three", [b""], 0.0)
    assert sorted(box.tags()) == [b"three", b"two"]


def test_what_could_not_be_appended_does_not_hold_up_the_others() -> None:
    box = outbox()
    first, second, third = (submit(box)[0] for _ in range(3))
    box.channel_open(X, 0, 0.0)
    submit(box)
    assert box.appended(second, 0.0, arrived=False) == []
    assert box.stream.relayed == 3
    assert box.appended(third, 0.0, arrived=False) == []
    assert box.stream.relayed == 1
    assert direct(box.appended(first, 0.0, arrived=False)) == [4]
    assert box.stream.relayed == 0


def test_the_barrier_remembers_what_is_queued() -> None:
    box = outbox()
    first, second = (submit(box)[0] for _ in range(2))
    box.appended(second, 0.0, arrived=True)
    box.appended(first, 0.0, arrived=False)
    assert box.stream.relayed == 2


# The window


def test_the_window_bounds_what_is_unconfirmed() -> None:
    box = outbox(window=2)
    box.channel_open(X, 0, 0.0)
    parcels = [submit(box)[0] for _ in range(4)]
    assert (box.unconfirmed, len(box)) == (2, 4)
    assert box.next_timer() is None
    confirmed, effects = box.taken(1, 0.0)
    assert confirmed == parcels[:1]
    assert direct(effects) == [3]
    assert direct(box.taken(3, 0.0)[1]) == [4]


def test_the_window_bounds_bytes_and_a_large_message_goes_alone() -> None:
    box = outbox(window=10, size=10)
    box.channel_open(X, 0, 0.0)
    assert direct(submit(box, size=8)[1]) == [1]
    assert submit(box, size=3)[1] == []
    assert submit(box, size=50)[1] == []
    assert direct(box.taken(1, 0.0)[1]) == [2]
    assert direct(box.taken(2, 0.0)[1]) == [3]
    assert submit(box, size=3)[1] == []
    assert direct(box.taken(3, 0.0)[1]) == [4]


def test_no_window() -> None:
    box = outbox(window=0, size=1)
    box.channel_open(X, 0, 0.0)
    assert [direct(submit(box)[1]) for _ in range(3)] == [[1], [2], [3]]


# Taking back, and giving up


def test_only_what_was_not_sent_anywhere_is_withdrawn() -> None:
    box = outbox(window=1)
    appended, _ = submit(box)
    assert not box.withdraw(appended)
    box.appended(appended, 0.0, arrived=True)
    box.channel_open(X, 1, 0.0)
    sent, _ = submit(box)
    held, _ = submit(box)
    assert not box.withdraw(sent)
    assert sent.kept
    assert box.withdraw(held)
    assert not box.withdraw(held)
    assert (held.kept, held.segments) == (False, ())
    box.channel_lost(1.0, grace=True)
    assert not box.withdraw(sent)
    assert appends(box.handle_timer(2.0, relay_up=True)) == [(2, X)]


def test_what_is_dropped_is_not_sent_again_and_still_counts_on_the_channel() -> None:
    box = outbox(window=2)
    box.channel_open(X, 0, 0.0)
    first, second = (submit(box)[0] for _ in range(2))
    box.drop(first)
    assert not first.kept
    assert submit(box)[1] == []
    confirmed, effects = box.taken(2, 0.0)
    assert confirmed == [second]
    assert direct(effects) == [3]
    box.drop(submit(box)[0])
    assert appends(box.channel_lost(1.0, grace=False)) == [(3, X)]


def test_what_is_held_or_appending_and_dropped() -> None:
    box, (first, second) = linked(2)
    box.channel_lost(1.0, grace=True)
    box.drop(first)
    assert len(box) == 1
    assert appends(box.handle_timer(2.0, relay_up=True)) == [(2, X)]
    box.drop(second)
    assert second.kept
    assert len(box) == 1


def test_while_the_server_is_away_messages_wait_for_a_channel() -> None:
    box, _ = linked(1)
    box.channel_lost(1.0, grace=True)
    due = box.next_timer()
    for _ in range(5):
        assert due is not None
        assert box.handle_timer(due, relay_up=False) == []
        assert box.next_timer() == due + RECONNECT_GRACE
        due = box.next_timer()
    submit(box, 2.0)
    assert direct(box.channel_open(X, 0, 3.0)) == [1, 2]


def test_messages_that_find_no_way_are_given_up() -> None:
    box, (first,) = linked(1)
    box.channel_lost(1.0, grace=True)
    assert box.handle_timer(2.0, relay_up=False) == []
    second, _ = submit(box, 10.0)
    assert box.handle_timer(1.9 + UNREACHABLE_TIMEOUT, relay_up=False) == []
    assert box.handle_timer(2.0 + UNREACHABLE_TIMEOUT, relay_up=False) == []
    due = box.next_timer()
    assert due is not None
    assert box.handle_timer(due, relay_up=False) == [GiveUp(first)]
    assert (first.kept, first.inc, first.fresh) == (False, X, False)
    assert box.handle_timer(50.0, relay_up=False) == [GiveUp(second)]
    assert (second.kept, second.inc, second.fresh) == (False, 0, True)
    assert len(box) == 0


def test_a_server_that_was_away_before_is_not_held_against_anybody() -> None:
    box, _ = linked(1)
    box.channel_lost(1.0, grace=True)
    assert box.handle_timer(2.0, relay_up=False) == []
    assert box.channel_open(X, 1, 3.0) == []
    box.channel_lost(60.0, grace=True)
    assert box.handle_timer(61.0, relay_up=False) == []
    assert appends(box.handle_timer(62.0, relay_up=True)) == [(1, X)]


STEPS = st.lists(
    st.one_of(
        st.just(("submit",)),
        st.tuples(st.just("open"), st.integers(1, 3)),
        st.tuples(st.just("lost"), st.booleans(), st.booleans()),
        st.tuples(st.just("taken"), st.integers(0, 3)),
        st.tuples(st.just("appended"), st.booleans()),
        st.tuples(st.just("refused")),
        st.tuples(st.just("room"), st.integers(0, 3)),
        st.tuples(st.just("timer"), st.booleans()),
        st.tuples(st.just("withdraw"), st.integers(0, 3)),
        st.tuples(st.just("drop"), st.integers(0, 3)),
    ),
    max_size=60,
)


class Machine:
    """An outbox and what its owner knows, to check each effect against."""

    def __init__(self, window: int) -> None:
        self.now = 0.0
        self.box = outbox(window, 20)
        self.window = window
        self.parcels: list[Parcel] = []
        self.sent: dict[int, int] = {}
        """The incarnation that each message was sent to and may have taken it."""
        self.ever_sent: set[int] = set()
        self.on_channel: list[int] = []
        self.appending: list[Parcel] = []
        self.arrived = 0

    def run(self, effects: list[Effect]) -> None:
        for effect in effects:
            parcel = effect.parcel
            if isinstance(effect, SendDirect):
                assert self.sent.get(parcel.seq, self.box.incarnation) == parcel.inc
                assert parcel.inc == self.box.incarnation
                assert parcel.seq > max(self.on_channel, default=0)
                assert self.arrived >= self.box.stream.relayed
                self.sent[parcel.seq] = parcel.inc
                self.ever_sent.add(parcel.seq)
                self.on_channel.append(parcel.seq)
            elif isinstance(effect, Append):
                assert effect.stamp == parcel.inc == self.sent.get(parcel.seq, 0)
                last = self.appending[-1].seq if self.appending else 0
                assert parcel.seq > last
                self.appending.append(parcel)
            else:
                assert not parcel.kept

    def submit(self) -> None:
        parcel, effects = submit(self.box, self.now)
        self.parcels.append(parcel)
        self.run(effects)

    def open(self, inc: int) -> None:
        self.on_channel = []
        mine = [seq for seq, to in self.sent.items() if to == inc]
        self.arrived = max([0, *mine[: len(mine) // 2]])
        self.run(self.box.channel_open(inc, self.arrived, self.now))

    def lost(self, grace: bool, ended: bool) -> None:
        if ended:
            for parcel in self.box._sent:
                self.sent.pop(parcel.seq, None)
        self.on_channel = []
        self.run(self.box.channel_lost(self.now, grace=grace, ended=ended))
        assert self.box.unconfirmed == 0

    def taken(self, share: int) -> None:
        if not self.box.incarnation:
            return
        waiting = [p.seq for p in self.box._sent]
        seq = waiting[len(waiting) * share // 4] if waiting else self.box.stream.relayed
        self.arrived = max(self.arrived, seq)
        confirmed, effects = self.box.taken(seq, self.now)
        assert [p.seq for p in confirmed] == sorted(p.seq for p in confirmed)
        assert all(self.sent[p.seq] == self.box.incarnation for p in confirmed)
        self.run(effects)

    def appended(self, arrived: bool) -> None:
        if self.appending:
            parcel = self.appending.pop(0)
            self.run(self.box.appended(parcel, self.now, arrived=arrived))

    def refused(self) -> None:
        """With one go those behind it in line."""
        for parcel in list(self.appending):
            self.appending.remove(parcel)
            if parcel.patient:
                self.run(self.box.refused(parcel, self.now))
            else:
                self.run(self.box.appended(parcel, self.now, arrived=False))

    def room(self, count: int) -> None:
        if not self.appending:
            self.run(self.box.room(Room(count, 1 << 20), self.now))

    def timer(self, relay_up: bool) -> None:
        due = self.box.next_timer()
        if due is not None:
            self.now = max(self.now, due)
            self.run(self.box.handle_timer(self.now, relay_up=relay_up))

    def withdraw(self, index: int) -> None:
        if index < len(self.parcels):
            parcel = self.parcels[-1 - index]
            if self.box.withdraw(parcel):
                assert parcel.seq not in self.ever_sent

    def drop(self, index: int) -> None:
        if index < len(self.parcels):
            self.box.drop(self.parcels[-1 - index])


@pytest.mark.parametrize("window", [0, 3])
@given(steps=STEPS)
def test_the_rules_hold_whatever_happens(
    window: int, steps: list[tuple[object, ...]]
) -> None:
    """Sent again only to the same, stamped rightly, in order, within the window."""
    machine = Machine(window)
    for name, *args in steps:
        machine.now += 0.05
        getattr(machine, str(name))(*args)
        box = machine.box
        assert not window or box.unconfirmed <= window
        assert len(box) == len(box._held) + len(box._sent) + len(machine.appending)
        held = [p.seq for p in box._held]
        assert held == sorted(held)


class TestNoRoomInTheQueue:
    def refused(self, count: int) -> tuple[Outbox, list[Parcel]]:
        """An outbox of which so many messages were refused in a row."""
        box = outbox()
        parcels = [submit(box)[0] for _ in range(count)]
        for parcel in parcels:
            assert box.refused(parcel, 0.0) == []
        return box, parcels

    def test_they_are_held_in_order_with_what_comes_then(self) -> None:
        box, parcels = self.refused(3)
        fourth, effects = submit(box)
        assert effects == []
        assert box.short
        assert (len(box), box.stream.relayed) == (4, 0)
        assert all(p.kept and p.fresh for p in parcels)
        assert appends(box.room(Room(2, 1 << 20), 1.0)) == [(1, 0), (2, 0)]
        assert box.short
        assert [p.ahead for p in parcels] == [0, 1, 2]
        assert appends(box.room(None, 1.0)) == [(3, 0), (4, 0)]
        assert not box.short
        assert fourth.ahead == 3

    def test_bytes_count(self) -> None:
        box = outbox()
        small, _ = submit(box)
        large, _ = submit(box, size=5000)
        last, _ = submit(box)
        for parcel in (small, large, last):
            box.refused(parcel, 0.0)
        assert appends(box.room(Room(9, 5000), 1.0)) == [(1, 0)]
        # What is small does not overtake what is large.
        assert appends(box.room(Room(9, 5000), 1.0)) == []
        assert appends(box.room(Room(9, 10_000), 1.0)) == [(2, 0), (3, 0)]

    def test_they_go_directly_when_they_can(self) -> None:
        box = outbox()
        parcels = [submit(box)[0] for _ in range(3)]
        box.appended(parcels[0], 0.0, arrived=True)
        box.refused(parcels[1], 0.0)
        assert box.channel_open(X, 0, 0.1) == []
        # The third is still in line, and may be in the queue.
        assert box.taken(1, 0.2) == ([], [])
        assert direct(box.refused(parcels[2], 0.3)) == [2, 3]
        assert not box.short

    def test_what_has_arrived_goes_into_the_queue_or_nowhere(self) -> None:
        box, (first, second) = linked(2)
        box.channel_lost(1.0, grace=False)
        third, _ = submit(box)
        box.refused(third, 1.0)
        # They were on their way to the queue when the same incarnation said so.
        assert box.channel_open(X, 2, 1.1) == [SendDirect(third)]
        assert box.refused(first, 1.2) == []
        assert box.refused(second, 1.2) == []
        assert box.room(None, 1.3) == []
        assert appends(box.taken(3, 1.4)[1]) == [(1, X), (2, X)]

    def test_what_is_on_the_channel_is_not_overtaken(self) -> None:
        box, (first, second) = self.refused(2)
        second.fresh = False  # The server was asked for it twice.
        assert direct(box.channel_open(X, 0, 0.1)) == [1]
        assert box.room(Room(9, 1 << 20), 0.2) == []
        assert box.taken(1, 0.3)[0] == [first]
        assert box.stream.relayed == 2
        assert second in box._flight

    def test_what_may_be_given_back_goes_into_the_queue(self) -> None:
        box, (first,) = linked(1)
        box._flight.learn(Room(0, 0))  # That was so for the former owner.
        assert appends(box.channel_lost(1.0, grace=False, ended=True)) == [(1, 0)]
        box.refused(first, 1.0)
        assert box.channel_open(Y, 0, 1.1) == []
        assert appends(box.room(Room(1, 1 << 20), 1.2)) == [(1, 0)]

    def test_nobody_waits_for_what_nobody_wants(self) -> None:
        box, (first, second) = self.refused(2)
        assert box.withdraw(first)
        box.drop(second)
        assert (len(box), box.short) == (0, False)
        third, effects = submit(box)
        assert effects == []
        assert appends(box.room(None, 1.0)) == [(3, 0)]
        assert third.patient
        assert not box.withdraw(third)
        assert not third.patient

    def test_what_is_too_large_for_it_needs_none(self) -> None:
        box = Outbox(SendStream("aKEY", 7, REQUESTS), 0, 1000, 100, direct=False)
        first, _ = submit(box)
        box.refused(first, 0.0)
        large, _ = submit(box, size=101)
        assert appends(box.room(Room(1, 1 << 20), 1.0)[:1]) == [(1, 0)]
        assert not large.kept

    def test_replies_do_not_wait(self) -> None:
        box = Outbox(SendStream("aKEY", 7, REPLIES), 0, 1000)
        assert not submit(box)[0].patient


class TestTooLargeForTheQueue:
    LIMIT = 100
    LARGE = 101

    def outbox(self, *, direct: bool = True) -> Outbox:
        stream = SendStream("aKEY", 7, REQUESTS)
        return Outbox(stream, 0, 1000, self.LIMIT, direct=direct)

    def refused(self, effects: list[Effect]) -> list[int]:
        assert all(isinstance(e, Refuse) for e in effects)
        assert not any(e.parcel.kept for e in effects)
        return [e.parcel.seq for e in effects]

    def test_without_links_it_is_refused_at_once(self) -> None:
        box = self.outbox(direct=False)
        assert appends(submit(box, size=self.LIMIT)[1]) == [(1, 0)]
        _, effects = submit(box, size=self.LARGE)
        assert self.refused(effects) == [2]
        assert appends(submit(box)[1]) == [(3, 0)]

    def test_it_waits_for_a_channel(self) -> None:
        box = self.outbox()
        _, effects = submit(box, size=self.LARGE)
        assert effects == []
        assert submit(box)[1] == []  # in order
        assert direct(box.channel_open(X, 0, 0.5)) == [1, 2]
        assert box.next_timer() is None

    def test_it_waits_no_longer_than_that(self) -> None:
        box = self.outbox()
        submit(box, size=self.LARGE)
        submit(box)
        now = 0.0
        effects: list[Effect] = []
        while not effects:
            due = box.next_timer()
            assert due is not None
            assert due > now
            now = due
            effects = box.handle_timer(now, relay_up=True)
        assert now == DIRECT_TIMEOUT
        assert self.refused(effects[:1]) == [1]
        assert appends(effects[1:]) == [(2, 0)]
        assert box.next_timer() is None

    def test_nobody_to_have_a_channel_to(self) -> None:
        box = self.outbox()
        parcel, _ = submit(box, size=self.LARGE)
        assert box.no_channel(1.0) == []
        assert parcel.kept
        assert box.next_timer() is not None
        # Somebody has come.
        assert direct(box.channel_open(X, 0, 2.0)) == [1]
        assert box.no_channel(3.0) == []
        assert box.is_direct

    def test_what_is_small_does_not_wait_for_nobody(self) -> None:
        box = self.outbox()
        box.expect(0.0)
        assert submit(box)[1] == []
        assert appends(box.no_channel(0.1)) == [(1, 0)]
        assert box.next_timer() is None

    def test_it_waits_for_what_is_in_the_queue(self) -> None:
        box = self.outbox()
        first, _ = submit(box)
        box.appended(first, 0.0, arrived=True)
        assert box.channel_open(X, 0, 0.0) == []
        submit(box, size=self.LARGE)
        assert box.handle_timer(BARRIER_TIMEOUT, relay_up=True) == []
        assert submit(box, BARRIER_TIMEOUT)[1] == []
        _, effects = box.taken(1, BARRIER_TIMEOUT)
        assert direct(effects) == [2, 3]

    def test_what_is_in_the_queue_may_be_lost(self) -> None:
        box = self.outbox()
        first, _ = submit(box)
        box.appended(first, 0.0, arrived=True)
        box.channel_open(X, 0, 0.0)
        submit(box, size=self.LARGE)
        now = 0.0
        while not (effects := box.handle_timer(now, relay_up=True)):
            now = box.next_timer() or now
        assert now == UNREACHABLE_TIMEOUT
        assert self.refused(effects) == [2]

    def test_a_lost_channel_may_come_back(self) -> None:
        box = self.outbox()
        box.channel_open(X, 0, 0.0)
        parcel, _ = submit(box, size=self.LARGE)
        assert box.channel_lost(1.0, grace=True) == []
        assert box.handle_timer(1.0 + RECONNECT_GRACE, relay_up=True) == []
        assert direct(box.channel_open(X, 0, 2.0)) == [1]
        box.channel_lost(3.0, grace=True)
        # Another one does not get it: the first may have executed it.
        assert self.refused(box.channel_open(Y, 0, 4.0)) == [1]
        assert parcel.inc == X

    def test_a_channel_that_does_not_come_back(self) -> None:
        box = self.outbox()
        box.channel_open(X, 0, 0.0)
        parcel, _ = submit(box, size=self.LARGE)
        assert self.refused(box.channel_lost(1.0, grace=False)) == [1]
        assert parcel.inc == X

    def test_an_incarnation_that_has_not_taken_it(self) -> None:
        box = self.outbox()
        box.channel_open(X, 0, 0.0)
        parcel, _ = submit(box, size=self.LARGE)
        assert self.refused(box.channel_lost(1.0, grace=False, ended=True)) == [1]
        assert parcel.inc == 0


class TestTakeBack:
    def test_what_was_not_sent_to_the_end_makes_room(self) -> None:
        box = outbox(window=8, size=1000)
        box.channel_open(X, 0, 0.0)
        parcel, _ = submit(box, size=5000)
        second, effects = submit(box)
        assert effects == []
        assert direct(box.take_back(parcel, 1.0, unsent=True)) == [2]
        assert not parcel.kept
        assert box.taken(2, 1.0) == ([second], [])
        assert len(box) == 0

    def test_what_was_sent_counts_until_it_is_confirmed(self) -> None:
        box = outbox(window=8, size=1000)
        box.channel_open(X, 0, 0.0)
        parcel, _ = submit(box, size=5000)
        submit(box)
        assert box.take_back(parcel, 1.0, unsent=False) == []
        assert not parcel.kept
        confirmed, effects = box.taken(1, 1.0)
        assert confirmed == []
        assert direct(effects) == [2]

    @pytest.mark.parametrize("unsent", [True, False])
    def test_what_is_held(self, unsent: bool) -> None:
        box, (parcel,) = linked(1)
        box.channel_lost(0.0, grace=True)
        assert box.take_back(parcel, 0.0, unsent=unsent) == []
        assert box.channel_open(X, 0, 0.1) == []
        assert len(box) == 0

    def test_memory_is_given_back_once(self) -> None:
        box, (parcel,) = linked(1)
        told = []
        parcel.lent = told.append
        parcel.end_loan()
        parcel.end_loan()
        assert told == [parcel]
        assert len(box) == 1
