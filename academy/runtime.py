"""Running an agent: from its mailbox being bound until it is closed again."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Awaitable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from academy.agent import Agent
from academy.authorization import authorization
from academy.context import AgentContext
from academy.dispatch import Dispatcher
from academy.exception import AgentStartError, FencedError, MailboxTerminatedError
from academy.exchange.client import AgentExchangeClient, exchange_context
from academy.exchange.factory import ExchangeFactory
from academy.exchange.transport import AgentRegistration
from academy.handle import Handle
from academy.identifier import AgentId, EntityId
from academy.outcome import Outcome
from academy.runtime_config import RuntimeConfig
from academy.serialize import (
    NoPickleMixin,
    accepted_default,
    allowed_deserializers,
    default_serializer,
)
from academy.task import Tasks, contain, take_steps
from academy.threads import LazyThreadPool

__all__ = ["Runtime", "RuntimeConfig"]

logger = logging.getLogger(__name__)

AgentT = TypeVar("AgentT", bound=Agent)

STARTUP_GRACE = 5.0
"""Seconds that `agent_on_startup` has to end once shutdown is requested."""
LOOP_GRACE = 1.0
"""Seconds that control loops have to end by themselves."""
CHILD_GRACE = 10.0
"""Seconds that agents launched alongside have to end by themselves."""
EXCHANGE_TIMEOUT = 10.0
"""Seconds that closing the mailbox, and then the client, may take."""


class Runtime(Generic[AgentT], NoPickleMixin):
    """Runs one agent, once.

    ```python
    await Runtime(agent, exchange_factory=..., registration=...).run_until_complete()

    async with Runtime(agent, exchange_factory=..., registration=...) as runtime:
        await runtime.wait_shutdown()
    ```

    Start: the mailbox is bound, the context variables (exchange client, serializers)
    are set, `agent_on_startup` runs, then the control loops start and the requests
    that came meanwhile are executed in order.

    Shutdown, once it is signalled: `agent_on_shutdown` runs, the control loops end,
    running actions are cancelled or awaited, agents launched alongside end, the
    mailbox is closed for good if the configuration says so, and the client is closed.
    Each request that comes after the signal is refused with an
    [`ActionCancelledError`][academy.exception.ActionCancelledError] or a
    [`PingCancelledError`][academy.exception.PingCancelledError]; where the mailbox
    stays on a server, it waits there for the next run. Except for
    `agent_on_shutdown` and for actions that are to be awaited, no step takes longer
    than some seconds. Cancelling it goes on with the next step.

    When somebody terminates the mailbox, the agent shuts down as if asked to. When
    another runtime takes the mailbox over, it shuts down with a
    [`FencedError`][academy.exception.FencedError] and leaves the mailbox alone.

    Args:
        agent: The agent.
        exchange_factory: Exchange that the agent is registered with.
        registration: What `register_agent` returned for the agent.
        config: Configuration.

    Raises:
        TypeError: The agent is not an instance of an `Agent` class.
    """

    def __init__(
        self,
        agent: AgentT,
        *,
        exchange_factory: ExchangeFactory[Any],
        registration: AgentRegistration[Any],
        config: RuntimeConfig | None = None,
    ) -> None:
        if not isinstance(agent, Agent):
            raise TypeError(f"Only instances of Agent classes can run, not {agent!r}.")
        self.agent = agent
        self.factory = exchange_factory
        self.registration = registration
        self.agent_id: AgentId[AgentT] = registration.agent_id
        self.config = config or RuntimeConfig()
        name = str(self.agent_id)
        self._shutdown_event = asyncio.Event()
        self._dispatcher = Dispatcher(
            name,
            self._invoke,
            shutdown=self._shutdown_event,
            on_shutdown=lambda terminate: self.signal_shutdown(terminate=terminate),
            on_failure=self._fail,
            authorization=authorization(name, self.config),
        )
        self._loops = Tasks(name, on_error=self._loop_failed)
        self._loop_tasks: list[asyncio.Task[None]] = []
        self._children = Tasks(name, on_error=self._child_failed)
        self._child_tasks: dict[asyncio.Task[None], Runtime[Any]] = {}
        self._executor = LazyThreadPool(
            self.config.max_sync_concurrency, f"{name}-sync"
        )
        self._client: AgentExchangeClient[AgentT, Any] | None = None
        self._tokens: list[contextvars.Token[Any]] = []
        self._entered = False
        self._started = False
        self._startup: asyncio.Timeout | None = None
        self._outcome = Outcome(self.config)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.agent!r}, {self._client!r})"

    def __str__(self) -> str:
        return f"{type(self).__name__}<{type(self.agent).__name__}; {self.agent_id}>"

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError(
                f"{self} was used already, and a runtime runs its agent once. "
                "Make another one to run it again."
            )
        self._entered = True
        try:
            await self._start()
        except BaseException as e:
            if not isinstance(e, asyncio.CancelledError):
                self._fail(e)
                self._dispatcher.refuse_with(self._outcome.refusal(self.agent_id))
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        await self._stop()
        if exc_type is not None and issubclass(exc_type, asyncio.CancelledError):
            return  # the errors were logged; the cancellation must stay one
        self._outcome.raise_errors(f"{self} ended with several errors.")

    async def run_until_complete(self) -> None:
        """Run the agent until it has ended; see the class for the steps.

        Cancelling shuts the agent down and then raises the cancellation.

        Raises:
            RuntimeError: The runtime was used already.
            BadEntityIdError: The agent is not registered with the exchange.
            AgentTerminatedError: Its mailbox was closed for good before it started.
            FencedError: Another runtime has taken the mailbox over.
            Exception: What the startup, the shutdown, or a control loop raised;
                several of them as an `ExceptionGroup`.
        """
        async with self:
            await self._shutdown_event.wait()

    def signal_shutdown(
        self, *, expected: bool = True, terminate: bool | None = None
    ) -> None:
        """Let the agent end. The first signal counts, later ones change nothing.

        An agent that has not started yet ends without having been started.

        Args:
            expected: Whether this is a regular end, or one because of an error.
            terminate: Whether to close the mailbox for good; `None` leaves that to
                the configuration.
        """
        if self._shutdown_event.is_set():
            return
        self._outcome.expected = expected
        self._outcome.terminate = terminate
        self._shutdown_event.set()
        self._hold_requests()
        if self._startup is not None:
            now = asyncio.get_running_loop().time()
            self._startup.reschedule(now + STARTUP_GRACE)

    def _hold_requests(self) -> None:
        """Leave requests to the next run of the agent, if there can be one."""
        if self._client is not None and not self._outcome.terminates():
            self._client.hold_requests()

    async def wait_shutdown(self, timeout: float | None = None) -> None:
        """Wait until shutdown is signalled.

        Args:
            timeout: Longest wait in seconds.

        Raises:
            TimeoutError: It was not signalled within the timeout.
        """
        async with asyncio.timeout(timeout):
            await self._shutdown_event.wait()

    async def action(
        self, action: str, source_id: EntityId, *, args: Any, kwargs: Any
    ) -> Any:
        """Run an action of the agent and return its result.

        Args:
            action: Name of the action.
            source_id: In whose name.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Raises:
            AttributeError: The agent has no such action.
            Exception: Whatever the action raised.
        """
        return await self._invoke(action, source_id, args, kwargs)

    def _invoke(
        self, action: str, source_id: EntityId, args: Any, kwargs: Any
    ) -> Awaitable[Any]:
        return self.agent._agent_invoke(action, source_id, self._client, args, kwargs)

    async def _start(self) -> None:
        client = self._client = await self._create_client()
        self._enter_context(client)
        context = AgentContext(
            self.agent_id, client, self._executor, self._shutdown_event, self._launch
        )
        self.agent._agent_set_context(context)
        self._dispatcher.bind(client)
        if self._shutdown_event.is_set():
            self._hold_requests()
            return
        await self._run_startup()
        if self._shutdown_event.is_set():
            return
        self._dispatcher.open()
        for name, method in self.agent._agent_loops().items():
            run = contain(f"Loop {name!r} of {self}", method(self._shutdown_event))
            task = self._loops.spawn(run, name=name)
            self._loop_tasks.append(task)
        logger.info("%s runs", self)

    async def _create_client(self) -> AgentExchangeClient[AgentT, Any]:
        try:
            creation = self.factory.create_agent_client(
                self.registration, self._dispatcher.receive, on_end=self._mailbox_ended
            )
        except StopIteration as e:
            raise AgentStartError(
                self.agent_id, "the exchange factory has no port left for it"
            ) from e
        return await creation

    async def _run_startup(self) -> None:
        try:
            async with asyncio.timeout(None) as self._startup:
                await self.agent.agent_on_startup()
            self._started = True
        except TimeoutError:
            if not self._startup.expired():  # type: ignore[union-attr]
                raise
            logger.warning(
                "%s: agent_on_startup was cancelled, for it did not end within %g s "
                "of the shutdown request.",
                self,
                STARTUP_GRACE,
            )
        finally:
            self._startup = None

    async def _launch(
        self, agent: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Handle[Any]:
        """Run an agent beside this one; see `Agent.agent_launch_alongside`."""
        if not isinstance(agent, Agent):
            if not (isinstance(agent, type) and issubclass(agent, Agent)):
                raise TypeError(f"Only agents can be launched, not {agent!r}.")
            agent = agent(*args, **kwargs)
        if self._client is None or self._shutdown_event.is_set():
            raise RuntimeError(f"{self} is ending and launches no more agents.")
        registration = await self._client.register_agent(type(agent))
        child: Runtime[Any] = Runtime(
            agent,
            exchange_factory=self.factory,
            registration=registration,
            config=RuntimeConfig(authorize=self.config.authorize),
        )
        if self._shutdown_event.is_set():
            child.signal_shutdown()
        run = contain(f"{child}", child.run_until_complete())
        task = self._children.spawn(run, name=f"child-{child.agent_id}")
        self._child_tasks[task] = child
        task.add_done_callback(lambda task: self._child_tasks.pop(task, None))
        return Handle(registration.agent_id, agent_class=type(agent))

    def _mailbox_ended(self, error: Exception) -> None:
        if isinstance(error, (MailboxTerminatedError, FencedError)):
            self._outcome.owns_mailbox = False
        if self._shutdown_event.is_set():
            return
        if isinstance(error, MailboxTerminatedError):
            self.signal_shutdown()
        else:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._outcome.errors.append(error)
        self.signal_shutdown(expected=False)

    def _loop_failed(self, name: str, error: Exception) -> None:
        self._outcome.loop_errors.append(error)
        if self.config.shutdown_on_loop_error:
            self.signal_shutdown(expected=False)

    def _child_failed(self, name: str, error: Exception) -> None:
        self._outcome.child_errors.append(error)

    def _enter_context(self, client: AgentExchangeClient[AgentT, Any]) -> None:
        config = self.config
        self._tokens.append(exchange_context.set(client))
        if config.allowed_deserializers is not None:
            allowed = frozenset(config.allowed_deserializers)
            self._tokens.append(allowed_deserializers.set(allowed))
        default = config.default_serializer or accepted_default()
        if default is not default_serializer.get():
            self._tokens.append(default_serializer.set(default))

    def _leave_context(self) -> None:
        while self._tokens:
            token = self._tokens.pop()
            # Another task may close what this one opened; it has its own context.
            with contextlib.suppress(ValueError):
                token.var.reset(token)

    async def _stop(self) -> None:
        """Shut down. What goes wrong is added to the errors."""
        self._shutdown_event.set()
        own = self._finish_agent, self._loops.cancel, self._dispatcher.close
        mailbox = self._end_children, self._terminate, self._close_client
        await take_steps((*own, *mailbox, self._leave_context, self._executor.abandon))
        logger.info("%s ended", self)

    async def _finish_agent(self) -> None:
        """Let the agent clean up, and end by itself as far as it is allowed to."""
        if self._started:
            with self._collecting():
                await self.agent.agent_on_shutdown()
        if self._loop_tasks:
            await asyncio.wait(self._loop_tasks, timeout=LOOP_GRACE)
            await self._loops.cancel()
        if not self.config.cancel_actions_on_shutdown:
            await self._dispatcher.finish_actions()

    async def _end_children(self) -> None:
        for child in self._child_tasks.values():
            child.signal_shutdown()
        if self._child_tasks:
            await asyncio.wait(self._child_tasks, timeout=CHILD_GRACE)
        await self._children.cancel()

    async def _terminate(self) -> None:
        if self._client is not None and self._outcome.terminates():
            reason = self._outcome.reason()
            with self._collecting():
                async with asyncio.timeout(EXCHANGE_TIMEOUT):
                    await self._client.terminate(self.agent_id, reason=reason)

    async def _close_client(self) -> None:
        if self._client is not None:
            with self._collecting():
                async with asyncio.timeout(EXCHANGE_TIMEOUT):
                    await self._client.close()

    @contextlib.contextmanager
    def _collecting(self) -> Iterator[None]:
        try:
            yield
        except Exception as e:
            logger.exception("%s: a step of its shutdown failed", self)
            self._outcome.errors.append(e)
