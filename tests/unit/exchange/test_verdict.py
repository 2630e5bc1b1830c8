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
