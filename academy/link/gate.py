"""The gate: what a connection from outside goes through until it has proved itself.

A stranger costs a socket and a small object until it says something; then, on a
connection that is to be encrypted, the buffers of TLS. All of it is bounded by
`Admission`, and by the time of the handshake, which begins when the connection is
taken.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import resource
import socket
import struct
import sys
from collections.abc import Callable

from academy.link.admission import LIMIT, Admission, source_of
from academy.link.certificate import Certificate
from academy.link.refusal import Refusal
from academy.link.security import Security
from academy.link.tally import Tally
from academy.task import Tasks

logger = logging.getLogger(__name__)

TLS_RECORD = 0x16
"""First byte of a TLS handshake; that of ours is the upper byte of a small length."""
SHUTDOWN = 1.0
"""Seconds that the other side has to confirm the end of an encrypted connection."""
UNIX = "the Unix socket"


class Visit:
    """A connection that has not proved itself.

    Attributes:
        kind: `'uds'` or `'tcp'`.
        source: Where it comes from.
        started: When it was taken.
        binding: What the connection is bound to, see `Identity`.
        encrypted: Whether it is.
    """

    def __init__(
        self, sock: socket.socket, kind: str, source: str, started: float
    ) -> None:
        self.kind = kind
        self.source = source
        self.started = started
        self.binding = b""
        self.encrypted = False
        self.abort: Callable[[], None] | None = None
        """What ends the connection, once it has begun the handshake."""
        self._sock = sock
        self._task: asyncio.Task[None] | None = None
        self._handed = False

    def drop(self) -> None:
        """End the connection."""
        if self.abort is not None:
            self.abort()
        elif self._task is not None:
            self._task.cancel()


class Gate:
    """Decides about the connections that others make to this process.

    Args:
        connect: Makes the protocol of a visit that may begin the handshake; whoever
            owns it calls `leave` when it is proved or closed.
        security: Which connections have to be encrypted.
        tally: Counts what is refused.
        timeout: Seconds from the beginning of a connection until it is proved.
    """

    def __init__(
        self,
        connect: Callable[[Visit], asyncio.BufferedProtocol],
        security: Security,
        tally: Tally,
        timeout: float,
    ) -> None:
        self._connect = connect
        self._security = security
        self._tally = tally
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks("link-gate")
        # Strangers on a port do not touch who comes by the Unix socket.
        self._doors: dict[str, Admission[Visit]] = {
            "uds": Admission(random.random, room(), room()),
            "tcp": Admission(random.random, room()),
        }
        self._closed = False
        self.certificate: Certificate | None = None
        """What encrypted connections are answered with, if they are."""

    def __len__(self) -> int:
        return sum(map(len, self._doors.values()))

    def enter(self, sock: socket.socket, kind: str) -> None:
        """Take a connection, and begin the handshake when it says something."""
        source = None if self._closed else self._source(sock, kind)
        if source is None:
            sock.close()
            return
        visit = Visit(sock, kind, source, self._loop.time())
        victim = self._doors[kind].enter(visit, source)
        if victim is not None:
            detail = "too many connections are in the handshake"
            self._tally.count(Refusal.CROWDED, victim.source, detail)
            victim.drop()
        visit._task = self._tasks.spawn(self._open(visit), name="link-handshake")
        # Not in the task: one that is cancelled at once never begins.
        visit._task.add_done_callback(lambda _: self._opened(visit))

    def exhausted(self) -> None:
        """Count that the process has no descriptors left."""
        detail = "the process has no file descriptors left; see ulimit -n"
        self._tally.count(Refusal.DESCRIPTORS, "new connections", detail)

    def leave(self, visit: Visit) -> None:
        """Note that a visit has proved itself, or has ended. Idempotent."""
        self._doors[visit.kind].leave(visit)

    async def close(self) -> None:
        """Turn all away that have not proved themselves. Idempotent."""
        self._closed = True
        for door in self._doors.values():
            for visit in door:
                visit.drop()
        await self._tasks.cancel()

    def _source(self, sock: socket.socket, kind: str) -> str | None:
        """Return where a connection comes from; `None` if it must not, or is gone."""
        try:
            if kind == "tcp":
                return source_of(sock.getpeername()[0])
            if same_user(sock):
                return UNIX
            self._tally.count(Refusal.USER, UNIX, "it belongs to another user")
        except OSError as e:
            logger.debug("A connection was gone before it was seen: %s", e)
        return None

    async def _open(self, visit: Visit) -> None:
        try:
            async with asyncio.timeout_at(visit.started + self._timeout):
                await self._begin(visit)
        except TimeoutError:
            detail = "it did not prove itself in time"
            self._tally.count(Refusal.LATE, visit.source, detail)
        except OSError:
            if visit.encrypted:
                detail = "the TLS handshake failed"
                self._tally.count(Refusal.TLS, visit.source, detail)

    def _opened(self, visit: Visit) -> None:
        visit._task = None
        if visit.abort is None:
            self.leave(visit)
        if not visit._handed:
            visit._sock.close()

    async def _begin(self, visit: Visit) -> None:
        """Hand a visit to its protocol, if it may begin the handshake."""
        context = None
        if visit.kind == "tcp":
            first = await self._first_byte(visit._sock)
            if first is None:
                return
            visit.encrypted = first == TLS_RECORD
            if visit.encrypted and self.certificate is not None:
                context = self.certificate.context
                visit.binding = bytes.fromhex(self.certificate.fingerprint)
            elif not self._may_be_clear(visit):
                return
        visit._handed = True
        options = {} if context is None else {"ssl_shutdown_timeout": SHUTDOWN}
        await self._loop.connect_accepted_socket(
            lambda: self._connect(visit), visit._sock, ssl=context, **options
        )

    def _may_be_clear(self, visit: Visit) -> bool:
        if visit.encrypted:
            detail = "it wants TLS, and this process has no certificate"
            self._tally.count(Refusal.TLS, visit.source, detail)
            return False
        if not self._security.admits_clear(visit._sock.getpeername()[0]):
            detail = "it does not use TLS"
            self._tally.count(Refusal.CLEAR_TEXT, visit.source, detail)
            return False
        return True

    async def _first_byte(self, sock: socket.socket) -> int | None:
        """Return the first byte that comes, left unread; `None` if nothing will."""
        spoken = self._loop.create_future()

        def note() -> None:
            if not spoken.done():
                spoken.set_result(None)

        self._loop.add_reader(sock, note)
        try:
            await spoken
        finally:
            self._loop.remove_reader(sock)
        first = sock.recv(1, socket.MSG_PEEK)
        return first[0] if first else None


def room() -> int:
    """Return how many strangers may wait: few where descriptors are few."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LIMIT if limit < 0 else max(8, min(LIMIT, limit // 4))


def same_user(sock: socket.socket) -> bool:
    """Return whether the other end of a Unix socket is of this user, or of root."""
    if sys.platform == "darwin":
        # LOCAL_PEERCRED: version, uid, number of groups, groups.
        raw = sock.getsockopt(0, 0x001, 76)
        uid = struct.unpack_from("Ii", raw)[1]
    else:
        size = struct.calcsize("3i")
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        uid = struct.unpack("3i", raw)[1]
    return uid in (os.getuid(), 0)
