"""Threads for the blocking functions of agents, of which most need none."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""How many threads a pool has that is not told; as in the standard library."""

_making = threading.Lock()


class LazyThreadPool(ThreadPoolExecutor):
    """A thread pool that is made when it is used first: until then it is small.

    Args:
        max_workers: Number of threads, positive; `None` for the default.
        thread_name_prefix: How the names of its threads begin.
    """

    def __init__(self, max_workers: int | None, thread_name_prefix: str) -> None:
        # The base class is initialised by the first call.
        self._max_workers = max_workers or DEFAULT_THREADS
        self._prefix = thread_name_prefix
        self._made = False
        self._ended = False

    def submit(
        self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]:
        """Run a function in one of the threads.

        Raises:
            RuntimeError: The pool was shut down.
        """
        with _making:
            if not self._made:
                super().__init__(self._max_workers, self._prefix)
                self._made = True
                if self._ended:
                    super().shutdown()
        return super().submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; see the base class. Idempotent."""
        with _making:
            self._ended = True
            made = self._made
        if made:
            super().shutdown(wait, cancel_futures=cancel_futures)

    def abandon(self) -> None:
        """Take no more calls; those that run end by themselves. Idempotent."""
        self.shutdown(wait=False, cancel_futures=True)
