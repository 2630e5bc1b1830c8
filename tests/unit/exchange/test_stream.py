from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.exchange.stream import (
    REPLIES,
    REQUESTS,
    Mark,
    Offer,
    Received,
    SendStream,
    parse_marks,
)

NAMES = ["a", "b"]
OFFERS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 12)), max_size=60)
MARKS = st.builds(Mark, *[st.integers(0, 2**53)] * 3)


def test_a_stream_has_a_name_and_counts() -> None:
    stream = SendStream("aKEY", 7, REPLIES)
    assert stream.name == "aKEY:7:1"
    assert [stream.next() for _ in range(3)] == [1, 2, 3]
    assert (stream.seq, stream.relayed, stream.known) == (3, 0, False)
    assert SendStream("aKEY", 7, REQUESTS).name == "aKEY:7:0"


@given(MARKS)
def test_marks_round_trip(mark: Mark) -> None:
    assert Mark.parse(str(mark)) == mark


@pytest.mark.parametrize(
    "text", ["", "1", "1:2", "1:2:3:4", "1:2:", "a:2:3", "-1:2:3", "1:2:٣", " 1:2:3"]
)
def test_damaged_marks(text: str) -> None:
    with pytest.raises(ValueError, match="Not the mark of a stream"):
        Mark.parse(text)


@given(st.dictionaries(st.text(), MARKS))
def test_marks_of_a_hash(marks: dict[str, Mark]) -> None:
    flat = [
        text.encode("utf-8", "surrogatepass")
        for name, mark in marks.items()
        for text in (name.encode("utf-8", "replace").decode(), str(mark))
    ]
    readable = {k.encode("utf-8", "replace").decode(): v for k, v in marks.items()}
    assert parse_marks(flat) == readable


def test_damaged_marks_are_left_out() -> None:
    flat = [b"a", b"1:2:3", b"b", b"junk", b"\xff", b"4:5:6", b"c", b"\xff:1:1"]
    assert parse_marks(flat) == {"a": Mark(1, 2, 3), "�": Mark(4, 5, 6)}
    with pytest.raises(ValueError, match="shorter"):
        parse_marks([b"a"])


def test_offers() -> None:
    received = Received(9, {"a": Mark(5, 8, 2)})
    assert received.offer("a", 5) is Offer.FORMER
    assert received.offer("a", 6) is Offer.NEW
    assert received.offer("a", 6) is Offer.DUPLICATE
    assert received.offer("a", 9) is Offer.NEW
    assert received.offer("a", 7) is Offer.DUPLICATE
    assert received.offer("b", 1) is Offer.NEW
    assert received.former("a", 5)
    assert not received.former("a", 6)
    assert not received.former("b", 1)
    assert received.accepted("a") == 9
    assert received.accepted("b") == 1
    assert received.accepted("c") == 0
    assert Received(9, {"a": Mark(5, 8, 2)}).accepted("a") == 5


@given(recorded=st.dictionaries(st.sampled_from(NAMES), MARKS), offers=OFFERS)
def test_nothing_is_accepted_twice_or_out_of_order(
    recorded: dict[str, Mark], offers: list[tuple[str, int]]
) -> None:
    recorded = {name: Mark(mark.seq % 8, 1, 0) for name, mark in recorded.items()}
    received = Received(2, recorded)
    last = {name: recorded.get(name, Mark()).seq for name in NAMES}
    for name, seq in offers:
        offer = received.offer(name, seq)
        assert (offer is Offer.NEW) == (seq > last[name])
        former = seq <= recorded.get(name, Mark()).seq
        assert (offer is Offer.FORMER) == former
        if offer is Offer.NEW:
            last[name] = seq
        assert received.accepted(name) == last[name]


def test_what_is_given_back_and_what_is_held() -> None:
    received = Received(9, {"a": Mark(5, 8, 2), "old": Mark(7, 8, 0)})
    for name, seq in [("a", 6), ("a", 7), ("b", 1), ("c", 1), ("c", 2)]:
        received.offer(name, seq)
    received.consumed("a", 6)
    received.consumed("c", 2)
    assert dict(received.given_back()) == {
        "a": Mark(6, 9, 5),
        "b": Mark(0, 9, 0),
        "c": Mark(2, 9, 0),
    }
    assert dict(received.held()) == {
        "a": Mark(7, 9, 5),
        "b": Mark(1, 9, 0),
        "c": Mark(2, 9, 0),
    }


@given(OFFERS, st.integers(0, 60))
def test_the_next_owner_goes_on_where_the_consumer_stopped(
    offers: list[tuple[str, int]], consumed: int
) -> None:
    """What was consumed is a former message for the next owner, the rest is new."""
    first = Received(1, {})
    accepted = [(n, s) for n, s in offers if first.offer(n, s) is Offer.NEW]
    for name, seq in accepted[:consumed]:
        first.consumed(name, seq)
    second = Received(2, dict(first.given_back()))
    taken = dict(accepted[:consumed])
    for name, seq in accepted:
        wanted = Offer.FORMER if seq <= taken.get(name, 0) else Offer.NEW
        assert second.offer(name, seq) is wanted


@given(OFFERS)
def test_a_crash_leaves_nothing_that_counts_as_new(
    offers: list[tuple[str, int]],
) -> None:
    first = Received(1, {})
    accepted = [(n, s) for n, s in offers if first.offer(n, s) is Offer.NEW]
    second = Received(2, dict(first.held()))
    assert all(second.offer(n, s) is Offer.FORMER for n, s in accepted)
