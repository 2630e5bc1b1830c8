"""The manager: launches agents anywhere and sees them through to their end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from types import TracebackType
from typing import Any, Generic, Self

from academy.agent import AgentT
from academy.exception import raise_exceptions
from academy.exchange.client import ExchangeClient, exchange_context
from academy.exchange.factory import ExchangeFactory
from academy.exchange.transport import AgentRegistration, ExchangeTransportT
from academy.fleet import Fleet
from academy.handle import Handle
from academy.identifier import AgentId, EntityId
from academy.launch import BatchLauncher, LaunchSpec
from academy.logging.config import LogConfig
from academy.logging.context import log_context
from academy.runtime_config import RuntimeConfig
from academy.serialize import NoPickleMixin

logger = logging.getLogger(__name__)

EVENT_LOOP = "event_loop"
"""Name of the executor that stands for the current event loop."""


class Manager(Generic[ExchangeTransportT], NoPickleMixin):
    """Launches agents and looks after them.

    ```python
    async with await Manager.from_exchange_factory(factory, executor) as manager:
        handle = await manager.launch(Greeter, args=("hello",))
        print(await handle.greet("world"))
    ```

    Within `async with`, handles use the manager's exchange client. Leaving the block
    shuts down the agents that still run, and always ends: agents have
    `shutdown_timeout` to end by themselves, then they are cancelled and their worker
    processes killed, and what still runs then is named in a `ShutdownTimeoutError`.

    The manager owns the exchange client and the executors it is given, and closes
    them. A `ProcessPoolExecutor` breaks when one of its processes dies, and takes all
    agents in it along; the manager then replaces it by one with the same options and
    restarts the agents in that, if `max_retries` allows it. In a
    [`SubprocessExecutor`][academy.executor.SubprocessExecutor] each agent has a
    process to itself.

    Args:
        exchange_client: Client of the exchange that the agents use.
        executors: An executor, which becomes the default under the name `'default'`;
            or executors by their names, where `None` stands for the current event
            loop. Any object whose `submit` returns a `concurrent.futures.Future` can
            be one. There is always `'event_loop'`, if it is not given, as `None`.
        default_executor: Name of the executor for launches that do not name one.
        max_retries: How often an agent that fails is restarted, with the same identity
            and mailbox.
        log_config: Logging in this process while the manager's block lasts, and of
            agents that are launched without a configuration of their own.
        shutdown_timeout: Seconds that agents have to shut down at the end.

    Raises:
        ValueError: There is no executor of the default name, an executor has no
            `submit`, or a number is negative.
    """

    def __init__(
        self,
        exchange_client: ExchangeClient[ExchangeTransportT],
        executors: Executor | Mapping[str, Executor | None] | None = None,
        *,
        default_executor: str = EVENT_LOOP,
        max_retries: int = 0,
        log_config: LogConfig | None = None,
        shutdown_timeout: float = 10.0,
    ) -> None:
        if max_retries < 0 or shutdown_timeout < 0:
            raise ValueError(
                f"max_retries={max_retries} and shutdown_timeout={shutdown_timeout} "
                "must not be negative."
            )
        self._exchange_client = exchange_client
        self._fleet = Fleet(
            exchange_client, max_retries=max_retries, log_config=log_config
        )
        named, default = _named_executors(executors, default_executor)
        for name, executor in named.items():
            self.add_executor(name, executor)
        self.set_default_executor(default)
        self._log_config = log_config
        self._shutdown_timeout = shutdown_timeout
        self._context_token: contextvars.Token[ExchangeClient[Any]] | None = None
        self._logging = contextlib.ExitStack()

    @classmethod
    async def from_exchange_factory(
        cls,
        factory: ExchangeFactory[ExchangeTransportT],
        executors: Executor | Mapping[str, Executor | None] | None = None,
        *,
        default_executor: str = EVENT_LOOP,
        max_retries: int = 0,
        log_config: LogConfig | None = None,
        shutdown_timeout: float = 10.0,
    ) -> Self:
        """Make an exchange client and a manager with it; see the class.

        Raises:
            ValueError: As the class does; no client is left behind.
            Exception: What making the client raised.
        """
        client = await factory.create_user_client()
        try:
            return cls(
                client,
                executors,
                default_executor=default_executor,
                max_retries=max_retries,
                log_config=log_config,
                shutdown_timeout=shutdown_timeout,
            )
        except BaseException:
            await client.close()
            raise

    async def __aenter__(self) -> Self:
        self._context_token = exchange_context.set(self._exchange_client)
        self._logging.enter_context(log_context(self._log_config))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        token, self._context_token = self._context_token, None
        if token is not None:
            # Where the block is left in another context, that one has nothing to undo.
            with contextlib.suppress(ValueError):
                exchange_context.reset(token)
        try:
            await self.close()
        except Exception as e:
            # Cancellation and Ctrl-C are not to be covered up by errors of agents.
            if exc_value is None or isinstance(exc_value, Exception):
                raise
            logger.error("Leaving the manager: %s", e, exc_info=e)

    def __repr__(self) -> str:
        executors = ", ".join(
            f"{n}: {p.executor!r}" for n, p in self._fleet.pools.items()
        )
        return f"Manager(exchange={self._exchange_client!r}, executors={{{executors}}})"

    def __str__(self) -> str:
        return f"Manager<{self.user_id}, {self._exchange_client}>"

    @property
    def exchange_client(self) -> ExchangeClient[ExchangeTransportT]:
        """The client that the manager sends with."""
        return self._exchange_client

    @property
    def exchange_factory(self) -> ExchangeFactory[ExchangeTransportT]:
        """A factory of clients of the same exchange, which the agents use."""
        return self._fleet.factory

    @property
    def user_id(self) -> EntityId:
        """Whose mailbox the manager's client has."""
        return self._exchange_client.client_id

    def add_executor(self, name: str, executor: Executor | None) -> Self:
        """Add an executor; the manager will close it. Returns the manager.

        Raises:
            ValueError: The name is taken, or it has no `submit`.
        """
        self._fleet.add_pool(name, executor)
        return self

    def set_default_executor(self, name: str) -> Self:
        """Choose the executor for launches that do not name one.

        Raises:
            ValueError: There is no executor of that name.
        """
        self._fleet.default = self._fleet.pool(name).name
        return self

    async def register_agent(
        self, agent: type[AgentT], *, name: str | None = None
    ) -> AgentRegistration[AgentT]:
        """Register an agent, to be launched later with `launch(registration=...)`.

        Messages to it wait until then.

        Args:
            agent: Its class.
            name: Its name for people to read.
        """
        return await self._exchange_client.register_agent(agent, name=name)

    async def register_agents(
        self, agents: list[tuple[type[Any], str | None]]
    ) -> list[AgentRegistration[Any]]:
        """Register several agents, given as pairs of class and name, in order."""
        return await self._exchange_client.register_agents(agents)

    async def launch(
        self,
        agent: AgentT | type[AgentT],
        *,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        config: RuntimeConfig | None = None,
        executor: str | None = None,
        submit_kwargs: dict[str, Any] | None = None,
        name: str | None = None,
        registration: AgentRegistration[AgentT] | None = None,
        log_config: LogConfig | None = None,
    ) -> Handle[AgentT]:
        """Launch an agent.

        It returns when the executor has accepted the agent, which starts as soon as
        there is a worker for it; calls made before wait. If it fails to start, or later
        on, and is not restarted, those who wait for answers get an
        `AgentTerminatedError` with the cause.

        Args:
            agent: The agent, or better its class, which the worker then instantiates.
            args: Positional arguments for the class.
            kwargs: Keyword arguments for the class.
            config: How to run it.
            executor: Name of the executor; `None` for the default.
            submit_kwargs: Further options for the executor's `submit`, such as a
                resource specification.
            name: Its name for people to read.
            registration: What `register_agent` returned; `None` registers it now.
            log_config: Its logging; `None` for that of the manager.

        Returns:
            A handle to the agent.

        Raises:
            AgentStartError: It cannot be sent to a worker of this executor, or the
                executor refused it. If it was registered here, its mailbox is closed.
            RuntimeError: The agent of the registration runs already, or the manager
                is closed.
            ValueError: There is no executor of that name.
        """
        spec = LaunchSpec(
            agent=agent,
            args=args,
            kwargs=kwargs,
            config=config,
            executor=executor,
            submit_kwargs=submit_kwargs,
            name=name,
            log_config=log_config,
        )
        agent_id = await self._fleet.launch(spec, registration)
        client = self._exchange_client
        return Handle(agent_id, exchange=client, agent_class=spec.agent_type)

    def launch_batch(self) -> BatchLauncher:
        """Return a batch, to launch several agents that have handles to one another.

        ```python
        async with manager.launch_batch() as batch:
            store = await batch.queue(Store)
            await batch.queue(Reader, args=(store,))
        ```
        """
        return BatchLauncher(self._exchange_client, self._fleet)

    def get_handle(
        self, agent: AgentId[AgentT] | AgentRegistration[AgentT]
    ) -> Handle[AgentT]:
        """Return a handle to an agent of the same exchange, launched here or not."""
        agent_id = agent if isinstance(agent, AgentId) else agent.agent_id
        return Handle(agent_id, exchange=self._exchange_client)

    def running(self) -> set[AgentId[Any]]:
        """Return the agents launched here that have not ended yet."""
        return self._fleet.running()

    async def wait(
        self,
        agents: Iterable[AgentId[Any] | Handle[Any]],
        *,
        raise_error: bool = False,
        return_when: str = asyncio.ALL_COMPLETED,
        timeout: float | None = None,
    ) -> None:
        """Wait for agents to end. Cancelling it changes nothing for the agents.

        Args:
            agents: Agents launched here.
            raise_error: Raise the errors of those that have ended with one.
            return_when: As in `asyncio.wait`.
            timeout: Longest wait in seconds.

        Raises:
            BadEntityIdError: An agent was not launched here.
            TimeoutError: What was waited for did not happen in time.
            Exception: The error of an agent; of several, an `ExceptionGroup`.
        """
        await self._fleet.wait(
            agents, raise_error=raise_error, return_when=return_when, timeout=timeout
        )

    async def shutdown(
        self,
        agent: AgentId[Any] | Handle[Any],
        *,
        blocking: bool = True,
        raise_error: bool = True,
        terminate: bool | None = None,
        timeout: float | None = None,
    ) -> None:
        """Shut an agent down; if it has ended already, nothing happens.

        Args:
            agent: An agent launched here.
            blocking: Wait until it has ended.
            raise_error: When blocking, raise the error that it ends with.
            terminate: Whether to close its mailbox for good; `None` leaves that to its
                configuration.
            timeout: When blocking, longest wait in seconds.

        Raises:
            BadEntityIdError: It was not launched here.
            TimeoutError: It has not ended in time. It was asked to.
            ExchangeError: It could not be asked.
            Exception: The error that it ended with.
        """
        await self._fleet.shutdown(
            agent,
            blocking=blocking,
            raise_error=raise_error,
            terminate=terminate,
            timeout=timeout,
        )

    async def close(self, close_exchange: bool = True) -> None:
        """Shut all agents down, then the exchange client and the executors.

        It takes bounded time, see the class, and always does all of it; when it is
        cancelled, agents are cancelled at once. Idempotent.

        Args:
            close_exchange: Close the exchange client as well.

        Raises:
            ShutdownTimeoutError: Some agents could not be stopped.
            Exception: The error of an agent that has failed; if more went wrong, an
                `ExceptionGroup`.
        """
        async with contextlib.AsyncExitStack() as cleanup:
            cleanup.push(self._logging)
            if close_exchange:
                cleanup.push_async_callback(self._exchange_client.close)
            errors = await self._fleet.close(self._shutdown_timeout)
        raise_exceptions(errors, message="Closing the manager: not all went well.")


def _named_executors(
    executors: Executor | Mapping[str, Executor | None] | None, default: str
) -> tuple[dict[str, Executor | None], str]:
    """Return all executors by their names, and the name of the default."""
    if executors is None:
        return {EVENT_LOOP: None}, default
    if isinstance(executors, Mapping):
        return {EVENT_LOOP: None, **executors}, default
    return {EVENT_LOOP: None, "default": executors}, "default"
