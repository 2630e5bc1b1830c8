from __future__ import annotations

import asyncio

from academy.exchange.outbox import Outbox
from academy.exchange.outlet import Outlet
from academy.exchange.stream import REQUESTS, SendStream
from academy.identifier import AgentId


def make() -> Outlet:
    return Outlet(AgentId.new(), SendStream("key", 7, REQUESTS))


async def test_turns_come_in_order_and_are_seen_from_the_first_wish() -> None:
    outlet, order = make(), []

    async def take_turn(number: int) -> None:
        async with outlet.turn():
            order.append(number)
            await asyncio.sleep(0)
        if outlet.waiting:
            # The next one has not run yet, and is in line nevertheless.
            order.append(-outlet.waiting)

    assert outlet.waiting == 0
    await asyncio.gather(*map(take_turn, range(3)))
    assert order == [0, -2, 1, -1, 2]
    assert outlet.waiting == 0


async def test_who_gives_up_is_in_nobodys_way() -> None:
    outlet = make()

    async def take_turn() -> None:
        async with outlet.turn():
            pass

    async with outlet.turn():
        task = asyncio.create_task(take_turn())
        await asyncio.sleep(0)
        assert outlet.waiting == 2
        task.cancel()
        await asyncio.wait([task])
        assert outlet.waiting == 1
    assert outlet.waiting == 0


async def test_what_was_returned_counts_as_queued() -> None:
    outlet = make()
    outlet.returned(3)
    outlet.returned(2)
    assert outlet.stream.relayed == 3


async def test_what_was_returned_counts_as_queued_on_a_line() -> None:
    outlet = make()
    outbox = Outbox(outlet.stream, 8, 1000)

    class Line:
        pass

    outlet.line = line = Line()
    line.outbox = outbox  # type: ignore[attr-defined]
    outlet.stream.seq = 3
    outlet.returned(3)
    outbox.channel_open(9, 0, 0.0)
    assert not outbox.is_direct
    parcel, effects = outbox.submit("q", AgentId.new().uid, [b"x"], 0.0)
    assert (parcel.seq, effects) == (4, [])  # it waits
    outbox.taken(3, 0.0)
    assert outbox.is_direct
