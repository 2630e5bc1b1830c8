"""TCP connections that carry whole messages; public as `academy.socket`.

A message travels as a frame: its length in four bytes, big-endian, then its bytes.
The exchanges do not use these connections, which know neither authentication nor
acknowledgements; they are for programs that talk over such sockets themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Self

from academy.task import Tasks

MESSAGE_HEADER_FORMAT = "!I"
MESSAGE_HEADER_SIZE = struct.calcsize(MESSAGE_HEADER_FORMAT)
MAX_MESSAGE_SIZE = 64 * 1024 * 1024
"""Bytes of the largest message that is sent or accepted."""

_CONNECT_TIMEOUT = 5.0
_CLOSE_TIMEOUT = 1.0


class SocketOpenError(OSError):
    """A connection could not be opened."""


class SocketClosedError(OSError):
    """The connection is closed, or the other side has closed it."""


class SimpleSocket:
    """A connection that sends and receives whole messages.

    Any number of tasks may send and receive at the same time: messages never mix,
    and each is received by one task. It is an asynchronous context manager, which
    closes it.

    Args:
        reader: Stream to read from.
        writer: Stream to write to.
        timeout: Seconds that one `send()` or `recv()` may take; None for no limit.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        timeout: float | None = None,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.timeout = timeout
        self._closed = self._aborted = False
        self._sending = asyncio.Lock()
        self._receiving = asyncio.Lock()
        self._size: int | None = None
        self._peer = _address_text(writer.get_extra_info("peername"))

    @classmethod
    async def connect(
        cls, host: str, port: int, *, timeout: float | None = None
    ) -> Self:
        """Open a connection.

        Args:
            host: Name or address of the host, IPv4 or IPv6.
            port: TCP port.
            timeout: Seconds to try; also the timeout of the connection's methods.

        Raises:
            SocketOpenError: If it cannot be opened in time. The cause tells why.
        """
        if not 0 < port < 65536:  # some event loops would cut it down to 16 bits
            raise SocketOpenError(f"Cannot connect to {host}: no port is {port}.")
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(host, port)
        except (OSError, UnicodeError) as e:
            reason = e if str(e) else f"no answer within {timeout} s"
            text = f"Cannot connect to {host}, port {port}: {reason}."
            raise SocketOpenError(text) from e
        return cls(reader, writer, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"SimpleSocket({self._peer}, {state})"

    @property
    def closed(self) -> bool:
        """Whether it is closed, by us or as far as we know by the other side."""
        return self._closed or self.writer.is_closing() or self.reader.at_eof()

    async def send(self, message: bytes) -> None:
        """Send a message; an empty one is not sent.

        When it returns the message has been written, which does not mean that
        anybody has received it. If it is cancelled or times out, the message has
        been written as a whole or not at all.

        Raises:
            SocketClosedError: If the connection is closed.
            TimeoutError: If the other side did not take the message in time.
            ValueError: If the message has more than `MAX_MESSAGE_SIZE` bytes.
            OSError: If the connection failed otherwise.
        """
        if not message:
            return
        if len(message) > MAX_MESSAGE_SIZE:
            raise ValueError(
                f"The message has {len(message)} bytes; "
                f"at most {MAX_MESSAGE_SIZE} can be sent. Send it in parts."
            )
        # One write() and no writelines(): in 3.12.0-8 and 3.13.0-1 the latter never
        # makes drain() wait.
        frame = struct.pack(MESSAGE_HEADER_FORMAT, len(message)) + message
        async with self._in_time("Sending to"), self._sending:
            if self._closed or self.writer.is_closing():
                raise self._closed_error()
            try:
                self.writer.write(frame)
                await self.writer.drain()
            except ConnectionError as e:
                raise self._closed_error() from e
        if self._aborted:  # drain() does not mind that
            raise self._closed_error()

    async def send_string(self, message: str) -> None:
        """Send a text in UTF-8, like `send()`."""
        await self.send(message.encode())

    async def recv(self) -> bytes:
        """Return the next message.

        Cancelling it, or a timeout, loses nothing: the next call returns the same
        message. Messages that came before the other side closed are still returned.

        Raises:
            SocketClosedError: If the connection is closed, or if what the other side
                sends is no message of at most `MAX_MESSAGE_SIZE` bytes, which closes
                the connection.
            TimeoutError: If no message came in time.
            OSError: If the connection failed otherwise.
        """
        async with self._in_time("Receiving from"), self._receiving:
            if self._closed:
                raise self._closed_error()
            try:
                if self._size is None:
                    self._size = await self._read_size()
                message = await self.reader.readexactly(self._size)
            except (asyncio.IncompleteReadError, ConnectionError) as e:
                raise self._closed_error() from e
            self._size = None
            return message

    async def recv_string(self) -> str:
        """Return the next message as text, like `recv()`.

        Raises:
            UnicodeDecodeError: If it is not UTF-8.
        """
        return (await self.recv()).decode()

    async def _read_size(self) -> int:
        header = await self.reader.readexactly(MESSAGE_HEADER_SIZE)
        (size,) = struct.unpack(MESSAGE_HEADER_FORMAT, header)
        if size > MAX_MESSAGE_SIZE:
            # What follows cannot be told apart from frames any more.
            self._abort()
            raise SocketClosedError(
                f"{self._peer} announced a message of {size} bytes; at most "
                f"{MAX_MESSAGE_SIZE} are accepted, so the connection was closed."
            )
        return int(size)

    @contextlib.asynccontextmanager
    async def _in_time(self, doing: str) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(self.timeout):
                yield
        except TimeoutError as e:
            reason = e if str(e) else f"not done within {self.timeout} s"
            raise TimeoutError(f"{doing} {self._peer}: {reason}.") from e

    def _closed_error(self) -> SocketClosedError:
        side = "here" if self._closed else "by the other side"
        return SocketClosedError(f"The connection to {self._peer} was closed {side}.")

    async def close(self, shutdown: bool = True) -> None:
        """Close the connection, after what was sent has gone out.

        It waits for that a second at most, never raises, and may be repeated. Calls
        that wait for a message end with `SocketClosedError`.

        Args:
            shutdown: Tell the other side, before closing, that nothing follows.
        """
        self._closed = True
        # A connection that is broken or stuck need not close in good order.
        if shutdown and not self.writer.is_closing():
            with contextlib.suppress(OSError):
                self.writer.write_eof()
        self.writer.close()
        try:
            with contextlib.suppress(OSError):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await self.writer.wait_closed()
        finally:
            if self.writer.transport.get_write_buffer_size():
                self._abort()

    def _abort(self) -> None:
        self._closed = self._aborted = True
        self.writer.transport.abort()


class SimpleSocketServer:
    """A TCP server that hands each message to a function and sends its answer back.

    Each connection is served by its own task, one message after the other. If the
    handler raises, that is logged and the connection is closed, so that the client
    does not wait for an answer; other connections go on.

    Args:
        handler: Called with each message; what it returns is sent back, and nothing
            if that is None. It runs in the event loop and must not block.
        host: Address to bind to. By default only this host can connect: messages
            are not authenticated, so whoever listens to a network has to say so,
            by an address or ``0.0.0.0``.
        port: TCP port to bind to. If None, the operating system chooses a free one
            when serving starts; until then `port` is 0.
    """

    def __init__(
        self,
        handler: Callable[[bytes], Awaitable[bytes | None]],
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
    ) -> None:
        self.handler = handler
        self.host = host
        self.port = 0 if port is None else port

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncGenerator[Self]:
        """Serve while the context lasts; then close all connections.

        Raises:
            OSError: If the address cannot be bound, as when the port is in use.
        """
        tasks = Tasks("socket server")

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not server.is_serving():  # it was on its way when the server closed
                writer.transport.abort()
                return
            connection = SimpleSocket(reader, writer)
            tasks.spawn(self._answer(connection), name=repr(connection))

        server = await asyncio.start_server(accept, self.host, self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await tasks.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await server.wait_closed()

    async def _answer(self, connection: SimpleSocket) -> None:
        async with connection:
            while True:
                try:
                    message = await connection.recv()
                except OSError:
                    return  # the client has left
                answer = await self.handler(message)
                if answer is not None:
                    # When it left before the answer, the next recv() tells.
                    with contextlib.suppress(OSError):
                        await connection.send(answer)


class SocketPool:
    """Connections by address, opened when first used and kept.

    One that is found closed is replaced. Opening one delays no other address.
    """

    def __init__(self) -> None:
        self._sockets: dict[str, SimpleSocket] = {}
        # Held while opening the connection to an address; gone when nobody does.
        self._opening: weakref.WeakValueDictionary[str, asyncio.Lock] = (
            weakref.WeakValueDictionary()
        )
        self._closed = False

    async def get_socket(self, address: str) -> SimpleSocket:
        """Return the open connection to an address, or open one.

        Args:
            address: ``host:port``, or ``[host]:port`` for an IPv6 address.

        Raises:
            SocketClosedError: If the pool is closed.
            SocketOpenError: If no connection can be opened within five seconds.
            ValueError: If `address` has another form.
        """
        lock = self._opening.setdefault(address, asyncio.Lock())
        async with lock:
            connection = self._sockets.get(address)
            if connection is not None and not connection.closed:
                return connection
            await self.close_socket(address)
            self._require_open()
            host, port = _split_address(address)
            opened = await SimpleSocket.connect(host, port, timeout=_CONNECT_TIMEOUT)
            opened.timeout = None  # that was for opening it
            if self._closed:
                await opened.close()
            self._require_open()
            self._sockets[address] = opened
            return opened

    async def send(self, address: str, message: bytes) -> None:
        """Send a message to an address, over the connection kept for it.

        A connection that fails is closed; sending is not repeated, since the
        message may have arrived. The address is as for `get_socket()`.

        Raises:
            OSError: If there is no connection or it fails.
            ValueError: If `address` has another form or the message is too large.
        """
        connection = await self.get_socket(address)
        try:
            await connection.send(message)
        except OSError:
            # By now another connection may be kept for this address: leave that.
            if self._sockets.get(address) is connection:
                del self._sockets[address]
            await connection.close()
            raise

    def _require_open(self) -> None:
        if self._closed:
            raise SocketClosedError("This socket pool is closed. Make a new one.")

    async def close_socket(self, address: str) -> None:
        """Close the connection to an address, if there is one."""
        connection = self._sockets.pop(address, None)
        if connection is not None:
            await connection.close()

    async def close(self) -> None:
        """Close all connections, and open no more. It may be repeated."""
        self._closed = True
        for address in list(self._sockets):
            await self.close_socket(address)


def _split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not port.isdecimal():
        raise ValueError(
            f"{address!r} is no address. Write host:port, or [host]:port for IPv6."
        )
    return host, int(port)


def _address_text(name: object) -> str:
    """Return the name that a socket gives an end of its connection, as text."""
    if not isinstance(name, tuple):
        return str(name or "unknown")
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
