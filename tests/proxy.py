"""A wire to a server that can be cut, held up, and mended."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class Proxy:
    """Passes connections on to a server on this host, until told otherwise.

    Args:
        port: Port of the server.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._links: set[asyncio.Task[None]] = set()
        self.port = 0
        self.accepted = 0
        """How many connections were made so far."""

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.cut()

    def hold(self) -> None:
        """Pass nothing on; what is sent meanwhile waits."""
        self._open.clear()

    def let_go(self) -> None:
        """Pass on what was held up, and all that comes."""
        self._open.set()

    async def cut(self) -> None:
        """Break all connections, and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.drop()

    async def drop(self) -> None:
        """Break all connections; new ones can be made."""
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def mend(self) -> None:
        """Accept connections again, on the same port."""
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        self.accepted += 1
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await self._link(reader, writer)
        self._links.discard(task)

    async def _link(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        ends = [writer]
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(back)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, back))
                group.create_task(self._pass_on(there, writer))
        except* OSError:
            pass  # one end has closed
        finally:
            for end in ends:
                end.transport.abort()

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        while data := await source.read(65536):
            await self._open.wait()
            sink.write(data)
            await sink.drain()
        raise ConnectionError("one end has closed")
