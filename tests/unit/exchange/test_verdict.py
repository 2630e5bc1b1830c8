from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.exchange.stream import Mark
from academy.exchange.verdict import Books, Verdict, judge

NUMBER = st.integers(0, 6)
BOOKS = st.builds(
    Books,
    st.sampled_from(["open", "terminated", "missing"]),
    NUMBER,
    st.booleans(),
    NUMBER,
    NUMBER,
    st.builds(Mark, NUMBER, NUMBER, NUMBER),
    NUMBER,
    NUMBER,
)


@pytest.mark.parametrize(
    ("seq", "books", "trust", "verdict"),
    [
        # Closed for good, or never heard of.
        (1, Books("terminated", 0, False, 1, 0, Mark()), True, Verdict.TERMINATED),
        (1, Books("missing", 0, False, 1, 5, Mark(5, 1, 0)), True, Verdict.VANISHED),
        # In the queue, or it should be.
        (3, Books("open", 1, True, 1, 3, Mark(2, 1, 0)), True, Verdict.QUEUED),
        (3, Books("open", 1, False, 1, 9, Mark(2, 1, 2)), True, Verdict.QUEUED),
        (3, Books("open", 1, True, 1, 2, Mark(2, 1, 0)), True, Verdict.VANISHED),
        (3, Books("open", 0, False, 1, 0, Mark()), True, Verdict.VANISHED),
        (3, Books("open", 1, True, 0, 3, Mark(2, 1, 0)), True, Verdict.VANISHED),
        # Taken.
        (3, Books("open", 7, True, 1, 3, Mark(3, 7, 0)), True, Verdict.TAKEN),
        (3, Books("open", 7, True, 1, 3, Mark(5, 7, 2)), False, Verdict.TAKEN),
        # Taken by one who is gone: before the owner, or the owner itself.
        (2, Books("open", 7, True, 1, 3, Mark(3, 7, 2)), True, Verdict.PEER_LOST),
        (3, Books("open", 8, True, 1, 3, Mark(3, 7, 0)), True, Verdict.PEER_LOST),
        (3, Books("open", 7, False, 1, 3, Mark(3, 7, 0)), True, Verdict.PEER_LOST),
        # Its lease says nothing yet.
        (3, Books("open", 7, False, 1, 3, Mark(3, 7, 0)), False, Verdict.TAKEN),
        (3, Books("open", 8, False, 1, 3, Mark(3, 7, 0)), False, Verdict.PEER_LOST),
    ],
)
def test_verdicts(seq: int, books: Books, trust: bool, verdict: Verdict) -> None:
    assert judge(books, seq, trust_leases=trust) is verdict


A, B, C = 4, 6, 9
"""Incarnations of a destination: two former ones, and the current one."""


def books(
    inc: int = C,
    live: bool = True,
    appended: int = 0,
    taken: Mark = Mark(),  # noqa: B008 - never changed
    since: int = 0,
    closed: int = 0,
) -> Books:
    return Books("open", inc, live, 1, appended, taken, since, closed)


@pytest.mark.parametrize(
    ("books", "trust", "verdict"),
    [
        # Number 3 was sent directly to B, which is still the owner.
        (books(B), True, Verdict.TAKEN),
        (books(B, live=False), False, Verdict.TAKEN),
        (books(B, live=False), True, Verdict.PEER_LOST),
        (books(B, appended=2), True, Verdict.TAKEN),
        # It was queued, too; the owner has got it from there, or will.
        (books(B, appended=3), True, Verdict.QUEUED),
        (books(B, appended=3, taken=Mark(3, B, 0)), True, Verdict.TAKEN),
        (books(B, live=False, appended=3), True, Verdict.PEER_LOST),
        # B is gone, and has told nobody what it took, whatever the queue says.
        (books(C), True, Verdict.PEER_LOST),
        (books(C, appended=3), False, Verdict.PEER_LOST),
        (books(C, since=A, closed=A), True, Verdict.PEER_LOST),
        (books(C, appended=3, since=7, closed=8), True, Verdict.PEER_LOST),
        # B closed cleanly: last, or in a row of others that did.
        (books(C, taken=Mark(3, B, 0), since=B, closed=B), True, Verdict.PEER_LOST),
        (books(B, taken=Mark(3, B, 0), since=B, closed=B), True, Verdict.TAKEN),
        (
            books(B, live=False, taken=Mark(3, B, 0), since=B, closed=B),
            True,
            Verdict.PEER_LOST,
        ),
        (books(C, appended=3, since=B, closed=B), True, Verdict.QUEUED),
        (books(C, appended=3, since=A, closed=8), True, Verdict.QUEUED),
        (
            books(C, appended=3, taken=Mark(3, C, 2), since=B, closed=B),
            True,
            Verdict.TAKEN,
        ),
        (books(C, appended=2, since=B, closed=B), True, Verdict.VANISHED),
    ],
)
def test_verdicts_on_what_was_sent_directly(
    books: Books, trust: bool, verdict: Verdict
) -> None:
    assert judge(books, 3, direct=B, trust_leases=trust) is verdict


