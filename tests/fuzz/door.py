"""The door of a process, and strangers who come to it with bytes of their own.

Real sockets, the real gate and node, and an event loop whose time can be moved on, so
that nobody waits for those who say nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any

from academy.link.admission import Admission
from academy.link.certificate import certificate, client_context
from academy.link.codec import LENGTH
from academy.link.config import LinkConfig
from academy.link.gate import Visit
from academy.link.node import Node
from academy.link.protocol import State
from academy.link.refusal import Refusal
from academy.link.security import Security
from tests.fuzz.identity import NAMESPACE, SECRET, SERVER

ROOM = 3
"""Strangers who may wait at the door, of whom two from one source: so few that some
have to go for others at any step."""
PATIENCE = 20
"""Turns of the event loop in which strangers come, speak, and are listened to."""
MANY = 20_000
"""Turns after which somebody is still there who will not go."""
UNPROVED = {Refusal.CROWDED, Refusal.LATE, Refusal.SECRET}
"""Refusals of those who have said nothing wrong."""


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time can be moved on, and that remembers its errors."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0
        self.errors: list[str] = []
        self.set_exception_handler(self._note)

    def time(self) -> float:
        return super().time() + self.ahead

    @staticmethod
    def _note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        assert isinstance(loop, Loop)
        loop.errors.append(f"{context['message']}: {context.get('exception')!r}")


class Nobody:
    """Stands for the exchange, which must hear nothing of strangers."""

    def message(self, peer: object, note: object, seq: int, segments: object) -> None:
        raise AssertionError("a message of a stranger was decoded")

    def session_event(self, peer: object, event: object) -> None:
        raise AssertionError(f"{event} of a stranger was decoded")

    def link_up(self, peer: object) -> None:
        raise AssertionError("a stranger is linked")

    def link_down(self, peer: object, *, may_return: bool) -> None:
        raise AssertionError("a stranger was linked")


class Stranger:
    """Comes to a port, says something, and stays or hangs up.

    Args:
        port: The port.
        data: What it says.
        encrypted: Whether it says that within TLS.
    """

    def __init__(self, port: int, data: bytes, encrypted: bool) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        # What it says is heard at once, and so little that it never waits to say it.
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.setblocking(False)
        self._tls = Tls() if encrypted else None
        self._data = data
        self._heard = b""
        # As good a choice as any, and the same for the same input.
        self._stays = len(data) % 2 == 0
        self.gone = False
        """Whether the process has hung up."""
        self.left = False
        """Whether the stranger has."""

    def speak(self) -> None:
        """Say what is to be said now, and listen."""
        if self.gone:
            return
        with contextlib.suppress(ConnectionError):
            if self._tls is not None:
                self._sock.sendall(self._tls.shake_hands(self._heard))
            if self._tls is None or self._tls.done:
                self._speak_up()
        self._heard = self._listen()

    def _speak_up(self) -> None:
        data, self._data = self._data, b""
        if data:
            self._sock.sendall(data if self._tls is None else self._tls.wrap(data))
        elif not self._stays and not self.left:
            self.left = True
            self._sock.shutdown(socket.SHUT_WR)

    def _listen(self) -> bytes:
        try:
            heard = self._sock.recv(65536)
        except BlockingIOError:
            return b""
        except ConnectionError:
            heard = b""
        self.gone = not heard
        return heard

    def close(self) -> None:
        self._sock.close()


class Tls:
    """The side of TLS that dials, without a socket."""

    def __init__(self) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._side = client_context().wrap_bio(self._in, self._out)
        self.done = False
        """Whether the handshake of TLS is over."""

    def shake_hands(self, heard: bytes) -> bytes:
        """Take what was heard and return what is to be said, until `done`."""
        self._in.write(heard)
        if not self.done:
            with contextlib.suppress(ssl.SSLWantReadError):
                self._side.do_handshake()
                self.done = True
        return self._out.read()

    def wrap(self, data: bytes) -> bytes:
        """Return what says this within TLS."""
        self._side.write(data)
        return self._out.read()


def received(strangers: Sequence[bytes], *, encrypted: bool = False) -> set[Refusal]:
    """Let strangers come to a process at once; return why it has refused them.

    Raises:
        AssertionError: It has done anything else than to listen for a while, keep
            little of it, and hang up with a reason.
    """
    loop = Loop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner, _heard_errors() as errors:
        try:
            return runner.run(_receive(loop, strangers, encrypted))
        finally:
            # They come first: what else is wrong follows from them.
            assert not errors + loop.errors, errors + loop.errors


async def _receive(loop: Loop, data: Sequence[bytes], encrypted: bool) -> set[Refusal]:
    node = Node(SERVER, NAMESPACE, lambda: [SECRET], Nobody(), LinkConfig())
    await node.open(["127.0.0.1"])
    node._gate.certificate = certificate(Security("tls"))
    chance = random.Random(len(data)).random
    door: Admission[Visit] = Admission(chance, ROOM, ROOM - 1)
    node._gate._doors["tcp"] = door
    strangers = [Stranger(node.ports[0], said, encrypted) for said in data]
    try:
        await _listen(node, strangers, PATIENCE)
        # Nobody is left who has not had its time.
        loop.ahead += node.config.handshake_timeout
        await _listen(node, strangers, MANY)
        assert all(stranger.gone for stranger in strangers), "a stranger lingers"
        assert not len(node._gate), "a stranger is kept in mind"
        assert not node._connections, "a connection is kept"
        stayed = sum(not stranger.left for stranger in strangers)
        assert stayed <= node.refused <= len(strangers), "not one reason for each"
        return {Refusal(reason) for reason in node.refusals}
    finally:
        for stranger in strangers:
            stranger.close()
        await node.close()


async def _listen(node: Node, strangers: Sequence[Stranger], turns: int) -> None:
    """Let so many turns pass, or until the process has hung up on all."""
    for _ in range(turns):
        await asyncio.sleep(0)
        for stranger in strangers:
            stranger.speak()
        if all(stranger.gone for stranger in strangers) and not node._connections:
            return
        assert len(node._gate) <= ROOM
        for connection in node._connections:
            protocol = connection._protocol
            assert protocol.state is not State.OPEN, "a stranger has proved itself"
            kept = protocol._reader.pending
            assert kept < LENGTH.size + node.config.handshake_limit, f"{kept} kept"


@contextlib.contextmanager
def _heard_errors() -> Iterator[list[str]]:
    """Gather what is logged as an error; warnings are what strangers are worth."""
    errors: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(f"{record.getMessage()} {record.exc_info}")

    logger, ear = logging.getLogger("academy"), Ear(logging.ERROR)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(ear)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield errors
    finally:
        logger.removeHandler(ear)
        logger.setLevel(level)
        logger.propagate = propagate
