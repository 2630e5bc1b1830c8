from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.link.admission import Admission, plain_ip, source_of


def never() -> float:
    return 1.0


def always() -> float:
    return 0.0


def test_there_is_room() -> None:
    door: Admission[int] = Admission(always, limit=8, per_source=8)
    assert [door.enter(n, "a") for n in range(6)] == [None] * 6
    assert list(door) == [*range(6)]


def test_the_oldest_of_a_source_goes() -> None:
    door: Admission[int] = Admission(never, limit=100, per_source=3)
    for n in range(3):
        assert door.enter(n, "a") is None
    assert door.enter(10, "b") is None
    assert door.enter(3, "a") == 0
    assert door.enter(4, "a") == 1
    assert list(door) == [2, 10, 3, 4]


def test_those_who_leave_make_room() -> None:
    door: Admission[int] = Admission(never, limit=100, per_source=2)
    door.enter(0, "a")
    door.enter(1, "a")
    door.leave(0)
    door.leave(0)
    assert door.enter(2, "a") is None
    assert door.enter(3, "a") == 1


def test_chance_decides_when_it_is_nearly_full() -> None:
    door: Admission[int] = Admission(always, limit=8, per_source=8)
    for n in range(6):
        door.enter(n, str(n))
    # Chance has nothing to say yet: from now on it has.
    assert door.enter(6, "6") is None
    assert door.enter(7, "7") == 0
    assert len(door) == 7


def test_it_is_the_more_likely_the_fuller_it_is() -> None:
    share = []
    for present in (96, 112, 120, 127):
        rng = random.Random(4)
        gone = 0
        for _ in range(500):
            door: Admission[int] = Admission(rng.random, limit=128)
            for n in range(present):
                # Nothing is by chance while it fills.
                door._guests[n] = str(n)
                door._by_source[str(n)] = {n: None}
            gone += door.enter(-1, "new") is not None
        share.append(gone / 500)
    assert share[0] == 0
    assert 0.4 < share[1] < 0.6
    assert 0.65 < share[2] < 0.85
    assert share[3] > 0.9


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans())), st.randoms())
def test_there_are_never_too_many(
    steps: list[tuple[int, bool]], chance: random.Random
) -> None:
    door: Admission[int] = Admission(chance.random, limit=6, per_source=3)
    present: dict[int, str] = {}
    for number, (source, leaves) in enumerate(steps):
        if leaves and present:
            gone = chance.choice(list(present))
            door.leave(gone)
            del present[gone]
            continue
        victim = door.enter(number, str(source))
        if victim is not None:
            del present[victim]
        present[number] = str(source)
        assert list(door) == list(present)
        assert len(door) <= 6
        assert all(list(present.values()).count(s) <= 3 for s in present.values())


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::1", "::1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_sources(host: str, source: str) -> None:
    assert source_of(host) == source


def test_plain_addresses() -> None:
    assert str(plain_ip("::ffff:127.0.0.1")) == "127.0.0.1"
    assert plain_ip("::ffff:127.0.0.1").is_loopback
    assert str(plain_ip("fe80::1%eth0")) == "fe80::1"
