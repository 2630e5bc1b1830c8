"""How a node finds the way to another process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import socket
from collections.abc import Iterator

import pytest

from academy.link import gate as gate_module
from academy.link import node as node_module
from academy.link.address import Endpoint
from academy.link.connection import Connection
from academy.link.ends import Dialled
from academy.link.security import Security
from tests.unit.link.network import Mute, Network, Process, dial, loopback, where

NEVER = 600.0


@pytest.fixture
def closed_port() -> Iterator[Endpoint]:
    """A port that nobody listens on, and nobody else can take."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield loopback(bound.getsockname()[1])


@contextlib.contextmanager
def black_hole() -> Iterator[Endpoint]:
    """A port where connections are neither accepted nor refused."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            # They fill its queue.
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield loopback(server.getsockname()[1])


def tcp(process: Process) -> Endpoint:
    return loopback(process.ports[0])


class TestCandidates:
    async def test_next_one_after_a_while(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(node_module, "STAGGER", 0.02)
        a, b = await network.open(), await network.open()
        async with Mute(network.changes) as mute:
            dial(a, b, "tcp", [mute.endpoint, tcp(b)])
            await network.until(lambda: a.linked(b))
            assert mute.seen == 1
            # The loser hangs up.
            await network.until(lambda: not mute.open)
        assert a.told == ["up"]
        assert len(a.connections) == 1
        assert not a.is_dialling(b.process)

    async def test_first_one_wins_if_it_answers(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(node_module, "STAGGER", NEVER)
        a, b = await network.open(), await network.open()
        async with Mute(network.changes) as mute:
            dial(a, b, "uds", [mute.endpoint])
            await network.until(lambda: a.linked(b) and not a.is_dialling(b.process))
            assert a.peer(b).path == "uds"
            assert not mute.seen

    async def test_next_one_at_once_after_an_error(
        self, network: Network, monkeypatch: pytest.MonkeyPatch, closed_port: Endpoint
    ) -> None:
        monkeypatch.setattr(node_module, "STAGGER", NEVER)
        a, b = await network.open(), await network.open()
        dial(a, b, "tcp", [closed_port, tcp(b)])
        await network.until(lambda: a.linked(b))
        assert a.told == ["up"]

    async def test_next_one_if_another_process_answers(self, network: Network) -> None:
        a, b, c = [await network.open() for _ in range(3)]
        dial(a, b, "tcp", [tcp(c), tcp(b)])
        await network.until(lambda: a.linked(b))
        assert a.refused == 1
        assert not c.peers

    @pytest.mark.parametrize("stagger", [0.0, 0.001])
    async def test_all_answer(
        self, network: Network, monkeypatch: pytest.MonkeyPatch, stagger: float
    ) -> None:
        """Whatever the order of events, the link that stays is a living one."""
        monkeypatch.setattr(node_module, "STAGGER", stagger)
        b = await network.open()
        for _ in range(20):
            a = await network.open()
            dial(a, b, "tcp", [tcp(b), loopback(await b.add_port(0))])
            await network.until(
                lambda a=a: a.linked(b) and not a.is_dialling(b.process)  # type: ignore[misc]
            )
            assert not a.connection(b).closed
            await a.close()

    @pytest.mark.parametrize("attempt", range(8))  # which one is looked at first varies
    async def test_two_answer_at_once(
        self,
        network: Network,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        attempt: int,
    ) -> None:
        """Only one goes on: the other side might take the one that is dropped."""
        waiting: list[tuple[Connection, bytes]] = []
        buffer_updated = Connection.buffer_updated

        def both(self: Connection, nbytes: int) -> None:
            waiting.append((self, bytes(self._buffer[:nbytes])))
            if len(waiting) == 2:
                for connection, data in waiting:
                    connection._buffer[: len(data)] = data
                    buffer_updated(connection, len(data))

        monkeypatch.setattr(node_module, "STAGGER", 0.0)
        monkeypatch.setattr(Dialled, "buffer_updated", both)
        a, b = await network.open(), await network.open()
        await b.add_port(0)
        dial(a, b, "tcp")
        await network.until(lambda: b.linked(a) and len(b.connections) == 1)
        await network.until(lambda: not a.is_dialling(b.process))
        assert a.told == b.told == ["up"]
        assert a.connections == [a.connection(b)]
        assert not a.connection(b).closed
        gc.collect()
        assert not [record for record in caplog.records if record.name == "asyncio"]

    async def test_black_hole(
        self,
        network: Network,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Nobody accepts, and nobody refuses."""
        monkeypatch.setattr(node_module, "STAGGER", 0.02)
        a, b = await network.open(), await network.open()
        with black_hole() as endpoint:
            dial(a, b, "tcp", [endpoint, tcp(b)])
            await network.until(lambda: a.linked(b) and not a.is_dialling(b.process))
        gc.collect()
        assert len(a.connections) == 1
        assert not [record for record in caplog.records if record.name == "asyncio"]

    async def test_the_winner_is_the_first_next_time(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(node_module, "STAGGER", 0.02)
        a, b = await network.open(), await network.open()
        async with Mute(network.changes) as mute:
            dial(a, b, "tcp", [mute.endpoint, tcp(b)])
            await network.until(lambda: a.linked(b) and not a.is_dialling(b.process))
            a.connection(b).close("enough")
            await network.until(lambda: not a.linked(b) and not b.linked(a))
            monkeypatch.setattr(node_module, "STAGGER", NEVER)
            dial(a, b, "tcp", [mute.endpoint, tcp(b)])
            await network.until(lambda: a.linked(b))
            assert mute.seen == 1

    async def test_a_winner_may_lose_next_time(
        self, network: Network, monkeypatch: pytest.MonkeyPatch, closed_port: Endpoint
    ) -> None:
        monkeypatch.setattr(node_module, "STAGGER", NEVER)
        a, b = await network.open(), await network.open()
        port = await b.add_port(0)
        dial(a, b, "tcp", [loopback(port)])
        await network.until(lambda: a.linked(b) and not a.is_dialling(b.process))
        b.remove_port(port)
        a.connection(b).close("enough")
        await network.until(lambda: not a.linked(b) and not b.linked(a))
        dial(a, b, "tcp", [tcp(b), loopback(port)])
        await network.until(lambda: a.linked(b))


class TestFailure:
    async def test_nobody_listens(
        self, network: Network, closed_port: Endpoint
    ) -> None:
        a, b = await network.open(), network.process()
        peer = dial(a, b, "tcp", [closed_port])
        await network.until(lambda: a.told == ["down"])
        assert str(closed_port) in peer.reason
        assert peer.refused
        assert peer.path == "relay"

    async def test_no_address(self, network: Network) -> None:
        a, b = await network.open(), network.process()
        peer = dial(a, b, "tcp", [])
        await network.until(lambda: a.told == ["down"])
        assert peer.reason == "no address: it has no address"
        assert not peer.refused

    async def test_no_answer(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(node_module, "CONNECT_TIMEOUT", 0.05)
        a, b = await network.open(), network.process()
        async with Mute(network.changes) as mute:
            peer = dial(a, b, "tcp", [mute.endpoint])
            await network.until(lambda: a.told == ["down"] and not mute.open)
            assert peer.reason == f"{mute.endpoint}: no answer in time"
        assert not a.connections
        assert a.refused == 0

    async def test_error_does_not_end_other_attempts(
        self, network: Network, monkeypatch: pytest.MonkeyPatch, closed_port: Endpoint
    ) -> None:
        monkeypatch.setattr(node_module, "STAGGER", 0.0)
        monkeypatch.setattr(node_module, "CONNECT_TIMEOUT", 0.1)
        a, b = await network.open(), network.process()
        async with Mute(network.changes) as mute:
            peer = dial(a, b, "tcp", [mute.endpoint, closed_port])
            await network.until(lambda: a.told == ["down"])
            assert peer.reason == f"{mute.endpoint}, {closed_port}: no answer in time"
            assert not peer.refused

    async def test_not_tried_again_at_once(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a, b = await network.open(), await network.open()
        dial(a, b, "tcp", [])
        await network.until(lambda: not a.is_dialling(b.process))
        assert a.told == ["down"]
        dial(a, b)
        assert not a.is_dialling(b.process)
        # A process that dials this one is welcome meanwhile.
        await network.link(b, a)

    async def test_tried_again_later(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(node_module, "REDIAL", 0.0)
        a, b = await network.open(), await network.open()
        dial(a, b, "tcp", [])
        await network.until(lambda: not a.is_dialling(b.process))
        assert a.told == ["down"]
        await network.link(a, b)

    async def test_linked_meanwhile(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A failed attempt says nothing about a link that the peer has made."""
        monkeypatch.setattr(node_module, "CONNECT_TIMEOUT", 0.05)
        a, b = await network.open(), await network.open()
        async with Mute(network.changes) as mute:
            dial(a, b, "tcp", [mute.endpoint])
            await network.link(b, a)
            await network.until(lambda: mute.seen == 1 and not mute.open)
        assert a.told == ["up"]
        assert a.peer(b).reason == ""
        await network.exchange(a, b)

    async def test_close_ends_attempts(self, network: Network) -> None:
        a, b = await network.open(), network.process()
        async with Mute(network.changes) as mute:
            dial(a, b, "tcp", [mute.endpoint])
            await network.until(lambda: mute.open == 1)
            await a.close()
        assert not a.connections
        assert not a.is_dialling(b.process)
        assert not a.told

    @pytest.mark.parametrize("proved", [False, True])
    async def test_attempt_that_succeeds_when_it_ends(
        self, network: Network, monkeypatch: pytest.MonkeyPatch, proved: bool
    ) -> None:
        """It is cancelled in the same turn, but the link is there: so it stays."""
        owner = Connection if proved else Dialled
        tell_open = owner._tell_open

        def cancelled(self: Connection, peer: bytes) -> None:
            if self.dialled:
                for task in asyncio.all_tasks():
                    if "Node._try" in repr(task):
                        task.cancel()
            tell_open(self, peer)  # type: ignore[arg-type]

        monkeypatch.setattr(owner, "_tell_open", cancelled)
        a, b = await network.open(), await network.open()
        dial(a, b)
        await network.until(lambda: a.linked(b) and b.linked(a))
        await network.until(lambda: not a.is_dialling(b.process))
        assert not a.connection(b).closed
        await network.exchange(a, b)

    async def test_own_attempts_do_not_keep_others_out(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gate_module, "room", lambda: 1)
        a, b, c = await network.open(), await network.open(), network.process()
        async with Mute(network.changes) as mute:
            dial(b, c, "tcp", [mute.endpoint])
            await network.until(lambda: mute.open == 1)
            await network.link(a, b)
            await b.close()
        assert b.refused == 0


@pytest.mark.parametrize("security", [Security(), Security("tls")])
async def test_process_that_ends_while_it_is_dialled(
    network: Network, security: Security
) -> None:
    """Its port was still there, but nobody took the connection: it is dialled again."""
    a, b = await network.open(security=security), network.process()
    dialled = []

    def end(reader: object, writer: asyncio.StreamWriter) -> None:
        dialled.append(1)
        server.close()
        writer.transport.abort()

    server = await asyncio.start_server(end, "127.0.0.1", 0)
    endpoint = loopback(server.sockets[0].getsockname()[1])
    theirs = dataclasses.replace(where(b, "tcp", [endpoint]), fingerprint="0" * 64)
    peer = a.connect(b.process, where(a), theirs)
    await network.until(lambda: a.told == ["down"])
    assert peer.refused
    assert dialled == [1]


async def test_address_of_a_closed_process(network: Network) -> None:
    """The Unix socket is gone, and so is the port."""
    a, b = await network.open(), await network.open()
    theirs = where(b, "uds", [tcp(b)])
    await b.close()
    peer = a.connect(b.process, where(a), theirs)
    await network.until(lambda: a.told == ["down"])
    assert peer.refused
