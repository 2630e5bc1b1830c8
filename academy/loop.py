"""The decorators that make a method of an agent run beside its actions."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import math
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, Protocol, TypeAlias, TypeVar

from academy.event import wait_event_async
from academy.method import mark, require_coroutine

AgentT = TypeVar("AgentT")
LoopMethod: TypeAlias = Callable[[AgentT, asyncio.Event], Coroutine[None, None, None]]
LoopMethodT = TypeVar("LoopMethodT", bound=Callable[..., Awaitable[None]])
Tick: TypeAlias = Callable[[AgentT], Coroutine[None, None, None]]
"""What `timer` and `event` decorate: a method without parameters."""


class ControlLoop(Protocol):
    """A bound control loop method."""

    async def __call__(self, shutdown: asyncio.Event) -> None:
        """Run until the work is done or the event is set."""
        ...


def loop(method: LoopMethodT) -> LoopMethodT:
    """Run a method of an agent as a control loop.

    The loop starts when the agent has started. It should end soon after `shutdown`
    is set; one that does not is cancelled a second after `agent_on_shutdown`. It may
    also end earlier, when its work is done.

    ```python
    class Watcher(Agent):
        @loop
        async def watch(self, shutdown: asyncio.Event) -> None:
            while not shutdown.is_set():
                ...
    ```

    Raises:
        TypeError: The method is not declared with ``async def``, or its one
            parameter besides `self` is not `shutdown`.
    """
    require_coroutine(method, "Loop")
    _require_parameters(method, "Loop", ["shutdown"])
    mark(method, "loop")
    return method


def timer(
    interval: float | timedelta,
) -> Callable[[Tick[AgentT]], LoopMethod[AgentT]]:
    """Run a method of an agent again and again.

    The first run is at the start of the agent, the others each an interval after
    the end of the one before. No run begins after shutdown was requested.

    ```python
    class Sampler(Agent):
        @timer(interval=0.5)
        async def sample(self) -> None: ...
    ```

    Args:
        interval: Pause between two runs, in seconds or as a `timedelta`. With 0
            other tasks still get their turn.

    Raises:
        TypeError: The interval is neither a number nor a `timedelta`, or the method
            is not declared with ``async def`` and without parameters.
        ValueError: The interval is negative or not a number of seconds.
    """
    seconds = _seconds(interval)

    def decorate(method: Tick[AgentT]) -> LoopMethod[AgentT]:
        _require_tick(method, "Timer")

        @functools.wraps(method)
        async def run(self: AgentT, shutdown: asyncio.Event) -> None:
            while not shutdown.is_set():
                await method(self)
                with contextlib.suppress(TimeoutError):
                    await wait_event_async(shutdown, timeout=seconds)

        mark(run, "loop")
        return run

    return decorate


def event(name: str) -> Callable[[Tick[AgentT]], LoopMethod[AgentT]]:
    """Run a method of an agent whenever an event is set.

    The event is cleared for the run, so that it is clear afterwards unless it was
    set again meanwhile; then the method runs again: no `set()` is missed, though
    several before a run count as one.

    ```python
    class Alarm(Agent):
        def __init__(self) -> None:
            self.alert = asyncio.Event()

        @event("alert")
        async def ring(self) -> None: ...
    ```

    The running agent fails with an `AttributeError` when it has no attribute of
    that name, and with a `TypeError` when that is no `asyncio.Event`.

    Args:
        name: Attribute of the agent that holds the [`asyncio.Event`][asyncio.Event].

    Raises:
        TypeError: The name is not a string, or the method is not declared with
            ``async def`` and without parameters.
    """
    if not isinstance(name, str):
        raise TypeError(f"@event needs the name of an attribute, not {name!r}.")

    def decorate(method: Tick[AgentT]) -> LoopMethod[AgentT]:
        _require_tick(method, "Event")

        @functools.wraps(method)
        async def run(self: AgentT, shutdown: asyncio.Event) -> None:
            awaited = _event_of(self, name)
            while not shutdown.is_set():
                if await wait_event_async(shutdown, awaited) is shutdown:
                    return
                awaited.clear()
                await method(self)
                # A method that sets its own event again must not starve others.
                await asyncio.sleep(0)

        mark(run, "loop")
        return run

    return decorate


def _event_of(agent: object, name: str) -> asyncio.Event:
    try:
        found = getattr(agent, name)
    except AttributeError as e:
        raise AttributeError(
            f"{agent} has no attribute {name!r} for @event({name!r}) to wait on. "
            f"Set it in __init__: self.{name} = asyncio.Event()."
        ) from e
    if not isinstance(found, asyncio.Event):
        raise TypeError(
            f"{agent}.{name} is a {type(found).__name__}, but @event({name!r}) waits "
            "on an asyncio.Event."
        )
    return found


def _seconds(interval: float | timedelta) -> float:
    if isinstance(interval, timedelta):
        seconds = interval.total_seconds()
    elif isinstance(interval, (int, float)) and not isinstance(interval, bool):
        seconds = float(interval)
    else:
        raise TypeError(
            f"@timer needs seconds or a timedelta as its interval, not {interval!r}."
        )
    if seconds < 0 or math.isnan(seconds):
        raise ValueError(f"@timer cannot run every {seconds} seconds.")
    return seconds


def _require_tick(method: Any, role: str) -> None:
    require_coroutine(method, role)
    _require_parameters(method, role, [])


def _require_parameters(method: Any, role: str, expected: list[str]) -> None:
    signature = inspect.signature(method)
    if list(signature.parameters)[1:] != expected or not signature.parameters:
        wanted = ", ".join(["self", *expected])
        raise TypeError(
            f"{role} {method.__qualname__!r} has the parameters {signature}, but it "
            f"is called as ({wanted})."
        )