@pytest.mark.parametrize(
    ("books", "direct", "verdict"),
    [
        # Sent nowhere, or being queued.
        (Books("missing", 0, False, 0, 0, Mark()), 0, Verdict.KEPT),
        (books(C), 0, Verdict.KEPT),
        (books(C, appended=3), 0, Verdict.QUEUED),
        (books(C, taken=Mark(3, B, 0)), 0, Verdict.PEER_LOST),
        (Books("terminated", 0, False, 0, 0, Mark()), 0, Verdict.TERMINATED),
        # Sent to B, and not confirmed.
        (books(B), B, Verdict.KEPT),
        (books(B, live=False), B, Verdict.PEER_LOST),
        (books(C), B, Verdict.PEER_LOST),
        (books(C, since=B, closed=B), B, Verdict.KEPT),
        (books(C, appended=3, since=B, closed=B), B, Verdict.QUEUED),
        (books(C, taken=Mark(3, B, 0), since=B, closed=B), B, Verdict.PEER_LOST),
    ],
)
def test_verdicts_on_what_the_sender_has_kept(
    books: Books, direct: int, verdict: Verdict
) -> None:
    assert judge(books, 3, direct=direct, kept=True, trust_leases=True) is verdict


@given(BOOKS, st.integers(1, 6), st.booleans())
def test_the_verdict_agrees_with_the_books(books: Books, seq: int, trust: bool) -> None:
    verdict = judge(books, seq, trust_leases=trust)
    taken = seq <= books.taken.seq
    if verdict is Verdict.QUEUED:
        assert books.state == "open"
        assert books.waiting
        assert not taken
    elif verdict is Verdict.TAKEN:
        assert taken
        assert books.taken.inc == books.inc
        assert books.live or not trust
    elif verdict is Verdict.PEER_LOST:
        assert taken
    elif verdict is Verdict.TERMINATED:
        assert books.state == "terminated"
    else:
        assert verdict is Verdict.VANISHED
        assert books.state == "missing" or not taken


@given(BOOKS, st.integers(1, 6), NUMBER, st.booleans())
def test_what_is_kept_is_never_said_to_have_vanished(
    books: Books, seq: int, direct: int, trust: bool
) -> None:
    kept = judge(books, seq, direct=direct, kept=True, trust_leases=trust)
    sent = judge(books, seq, direct=direct, trust_leases=trust)
    assert kept is not Verdict.VANISHED
    # It makes a difference only where nothing is known.
    assert kept is sent or (
        kept is Verdict.KEPT
        and sent in (Verdict.VANISHED, Verdict.QUEUED, Verdict.TAKEN)
    )


@given(BOOKS, st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_what_closed_cleanly_does_not_matter_any_more(
    books: Books, seq: int, direct: int, trust: bool
) -> None:
    verdict = judge(books, seq, direct=direct, trust_leases=trust)
    if books.since <= direct <= books.closed:
        assert verdict is judge(books, seq, trust_leases=trust)
    elif books.state == "open" and direct != books.inc:
        assert verdict is Verdict.PEER_LOST
