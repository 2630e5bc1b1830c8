"""Ports that a user has set aside for the clients of a process."""

from __future__ import annotations

import errno
import pickle
import threading
from collections.abc import (
    Callable,
    Container,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_in_use: set[int] = set()


def check_port(port: Any) -> int:
    """Return the port if it is one.

    Raises:
        ValueError: It is no integer from 1 to 65535.
    """
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        raise ValueError(f"Not a port: {port!r}. Ports are integers from 1 to 65535.")
    return port


class PortPool:
    """Gives each client of a process a port of its own, and takes it back.

    A port that any pool of this process has given out is not given out again until it
    is released, so copies of one pool do not collide.

    Args:
        ports: The ports; a generator is read as needed.

    Raises:
        ValueError: One of them is no port (for a generator, when it is drawn).
    """

    def __init__(self, ports: Iterable[int]) -> None:
        self._source = ports
        self._drawn: list[int] = []
        self._rest: Iterator[int] = iter(ports)
        if isinstance(ports, Sequence):
            for port in ports:
                check_port(port)

    def __repr__(self) -> str:
        return f"{self._source!r}"

    def __getstate__(self) -> Any:
        if not isinstance(self._source, Sequence):
            raise pickle.PicklingError(
                f"Ports given as a {type(self._source).__name__} cannot be sent to "
                "another process; give a list or a range."
            )
        return self._source

    def __setstate__(self, source: Sequence[int]) -> None:
        self._source = source
        self._drawn = []
        self._rest = iter(source)

    def take(self, passed: Container[int] = ()) -> int:
        """Return a port that no client of this process has.

        Args:
            passed: Ports that are not wanted.

        Raises:
            StopIteration: All are in use.
            ValueError: The next one is no port.
        """
        with _lock:
            for port in self._drawn:
                if port not in _in_use and port not in passed:
                    _in_use.add(port)
                    return port
            while True:
                port = check_port(next(self._rest))
                self._drawn.append(port)
                if port not in _in_use and port not in passed:
                    _in_use.add(port)
                    return port

    async def use(
        self, port: int, create: Callable[[int], Coroutine[Any, Any, T]]
    ) -> T:
        """Make something on a port that was taken, or on the next that is free.

        Args:
            port: What `take` returned.
            create: Makes it on a port.

        Raises:
            OSError: Other processes have all the ports that are left.
            Exception: What `create` raised. The port is released.
        """
        passed: set[int] = set()
        while True:
            try:
                return await create(port)
            except BaseException as e:
                release_port(port)
                if not isinstance(e, OSError) or e.errno != errno.EADDRINUSE:
                    raise
                passed.add(port)
                try:
                    port = self.take(passed)
                except StopIteration:
                    raise e from None


def release_port(port: int) -> None:
    """Let a port be given out again."""
    with _lock:
        _in_use.discard(port)
