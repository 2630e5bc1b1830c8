"""Links between processes, from the first byte to the last."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pathlib
import socket

import pytest

from academy.link import gate as gate_module
from academy.link import node as node_module
from academy.link.channel import Received, Taken, Told
from academy.link.config import LinkConfig
from academy.link.frame import Ack, Control
from academy.link.protocol import Cause
from tests.unit.link.network import (
    QUICK,
    Mute,
    Network,
    Stranger,
    dial,
    loopback,
    send,
    tell,
    told,
    where,
)

BUSY = "there is another link already"


class TestLink:
    @pytest.mark.parametrize("kind", ["uds", "tcp"])
    async def test_messages_go_both_ways(self, network: Network, kind: str) -> None:
        a, b = await network.open(), await network.open()
        await network.link(a, b, kind)
        assert a.peer(b).path == b.peer(a).path == kind
        assert a.connection(b).dialled
        assert not b.connection(a).dialled
        await network.exchange(a, b)
        await network.exchange(b, a)
        assert a.told == b.told == ["up"]
        assert a.refused == b.refused == 0

    async def test_control_messages(self, network: Network) -> None:
        a, b = await network.open(), await network.open()
        await network.link(a, b)
        tell(a, b, b"hello")
        await network.until(lambda: told(b) == [b"hello"])

    async def test_reverse_link_is_used(self, network: Network) -> None:
        a, b = await network.open(), await network.open()
        await network.link(a, b)
        assert dial(b, a) is b.peer(a)
        assert not b.is_dialling(a.process)
        await network.exchange(b, a)
        assert len(a.connections) == len(b.connections) == 1

    async def test_dialled_once_at_a_time(self, network: Network) -> None:
        a, b = await network.open(), await network.open()
        peer = dial(a, b)
        assert a.is_dialling(b.process)
        assert dial(a, b) is peer
        await network.until(lambda: a.linked(b) and b.linked(a))
        await network.exchange(a, b)
        assert not a.is_dialling(b.process)
        assert len(b.connections) == 1
        assert b.told == ["up"]

    async def test_three_processes(self, network: Network) -> None:
        a, b, c = [await network.open() for _ in range(3)]
        await network.link(a, b)
        await network.link(b, c, "tcp")
        await network.link(c, a)
        for one, other in ((a, b), (b, c), (c, a)):
            await network.exchange(one, other)
        assert [len(process.connections) for process in (a, b, c)] == [2, 2, 2]

    async def test_further_port(self, network: Network) -> None:
        a, b = await network.open(), await network.open()
        port = await b.add_port(0)
        assert len(b.ports) == 2
        dial(a, b, "tcp", [loopback(port)])
        await network.until(lambda: a.linked(b))
        b.remove_port(port)
        await network.exchange(a, b)
        assert port not in b.ports

    async def test_broken_protocol_ends_the_link(self, network: Network) -> None:
        """What follows in the same read is not delivered."""
        a, b = await network.open(), await network.open()
        await network.link(a, b)
        a.connection(b).send([Ack(((7, 1),)), Control(b"too late")])
        await network.until(lambda: not a.linked(b) and not b.linked(a))
        cause, reason = b.closed_links[-1]
        assert cause is Cause.VIOLATED
        assert "channel 7" in reason
        assert a.closed_links[-1][0] is Cause.CLOSED_BY_PEER
        assert b.told == a.told == ["up", "down"]
        assert not b.events

    async def test_lost_link_may_return(self, network: Network) -> None:
        a, b = await network.open(), await network.open()
        await network.link(a, b, "tcp")
        a.transport(b).abort()
        await network.until(lambda: not a.linked(b) and not b.linked(a))
        assert a.told == b.told == ["up", "lost"]
        assert b.peer(a).path == "relay"
        assert b.peer(a).reason == "the connection was lost"
        await network.link(a, b, "tcp")
        await network.exchange(b, a)

    async def test_forgotten_process(self, network: Network) -> None:
        a, b = await network.open(), await network.open()
        await network.link(a, b)
        a.forget(b.process)
        assert not a.peers
        assert a.told == ["up", "down"]
        await network.until(lambda: not b.linked(a))
        a.forget(b.process)
        await network.link(a, b)


class TestTwoLinks:
    @pytest.mark.parametrize("first", ["a", "b"])
    async def test_simultaneous_open(self, network: Network, first: str) -> None:
        """The connection stays whose dialler has the lower identifier."""
        a, b = await network.open("a"), await network.open("b")
        one, other = (a, b) if first == "a" else (b, a)
        dial(one, other)
        dial(other, one)

        def settled() -> bool:
            sides = (a.connections, b.connections)
            return a.linked(b) and b.linked(a) and [*map(len, sides)] == [1, 1]

        await network.until(settled)
        assert a.connection(b).dialled
        assert not b.connection(a).dialled
        await network.exchange(a, b)
        await network.exchange(b, a)
        assert settled()

    async def test_newer_link_replaces(self, network: Network) -> None:
        a, again, b = network.process("a"), network.process("a"), await network.open()
        await network.link(a, b)
        old = b.connection(a)
        dial(again, b)
        await network.until(lambda: again.linked(b) and not a.linked(b))
        assert b.connection(a) is not old
        assert b.told == ["up", "lost", "up"]
        assert a.told == ["up", "down"]
        assert b.closed_links == [(Cause.CLOSED_HERE, "replaced by a newer link")]
        await network.exchange(again, b)
        assert len(b.connections) == 1

    async def test_link_of_the_lower_dialler_stays(self, network: Network) -> None:
        a, b = await network.open("a"), await network.open("b")
        again = network.process("b")
        await network.link(a, b)
        dial(again, a)
        await network.until(lambda: again.told == ["up", "down"])
        assert a.told == ["up"]
        assert a.closed_links == [(Cause.CLOSED_HERE, BUSY)]
        await network.exchange(a, b)

    async def test_link_of_the_higher_dialler_goes(self, network: Network) -> None:
        a, b = await network.open("a"), await network.open("b")
        again = network.process("a")
        await network.link(b, a)
        dial(again, b)
        await network.until(lambda: again.linked(b) and not a.linked(b))
        assert b.told == ["up", "lost", "up"]
        assert not b.connection(a).dialled
        await network.exchange(again, b)

    async def test_suspected_link_does_not_stay(self, network: Network) -> None:
        """The peer has given it up already, so what it offers is the better one."""
        a, b = await network.open("a", config=QUICK), await network.open("b")
        again = network.process("b")
        await network.link(a, b)
        b.transport(a).pause_reading()
        await network.until(lambda: not a.linked(b))
        dial(again, a)
        await network.until(lambda: again.linked(a) and a.linked(b))
        b.transport(a).resume_reading()
        await network.exchange(again, a)


class TestRefused:
    async def test_wrong_secret(self, network: Network) -> None:
        a, b = await network.open(keys=[b"another secret"]), await network.open()
        peer = dial(a, b)
        await network.until(lambda: a.told == ["down"] and not b.connections)
        assert a.refused == 1
        assert "does not know the secret" in peer.reason
        assert not peer.refused
        assert not b.peers
        assert not b.events

    async def test_common_secret(self, network: Network) -> None:
        """Secrets can be changed while processes run."""
        a = await network.open(keys=[b"new", b"old"])
        b = await network.open(keys=[b"old"])
        await network.link(a, b)
        await network.exchange(a, b)

    async def test_wrong_namespace(self, network: Network) -> None:
        a, b = await network.open(namespace="other"), await network.open()
        dial(a, b)
        await network.until(lambda: a.told == ["down"] and not b.connections)
        # Whoever is hung up on tries once more.
        assert b.refusals == {"namespace": 2}
        reason = "the peer was refused: it belongs to another namespace"
        assert b.closed_links == [(Cause.REFUSED, reason)] * 2
        assert not b.peers

    async def test_another_process_answers(self, network: Network) -> None:
        a, b = await network.open("a"), await network.open("b")
        found = dataclasses.replace(where(b), process="63" * 16)
        peer = a.connect(b"c" * 16, where(a), found)
        await network.until(lambda: a.told == ["down"] and not b.connections)
        assert a.refused == 1
        assert "another process answers at this address" in peer.reason
        assert not b.peers

    async def test_own_address(self, network: Network) -> None:
        """An address may have been that of an older process."""
        a = await network.open("a")
        peer = a.connect(b"c" * 16, where(a), where(a, "tcp"))
        await network.until(lambda: a.told == ["down"] and not a.connections)
        assert a.refusals == {"process": 2}
        assert peer.reason

    @pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\5hello"])
    async def test_stranger(self, network: Network, data: bytes) -> None:
        a = await network.open()
        async with Stranger.dial(a) as stranger:
            stranger.write(data)
            assert await stranger.dropped()
        assert a.refused == 1
        assert not a.peers

    async def test_silent_stranger(self, network: Network) -> None:
        a = await network.open(config=LinkConfig(handshake_timeout=0.05))
        async with Stranger.dial(a) as stranger:
            assert await stranger.dropped()
        assert a.refused == 1

    async def test_too_many_strangers(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One of those who say nothing has to go; members are not kept out."""
        monkeypatch.setattr(gate_module, "room", lambda: 2)
        a, b = await network.open(), await network.open()
        async with Stranger.dial(b) as first, Stranger.dial(b) as second:
            async with Stranger.dial(b):
                dropped = [asyncio.create_task(s.dropped()) for s in (first, second)]
                await asyncio.wait(dropped, return_when=asyncio.FIRST_COMPLETED)
                assert b.refusals == {"crowded": 1}
                await network.link(a, b, "tcp")
            await asyncio.gather(*dropped, b.close())

    async def test_other_user(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gate_module, "same_user", lambda _: False)
        a, b = await network.open(), await network.open()
        dial(a, b)
        await network.until(lambda: a.told == ["down"] and not b.connections)
        assert b.refusals == {"user": 2}
        assert not b.peers
        a.forget(b.process)
        await network.link(a, b, "tcp")


