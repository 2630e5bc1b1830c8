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
        assert books.state == "missing" or not taken


def books(
    inc: int, *, live: bool = True, waiting: int = 0, appended: int = 0, closed: int = 0
) -> Books:
    return Books("open", inc, live, waiting, appended, Mark(2, inc, 0), closed)


@pytest.mark.parametrize(
    ("known", "direct", "kept", "verdict"),
    [
        # Sent to the live owner, with or without a copy in the queue.
        (books(7), 7, False, Verdict.TAKEN),
        (books(7), 7, True, Verdict.KEPT),
        (books(7, waiting=1, appended=3), 7, False, Verdict.QUEUED),
        (books(7, waiting=1, appended=3), 7, True, Verdict.KEPT),
        # Sent to one who is gone: nobody can tell what became of it.
        (books(7, live=False), 7, False, Verdict.PEER_LOST),
        (books(8), 7, True, Verdict.PEER_LOST),
        (books(8, waiting=1, appended=3), 7, False, Verdict.PEER_LOST),
        # That one closed cleanly, so that the server knows.
        (books(8, closed=7), 7, True, Verdict.KEPT),
        (books(8, closed=7), 7, False, Verdict.VANISHED),
        (books(8, closed=7, waiting=1, appended=3), 7, False, Verdict.QUEUED),
        # Not sent at all yet.
        (books(7), 0, True, Verdict.KEPT),
        (Books("missing", 0, False, 0, 0, Mark()), 0, True, Verdict.KEPT),
        (Books("terminated", 0, False, 0, 0, Mark()), 7, True, Verdict.TERMINATED),
    ],
)
def test_verdicts_on_what_may_have_gone_directly(
    known: Books, direct: int, kept: bool, verdict: Verdict
) -> None:
    assert judge(known, 3, direct=direct, kept=kept, trust_leases=True) is verdict
