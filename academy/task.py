"""Background tasks that are held, named, and heard when they fail."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from academy.debug import get_academy_debug

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

# The event loop holds tasks weakly; these are nobody else's to hold.
_guarded: set[asyncio.Task[Any]] = set()


class SafeTaskExitError(Exception):
    """Raise it inside a background task to end that task without an alarm.

    Whoever awaits the task still gets it.
    """


def spawn_guarded_background_task(
    coro: Coroutine[Any, Any, Any],
    *,
    name: str,
    log_exception: bool = True,
) -> asyncio.Task[Any]:
    """Start a task that nobody waits for and that is not supposed to fail.

    The task is held until it is done. If it fails, the error is logged, and the
    process goes on; only in debug mode (`set_academy_debug(True)`) its event loop
    ends with `SystemExit`. Cancelling the task and
    [`SafeTaskExitError`][academy.task.SafeTaskExitError] are no failures.

    Args:
        coro: What to run.
        name: Name of the task, as the log shows it.
        log_exception: Log the error of a failing task. Turn it off when `coro`
            logs its errors itself.

    Returns:
        The task. Awaiting it raises its error as usual.

    Raises:
        RuntimeError: If no event loop runs in this thread.
    """
    task = asyncio.create_task(coro, name=name)
    _guarded.add(task)
    task.add_done_callback(functools.partial(_guarded_ended, log=log_exception))
    return task


def _guarded_ended(task: asyncio.Task[Any], *, log: bool) -> None:
    _guarded.discard(task)
    error = _failure(task)
    if error is None:
        return
    debug = get_academy_debug()
    if log or debug:
        logger.error("Background task %r failed.", task.get_name(), exc_info=error)
    if debug:
        raise SystemExit(1)


def _failure(task: asyncio.Task[Any]) -> Exception | None:
    """Return the error of a finished task that somebody should hear of."""
    if task.cancelled():
        return None
    error = task.exception()
    # SystemExit and KeyboardInterrupt have ended the event loop by themselves.
    if isinstance(error, SafeTaskExitError) or not isinstance(error, Exception):
        return None
    return error


class Tasks:
    """The tasks one owner started: held until done, cancelled together.

    An owner (a connection, a node, a client) starts its tasks with `spawn()` and
    ends them with `cancel()` when it closes. The error of a task is logged once,
    with the names of owner and task; that does not disturb the other tasks.
    [`SafeTaskExitError`][academy.task.SafeTaskExitError] ends a task unheard. All
    methods belong to the thread of the event loop.

    Args:
        name: Name of the owner, as the log shows it.
        on_error: Called with the name of the task and its error after a task has
            failed and that was logged. It runs in the event loop and must not
            block.
    """

    __slots__ = ("_on_error", "_tasks", "name")

    def __init__(
        self,
        name: str,
        *,
        on_error: Callable[[str, Exception], None] | None = None,
    ) -> None:
        self.name = name
        self._on_error = on_error
        # As keys: most owners have no tasks, and an empty set is three times as big.
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        names = sorted(task.get_name() for task in self._tasks)
        return f"Tasks({self.name!r}, running=[{', '.join(names)}])"

    def spawn(
        self, coro: Coroutine[Any, Any, ResultT], *, name: str
    ) -> asyncio.Task[ResultT]:
        """Start a task and hold it until it is done.

        Spawning is possible at any time, also after `cancel()`.

        Args:
            coro: What to run.
            name: What the task does; its full name is ``owner/name``.

        Returns:
            The task. Awaiting it raises its error as usual.

        Raises:
            RuntimeError: If no event loop runs in this thread.
        """
        task = asyncio.create_task(coro, name=f"{self.name}/{name}")
        self.hold(task, name=name)
        return task

    def hold(self, task: asyncio.Task[Any], *, name: str) -> None:
        """Hold a task that was started otherwise like one's own."""
        self._tasks[task] = None
        task.add_done_callback(functools.partial(self._ended, name))

    def _ended(self, name: str, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        error = _failure(task)
        if error is None:
            return
        logger.error("Task %r of %s failed.", name, self.name, exc_info=error)
        if self._on_error is not None:
            self._on_error(name, error)

    async def join(self, timeout: float) -> bool:
        """Wait until the tasks that run now have ended; nothing is cancelled.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether they have all ended. The task that calls this does not count.
        """
        others = self._tasks.keys() - {asyncio.current_task()}
        if not others:
            return True
        _, running = await asyncio.wait(others, timeout=timeout)
        return not running

    async def cancel(self, timeout: float = 2.0) -> None:
        """Cancel all tasks and wait until they have ended.

        Tasks that start meanwhile are cancelled too. The task that calls this is
        left alone, so one of the tasks may close their owner. Errors of the tasks
        are logged, never raised. A task that outlasts the timeout is named in a
        warning and stays held until it ends. Calling it again is harmless.

        When this call itself is cancelled, the tasks have been told to end but may
        still be ending.

        Args:
            timeout: Seconds to wait at most.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout
        while others := self._tasks.keys() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            _, running = await asyncio.wait(others, timeout=deadline - clock())
            if running:
                names = ", ".join(sorted(task.get_name() for task in running))
                logger.warning("Still running %g s after cancel: %s.", timeout, names)
                return


async def contain(what: str, work: Awaitable[None]) -> None:
    """Await work; what would end the event loop becomes an error like others.

    Raises:
        RuntimeError: It raised such as a `SystemExit`.
    """
    try:
        await work
    except (Exception, asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as e:
        raise RuntimeError(f"{what} raised {type(e).__name__}: {e}") from e


async def take_steps(steps: Iterable[Callable[[], Awaitable[object] | None]]) -> None:
    """Take steps one after the other, each however the ones before it have ended.

    Cancelling goes on with the next step.

    Args:
        steps: Plain or coroutine functions.

    Raises:
        BaseException: What the first step that failed has raised, cancellation too.
    """
    failure: BaseException | None = None
    for step in steps:
        try:
            work = step()
            if work is not None:
                await work
        except BaseException as e:
            failure = failure or e
    if failure is not None:
        raise failure
