"""Where a manager runs agents: one of its executors, or the current event loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import warnings
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from dataclasses import dataclass
from typing import Any, TypeAlias

from academy.capsule import RunSpec, dump_body, seal
from academy.executor import EventLoopExecutor
from academy.identifier import AgentId
from academy.worker import run_agent, run_capsule, run_live

logger = logging.getLogger(__name__)

Prepared: TypeAlias = RunSpec | bytes
"""An agent ready to be submitted: as it is, or pickled."""

_POOL_OPTIONS = (
    "max_workers",
    "mp_context",
    "initializer",
    "initargs",
    "max_tasks_per_child",
)


@dataclass(frozen=True)
class Attempt:
    """One submission of an agent.

    Attributes:
        outcome: Done when the agent has ended; cancelling it cancels the agent, where
            the executor can do that.
        future: The executor's own future, if there is an executor.
    """

    outcome: asyncio.Future[Any]
    future: Future[Any] | None

    @property
    def queued(self) -> bool:
        """Whether, as far as the executor tells, the agent waits for a worker.

        Some executors do not tell: with them this is so while it runs, too.
        """
        return self.future is not None and not (
            self.future.running() or self.future.done()
        )


class Pool:
    """An executor by its name, with what executors differ in.

    Args:
        name: Name of the executor in its manager.
        executor: The executor; `None` stands for the current event loop.

    Raises:
        ValueError: It is no executor: it has no `submit` method.
    """

    def __init__(self, name: str, executor: Executor | None) -> None:
        if executor is not None and not callable(getattr(executor, "submit", None)):
            raise ValueError(
                f"Executor {name!r} is a {type(executor).__name__} ({executor!r}), "
                "which has no submit(). Pass a concurrent.futures.Executor, or None "
                "for the current event loop."
            )
        self.name = name
        self.executor = executor
        self.busy = 0
        self._live = executor is None or isinstance(
            executor, ThreadPoolExecutor | EventLoopExecutor
        )
        self._warned_full = self._warned_waiting = False

    @property
    def slots(self) -> int | None:
        """How many agents can run at a time, if that is known."""
        slots = getattr(self.executor, "_max_workers", None)
        return slots if isinstance(slots, int) else None

    @property
    def instant(self) -> bool:
        """Whether agents start at once, however many there are."""
        return self.executor is None or isinstance(self.executor, EventLoopExecutor)

    @property
    def _broken(self) -> bool:
        return bool(getattr(self.executor, "_broken", False))

    def prepare(self, spec: RunSpec) -> Prepared:
        """Make an agent ready to be submitted, perhaps repeatedly.

        Within this process the agent and its arguments are passed as they are.

        Raises:
            pickle.PicklingError: It cannot be sent to the workers of this executor.
        """
        return spec if self._live else dump_body(spec)

    def submit(
        self, prepared: Prepared, *, final: bool, submit_kwargs: dict[str, Any]
    ) -> Attempt:
        """Submit an agent.

        A broken `ProcessPoolExecutor` is replaced by one with the same options.

        Args:
            prepared: What `prepare` returned.
            final: Whether this is the last try. In all others the agent leaves its
                mailbox open when it fails.
            submit_kwargs: Further options for the executor.

        Raises:
            Exception: What the executor raised.
        """
        if self._broken:
            # A pool that is about to break would hold up whoever submits to it.
            self._replace_broken()
        try:
            return self._submit(prepared, final, submit_kwargs)
        except BrokenExecutor:
            if not self._replace_broken():
                raise
            return self._submit(prepared, final, submit_kwargs)

    def warn_if_full(self) -> None:
        """Warn, once, that one more agent has to wait for another to end."""
        slots = self.slots
        if slots is None or self.busy < slots or self._warned_full:
            return
        self._warned_full = True
        warnings.warn(
            f"Executor overload: submitted agents exceeds worker count (executor: "
            f"{self.name}, running agents: {self.busy + 1}, max workers: {slots}). An "
            "agent keeps its worker until it shuts down; the others wait meanwhile.",
            RuntimeWarning,
            stacklevel=4,
        )

    def warn_waiting(self, agent_id: AgentId[Any], seconds: float) -> None:
        """Log, once, that an agent has been waiting for a worker."""
        if self._warned_waiting:
            return
        self._warned_waiting = True
        slots = f" It has {self.slots} workers." if self.slots is not None else ""
        logger.warning(
            "%s has not started %g s after its launch: executor %r seems to have no "
            "worker free for it.%s Messages to it wait.",
            agent_id,
            seconds,
            self.name,
            slots,
        )

    def kill(self) -> None:
        """End the worker processes of a process pool; other executors have no way."""
        if isinstance(self.executor, ProcessPoolExecutor):
            processes = getattr(self.executor, "_processes", None) or {}
            for process in list(processes.values()):
                process.kill()

    async def shutdown(self, timeout: float) -> bool:
        """Shut the executor down, and give up waiting for it after a time.

        Args:
            timeout: Seconds to wait.

        Returns:
            Whether it has ended. If not, it may still end later.

        Raises:
            Exception: What the executor raised.
        """
        shutdown = getattr(self.executor, "shutdown", None)
        if shutdown is None:
            return True
        if self._broken:
            self.kill()
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def run() -> None:
            error: Exception | None = None
            try:
                shutdown(**_accepted(shutdown, wait=True, cancel_futures=True))
            except Exception as e:
                error = e
            with contextlib.suppress(RuntimeError):  # nobody waits for it any more
                loop.call_soon_threadsafe(_settle, ended, error)

        # A thread pool's thread would hold up the end of the interpreter.
        threading.Thread(target=run, name=f"shutdown-{self.name}", daemon=True).start()
        done, _ = await asyncio.wait([ended], timeout=timeout)
        if done:
            ended.result()
        return bool(done)

    def _submit(
        self, prepared: Prepared, final: bool, submit_kwargs: dict[str, Any]
    ) -> Attempt:
        executor = self.executor
        if isinstance(prepared, RunSpec):
            spec = prepared if final else prepared.keeping_mailbox()
            if executor is None:
                return Attempt(asyncio.ensure_future(run_agent(spec)), None)
            run = run_agent if isinstance(executor, EventLoopExecutor) else run_live
            future = executor.submit(run, spec, **submit_kwargs)
        else:
            assert executor is not None
            capsule = seal(prepared, final=final)
            future = executor.submit(run_capsule, capsule, **submit_kwargs)
        if not isinstance(future, Future):
            raise TypeError(
                f"submit() of {type(executor).__name__} returned a "
                f"{type(future).__name__}, not a concurrent.futures.Future."
            )
        return Attempt(asyncio.wrap_future(future), future)

    def _replace_broken(self) -> bool:
        """Replace a broken process pool; nothing else can be rebuilt."""
        broken = self.executor
        if type(broken) is not ProcessPoolExecutor:
            return False
        self.kill()  # it told its other processes to end, which some do not hear
        self.executor = ProcessPoolExecutor(
            **{option: getattr(broken, f"_{option}") for option in _POOL_OPTIONS}
        )
        broken.shutdown(wait=False)
        logger.warning("Executor %r was broken and has been replaced.", self.name)
        return True


def _accepted(function: Any, **options: Any) -> dict[str, Any]:
    """Return those of the options that a function takes."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return options
    return {name: value for name, value in options.items() if name in parameters}


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
