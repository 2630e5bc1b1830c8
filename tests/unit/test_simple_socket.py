from __future__ import annotations

import asyncio
import contextlib
import gc
import pickle
import socket
import struct
from collections.abc import AsyncGenerator

import pytest

from academy import simple_socket
from academy.simple_socket import (
    MAX_MESSAGE_SIZE,
    SimpleSocket,
    SimpleSocketServer,
    SocketClosedError,
    SocketOpenError,
    SocketPool,
)

BIG = b"x" * (32 * 1024 * 1024)  # more than all the buffers of a connection hold


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this host has no IPv6")


async def echo(message: bytes) -> bytes | None:
    return None if message == b"quiet" else message


@pytest.fixture
async def server() -> AsyncGenerator[SimpleSocketServer]:
    async with SimpleSocketServer(echo).serve() as server:
        yield server


@pytest.fixture
async def client(server: SimpleSocketServer) -> AsyncGenerator[SimpleSocket]:
    async with await SimpleSocket.connect(server.host, server.port) as client:
        yield client


def reset_on_close(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Raw:
    """The other end of a connection, which does as the test says."""

    def __init__(self) -> None:
        self.streams: asyncio.Queue[
            tuple[asyncio.StreamReader, asyncio.StreamWriter]
        ] = asyncio.Queue()
        self.port = 0

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncGenerator[Raw]:
        writers = []

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            self.streams.put_nowait((reader, writer))

        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self
            server.close()
            for writer in writers:
                writer.transport.abort()

    async def connect(
        self, timeout: float | None = None
    ) -> tuple[SimpleSocket, asyncio.StreamReader, asyncio.StreamWriter]:
        client = await SimpleSocket.connect("127.0.0.1", self.port, timeout=timeout)
        reader, writer = await self.streams.get()
        return client, reader, writer


@pytest.fixture
async def raw() -> AsyncGenerator[Raw]:
    async with Raw().listen() as raw:
        yield raw


@pytest.mark.parametrize("error", [SocketOpenError("x"), SocketClosedError("x")])
def test_errors(error: Exception) -> None:
    assert isinstance(error, OSError)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.args) == (type(error), error.args)


class TestConnect:
    @pytest.mark.parametrize(
        ("host", "cause"),
        [("127.0.0.1", ConnectionRefusedError), ("x" * 70, UnicodeError)],
    )
    async def test_refused(self, host: str, cause: type[Exception]) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            text = f"Cannot connect to {host}, port {port}: "
            with pytest.raises(SocketOpenError, match=text) as caught:
                await SimpleSocket.connect(host, port)
        assert isinstance(caught.value.__cause__, cause)

    @pytest.mark.parametrize("port", [-1, 0, 65536])
    async def test_bad_port(self, port: int) -> None:
        with pytest.raises(SocketOpenError, match=f"no port is {port}"):
            await SimpleSocket.connect("127.0.0.1", port)

    async def test_no_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def silence(*_: object) -> None:
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(asyncio, "open_connection", silence)
        text = "to 127.0.0.1, port 9: no answer within 0.01 s"
        with pytest.raises(SocketOpenError, match=text):
            await SimpleSocket.connect("127.0.0.1", 9, timeout=0.01)


