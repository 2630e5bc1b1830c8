from __future__ import annotations

import uuid

from academy.exchange.parcel import Parcel
from academy.exchange.unconfirmed import Unconfirmed


def filled(sent: Unconfirmed, *sizes: int) -> list[Parcel]:
    parcels = [
        Parcel(n, "q", uuid.uuid4(), [b""], size)
        for n, size in enumerate(sizes, start=1)
    ]
    for parcel in parcels:
        sent.add(parcel, 7)
    return parcels


def test_the_window_bounds_messages_and_bytes() -> None:
    sent = Unconfirmed(3, 100)
    assert sent.has_room(1000)
    filled(sent, 40, 40)
    assert sent.has_room(20)
    assert not sent.has_room(21)
    sent.confirmed(1)
    assert sent.has_room(60)
    assert Unconfirmed(0, 0).has_room(1)


def test_what_is_sent_may_be_there() -> None:
    sent = Unconfirmed(0, 0)
    first, second, third = filled(sent, 1, 2, 3)
    assert (first.inc, first.fresh) == (7, False)
    assert sent.confirmed(1) == [first]
    sent.remove(second)
    assert list(sent) == [third]
    assert sent.clear() == [third]
    assert not len(sent)
