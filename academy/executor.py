"""Executors of our own, beside those of the standard library and of others."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from academy import by_value
from academy.exchange.factory import ExchangeFactory
from academy.worker_process import Interpreter, WorkerProcess, WorkerProcessError

__all__ = ["EventLoopExecutor", "SubprocessExecutor", "WorkerProcessError"]

ResultT = TypeVar("ResultT")


class SubprocessExecutor(Executor):
    """Runs each call in a new process of its own: the way to run agents on one host.

    A worker is a new interpreter (``python -m academy.worker``), not a fork, so it
    shares no locks and no connections with this process, needs no ``__main__`` guard,
    and works from notebooks. Functions and classes of `__main__` travel by value. A
    worker that dies fails its own call only, with `WorkerProcessError`; the others go
    on. Workers end when this process ends, however it ends. Signals from the terminal
    do not reach them: this process shuts them down. What they print goes where this
    process prints.

    Args:
        max_workers: How many processes run at a time; further calls wait for one to
            end, which an agent may never do. By default there is no limit.
        python: The interpreter. Another than this one must have the same packages.
        env: Environment variables for the workers, in addition to those of this
            process.

    Raises:
        ValueError: `max_workers` is less than 1.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
    ) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, not {max_workers}.")
        self._max_workers = max_workers
        self._interpreter = Interpreter(python, dict(env or {}))
        self._changed = threading.Condition()
        self._waiting: collections.deque[WorkerProcess] = collections.deque()
        self._running: set[WorkerProcess] = set()
        self._closed = False

    @property
    def pids(self) -> dict[Future[Any], int]:
        """The process identifiers of the workers that run, by their futures."""
        with self._changed:
            workers = list(self._running)
        return {
            worker.future: worker.pid for worker in workers if worker.pid is not None
        }

    def submit(
        self, fn: Callable[..., ResultT], /, *args: Any, **kwargs: Any
    ) -> Future[ResultT]:
        """Run a function in a new process.

        Returns:
            Its future. `cancel` works while the function runs, too: it ends the
            process, with SIGTERM at first and with SIGKILL after two seconds.

        Raises:
            RuntimeError: The executor was shut down.
            Exception: The function or an argument cannot be pickled.
        """
        worker = WorkerProcess(
            self._interpreter, by_value.dumps((fn, args, kwargs)), self._ended
        )
        with self._changed:
            if self._closed:
                raise RuntimeError(
                    "This SubprocessExecutor was shut down and takes no more calls."
                )
            self._waiting.append(worker)
            self._start_waiting()
        return worker.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. Idempotent.

        Args:
            wait: Return when all calls have ended and no worker process is left.
            cancel_futures: Cancel the calls that have not begun.
        """
        with self._changed:
            self._closed = True
            if cancel_futures:
                for worker in self._waiting:
                    worker.future.cancel()
                self._start_waiting()
            if wait:
                self._changed.wait_for(lambda: not (self._running or self._waiting))

    def _start_waiting(self) -> None:
        """Start calls while there is room; cancelled ones need none."""
        while self._waiting and (
            self._waiting[0].future.cancelled()
            or self._max_workers is None
            or len(self._running) < self._max_workers
        ):
            worker = self._waiting.popleft()
            if worker.future.cancelled():
                worker.future.set_running_or_notify_cancel()
                continue
            self._running.add(worker)
            worker.start()

    def _ended(self, worker: WorkerProcess) -> None:
        """Give the place of a call that has ended to the next one."""
        with self._changed:
            self._running.discard(worker)
            self._start_waiting()
            self._changed.notify_all()


class EventLoopExecutor(Executor):
    """Runs many agents in one thread that has one event loop.

    Agents that mostly wait need no thread and no process each; here thousands share
    one, apart from the event loop of the manager. An agent that blocks the loop blocks
    all of them. The thread starts with the first call.

    Args:
        factory: Not used: agents bring their own. It is here so that programs written
            for other releases run.
    """

    def __init__(self, factory: ExchangeFactory[Any] | None = None) -> None:
        self._factory = factory
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = asyncio.Event()
        self._cancelling = False
        self._closed = False

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Call a function in the event loop, and await what it returns if need be.

        Returns:
            A future for the result. Cancelling it cancels the awaiting.

        Raises:
            RuntimeError: The executor was shut down.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError(
                    "This EventLoopExecutor was shut down and takes no more calls."
                )
            loop = self._started_loop()
            call = _LoopCall(loop)
            loop.call_soon_threadsafe(self._begin, call, fn, args, kwargs)
            return call

    def shutdown(self, wait: bool = True, cancel_futures: bool = True) -> None:
        """Take no more calls, and end the thread when all have ended. Idempotent.

        Args:
            wait: Return when the thread has ended.
            cancel_futures: Cancel the calls, also those that run.
        """
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        with contextlib.suppress(RuntimeError):  # it has ended already
            loop.call_soon_threadsafe(self._close, cancel_futures)
        if wait:
            thread.join()

    def _started_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._serve, args=(self._loop,), name="event-loop-executor"
            )
            self._thread.daemon = True
            self._thread.start()
        return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.get_loop().run_until_complete(self._until_closed())

    async def _until_closed(self) -> None:
        await self._closing.wait()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(
        self,
        call: _LoopCall,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if self._cancelling:
            call.cancel()
        if call.cancelled():
            call.set_running_or_notify_cancel()
            return
        # In a context of its own: the caller's exchange client is not for agents.
        task = call.loop.create_task(
            _outcome(fn, args, kwargs), context=contextvars.Context()
        )
        call.task = task
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._ended, call))

    def _ended(self, call: _LoopCall, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            call.cancel()
        error = None if task.cancelled() else task.exception()
        if not call.set_running_or_notify_cancel():
            return
        if error is None:
            call.set_result(task.result())
        else:
            call.set_exception(error)

    def _close(self, cancel: bool) -> None:
        self._closing.set()
        self._cancelling = cancel
        if cancel:
            for task in self._tasks:
                task.cancel()


async def _outcome(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    result = fn(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result


class _LoopCall(Future[Any]):
    """A call in the event loop of another thread, which can be cancelled at any time.

    To that end it stays in the state in which `Future.cancel` succeeds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.task: asyncio.Task[Any] | None = None

    def cancel(self) -> bool:
        """Cancel the call, and its awaiting if it has begun."""
        if self.cancelled():
            return True
        if not super().cancel():
            return False
        with contextlib.suppress(RuntimeError):  # the loop has ended, and all in it
            self.loop.call_soon_threadsafe(self._end)
        return True

    def running(self) -> bool:
        """Return whether the call has begun and has no outcome yet."""
        return self.task is not None and not self.done()

    def _end(self) -> None:
        if self.task is not None:
            self.task.cancel()