class TestSimpleSocket:
    async def test_messages(self, client: SimpleSocket) -> None:
        await client.send(b"one")
        await client.send_string("zwölf")
        await client.send(BIG)
        assert await client.recv() == b"one"
        assert await client.recv_string() == "zwölf"
        assert await client.recv() == BIG

    async def test_frame(self, raw: Raw) -> None:
        client, reader, writer = await raw.connect()
        await client.send(b"abc")
        assert await reader.readexactly(7) == b"\0\0\0\3abc"
        writer.write(b"\0\0\0\0\0\0\0\1z")
        assert await client.recv() == b""
        assert await client.recv() == b"z"
        await client.close()

    async def test_empty_message_is_not_sent(self, raw: Raw) -> None:
        client, reader, _ = await raw.connect()
        await client.send(b"")
        await client.close()
        assert await reader.read() == b""

    async def test_frame_in_single_bytes(self, raw: Raw) -> None:
        client, _, writer = await raw.connect()
        receiver = asyncio.create_task(client.recv())
        for byte in b"\0\0\0\3abc":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert await receiver == b"abc"
        await client.close()

    async def test_concurrent_use(self, client: SimpleSocket) -> None:
        """Messages of many tasks, larger than the buffers, do not mix."""
        sent = [bytes([n]) * (200_000 + n) for n in range(20)]
        sends = [asyncio.create_task(client.send(message)) for message in sent]
        received = await asyncio.gather(*(client.recv() for _ in sent))
        await asyncio.gather(*sends)
        assert received == sent

    async def test_cancelled_recv_loses_nothing(self, raw: Raw) -> None:
        client, _, writer = await raw.connect()
        receiver = asyncio.create_task(client.recv())
        writer.write(b"\0\0\0\3a")
        while client._size is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        receiver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiver
        writer.write(b"bc")
        assert await client.recv() == b"abc"
        await client.close()

    async def test_cancelled_send_sends_a_whole_message(self, raw: Raw) -> None:
        client, reader, _ = await raw.connect()
        sender = asyncio.create_task(client.send(BIG))
        await asyncio.sleep(0)
        sender.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sender
        second = asyncio.create_task(client.send(b"abc"))
        assert len(await reader.readexactly(4 + len(BIG))) == 4 + len(BIG)
        assert await reader.readexactly(7) == b"\0\0\0\3abc"
        await second
        await client.close()

    async def test_send_waits_for_the_one_before(self, raw: Raw) -> None:
        """Messages do not pile up here, and one that waits can be withdrawn."""
        client, reader, _ = await raw.connect()
        first = asyncio.create_task(client.send(BIG))
        second = asyncio.create_task(client.send(b"abc"))
        for _ in range(3):
            await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        closer = asyncio.create_task(client.close())
        assert len(await reader.read()) == 4 + len(BIG)
        await asyncio.gather(first, closer)

    async def test_other_side_only_listens(self, raw: Raw) -> None:
        client, reader, writer = await raw.connect()
        writer.write_eof()
        with pytest.raises(SocketClosedError):
            await client.recv()
        await client.send(b"abc")
        assert await reader.readexactly(7) == b"\0\0\0\3abc"
        await client.close()

    async def test_timeouts(self, raw: Raw) -> None:
        client, _, _ = await raw.connect(timeout=0.01)
        with pytest.raises(TimeoutError, match=r"127.0.0.1:\d+: not done within 0.01"):
            await client.recv()
        with pytest.raises(TimeoutError, match="Sending to"):
            await client.send(BIG)
        await client.close()

    async def test_timeout_of_the_network(self, raw: Raw) -> None:
        """The system's own timeout keeps the text it came with."""
        client, _, _ = await raw.connect()
        client.reader.set_exception(TimeoutError(110, "Connection timed out"))
        with pytest.raises(TimeoutError, match="Connection timed out"):
            await client.recv()
        await client.close()

    async def test_message_too_large(self, client: SimpleSocket) -> None:
        with pytest.raises(ValueError, match=f"{MAX_MESSAGE_SIZE + 1} bytes"):
            await client.send(bytes(MAX_MESSAGE_SIZE + 1))
        await client.send(b"still here")
        assert await client.recv() == b"still here"

    async def test_announced_message_too_large(self, raw: Raw) -> None:
        client, reader, writer = await raw.connect()
        writer.write(struct.pack("!I", MAX_MESSAGE_SIZE + 1) + b"abc")
        with pytest.raises(SocketClosedError, match=f"{MAX_MESSAGE_SIZE + 1} bytes"):
            await client.recv()
        with pytest.raises(SocketClosedError, match="closed here"):
            await client.recv()
        assert client.closed
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        await client.close()

    @pytest.mark.parametrize("data", [b"", b"\0\0", b"\0\0\0\5ab"])
    async def test_other_side_closes(self, raw: Raw, data: bytes) -> None:
        client, _, writer = await raw.connect()
        writer.write(b"\0\0\0\1z" + data)
        writer.close()
        assert await client.recv() == b"z"
        for _ in range(2):
            with pytest.raises(SocketClosedError, match="closed by the other side"):
                await client.recv()
        assert client.closed
        assert repr(client).endswith(", closed)")
        await client.close()

    async def test_other_side_resets(self, raw: Raw) -> None:
        client, _, writer = await raw.connect()
        reset_on_close(writer.get_extra_info("socket"))
        writer.transport.abort()
        with pytest.raises(SocketClosedError, match="by the other side"):
            await client.recv()
        with pytest.raises(SocketClosedError, match="by the other side"):
            await client.send(b"abc")
        await client.close()

    async def test_reset_while_sending(self, raw: Raw) -> None:
        client, _, writer = await raw.connect()
        sender = asyncio.create_task(client.send(BIG))
        await asyncio.sleep(0)
        writer.transport.abort()
        with pytest.raises(SocketClosedError, match="by the other side") as caught:
            await sender
        assert isinstance(caught.value.__cause__, ConnectionError)
        await client.close()

    async def test_closed_here(self, server: SimpleSocketServer) -> None:
        client = await SimpleSocket.connect(server.host, server.port)
        address = f"127.0.0.1:{server.port}"
        assert not client.closed
        assert repr(client) == f"SimpleSocket({address}, open)"
        receiver = asyncio.create_task(client.recv())
        await asyncio.sleep(0)
        await client.close()
        await client.close()
        assert client.closed
        text = f"connection to {address} was closed here"
        with pytest.raises(SocketClosedError, match=text):
            await receiver
        with pytest.raises(SocketClosedError, match=text):
            await client.recv()
        with pytest.raises(SocketClosedError, match=text):
            await client.send(b"abc")

    @pytest.mark.parametrize("shutdown", [True, False])
    async def test_close_sends_what_is_left(self, raw: Raw, shutdown: bool) -> None:
        client, reader, _ = await raw.connect()
        sender = asyncio.create_task(client.send(BIG))
        closer = asyncio.create_task(client.close(shutdown))
        assert len(await reader.read(-1)) == 4 + len(BIG)
        await asyncio.gather(sender, closer)

    async def test_close_after_a_reset_that_nobody_saw(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = await SimpleSocket.connect(*listening.getsockname())
            there, _ = listening.accept()
        reset_on_close(there)
        there.close()
        await client.close()
        assert client.closed
        assert client.writer.is_closing()

    async def test_close_does_not_wait_for_ever(
        self, raw: Raw, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(simple_socket, "_CLOSE_TIMEOUT", 0.01)
        client, _, _ = await raw.connect()
        sender = asyncio.create_task(client.send(BIG))
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await client.close()
        with pytest.raises(SocketClosedError):
            await sender

    @needs_ipv6
    async def test_ipv6(self) -> None:
        async with (
            SimpleSocketServer(echo, host="::1").serve() as server,
            await SimpleSocket.connect("::1", server.port) as client,
        ):
            assert repr(client) == f"SimpleSocket([::1]:{server.port}, open)"
            await client.send(b"abc")
            assert await client.recv() == b"abc"

    async def test_unix_socket(self) -> None:
        """Streams of any kind do."""
        here, there = socket.socketpair()
        async with SimpleSocket(*await asyncio.open_connection(sock=here)) as client:
            assert repr(client) == "SimpleSocket(unknown, open)"
            there.sendall(b"\0\0\0\1z")
            assert await client.recv() == b"z"
        there.close()


class TestServer:
    async def test_port(self) -> None:
        server = SimpleSocketServer(echo)
        assert (server.host, server.port) == ("127.0.0.1", 0)
        async with server.serve() as same:
            assert same is server
            port = server.port
            assert port > 0
            with pytest.raises(OSError, match="in use"):
                async with SimpleSocketServer(echo, port=port).serve():
                    pytest.fail("not reached")
        async with server.serve():
            assert server.port == port

    async def test_no_answer(self, client: SimpleSocket) -> None:
        await client.send(b"quiet")
        await client.send(b"loud")
        assert await client.recv() == b"loud"

    async def test_failing_handler(self, caplog: pytest.LogCaptureFixture) -> None:
        """Its client is told, the others go on."""

        async def handler(message: bytes) -> bytes:
            if message == b"bad":
                raise KeyError("bad")
            return message

        async with (
            SimpleSocketServer(handler).serve() as server,
            await SimpleSocket.connect(server.host, server.port) as good,
            await SimpleSocket.connect(server.host, server.port) as bad,
        ):
            await bad.send(b"bad")
            with pytest.raises(SocketClosedError):
                await bad.recv()
            await good.send(b"good")
            assert await good.recv() == b"good"
        [record] = caplog.records
        assert "of socket server failed" in record.getMessage()

    async def test_client_leaves_before_the_answer(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def handler(message: bytes) -> bytes:
            asked.set()
            await go_on.wait()
            return BIG

        async with SimpleSocketServer(handler).serve() as server:
            async with await SimpleSocket.connect(server.host, server.port) as client:
                await client.send(b"abc")
                await asked.wait()
            go_on.set()
        assert not caplog.records

    async def test_end_closes_all_connections(self) -> None:
        async def never(message: bytes) -> bytes:
            await asyncio.get_running_loop().create_future()
            return message

        async with SimpleSocketServer(never).serve() as server:
            idle = await SimpleSocket.connect(server.host, server.port)
            waiting = await SimpleSocket.connect(server.host, server.port)
            await waiting.send(b"abc")
        for client in (idle, waiting):
            with pytest.raises(SocketClosedError):
                await client.recv()
            await client.close()
        with pytest.raises(SocketOpenError):
            await SimpleSocket.connect(server.host, server.port)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_connection_on_its_way_when_it_ends(
        self, monkeypatch: pytest.MonkeyPatch, raw: Raw
    ) -> None:
        start_server = asyncio.start_server
        accepts = []

        async def remember(accept: object, host: str, port: int) -> object:
            accepts.append(accept)
            return await start_server(accept, host, port)  # type: ignore[arg-type]

        monkeypatch.setattr(asyncio, "start_server", remember)
        async with SimpleSocketServer(echo).serve():
            pass
        client, reader, writer = await raw.connect()
        accepts[0](reader, writer)  # type: ignore[operator]
        with pytest.raises(SocketClosedError):
            await client.recv()
        await client.close()


class TestPool:
    @pytest.fixture
    async def pool(self) -> AsyncGenerator[SocketPool]:
        pool = SocketPool()
        yield pool
        await pool.close()

    async def test_connection_is_kept(
        self, pool: SocketPool, server: SimpleSocketServer
    ) -> None:
        address = f"127.0.0.1:{server.port}"
        both = await asyncio.gather(pool.get_socket(address), pool.get_socket(address))
        assert both[0] is both[1]
        await pool.send(address, b"abc")
        assert await both[0].recv() == b"abc"
        assert both[0].timeout is None

    @needs_ipv6
    async def test_ipv6(self, pool: SocketPool) -> None:
        async with SimpleSocketServer(echo, host="::1").serve() as server:
            address = f"[::1]:{server.port}"
            await pool.send(address, b"abc")
            assert await (await pool.get_socket(address)).recv() == b"abc"

    @pytest.mark.parametrize(
        "address", ["", "host", ":80", "host:", "host:x", "::1:80", "[::1]", "[]:80"]
    )
    async def test_bad_address(self, pool: SocketPool, address: str) -> None:
        with pytest.raises(ValueError, match=r"no address\. Write host:port, or"):
            await pool.send(address, b"abc")

    async def test_refused(self, pool: SocketPool) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            with pytest.raises(SocketOpenError):
                await pool.send(f"127.0.0.1:{bound.getsockname()[1]}", b"abc")
        assert not pool._sockets
        await asyncio.sleep(0)  # asyncio lets go of the error, which holds the lock
        gc.collect()
        assert not pool._opening

    async def test_connection_that_the_other_side_closed_is_replaced(
        self, pool: SocketPool, raw: Raw
    ) -> None:
        address = f"127.0.0.1:{raw.port}"
        first = await pool.get_socket(address)
        _, writer = await raw.streams.get()
        writer.close()
        assert await first.reader.read() == b""
        await pool.send(address, b"abc")
        reader, _ = await raw.streams.get()
        assert await reader.readexactly(7) == b"\0\0\0\3abc"

    async def test_slow_connect_delays_nobody_else(
        self,
        pool: SocketPool,
        server: SimpleSocketServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        open_connection = asyncio.open_connection
        dialled = asyncio.Event()

        async def slow(host: str, port: int) -> object:
            if host == "192.0.2.99":
                dialled.set()
                await asyncio.get_running_loop().create_future()
            return await open_connection(host, port)

        monkeypatch.setattr(asyncio, "open_connection", slow)
        stuck = asyncio.create_task(pool.get_socket("192.0.2.99:9"))
        await dialled.wait()
        await pool.send(f"127.0.0.1:{server.port}", b"abc")
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        monkeypatch.setattr(simple_socket, "_CONNECT_TIMEOUT", 0.01)
        with pytest.raises(SocketOpenError, match=r"no answer within 0\.01 s"):
            await pool.get_socket("192.0.2.99:9")

    async def test_failed_connection_is_forgotten(
        self, pool: SocketPool, raw: Raw
    ) -> None:
        address = f"127.0.0.1:{raw.port}"
        first = await pool.get_socket(address)
        _, writer = await raw.streams.get()
        sender = asyncio.create_task(pool.send(address, BIG))
        await asyncio.sleep(0)
        writer.transport.abort()
        with pytest.raises(SocketClosedError):
            await sender
        assert first.closed
        assert await pool.get_socket(address) is not first

    async def test_failure_leaves_the_next_connection_alone(
        self, pool: SocketPool, raw: Raw
    ) -> None:
        address = f"127.0.0.1:{raw.port}"
        first = await pool.get_socket(address)
        _, writer = await raw.streams.get()
        sender = asyncio.create_task(pool.send(address, BIG))
        await asyncio.sleep(0)
        del pool._sockets[address]
        second = await pool.get_socket(address)
        assert second is not first
        writer.transport.abort()
        with pytest.raises(SocketClosedError):
            await sender
        assert await pool.get_socket(address) is second
        assert not second.closed

    async def test_close_socket(
        self, pool: SocketPool, server: SimpleSocketServer
    ) -> None:
        address = f"127.0.0.1:{server.port}"
        first = await pool.get_socket(address)
        await pool.close_socket(address)
        await pool.close_socket(address)
        assert first.closed
        assert not (await pool.get_socket(address)).closed

    async def test_close(
        self, pool: SocketPool, raw: Raw, server: SimpleSocketServer
    ) -> None:
        addresses = [f"127.0.0.1:{raw.port}", f"127.0.0.1:{server.port}"]
        kept = [await pool.get_socket(address) for address in addresses]
        await pool.close()
        await pool.close()
        assert all(connection.closed for connection in kept)
        with pytest.raises(SocketClosedError, match="pool is closed"):
            await pool.send(addresses[0], b"abc")

    async def test_close_while_connecting(
        self,
        pool: SocketPool,
        server: SimpleSocketServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        opened = []
        open_connection = asyncio.open_connection

        async def close_meanwhile(host: str, port: int) -> object:
            await pool.close()
            streams = await open_connection(host, port)
            opened.append(streams[1])
            return streams

        monkeypatch.setattr(asyncio, "open_connection", close_meanwhile)
        with pytest.raises(SocketClosedError, match="pool is closed"):
            await pool.get_socket(f"127.0.0.1:{server.port}")
        assert opened[0].is_closing()