class TestSilence:
    async def test_suspected_and_trusted_again(self, network: Network) -> None:
        a, b = await network.open(config=QUICK), await network.open()
        await network.link(a, b)
        key = await network.channel(a, b)
        b.transport(a).pause_reading()
        await network.until(lambda: not a.linked(b))
        peer = a.peer(b)
        assert peer.suspected
        assert (peer.path, peer.reason) == ("relay", "silent for 0.05 s")
        assert a.told[-1] == "down"
        send(a, b, key, 1, b"in time")
        b.transport(a).resume_reading()
        await network.until(lambda: a.linked(b) and Taken(key, 1) in a.events)
        assert (peer.path, peer.reason) == ("uds", "")
        assert a.told[-1] == "up"
        assert b.told == ["up"]
        assert len(a.connections) == 1

    async def test_given_up(self, network: Network) -> None:
        """A link that was suspected is told of once."""
        a = await network.open(config=dataclasses.replace(QUICK, dead_after=0.1))
        b = await network.open()
        await network.link(a, b)
        b.transport(a).pause_reading()
        await network.until(lambda: bool(a.closed_links))
        cause, reason = a.closed_links[0]
        assert cause is Cause.LOST
        assert reason.startswith("the peer was silent for 0.")
        assert a.told[-1] == "down"
        assert a.told.count("down") == a.told.count("up")
        assert not a.connections
        b.transport(a).resume_reading()
        await network.until(lambda: not b.connections)

    async def test_given_up_with_much_to_write(self, network: Network) -> None:
        """The socket does not wait for a peer that may never read again."""
        a = await network.open(config=dataclasses.replace(QUICK, dead_after=0.1))
        b = await network.open()
        await network.link(a, b)
        key = await network.channel(a, b)
        b.transport(a).pause_reading()
        transport = a.transport(b)
        send(a, b, key, 1, bytes(3 << 20))
        await network.until(lambda: bool(a.closed_links))
        assert not transport.get_write_buffer_size()
        b.transport(a).resume_reading()
        await network.until(lambda: not b.connections)
        assert not b.received()


