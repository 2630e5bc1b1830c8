from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.link.frame import RemoteProtocolError
from academy.link.window import MANY, SLACK, Confirmations, ReceiveWindow


def test_taking_frees_bytes() -> None:
    window = ReceiveWindow(10, 1000)
    for seq, size in ((3, 5), (4, 6), (9, 7)):
        window.receive(seq, size)
    assert window.take(2) == (0, 0)
    assert window.take(4) == (2, 11)
    assert window.take(8) == (0, 0)
    assert window.take(20) == (1, 7)


def test_taking_again_is_nothing_new() -> None:
    window = ReceiveWindow(10, 1000)
    window.receive(1, 5)
    assert window.take(1) == (1, 5)
    assert window.take(1) is None
    assert window.take(0) is None


def test_what_was_taken_on_another_path_needs_no_room() -> None:
    window = ReceiveWindow(1, 1)
    assert window.take(100) == (0, 0)
    for seq in range(1, 101):
        window.receive(seq, 1000)
    window.receive(101, 0)
    window.receive(102, 0)
    with pytest.raises(RemoteProtocolError, match="ahead of its window"):
        window.receive(103, 0)


@pytest.mark.parametrize("seq", [5, 4, 1])
def test_messages_come_in_order(seq: int) -> None:
    window = ReceiveWindow(10, 1000)
    window.receive(5, 1)
    with pytest.raises(RemoteProtocolError, match=f"message {seq} after 5"):
        window.receive(seq, 1)


def test_too_many_messages() -> None:
    window = ReceiveWindow(10, 1 << 30)
    for seq in range(1, 10 * SLACK + 1):
        window.receive(seq, 0)
    with pytest.raises(RemoteProtocolError, match="21 messages of 0 bytes"):
        window.receive(99, 0)


def test_too_many_bytes() -> None:
    window = ReceiveWindow(10, 100)
    window.receive(1, 99 * SLACK)
    window.receive(2, SLACK)
    with pytest.raises(RemoteProtocolError, match="3 messages of 201 bytes"):
        window.receive(3, 1)


def test_a_single_message_may_be_larger() -> None:
    window = ReceiveWindow(10, 100)
    window.receive(1, 100_000)
    assert window.take(1) == (1, 100_000)
    window.receive(2, 100_000)


def test_no_window() -> None:
    window = ReceiveWindow(0, 1)
    for seq in range(1, 1000):
        window.receive(seq, 1000)
    assert window.take(999) == (999, 999_000)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 40)), max_size=60))
def test_a_sender_within_its_window_is_never_refused(
    steps: list[tuple[int, int]],
) -> None:
    """The sender knows of what was taken later than the receiver."""
    window = ReceiveWindow(5, 100)
    unconfirmed: list[tuple[int, int]] = []
    for seq, (size, lag) in enumerate(steps, 1):
        while unconfirmed and (
            len(unconfirmed) >= 5 or size + sum(s for _, s in unconfirmed) > 100
        ):
            window.take(unconfirmed.pop(0)[0])
        if unconfirmed and lag > 20:
            window.take(unconfirmed[0][0])
        window.receive(seq, size)
        unconfirmed.append((seq, size))


def confirmations() -> Confirmations:
    return Confirmations(delay=0.5, messages=4, size=100)


def test_nothing_to_confirm() -> None:
    waiting = confirmations()
    assert waiting.due is None
    assert not waiting.ride_with(MANY)
    assert waiting.take() == []


def test_they_wait_from_the_first_one() -> None:
    waiting = confirmations()
    assert not waiting.add(1, 5, (1, 10), now=10.0)
    assert not waiting.add(2, 7, (1, 10), now=10.4)
    assert waiting.due == 10.5
    assert waiting.take() == [(1, 5), (2, 7)]
    assert waiting.due is None
    assert waiting.take() == []


def test_they_ride_along_now_and_then() -> None:
    """When much is taken they wait until there is more to say."""
    waiting = confirmations()
    rides = []
    for now in (1.0, 1.1, 1.49, 1.7, 2.3, 3.0):
        waiting.add(1, 1, (1, 1), now)
        rides.append(waiting.ride_with(1))
        assert waiting.ride_with(MANY)
        waiting.take()
        assert not waiting.ride_with(MANY)
    assert rides == [True, False, False, False, True, True]


def test_the_last_mark_of_a_channel_counts() -> None:
    waiting = confirmations()
    waiting.add(1, 5, (1, 0), now=0.0)
    waiting.add(1, 6, (1, 0), now=0.0)
    assert waiting.take() == [(1, 6)]


@pytest.mark.parametrize(("sizes", "count"), [([0] * 9, 4), ([50] * 9, 2)])
def test_they_wait_no_longer(sizes: list[int], count: int) -> None:
    waiting = confirmations()
    for _ in range(2):
        at_once = [waiting.add(1, i, (1, size), 0.0) for i, size in enumerate(sizes)]
        assert at_once.index(True) == count - 1
        waiting.take()


def test_what_was_taken_together_counts_as_what_it_is() -> None:
    waiting = confirmations()
    assert not waiting.add(1, 3, (3, 0), now=0.0)
    assert waiting.add(1, 4, (1, 0), now=0.0)
    waiting.take()
    assert waiting.add(1, 9, (4, 0), now=0.0)


def test_a_channel_that_ended() -> None:
    waiting = confirmations()
    waiting.add(1, 5, (1, 90), now=0.0)
    waiting.add(2, 6, (1, 5), now=0.0)
    waiting.discard(1)
    assert waiting.due == 0.5
    assert waiting.take() == [(2, 6)]
    waiting.add(3, 1, (1, 90), now=1.0)
    waiting.discard(3)
    waiting.discard(4)
    assert waiting.due is None
    assert not waiting.add(5, 1, (1, 99), now=2.0)
    assert waiting.add(5, 2, (1, 1), now=2.0)
