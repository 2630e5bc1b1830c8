"""Takes the connections of one listening socket."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

logger = logging.getLogger(__name__)

BATCH = 16
"""Connections taken in one turn of the event loop: those before get their turn, too."""
PAUSE = 1.0
"""Seconds for which nothing is taken when the process has no descriptors left."""
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Acceptor:
    """Takes connections, and goes on when the process has run out of descriptors.

    Args:
        sock: The listening socket; closed with this.
        take: Called with each connection, which is its own from then on.
        exhausted: Called when there are no descriptors left.
    """

    def __init__(
        self,
        sock: socket.socket,
        take: Callable[[socket.socket], None],
        exhausted: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._take = take
        self._exhausted = exhausted
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Take nothing more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _resume(self) -> None:
        self._timer = None
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(BATCH):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as e:
                if e.errno in _EXHAUSTED:
                    self._pause()
                    return
                # The connection was gone before it was taken.
                logger.debug("A connection could not be taken: %s", e)
                continue
            sock.setblocking(False)
            self._take(sock)

    def _pause(self) -> None:
        """Leave connections in the kernel's queue, or the loop would turn in vain."""
        self._loop.remove_reader(self._sock)
        self._timer = self._loop.call_later(PAUSE, self._resume)
        self._exhausted()