class TestIdle:
    @pytest.fixture(autouse=True)
    def often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(node_module, "SWEEP", 0.01)

    async def test_closed_and_opened_again(self, network: Network) -> None:
        a = await network.open(config=LinkConfig(idle_after=0.02))
        b = await network.open()
        await network.link(a, b)
        await network.until(lambda: not a.linked(b) and not b.linked(a))
        assert a.closed_links == [(Cause.CLOSED_HERE, "idle")]
        assert a.told == b.told == ["up", "down"]
        dial(a, b)
        await network.until(lambda: a.told == ["up", "down", "up"])

    async def test_forgotten(self, network: Network) -> None:
        """Nothing is kept of a process that was not linked for a while, either."""
        a = await network.open(config=LinkConfig(idle_after=0.02))
        b = await network.open()
        await network.link(a, b)
        await network.until(lambda: not a.peers)
        assert a.told == ["up", "down"]
        await network.link(a, b)

    async def test_not_while_it_is_dialled(self, network: Network) -> None:
        a = await network.open(config=LinkConfig(idle_after=0.02))
        b, c = network.process(), await network.open()
        async with Mute(network.changes) as mute:
            dial(a, b, "tcp", [mute.endpoint])
            await network.link(a, c)
            await network.until(lambda: c.process not in a.peers)
            assert a.is_dialling(b.process)
            assert list(a.peers) == [b.process]
            await a.close()

    async def test_not_while_a_message_is_sent(self, network: Network) -> None:
        a = await network.open(config=LinkConfig(idle_after=0.02))
        b, c = await network.open(), await network.open()
        await network.link(a, b)
        key = await network.channel(a, b)
        b.transport(a).pause_reading()
        send(a, b, key, 1, bytes(5 << 20))
        a.peer(b).flush()
        await network.link(a, c)
        await network.until(lambda: not a.linked(c))
        assert a.linked(b)
        b.transport(a).resume_reading()
        await network.until(lambda: bool(b.received()))
        await network.until(lambda: not a.linked(b))


