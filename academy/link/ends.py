"""The two ends of a connection: that of the side that dials, and the other one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from academy.link.certificate import peer_fingerprint
from academy.link.connection import Connection, Owner
from academy.link.gate import Visit
from academy.link.protocol import Cause, LinkProtocol
from academy.link.refusal import Refusal
from academy.link.security import Route


class Host(Owner, Protocol):
    """The owner of a connection from outside."""

    def link_made(self, connection: Connection) -> None:
        """The connection begins the handshake."""
        ...


class Dialled(Connection):
    """A connection that this side makes; tells when it is proved, or why it is not.

    Args:
        protocol: The state machine.
        owner: Who is told what happens.
        route: Where it goes, and which certificate has to answer.
        proved: Gets `None` once both sides have proved themselves, or the error that
            says why they will not; `ConnectionResetError` if the other side hung up.
        rivals: The connections to the same process, of which one is enough.
    """

    def __init__(
        self,
        protocol: LinkProtocol,
        owner: Owner,
        route: Route,
        proved: asyncio.Future[OSError | None],
        rivals: set[Dialled],
    ) -> None:
        encrypted = route.pin is not None
        kind = route.endpoint.kind
        super().__init__(protocol, owner, kind, dialled=True, encrypted=encrypted)
        self.source = str(route)
        self._pin = route.pin
        self._proved = proved
        self._rivals = rivals

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake, with the owner of the certificate only."""
        if self._pin is not None and peer_fingerprint(transport) != self._pin:
            reason = "its certificate is not the one that its process has published"
            self._protocol.refuse(Refusal.CERTIFICATE, reason)
        super().connection_made(transport)

    def _tell_open(self, peer: bytes) -> None:
        if not self._proved.done():
            self._proved.set_result(None)
        # At once: of two that the other side sees proved, it might keep the one that
        # this side drops.
        for rival in self._rivals - {self}:
            rival.abort()
        self._rivals = set()
        super()._tell_open(peer)

    def _tell_closed(self, cause: Cause, reason: str) -> None:
        if not self._proved.done():
            kind = ConnectionResetError if cause is Cause.LOST else OSError
            self._proved.set_result(kind(reason))
        self._rivals = set()
        super()._tell_closed(cause, reason)


class Accepted(Connection):
    """A connection that another process has made.

    Args:
        protocol: The state machine.
        owner: Who is told what happens.
        visit: The connection until it has proved itself.
        leave: Called when that is over.
    """

    def __init__(
        self,
        protocol: LinkProtocol,
        owner: Host,
        visit: Visit,
        leave: Callable[[Visit], None],
    ) -> None:
        encrypted = visit.encrypted
        super().__init__(
            protocol, owner, visit.kind, dialled=False, encrypted=encrypted
        )
        self.source = visit.source
        self._host = owner
        self._visit = visit
        self._leave = leave

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake."""
        self._visit.abort = self.abort
        self._host.link_made(self)
        super().connection_made(transport)

    def _tell_open(self, peer: bytes) -> None:
        self._end_visit()
        super()._tell_open(peer)

    def _tell_closed(self, cause: Cause, reason: str) -> None:
        self._end_visit()
        super()._tell_closed(cause, reason)

    def _end_visit(self) -> None:
        self._leave(self._visit)
        # Or the buffers of TLS would stay until cycles are collected.
        self._visit.abort = None
