"""This process among the others: its listener, and a link to each peer process."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence

from academy.link.address import Addresses, Endpoint
from academy.link.certificate import certificate, client_context
from academy.link.config import LinkConfig
from academy.link.connection import Connection
from academy.link.ends import Accepted, Dialled
from academy.link.frame import Filled, Frame, Part
from academy.link.gate import SHUTDOWN, Gate, Visit
from academy.link.handler import Handler
from academy.link.handshake import NONCE, Handshake, Identity, Role, namespace_hash
from academy.link.listener import Listener
from academy.link.peer import Peer
from academy.link.protocol import Cause, LinkProtocol
from academy.link.security import Route, Security
from academy.link.tally import Tally
from academy.task import Tasks

CONNECT_TIMEOUT = 3.0
STAGGER = 0.25
"""Seconds after which the next address is tried beside the one before (RFC 8305)."""
AGAIN = 0.05
"""Seconds after which a process is dialled once more that has hung up at once."""
REDIAL = 5.0
"""Seconds between two attempts to reach a process that could not be reached."""
SWEEP = 10.0
"""Seconds between two looks for links that nobody uses."""


class Node:
    """One process and event loop on the network.

    Args:
        process: Identifier of this process, 16 bytes.
        namespace: The namespace.
        keys: Gives the secrets of the namespace, the current one first.
        handler: Who is told what happens.
        config: Limits and timeouts.
        security: Which connections are encrypted.
    """

    def __init__(
        self,
        process: bytes,
        namespace: str,
        keys: Callable[[], Sequence[bytes]],
        handler: Handler,
        config: LinkConfig,
        security: Security = Security(),  # noqa: B008 - a value
    ) -> None:
        self.process = process
        self.config = config
        self._namespace = namespace_hash(namespace)
        self._keys = keys
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._security = security
        self.tally = Tally(self._loop.time)
        """What was refused."""
        timeout = config.handshake_timeout
        self._gate = Gate(self._accept, security, self.tally, timeout)
        self._listener = Listener(self._gate.enter, self._gate.exhausted)
        self._tasks = Tasks("link-node")
        self.peers: dict[bytes, Peer] = {}
        self._connections: dict[Connection, Peer | None] = {}
        self._dialling: set[bytes] = set()
        self._not_before: dict[bytes, float] = {}
        self._winners: dict[bytes, Endpoint] = {}
        self._closed = False

    @property
    def unix_path(self) -> str | None:
        """Path of the Unix socket, where there is one."""
        return self._listener.unix_path

    @property
    def ports(self) -> list[int]:
        """TCP ports that this process listens on."""
        return self._listener.ports

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the certificate of this process; empty without one."""
        own = self._gate.certificate
        return "" if own is None else own.fingerprint

    @property
    def refused(self) -> int:
        """Connections, and what came on them, that were refused."""
        return self.tally.total

    @property
    def refusals(self) -> Mapping[str, int]:
        """The same by reason, see `Refusal`."""
        return self.tally.counts

    async def open(self, hosts: Sequence[str] = ()) -> None:
        """Begin to listen.

        Args:
            hosts: Addresses to bind TCP to; all if there are none.

        Raises:
            OSError: No port can be bound, or the certificate cannot be read.
            ValueError: The certificate is none.
        """
        if self._security.needs_certificate(hosts):
            # Its package takes long to load.
            self._gate.certificate = await asyncio.to_thread(
                certificate, self._security
            )
        self._listener.open(hosts)
        self._tasks.spawn(self._sweep(), name="idle-links")

    async def add_port(self, port: int) -> int:
        """Listen on one more TCP port; raises as `open` does."""
        return self._listener.add_port(port)

    def remove_port(self, port: int) -> None:
        """Stop to listen on a TCP port; links stay. Idempotent."""
        self._listener.remove_port(port)

    async def close(self) -> None:
        """End all links and stop to listen. Idempotent."""
        self._closed = True
        await self._tasks.cancel()
        for peer in list(self.peers.values()):
            peer.flush()
        for connection in list(self._connections):
            connection.close("the process closes")
        self._listener.close()
        await self._gate.close()

    def connect(self, process: bytes, mine: Addresses, theirs: Addresses) -> Peer:
        """Return the peer of a process; dial it unless it is linked or was just tried.

        Args:
            process: The process.
            mine: Where this process can be reached.
            theirs: Where the other one can be reached.
        """
        peer = self._peer(process)
        busy = self._closed or process in self._dialling
        due = self._loop.time() >= self._not_before.get(process, 0.0)
        if peer.connection is None and due and not busy:
            self._dialling.add(process)
            won = self._winners.get(process)
            found = sorted(mine.candidates(theirs), key=lambda e: e != won)
            routes = [self._security.route(end, mine, theirs) for end in found]
            dialling = self._dial(peer, routes)
            self._tasks.spawn(dialling, name=f"dial-{process.hex()[:8]}")
        return peer

    def is_dialling(self, process: bytes) -> bool:
        """Return whether there may soon be a link to a process."""
        return process in self._dialling

    # Dialling

    async def _dial(self, peer: Peer, routes: Sequence[Route]) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                try:
                    await self._race(peer, routes)
                except ConnectionResetError:
                    # It ends just now, which the second attempt tells for sure, or
                    # strangers took the room for those who have not proved themselves.
                    await asyncio.sleep(AGAIN)
                    await self._race(peer, routes)
        except (OSError, TimeoutError) as e:
            self._not_before[peer.process] = self._loop.time() + REDIAL
            if peer.connection is None:
                where = ", ".join(map(str, routes)) or "no address"
                peer.reason = f"{where}: {str(e) or 'no answer in time'}"
                peer.refused = isinstance(e, ConnectionRefusedError)
                self._handler.link_down(peer, may_return=False)
        finally:
            self._dialling.discard(peer.process)

    async def _race(self, peer: Peer, routes: Sequence[Route]) -> None:
        """Try the addresses one after the other, and beside each other; one wins.

        Raises:
            OSError: None could be connected to.
        """
        attempts: set[asyncio.Task[None]] = set()
        rivals: set[Dialled] = set()
        errors: list[BaseException] = []
        waiting = list(routes)
        try:
            while waiting or attempts:
                if waiting:
                    attempt = self._try(peer, waiting.pop(0), rivals)
                    attempts.add(self._loop.create_task(attempt))
                done, attempts = await asyncio.wait(
                    attempts,
                    timeout=STAGGER if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                failed = [e for t in done if (e := t.exception()) is not None]
                if len(failed) < len(done):
                    return
                errors += failed
        finally:
            for loser in attempts:
                loser.cancel()
            await asyncio.gather(*attempts, return_exceptions=True)
        raise _worst(errors)("; ".join(map(str, errors)) or "it has no address")

    async def _try(self, peer: Peer, route: Route, rivals: set[Dialled]) -> None:
        """Connect to one address and wait until both sides have proved themselves."""
        now = self._loop.time()
        protocol = self._protocol(Role.CLIENT, route.binding, now, peer.process)
        proved: asyncio.Future[OSError | None] = self._loop.create_future()
        connection = Dialled(protocol, self, route, proved, rivals)
        rivals.add(connection)
        self._connections[connection] = None
        try:
            await self._reach(route, connection)
            error = await proved
            if error is not None:
                raise error
            self._winners[peer.process] = route.endpoint
        except BaseException:
            # One that has proved itself in the same moment is a link by now.
            if self._connections.get(connection) is None:
                self._connections.pop(connection, None)
                proved.cancel()
                connection.abort()
            raise

    async def _reach(self, route: Route, connection: Dialled) -> None:
        endpoint = route.endpoint
        if endpoint.path is not None:
            await self._loop.create_unix_connection(lambda: connection, endpoint.path)
        elif route.pin is None:
            await self._loop.create_connection(
                lambda: connection, endpoint.host, endpoint.port
            )
        elif route.pin:
            await self._loop.create_connection(
                lambda: connection,
                endpoint.host,
                endpoint.port,
                ssl=client_context(),
                server_hostname="",
                ssl_shutdown_timeout=SHUTDOWN,
            )
        else:
            raise OSError(
                "the link must be encrypted, and that process has no certificate: "
                "give both the same security="
            )

    def _accept(self, visit: Visit) -> Accepted:
        protocol = self._protocol(Role.SERVER, visit.binding, visit.started)
        return Accepted(protocol, self, visit, self._gate.leave)

    def _protocol(
        self, role: Role, binding: bytes, now: float, expected: bytes | None = None
    ) -> LinkProtocol:
        nonce = secrets.token_bytes(NONCE)
        identity = Identity(self.process, self._namespace, nonce, binding)
        handshake = Handshake(role, identity, self._keys(), expected)
        return LinkProtocol(self.config, role, handshake, now)

    # What connections tell

    def link_made(self, connection: Connection) -> None:
        """Note a connection from outside, which now begins the handshake."""
        self._connections[connection] = None

    def link_open(self, connection: Connection, process: bytes) -> None:
        """Attach a proved connection to its peer; of two, the same one on both sides.

        When both processes dial at once, the connection stays whose dialler has the
        lower identifier; a newer one of the same dialler replaces an older one.
        """
        peer = self._peer(process)
        current = peer.connection
        if current is not None and not current.closed:
            crossed = current.dialled != connection.dialled and not peer.suspected
            if crossed and self._wins(current, process):
                connection.close("there is another link already")
                return
            self._connections[current] = None
            self._detach(peer, "replaced by a newer link", may_return=True)
            current.close("replaced by a newer link")
        self._connections[connection] = peer
        peer.attach(connection)
        self._handler.link_up(peer)
        peer.flush_soon()

    def _wins(self, connection: Connection, process: bytes) -> bool:
        dialler = self.process if connection.dialled else process
        return dialler == min(self.process, process)

    def frames_received(
        self, connection: Connection, frames: Sequence[Frame | Filled]
    ) -> None:
        """Pass the frames of one read to the session of their peer."""
        peer = self._connections.get(connection)
        if peer is not None:
            peer.receive(frames)

    def room(self, connection: Connection, part: Part, most: int) -> memoryview | None:
        """Return where the bytes that are missing of a part may be read to."""
        peer = self._connections.get(connection)
        return None if peer is None else peer.session.room(part.channel, most)

    def suspected(self, connection: Connection, suspected: bool) -> None:
        """Stop or start to use a link whose peer is silent, or is heard again."""
        peer = self._connections.get(connection)
        if peer is None or peer.suspected == suspected:
            return
        peer.suspected = suspected
        if suspected:
            peer.reason = f"silent for {self.config.suspect_after:g} s"
            self._handler.link_down(peer, may_return=False)
        else:
            peer.reason = ""
            self._handler.link_up(peer)
            peer.flush_soon()

    def writable(self, connection: Connection) -> None:
        """Go on with large messages."""
        peer = self._connections.get(connection)
        if peer is not None:
            peer.flush_soon()

    def link_closed(self, connection: Connection, cause: Cause, reason: str) -> None:
        """Forget a connection that has ended."""
        peer = self._connections.pop(connection, None)
        if connection.refusal is not None:
            self.tally.count(connection.refusal, connection.source, reason)
        if peer is not None and peer.connection is connection:
            self._detach(peer, reason, may_return=cause is Cause.LOST)

    def _detach(self, peer: Peer, reason: str, *, may_return: bool) -> None:
        was_usable = peer.usable
        peer.detach(reason)
        if was_usable:
            self._handler.link_down(peer, may_return=may_return)

    def _peer(self, process: bytes) -> Peer:
        peer = self.peers.get(process)
        if peer is None:
            handler = self._handler
            peer = Peer(process, self.config, handler.message, handler.session_event)
            self.peers[process] = peer
        return peer

    def forget(self, process: bytes) -> None:
        """Drop what is kept about a process that is gone."""
        peer = self.peers.pop(process, None)
        self._not_before.pop(process, None)
        self._winners.pop(process, None)
        if peer is not None and peer.connection is not None:
            peer.connection.close("the process is gone")

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            idle_since = self._loop.time() - self.config.idle_after
            for process, peer in list(self.peers.items()):
                peer.sweep()
                if peer.last_used > idle_since or peer.session.has_parts:
                    continue
                if peer.connection is not None:
                    peer.connection.close("idle")
                elif process not in self._dialling:
                    self.forget(process)


def _worst(errors: Sequence[BaseException]) -> type[OSError]:
    """Return what says most about a process that could not be reached."""
    for kind in (ConnectionRefusedError, ConnectionResetError):
        if any(isinstance(error, kind) for error in errors):
            return kind
    return OSError