async def test_large_message_delays_no_small_ones(network: Network) -> None:
    a, b = await network.open(), await network.open()
    await network.link(a, b)
    large, small = await network.channel(a, b), await network.channel(a, b, 1)
    text = bytes(range(256)) * (40 << 12)
    send(a, b, large, 1, b"head", text)
    sent = 0

    def next_one() -> bool:
        """Send small ones, one after the other, until the large one is through."""
        nonlocal sent
        if len(b.received()) == sent and Taken(large, 1) not in a.events:
            sent += 1
            send(a, b, small, sent, b"small")
        return Taken(large, 1) in a.events

    await network.until(next_one)
    await network.until(lambda: Taken(small, sent) in a.events)
    found = b.received()
    place = found.index((1, [b"head", text]))
    assert place >= 3
    assert [seq for seq, _ in found[:place]] == list(range(1, place + 1))


async def test_message_waits_for_a_slow_reader(network: Network) -> None:
    a, b = await network.open(), await network.open()
    await network.link(a, b, "tcp")
    key = await network.channel(a, b)
    b.transport(a).pause_reading()
    send(a, b, key, 1, bytes(20 << 20))
    a.peer(b).flush()
    while not a.connection(b).paused:
        a.peer(b).flush()
    assert a.peer(b).session.has_parts
    assert a.transport(b).get_write_buffer_size() < 2 << 20
    tell(a, b, b"small ones go on")
    b.transport(a).resume_reading()
    await network.until(lambda: bool(b.received()))
    assert told(b) == [b"small ones go on"]
    kinds = [type(event) for event in b.events]
    assert kinds.index(Told) < kinds.index(Received)


class TestClose:
    async def test_peers_are_told(self, network: Network, folder: pathlib.Path) -> None:
        a, b = await network.open(), await network.open()
        await network.link(a, b)
        key = await network.channel(a, b)
        send(a, b, key, 1, b"last words")
        a.peer(b).session.tell(b"not written yet")
        await a.close()
        await a.close()
        await network.until(lambda: not b.linked(a))
        assert b.received() == [(1, [b"last words"])]
        assert told(b) == [b"not written yet"]
        assert b.closed_links[0][0] is Cause.CLOSED_BY_PEER
        assert a.told == b.told == ["up", "down"]
        assert os.listdir(folder) == [pathlib.Path(b.unix_path or "").parent.name]
        assert not a.connections

    async def test_what_was_written_arrives(self, network: Network) -> None:
        a, b = await network.open(), await network.open()
        await network.link(a, b)
        key = await network.channel(a, b)
        b.transport(a).pause_reading()
        send(a, b, key, 1, bytes(5 << 20))
        tell(a, b, b"last words")
        a.peer(b).flush()
        while not a.connection(b).paused:
            a.peer(b).flush()
        await a.close()
        b.transport(a).resume_reading()
        await network.until(lambda: not b.linked(a))
        assert told(b) == [b"last words"]
        assert b.closed_links[0][0] is Cause.CLOSED_BY_PEER
        assert not b.received()

    async def test_no_link_afterwards(self, network: Network) -> None:
        a, b = await network.open(), await network.open()
        theirs = where(a, "tcp")
        await a.close()
        dial(a, b)
        assert not a.is_dialling(b.process)
        peer = b.connect(a.process, where(b), theirs)
        await network.until(lambda: b.told == ["down"])
        assert peer.refused

    async def test_strangers_are_dropped(self, network: Network) -> None:
        a = await network.open()
        async with Stranger.dial(a) as stranger:
            await a.close()
            assert await stranger.dropped()

    async def test_accepted_just_before(self, network: Network) -> None:
        a = await network.open()
        await a.close()
        ours, theirs = socket.socketpair()
        with theirs:
            a._gate.enter(ours, "uds")
            assert theirs.recv(1) == b""
        assert not a.connections
