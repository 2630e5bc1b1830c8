"""Processes linked by real sockets, all in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence

import psutil

from academy.link.address import Addresses, Endpoint
from academy.link.channel import (
    Accepted,
    ChannelKey,
    ChannelOffered,
    Event,
    Received,
    Taken,
    Told,
)
from academy.link.config import LinkConfig
from academy.link.connection import Connection
from academy.link.frame import Buffer
from academy.link.handshake import VERSION
from academy.link.node import Node
from academy.link.peer import Peer
from academy.link.protocol import Cause
from academy.link.security import Route, Security
from tests.unit.link.pair import SECRET, channel_key, plain

PATIENCE = 5.0
"""Seconds after which a test fails that waits in vain."""
TURNS = 100
"""Turns of the event loop in which sockets are closed."""
QUICK = LinkConfig(
    handshake_timeout=PATIENCE, ping_interval=0.02, suspect_after=0.05, dead_after=60.0
)
"""A link that suspects its peer at once, and gives it up never."""


class Process(Node):
    """A node that records what happens, and takes every message at once."""

    def __init__(
        self,
        changed: Changes,
        uid: bytes,
        namespace: str,
        keys: Sequence[bytes],
        config: LinkConfig,
        security: Security,
    ) -> None:
        super().__init__(uid, namespace, lambda: keys, self, config, security)
        self._changed = changed
        self.told: list[str] = []
        """What the exchange is told of links: `up`, `down`, `lost` (may return)."""
        self.events: list[Event] = []
        self.closed_links: list[tuple[Cause, str]] = []

    # The handler

    def session_event(self, peer: Peer, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, ChannelOffered):
            peer.session.accept(event.channel, 9, 0, note=event)
        self._changed.note()

    def message(
        self, peer: Peer, note: ChannelOffered, seq: int, segments: Sequence[Buffer]
    ) -> None:
        self.events.append(Received(note.channel, note.key, seq, segments))
        peer.taken(note.channel, seq)
        self._changed.note()

    def link_up(self, peer: Peer) -> None:
        assert peer.usable
        self.told.append("up")
        self._changed.note()

    def link_down(self, peer: Peer, *, may_return: bool) -> None:
        assert not peer.usable
        self.told.append("lost" if may_return else "down")
        self._changed.note()

    # What else tests wait for

    def forget(self, process: bytes) -> None:
        super().forget(process)
        self._changed.note()

    async def _dial(self, peer: Peer, routes: Sequence[Route]) -> None:
        try:
            await super()._dial(peer, routes)
        finally:
            self._changed.note()

    def link_closed(self, connection: Connection, cause: Cause, reason: str) -> None:
        super().link_closed(connection, cause, reason)
        self.closed_links.append((cause, reason))
        self._changed.note()

    # For tests

    def peer(self, other: Node) -> Peer:
        return self.peers[other.process]

    def linked(self, other: Node) -> bool:
        peer = self.peers.get(other.process)
        return peer is not None and peer.usable

    @property
    def connections(self) -> list[Connection]:
        return list(self._connections)

    def connection(self, other: Node) -> Connection:
        found = self.peer(other).connection
        assert found is not None
        return found

    def transport(self, other: Node) -> asyncio.Transport:
        found = self.connection(other)._transport
        assert found is not None
        return found

    def received(self) -> list[tuple[int, list[bytes]]]:
        """Return number and segments of the messages that have arrived."""
        found = [event for event in self.events if isinstance(event, Received)]
        return [(event.seq, plain(event.segments)) for event in found]


class Changes:
    """Something that tests wait for has happened."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def note(self) -> None:
        self._event.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is looked at after each change."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._event.clear()
                await self._event.wait()


