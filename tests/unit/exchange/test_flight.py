from __future__ import annotations

import uuid

from academy.exchange.flight import NO_ROOM, OVERHEAD, Flight, Room
from academy.exchange.parcel import Parcel
from academy.exchange.stream import REQUESTS, SendStream


def parcel(seq: int, size: int = 10) -> Parcel:
    return Parcel(seq, "q", uuid.uuid4(), [b""], size)


def flight(relayed: int = 0) -> tuple[Flight, SendStream]:
    stream = SendStream("aKEY", 7, REQUESTS)
    stream.relayed = relayed
    return Flight(stream), stream


def test_each_names_the_one_right_before_it() -> None:
    made, stream = flight()
    first, second, third = parcel(1), parcel(2), parcel(5)
    made.add(first)
    made.add(second)
    assert (first.ahead, second.ahead, stream.relayed) == (0, 1, 2)
    assert second in made
    assert list(made) == [first, second]
    made.remove(first, arrived=True)
    made.remove(second, arrived=True)
    assert not len(made)
    made.add(third)
    assert third.ahead == 0


def test_the_barrier_is_at_the_last_that_is_or_may_be_in_the_queue() -> None:
    made, stream = flight(relayed=3)
    parcels = [parcel(seq) for seq in (4, 5, 6)]
    for each in parcels:
        made.add(each)
    made.remove(parcels[0], arrived=True)
    made.refused(parcels[1])
    assert stream.relayed == 6
    made.refused(parcels[2])
    assert stream.relayed == 4
    made.add(parcels[1])
    made.remove(parcels[1], arrived=False)
    assert stream.relayed == 4


def test_a_stream_that_goes_on_keeps_its_barrier() -> None:
    made, stream = flight(relayed=3)
    first = parcel(4)
    made.add(first)
    made.remove(first, arrived=False)
    assert stream.relayed == 3


def test_there_is_room_until_one_is_refused() -> None:
    made, _ = flight()
    assert made.takes(parcel(1, 1 << 40))
    assert not made.short
    first = parcel(1)
    made.add(first)
    made.refused(first)
    assert made.short
    assert not made.takes(first)
    made.learn(None)
    assert not made.short
    assert made.takes(first)


def test_room_is_used_up() -> None:
    made, _ = flight()
    made.learn(Room(2, 3000))
    assert not made.takes(parcel(1, 3000))
    assert made.short
    assert made.takes(parcel(1, 3000 - OVERHEAD))
    assert not made.short
    made.add(parcel(1, 900))
    assert not made.takes(parcel(2, 100))
    made.learn(Room(2, 10_000))
    made.add(parcel(2))
    made.add(parcel(3))
    assert not made.takes(parcel(4))
    made.learn(NO_ROOM)
    assert not made.takes(parcel(4))
