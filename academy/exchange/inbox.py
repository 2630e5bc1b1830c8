"""The queue between the exchange and the consumer of one mailbox."""

from __future__ import annotations

import asyncio
import collections
import threading
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")

_making = threading.Lock()


class Inbox(Generic[ItemT]):
    """A queue with one consumer, which can be ended with an error.

    `put`, `end` and `drain` may be called from any thread; `get` belongs to the event
    loop that the inbox was made in.

    One that has never held anything is small: most of many mailboxes have their
    messages handed over as they arrive.
    """

    __slots__ = ("_arrived", "_items", "_loop", "error")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: collections.deque[ItemT] | None = None
        self._arrived: asyncio.Event | None = None
        self.error: Exception | None = None
        """The error that the inbox was ended with, if it was."""

    def __len__(self) -> int:
        return len(self._items or ())

    def items(self) -> list[ItemT]:
        """Return what was not taken yet; it stays."""
        return list(self._items or ())

    def put(self, item: ItemT) -> None:
        """Append an item; after the end it is kept for `drain`."""
        if self._items is None:
            with _making:  # or two threads might make one each
                if self._items is None:
                    self._items = collections.deque()
        self._items.append(item)
        self._wake()

    def end(self, error: Exception) -> None:
        """Let the consumer, now and later, get this error; the first one stays."""
        if self.error is None:
            self.error = error
            self._wake()

    def drain(self) -> list[ItemT]:
        """Remove and return all items that were not taken."""
        items = []
        while self._items:
            items.append(self._items.popleft())
        return items

    async def get(self, timeout: float | None = None) -> ItemT:
        """Take the next item. Cancelling is safe: nothing is lost.

        Args:
            timeout: Longest wait in seconds.

        Raises:
            TimeoutError: Nothing came within the timeout.
            Exception: The error that the inbox was ended with.
        """
        async with asyncio.timeout(timeout):
            while not self._items and self.error is None:
                if self._arrived is None:
                    self._arrived = asyncio.Event()
                self._arrived.clear()
                # An item may have come from another thread before the clear.
                if not self._items and self.error is None:
                    await self._arrived.wait()
        if self.error is not None:
            raise self.error
        assert self._items is not None
        return self._items.popleft()

    def _wake(self) -> None:
        arrived = self._arrived
        if arrived is None:
            return  # nobody has ever waited; whoever does looks at the items first
        if self._running_here():
            arrived.set()
            return
        try:
            self._loop.call_soon_threadsafe(arrived.set)
        except RuntimeError:
            # The consumer's loop is closed: nobody waits. Items stay for `drain`.
            return

    def _running_here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False