class Network:
    """Makes processes, and closes them."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.until = self.changes.until
        self._processes: list[Process] = []

    def process(
        self,
        name: str = "",
        *,
        namespace: str = "ns",
        keys: Sequence[bytes] = (SECRET,),
        config: LinkConfig = LinkConfig(),  # noqa: B008
        security: Security = Security(),  # noqa: B008
    ) -> Process:
        """Return a process that does not listen; a name has one letter."""
        uid = name.encode() * 16 if name else secrets.token_bytes(16)
        process = Process(self.changes, uid, namespace, keys, config, security)
        self._processes.append(process)
        return process

    async def open(self, name: str = "", **options: object) -> Process:
        """Return a process that listens on the loopback interface."""
        process = self.process(name, **options)  # type: ignore[arg-type]
        await process.open(["127.0.0.1"])
        return process

    async def link(self, a: Process, b: Process, kind: str = "uds") -> None:
        """Let a dial b, and wait until both are linked."""
        dial(a, b, kind)
        await self.until(lambda: a.linked(b) and b.linked(a))

    async def channel(self, a: Process, b: Process, lane: int = 0) -> ChannelKey:
        """Open a channel from a to b."""
        key = channel_key(lane)
        a.peer(b).session.open(key)
        a.peer(b).flush_soon()
        await self.until(lambda: Accepted(key, 9, 0) in a.events)
        return key

    async def exchange(self, a: Process, b: Process) -> None:
        """Let a message go from a to b, and its acknowledgement back."""
        key = await self.channel(a, b)
        text = secrets.token_bytes(8)
        send(a, b, key, 1, text)
        await self.until(lambda: Taken(key, 1) in a.events)
        assert (1, [text]) in b.received()

    async def close(self) -> None:
        for process in self._processes:
            await process.close()


def where(
    process: Process, kind: str = "uds", tcp: Sequence[Endpoint] | None = None
) -> Addresses:
    """Return the addresses of a process; with only its Unix socket, or only TCP."""
    if tcp is None:
        tcp = [loopback(port) for port in process.ports if kind == "tcp"]
    return Addresses(
        process=process.process.hex(),
        host="one host",
        unix=process.unix_path if kind == "uds" else None,
        tcp=tuple(tcp),
        fingerprint=process.fingerprint,
        pid=os.getpid(),
        started=0.0,
        version=VERSION,
    )


def loopback(port: int) -> Endpoint:
    return Endpoint(host="127.0.0.1", port=port)


def dial(
    a: Process, b: Process, kind: str = "uds", tcp: Sequence[Endpoint] | None = None
) -> Peer:
    """Let a connect to b."""
    return a.connect(b.process, where(a), where(b, kind, tcp))


def send(a: Process, b: Process, key: ChannelKey, seq: int, *segments: bytes) -> None:
    a.peer(b).session.send(key, seq, segments)
    a.peer(b).flush_soon()


def tell(a: Process, b: Process, data: bytes) -> None:
    a.peer(b).session.tell(data)
    a.peer(b).flush_soon()


def told(process: Process) -> list[bytes]:
    """Return the control messages that a process has received."""
    return [bytes(e.data) for e in process.events if isinstance(e, Told)]


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fail if tasks or file descriptors are left behind."""
    descriptors = psutil.Process().num_fds()
    yield
    # Transports close their sockets in one of the next turns.
    for _ in range(TURNS):
        await asyncio.sleep(0)
        if psutil.Process().num_fds() <= descriptors:
            break
    assert psutil.Process().num_fds() <= descriptors
    # The parts of an asynchronous fixture before and after the test are two tasks.
    assert asyncio.all_tasks() == {asyncio.current_task()}


class Mute:
    """A TCP server that never says a word."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self.open = 0
        self.seen = 0

    async def __aenter__(self) -> Mute:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._changes.until(lambda: not self.open)

    @property
    def endpoint(self) -> Endpoint:
        return loopback(self._server.sockets[0].getsockname()[1])

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.open += 1
        self.seen += 1
        self._changes.note()
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        self.open -= 1
        self._changes.note()


class Stranger:
    """A raw connection to a process."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def dial(cls, process: Process) -> AsyncIterator[Stranger]:
        reader, writer = await asyncio.open_connection("127.0.0.1", process.ports[0])
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def dropped(self) -> bool:
        """Wait until the other side hangs up; return whether it said nothing."""
        async with asyncio.timeout(PATIENCE):
            try:
                return not await self._reader.read()
            except ConnectionResetError:
                return True
