"""Agents: classes with state, actions that others call, and control loops."""

from __future__ import annotations

import asyncio
import contextvars
import difflib
import functools
import logging
from collections.abc import Awaitable, Callable, Generator
from typing import Any, NoReturn, ParamSpec, Self, TypeVar

from academy.action import Action, action, takes_context
from academy.context import ActionContext, AgentContext
from academy.describe import ActionDescription, AgentDescription, describe
from academy.exception import AgentNotInitializedError
from academy.exchange.client import AgentExchangeClient
from academy.handle import Handle
from academy.identifier import AgentId, EntityId
from academy.loop import ControlLoop, event, loop, timer
from academy.method import is_marked, marked_names

__all__ = [
    "Action",
    "ActionDescription",
    "Agent",
    "AgentDescription",
    "AgentT",
    "ControlLoop",
    "action",
    "event",
    "loop",
    "timer",
]

logger = logging.getLogger(__name__)

AgentT = TypeVar("AgentT", bound="Agent")
P = ParamSpec("P")
R = TypeVar("R")

_CONTEXT = "_agent_context"


class Agent:
    """Base class of agents.

    A subclass has state, and methods that are marked by decorators:
    [`@action`][academy.agent.action] methods are called by other agents and by
    users, [`@loop`][academy.agent.loop], [`@timer`][academy.agent.timer] and
    [`@event`][academy.agent.event] methods run by themselves while the agent runs.

    ```python
    class Counter(Agent):
        def __init__(self) -> None:
            self.total = 0

        @action
        async def add(self, n: int) -> int:
            self.total += n
            return self.total
    ```

    The life of an agent, which a [`Runtime`][academy.runtime.Runtime] conducts:

    1. It is made, often in the process that launches it, and travels to a worker.
       `__init__` should only store what the agent needs; it need not call that of
       this class.
    2. On the worker, `agent_on_startup` opens what the agent works with. Requests
       that come meanwhile wait.
    3. The control loops start, and actions run: one task each, all in one event
       loop, so that an agent needs no locks between two ``await``.
    4. When shutdown is requested, by `agent_shutdown`, a handle, a manager, or an
       error, `agent_on_shutdown` runs. Then the control loops, and after them the
       running actions, end or are cancelled.

    Subclasses must not begin names of their own with ``agent_`` or ``_agent_``.
    """

    # On the class, so that subclasses need not call __init__.
    _agent_context: AgentContext[Any] | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make an agent of a subclass."""
        if cls is Agent:
            raise TypeError(
                "Agent itself has no actions and cannot be instantiated: derive a "
                "class from it."
            )
        return super().__new__(cls)

    def __getstate__(self) -> Any:
        # The context belongs to the runtime of this process.
        state: Any = super().__getstate__()
        slots = state[1] if isinstance(state, tuple) else None
        attributes = state if slots is None else state[0]
        if not attributes or _CONTEXT not in attributes:
            return state
        kept = {k: v for k, v in attributes.items() if k != _CONTEXT}
        return kept if slots is None else (kept, slots)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __str__(self) -> str:
        return f"Agent<{type(self).__name__}>"

    @property
    def agent_context(self) -> AgentContext[Self]:
        """What the runtime gave to this agent.

        Raises:
            AgentNotInitializedError: The agent has not been started.
        """
        if self._agent_context is None:
            raise AgentNotInitializedError()
        return self._agent_context

    @property
    def agent_id(self) -> AgentId[Self]:
        """Identifier of this agent; raises as `agent_context` does."""
        return self.agent_context.agent_id

    @property
    def agent_exchange_client(self) -> AgentExchangeClient[Self, Any]:
        """Client with this agent's mailbox; raises as `agent_context` does."""
        return self.agent_context.exchange_client

    async def agent_on_startup(self) -> None:
        """Prepare the agent; for subclasses to override.

        Control loops and actions begin after it has returned. If it raises, the
        agent ends with that error, and `agent_on_shutdown` is not called.
        """

    async def agent_on_shutdown(self) -> None:
        """Clean up at the beginning of the shutdown; for subclasses to override.

        Control loops and actions may still be running; requests that come from now
        on are refused.
        """

    def agent_shutdown(self) -> None:
        """Ask this agent to end.

        It returns at once. An action that calls it should return soon after: running
        actions are cancelled unless the configuration of the agent says otherwise.

        Raises:
            AgentNotInitializedError: The agent has not been started.
        """
        self.agent_context.shutdown_event.set()

    async def agent_run_sync(
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a blocking function in a thread, and return its result.

        The agent goes on meanwhile. Context variables have the values that they
        have here. There are
        [`max_sync_concurrency`][academy.runtime.RuntimeConfig] threads; when all
        are busy, that is logged as a warning, and the function waits for one.

        Cancelling returns at once, but a function that has begun runs to its end: a
        thread cannot be stopped.

        Args:
            function: The blocking function.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Raises:
            AgentNotInitializedError: The agent has not been started.
            Exception: Whatever the function raised.
        """
        context = self.agent_context
        call = functools.partial(function, *args, **kwargs)
        # The executor has no public attribute for its size.
        threads = context.executor._max_workers
        if len(context.sync_calls) >= threads:
            logger.warning(
                "All %d threads for agent_run_sync of %s are busy, so a call waits. "
                "RuntimeConfig(max_sync_concurrency=...) sets their number.",
                threads,
                self,
            )
        future = context.executor.submit(contextvars.copy_context().run, _guard, call)
        context.sync_calls.add(future)
        future.add_done_callback(context.sync_calls.discard)
        return await asyncio.wrap_future(future)

    async def agent_launch_alongside(
        self,
        agent: AgentT | type[AgentT],
        *,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> Handle[AgentT]:
        """Run another agent in this event loop, as long as this agent runs.

        Its shutdown begins when the actions of this agent have ended.

        Args:
            agent: An agent, or a class of agents to make one of.
            args: Positional arguments for the class; ignored for an agent.
            kwargs: Keyword arguments for the class; ignored for an agent.

        Returns:
            A handle to it. It may still be starting: calls wait until it has.

        Raises:
            AgentNotInitializedError: This agent has not been started.
            TypeError: That is neither an agent nor a class of agents.
        """
        launch = self.agent_context.launch
        if launch is None:
            raise AgentNotInitializedError()
        return await launch(agent, args or (), kwargs or {})

    @action
    async def agent_describe(self) -> AgentDescription:
        """Return what this agent is and what its actions are."""
        return describe(type(self), marked_names(type(self), "action"))

    @classmethod
    def _agent_mro(cls) -> tuple[str, ...]:
        """Return the names of this class and its ancestors up to `Agent`."""
        return tuple(
            f"{base.__module__}.{base.__qualname__}"
            for base in cls.__mro__
            if issubclass(base, Agent)
        )

    def _agent_actions(self) -> dict[str, Action[Any, Any]]:
        """Return the action methods by name."""
        names = marked_names(type(self), "action")
        return {name: getattr(self, name) for name in names}

    def _agent_loops(self) -> dict[str, ControlLoop]:
        """Return the control loop methods by name."""
        names = marked_names(type(self), "loop")
        return {name: getattr(self, name) for name in names}

    def _agent_attributes(self) -> Generator[tuple[str, Any]]:
        """Yield names and values of attributes, without those of every object.

        Properties are left out: to read one runs code.
        """
        for name in dir(self):
            found = getattr(type(self), name, None)
            computed = isinstance(found, (property, functools.cached_property))
            if not computed and not name.startswith("__") and name != _CONTEXT:
                yield name, getattr(self, name)

    def _agent_set_context(self, context: AgentContext[Any]) -> None:
        """Take the context in which a runtime is about to run this agent."""
        self._agent_context = context

    def _agent_require_action(self, name: str) -> Action[Any, Any]:
        """Return an action method.

        Raises:
            AttributeError: The agent has no action of that name.
        """
        self._agent_find_action(name)
        method: Action[Any, Any] = getattr(self, name)
        return method

    def _agent_find_action(self, name: str) -> Any:
        """Return the function of an action; raises as `_agent_require_action`."""
        # It is looked for on the class, so that a name from elsewhere never makes a
        # property run.
        function = getattr(type(self), name, None)
        if not is_marked(function, "action"):
            self._agent_refuse(name)
        return function

    def _agent_refuse(self, name: str) -> NoReturn:
        names = marked_names(type(self), "action")
        close = difflib.get_close_matches(name, names, n=3)
        if close:
            advice = f"Did you mean {' or '.join(map(repr, close))}?"
        else:
            advice = f"Its actions are {', '.join(map(repr, names))}."
        raise AttributeError(f"{self} has no action {name!r}. {advice}")

    def _agent_invoke(
        self,
        name: str,
        source_id: EntityId,
        exchange_client: AgentExchangeClient[Any, Any] | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Awaitable[Any]:
        """Start an action for somebody; what it returns gives the result."""
        if takes_context(self._agent_find_action(name)):
            context = ActionContext(source_id, exchange_client)
            kwargs = {**kwargs, "context": context}
        run: Awaitable[Any] = getattr(self, name)(*args, **kwargs)
        return run


def _guard(call: Callable[[], R]) -> R:
    """Call a function whose errors go into a future."""
    try:
        return call()
    except StopIteration as e:
        # A future does not accept this one, and whoever waits would wait for ever.
        raise RuntimeError("A function of agent_run_sync raised StopIteration.") from e
