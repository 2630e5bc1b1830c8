"""Memory that is shared over real connections."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import pytest

from academy.link import node as node_module
from academy.link.channel import REPLIES, ChannelKey, Received, Taken
from academy.link.connection import Connection
from academy.link.frame import Returned
from academy.link.lending import State
from academy.link.peer import Peer
from academy.link.protocol import Cause
from academy.link.region import VARIABLE, Regions
from academy.link.sharing import SharedMemory
from academy.loan import lent
from tests.unit.link.memory import ONLY_LINUX
from tests.unit.link.network import Network, Process, tell, told

pytestmark = ONLY_LINUX
SIZE = 3 << 20


def memory(a: Process, b: Process) -> SharedMemory:
    """Return what a shares with b."""
    found = a.peer(b).session._memory
    assert found is not None
    return found


def array(seed: int, size: int = SIZE) -> memoryview:
    return memoryview(bytearray([seed]) * size)


def arrays(process: Process) -> list[memoryview]:
    """Take out what has arrived."""
    found = [event for event in process.events if isinstance(event, Received)]
    process.events.clear()
    segments = [segment for event in found for segment in event.segments[1:]]
    assert all(isinstance(segment, memoryview) for segment in segments)
    return segments  # type: ignore[return-value]


class Sender:
    """Sends arrays from a to b."""

    def __init__(self, network: Network, a: Process, b: Process, key: ChannelKey):
        self.network, self.a, self.b, self.key = network, a, b, key
        self.seq = 0

    @classmethod
    async def open(cls, network: Network, kind: str = "uds", lane: int = 0) -> Sender:
        a, b = await network.open(), await network.open()
        await network.link(a, b, kind)
        return cls(network, a, b, await network.channel(a, b, lane))

    async def send(self, *segments: memoryview, lent: bool = True) -> None:
        """Send a message, and wait until it was taken."""
        self.seq += 1
        message = [b"head", *segments]
        size = sum(map(len, message))
        self.a.peer(self.b).send(self.key, self.seq, message, size, lent)
        taken = Taken(self.key, self.seq)
        await self.network.until(lambda: taken in self.a.events)
        self.a.events.clear()

    async def heard(self) -> None:
        """Wait until a has heard all that b has to say of memory."""
        tell(self.b, self.a, b"word")
        await self.network.until(lambda: told(self.a) == [b"word"])
        self.a.events.clear()

    def states(self) -> list[State]:
        return [own.state for own in memory(self.a, self.b).lender.owned.values()]


async def test_arrays_are_lent_while_there_is_memory(network: Network) -> None:
    sender = await Sender.open(network)
    held = []
    for seed in range(12):
        await sender.send(array(seed))
        held += arrays(sender.b)
        assert all(found == array(index) for index, found in enumerate(held))
    # Every second one had none, and made an offer.
    assert sender.states() == [State.LENT] * 6


async def test_whatever_thread_it_ends_in(network: Network) -> None:
    sender = await Sender.open(network)
    for seed in range(2):
        await sender.send(array(seed))
    held = arrays(sender.b)
    assert sender.states() == [State.LENT]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    await sender.heard()
    assert sender.states() == [State.FREE]


async def test_the_end_is_told_although_nobody_says_anything(network: Network) -> None:
    sender = await Sender.open(network)
    for seed in range(2):
        await sender.send(array(seed))
    lender = memory(sender.a, sender.b).lender
    (own,) = lender.owned.values()
    returned, note = lender.returned, network.changes.note

    def told(number: int) -> None:
        returned(number)
        note()

    lender.returned = told  # type: ignore[method-assign]
    arrays(sender.b).clear()
    await network.until(lambda: own.state is State.FREE)


async def test_its_own_goes_back(network: Network) -> None:
    there = await Sender.open(network)
    key = await network.channel(there.b, there.a, REPLIES)
    back = Sender(network, there.b, there.a, key)
    await there.send(array(1))
    await there.send(array(2))
    _, found = arrays(there.b)
    found[0] = 77
    await back.send(found, lent=False)
    (copy,) = arrays(there.a)
    assert there.states() == [State.BACK]
    assert copy[0] == 77
    assert copy[1:] == array(2)[1:]
    found[1] = 78
    assert copy[1] == 78
    del found
    await there.heard()
    assert there.states() == [State.BACK]
    del copy
    await there.send(array(3))
    assert there.states() == [State.LENT]
    assert arrays(there.b) == [array(3)]


@pytest.mark.parametrize("kind", ["uds", "tcp"])
async def test_only_by_a_unix_socket(network: Network, kind: str) -> None:
    sender = await Sender.open(network, kind)
    shares = sender.a.peer(sender.b).session._memory is not None
    assert shares is (kind == "uds")
    for seed in range(3):
        await sender.send(array(seed))
    assert [bytes(found[:2]) for found in arrays(sender.b)] == [
        b"\0\0",
        b"\1\1",
        b"\2\2",
    ]


@pytest.mark.parametrize("who", ["a", "b"])
async def test_only_one_shares(
    network: Network, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    a, b = await network.open("a"), await network.open("b")
    attach = Peer.attach

    def attach_one(peer: Peer, connection: Connection) -> None:
        with monkeypatch.context() as patch:
            if peer.process != who.encode() * 16:
                patch.setenv(VARIABLE, "0")
            attach(peer, connection)

    monkeypatch.setattr(Peer, "attach", attach_one)
    await network.link(a, b)
    for one, other in ((a, b), (b, a)):
        sender = Sender(network, one, other, await network.channel(one, other))
        for seed in range(4):
            await sender.send(array(seed))
            (found,) = arrays(other)
            assert found == array(seed)
    shares = [p.session._memory for p in (a.peer(b), b.peer(a))]
    assert [found is not None for found in shares] == [who == "b", who == "a"]
    (found,) = [memory for memory in shares if memory is not None]
    assert found.lender.refused
    assert not found.lender.owned


async def test_what_cannot_be_opened_goes_by_the_socket(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Regions.open
    monkeypatch.setattr(Regions, "open", lambda self, offer: None)
    sender = await Sender.open(network)
    for seed in range(4):
        await sender.send(array(seed))
        assert arrays(sender.b) == [array(seed)]
    assert memory(sender.a, sender.b).lender.refused
    monkeypatch.setattr(Regions, "open", opened)
    await sender.send(array(5))
    assert sender.states() == []


async def test_cut_while_it_is_lent(network: Network) -> None:
    sender = await Sender.open(network)
    for seed in range(2):
        await sender.send(array(seed))
    held = arrays(sender.b)
    former = memory(sender.a, sender.b), memory(sender.b, sender.a)
    sender.a.transport(sender.b).abort()
    await network.until(
        lambda: not sender.a.linked(sender.b) and not sender.b.linked(sender.a)
    )
    assert sender.a.peer(sender.b).session._memory is None
    await network.link(sender.a, sender.b)
    sender.key = await network.channel(sender.a, sender.b)
    sender.b.events.clear()
    for seed in range(5, 9):
        await sender.send(array(seed))
    assert held == [array(0), array(1)]
    assert memory(sender.a, sender.b) is not former[0]
    assert arrays(sender.b) == [array(seed) for seed in range(5, 9)]
    held.clear()
    await sender.heard()


async def test_a_wrong_word_about_memory_ends_the_link(network: Network) -> None:
    sender = await Sender.open(network)
    sender.b.peer(sender.a).session.frames.append(Returned(1))
    sender.b.peer(sender.a).flush()
    await network.until(lambda: bool(sender.a.closed_links))
    assert sender.a.closed_links[0][0] is Cause.VIOLATED
    assert "never offered" in sender.a.closed_links[0][1]


async def test_what_nobody_uses_is_dropped(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "SWEEP", 0.01)
    sender = await Sender.open(network)
    before = len(os.listdir("/proc/self/fd"))
    for seed in range(2):
        await sender.send(array(seed))
    opened = memory(sender.b, sender.a).borrower.opened
    assert len(os.listdir("/proc/self/fd")) == before + 2
    arrays(sender.b).clear()
    dropped, note = memory(sender.b, sender.a).borrower.dropped, network.changes.note

    def tell_dropped(number: int) -> None:
        dropped(number)
        note()

    memory(sender.b, sender.a).borrower.dropped = tell_dropped  # type: ignore[method-assign]
    await network.until(lambda: not opened)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_who_is_gone_is_not_kept_by_what_was_lent(network: Network) -> None:
    sender = await Sender.open(network)
    for seed in range(2):
        await sender.send(array(seed))
    peer = sender.b.peer(sender.a)
    # As an engine has messages that nobody has taken.
    peer.held = arrays(sender.b)  # type: ignore[attr-defined]
    assert len(lent()) == 1
    gone = weakref.ref(peer)
    # Not even closed: its process just stops to use it.
    peer.session._memory, memory = None, peer.session._memory
    sender.b.connection(sender.a).abort()
    sender.b.forget(sender.a.process)
    await network.until(lambda: not sender.a.linked(sender.b))
    del peer
    gc.collect()
    assert gone() is None
    assert not lent()
    assert memory is not None
    memory._wake()
    memory.close()
