"""One connection over a real socket."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from academy.link.config import LinkConfig
from academy.link.connection import COPY_BELOW, TURN, WRITE_BUFFER, Connection
from academy.link.frame import Control, Data, Filled, Frame, Part
from academy.link.handshake import Role
from academy.link.protocol import Cause
from tests.unit.link.network import PATIENCE, QUICK, Changes, nothing_left
from tests.unit.link.pair import CLIENT, CONFIG, SECRET, SERVER, plain, protocol, wire

LARGE = bytes(range(256)) * 200


class Side:
    """One end of a connection, and what it tells its owner."""

    def __init__(self, role: Role, config: LinkConfig, changes: Changes) -> None:
        now = asyncio.get_running_loop().time()
        dialled = role is Role.CLIENT
        self._changes = changes
        self.told: list[str] = []
        self.frames: list[Frame | Filled] = []
        self.place: bytearray | None = None
        """Where parts are read to, if anywhere."""
        self.asked: list[int] = []
        self.ends: list[tuple[Cause, str]] = []
        self.peer = b""
        self.connection = Connection(
            protocol(role, config, now), self, "uds", dialled=dialled
        )

    @property
    def transport(self) -> asyncio.Transport:
        assert self.connection._transport is not None
        return self.connection._transport

    def link_open(self, connection: Connection, peer: bytes) -> None:
        self.peer = peer
        self._note(connection, "open")

    def frames_received(
        self, connection: Connection, frames: Sequence[Frame | Filled]
    ) -> None:
        self.frames += frames
        self._note(connection, f"{len(frames)} frames")

    def room(self, connection: Connection, part: Part, most: int) -> memoryview | None:
        self.asked.append(most)
        if self.place is None:
            return None
        return memoryview(self.place)[self.placed : self.placed + most]

    def suspected(self, connection: Connection, suspected: bool) -> None:
        self._note(connection, "suspected" if suspected else "trusted")

    def writable(self, connection: Connection) -> None:
        assert not connection.paused
        self._note(connection, "writable")

    def link_closed(self, connection: Connection, cause: Cause, reason: str) -> None:
        self.ends.append((cause, reason))
        self._note(connection, "closed")

    @property
    def placed(self) -> int:
        """How many bytes of parts have come."""
        parts = [len(f.data) for f in self.frames if isinstance(f, Part)]
        filled = [f.size for f in self.frames if isinstance(f, Filled)]
        return sum(parts) + sum(filled)

    def _note(self, connection: Connection, what: str) -> None:
        assert connection is self.connection
        self.told.append(what)
        self._changes.note()


class Line:
    """Two ends that are not connected yet."""

    def __init__(self, client: LinkConfig, server: LinkConfig) -> None:
        changes = Changes()
        self.until = changes.until
        self.client = Side(Role.CLIENT, client, changes)
        self.server = Side(Role.SERVER, server, changes)

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        for side, sock in zip(
            (self.client, self.server), socket.socketpair(), strict=True
        ):
            await loop.create_connection(lambda side=side: side.connection, sock=sock)

    async def open(self) -> None:
        await self.connect()
        await self.until(lambda: bool(self.client.peer and self.server.peer))

    def close(self) -> None:
        for side in (self.client, self.server):
            side.connection.close("the test is over")
            if side.connection._transport is not None:
                side.transport.abort()


Open = Callable[..., Awaitable[Line]]


@pytest.fixture
async def open_line() -> AsyncIterator[Open]:
    lines: list[Line] = []

    async def open_one(
        client: LinkConfig = CONFIG, server: LinkConfig = CONFIG
    ) -> Line:
        line = Line(client, server)
        lines.append(line)
        await line.open()
        return line

    async with nothing_left():
        yield open_one
        for line in lines:
            line.close()


async def test_both_sides_open(open_line: Open) -> None:
    line = await open_line()
    assert line.client.peer == SERVER
    assert line.server.peer == CLIENT
    assert line.client.told == line.server.told == ["open"]
    assert line.client.connection.dialled
    assert not line.server.connection.dialled
    assert not line.client.connection.closed


@pytest.mark.parametrize("option", ["TCP_USER_TIMEOUT", "no option"])
async def test_tcp_sends_small_frames_at_once(
    monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """Also where the system lacks an option."""
    monkeypatch.delattr(socket, option, raising=False)
    async with nothing_left():
        line = Line(CONFIG, CONFIG)
        connection = line.client.connection
        connection.kind = "tcp"
        with socket.create_server(("127.0.0.1", 0)) as server:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: connection, *server.getsockname())
            sock = line.client.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            connection.abort()


async def test_secrets_are_not_shown(open_line: Open) -> None:
    line = await open_line()
    assert repr(line.client.connection) == "Connection(uds, OPEN)"
    assert SECRET.decode() not in repr(line.client.connection)


async def test_round_trip_is_measured(open_line: Open) -> None:
    line = await open_line()
    for side in (line.client, line.server):
        assert side.connection.rtt is not None
        assert 0.0 <= side.connection.rtt < PATIENCE


async def test_frames_of_one_read_are_one_batch(open_line: Open) -> None:
    line = await open_line()
    line.client.connection.send([Control(b"one"), Control(b"two")])
    await line.until(lambda: len(line.server.told) == 2)
    assert line.server.told == ["open", "2 frames"]
    assert [bytes(f.data) for f in line.server.frames] == [b"one", b"two"]


@pytest.mark.parametrize("size", [0, 1, COPY_BELOW - 1, COPY_BELOW, len(LARGE)])
async def test_pieces_keep_their_order(open_line: Open, size: int) -> None:
    line = await open_line()
    text = LARGE[:size]
    texts = [[b"head", text, text, b"tail", text], [b"small"]]
    frames = [Data(1, seq, text) for seq, text in enumerate(texts, 1)]
    line.client.connection.send([Control(b"first"), *frames, Control(b"last")])
    await line.until(lambda: len(line.server.frames) == 4)
    first, *data, last = line.server.frames
    assert (bytes(first.data), bytes(last.data)) == (b"first", b"last")
    assert [plain(frame.segments) for frame in data] == texts


class TestEnd:
    async def test_close(self, open_line: Open) -> None:
        line = await open_line()
        line.client.connection.send([Control(b"last words")])
        line.client.connection.close("enough")
        line.client.connection.close("again")
        assert line.client.ends == [(Cause.CLOSED_HERE, "enough")]
        assert line.client.connection.closed
        await line.until(lambda: bool(line.server.ends))
        assert line.server.ends == [
            (Cause.CLOSED_BY_PEER, "the peer closed the connection")
        ]
        assert line.server.told == ["open", "1 frames", "closed"]

    async def test_nothing_is_sent_afterwards(self, open_line: Open) -> None:
        line = await open_line()
        line.client.connection.close("enough")
        line.client.connection.send([Control(b"too late")])
        await line.until(lambda: bool(line.server.ends))
        assert not line.server.frames

    async def test_fail(self, open_line: Open) -> None:
        line = await open_line()
        line.server.connection.fail("a strange frame")
        await line.until(lambda: bool(line.client.ends))
        assert line.server.ends == [(Cause.VIOLATED, "the peer sent a strange frame")]
        assert line.client.ends[0][0] is Cause.CLOSED_BY_PEER

    @pytest.mark.parametrize("half", [True, False])
    async def test_byte_stream_ends(self, open_line: Open, half: bool) -> None:
        line = await open_line()
        if half:
            line.client.transport.write_eof()
        else:
            line.client.transport.abort()
        await line.until(lambda: bool(line.server.ends and line.client.ends))
        lost = (Cause.LOST, "the connection was lost")
        assert line.server.ends == line.client.ends == [lost]
        assert line.server.told == ["open", "closed"]

    async def test_garbage(self, open_line: Open) -> None:
        line = await open_line()
        line.client.transport.write(b"\0\0\0\1\xff")
        await line.until(lambda: bool(line.server.ends))
        assert line.server.ends[0][0] is Cause.VIOLATED

    async def test_abort_drops_what_waits(self, open_line: Open) -> None:
        line = await open_line()
        line.server.transport.pause_reading()
        line.client.connection.send([Data(1, n, [LARGE]) for n in range(200)])
        assert line.client.transport.get_write_buffer_size()
        line.client.connection.abort()
        assert not line.client.transport.get_write_buffer_size()
        assert line.client.ends == [(Cause.CLOSED_HERE, "aborted")]

    async def test_abort_with_nothing_to_write(self, open_line: Open) -> None:
        line = await open_line()
        line.client.connection.abort()
        await line.until(lambda: bool(line.server.ends))
        assert line.server.ends[0][0] is Cause.CLOSED_BY_PEER

    async def test_abort_before_it_is_connected(self) -> None:
        line = Line(CONFIG, CONFIG)
        line.client.connection.abort()
        assert line.client.ends == [(Cause.CLOSED_HERE, "aborted")]

    async def test_no_handshake_in_time(self) -> None:
        async with nothing_left():
            quick = dataclasses.replace(CONFIG, handshake_timeout=0.02)
            line = Line(CONFIG, quick)
            ours, theirs = socket.socketpair()
            with theirs:
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: line.server.connection, sock=ours)
                await line.until(lambda: bool(line.server.ends))
            cause, reason = line.server.ends[0]
            assert cause is Cause.REFUSED
            assert reason == "the peer did not prove itself in time"


class TestFlow:
    async def test_slow_reader(self, open_line: Open) -> None:
        line = await open_line()
        client = line.client.connection
        line.server.transport.pause_reading()
        sent = 0
        while not client.paused:
            sent += 1
            client.send([Data(1, sent, [LARGE])])
        assert line.client.transport.get_write_buffer_size() > WRITE_BUFFER
        assert "writable" not in line.client.told
        line.server.transport.resume_reading()
        await line.until(lambda: len(line.server.frames) == sent)
        assert "writable" in line.client.told
        assert not client.paused


class TestParts:
    SIZE = 600_000

    def whole(self, side: Side) -> bytes:
        """Return the bytes of the parts that have come, wherever they were put."""
        place, found = side.place or bytearray(), bytearray()
        for frame in side.frames:
            if isinstance(frame, Filled):
                found += place[len(found) : len(found) + frame.size]
            elif isinstance(frame, Part):
                found += frame.data
        return bytes(found)

    @pytest.mark.parametrize("direct", [True, False])
    async def test_a_large_part(self, open_line: Open, direct: bool) -> None:
        line = await open_line()
        data = bytes(range(256)) * (self.SIZE // 256)
        if direct:
            line.server.place = bytearray(len(data))
        parts: list[Frame] = [Part(1, 7, False, data), Part(1, 7, True, b"end")]
        line.client.connection.send([*parts, Control(b"then")])
        await line.until(lambda: Control(b"then") in line.server.frames)
        assert any(isinstance(f, Filled) for f in line.server.frames) is direct
        assert line.server.asked
        *_, last, control = line.server.frames
        assert isinstance(last, Part)
        assert last.last
        assert control == Control(b"then")
        assert line.server.placed == len(data) + 3
        if direct:
            assert self.whole(line.server) == data + b"end"

    async def test_an_event_loop_that_reads_again_and_again(
        self, open_line: Open
    ) -> None:
        """As that of uvloop does: what else there is to do has its turn."""
        line = await open_line()
        server, connection = line.server, line.server.connection
        data = bytes(TURN // 2)
        stream = memoryview(wire([Part(1, 7, False, data)] * 8))
        server.place = bytearray(8 * len(data))
        turns = 0
        while stream:
            turns += 1
            begin = server.placed
            while stream and server.transport.is_reading():
                room = connection.get_buffer(-1)
                size = min(len(room), len(stream))
                room[:size] = stream[:size]
                connection.buffer_updated(size)
                stream = stream[size:]
            assert 0 < server.placed - begin < 3 * TURN
            await asyncio.sleep(0)
        assert turns > 1
        assert server.transport.is_reading()
        assert server.placed == 8 * len(data)

    async def test_when_all_is_written(self, open_line: Open) -> None:
        line = await open_line()
        assert line.client.connection.drained
        line.client.connection.drain()
        assert not line.client.connection.paused
        line.server.transport.pause_reading()
        while line.client.connection.drained:
            line.client.connection.send([Part(1, 7, True, bytes(WRITE_BUFFER // 2))])
        assert not line.client.connection.drained
        line.client.connection.drain()
        assert line.client.connection.paused
        line.server.transport.resume_reading()
        await line.until(lambda: "writable" in line.client.told)
        assert line.client.connection.drained


class TestSilence:
    async def test_suspected_and_trusted_again(self, open_line: Open) -> None:
        line = await open_line(QUICK)
        line.server.transport.pause_reading()
        await line.until(lambda: "suspected" in line.client.told)
        line.server.transport.resume_reading()
        await line.until(lambda: line.client.told[-1] == "trusted")
        assert not line.client.frames
        assert not line.client.connection.closed

    async def test_given_up(self, open_line: Open) -> None:
        line = await open_line(dataclasses.replace(QUICK, dead_after=0.06))
        line.server.transport.pause_reading()
        await line.until(lambda: bool(line.client.ends))
        cause, reason = line.client.ends[0]
        assert cause is Cause.LOST
        assert reason.startswith("the peer was silent for")
        assert line.client.told[-2:] == ["suspected", "closed"]

    async def test_time_counts_from_the_handshake(self, open_line: Open) -> None:
        """The handshake may take longer than what is due when it is over."""
        loop = asyncio.get_running_loop()
        line = await open_line(QUICK)
        began = loop.time()
        line.server.transport.pause_reading()
        await line.until(lambda: "suspected" in line.client.told)
        assert loop.time() - began < QUICK.handshake_timeout / 2

    async def test_no_timer_is_left(self, open_line: Open) -> None:
        line = await open_line(QUICK)
        line.client.connection.close("enough")
        assert line.client.connection._timer is None
