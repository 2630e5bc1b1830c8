"""What is to be launched, and batches of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, Self

from academy.agent import AgentT
from academy.exchange.client import ExchangeClient
from academy.exchange.transport import AgentRegistration
from academy.handle import Handle
from academy.identifier import AgentId
from academy.logging.config import LogConfig
from academy.runtime_config import RuntimeConfig


@dataclass(frozen=True, kw_only=True)
class LaunchSpec(Generic[AgentT]):
    """One launch, as [`Manager.launch`][academy.manager.Manager.launch] describes it.

    Attributes:
        agent: The agent, or its class, which the worker then instantiates.
        args: Positional arguments for the class.
        kwargs: Keyword arguments for the class.
        config: How to run it.
        executor: Name of the executor; `None` for the manager's default.
        submit_kwargs: Further options for the executor.
        name: Name of the agent for people to read.
        log_config: Logging of the agent; `None` for that of the manager.
    """

    agent: AgentT | type[AgentT]
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] | None = None
    config: RuntimeConfig | None = None
    executor: str | None = None
    submit_kwargs: dict[str, Any] | None = None
    name: str | None = None
    log_config: LogConfig | None = None

    @property
    def agent_type(self) -> type[AgentT]:
        """Class of the agent."""
        return self.agent if isinstance(self.agent, type) else type(self.agent)


class Launcher(Protocol):
    """What a batch needs of its manager."""

    async def register(
        self, agents: list[tuple[type[Any], str | None]]
    ) -> list[AgentRegistration[Any]]:
        """Register agents, given as pairs of class and name, in order."""
        ...

    async def launch(
        self, spec: LaunchSpec[Any], registration: AgentRegistration[Any]
    ) -> AgentId[Any]:
        """Launch an agent that is registered."""
        ...

    async def abandon(self, agent_id: AgentId[Any], reason: str) -> None:
        """Close the mailbox of an agent that is not going to run."""
        ...


class BatchLauncher:
    """Launches several agents together, which may have handles to one another.

    [`Manager.launch_batch`][academy.manager.Manager.launch_batch] makes one. Use it
    with `async with`: the batch is submitted when the block ends, unless the block
    raises; then nothing is registered and nothing launched.

    Args:
        exchange_client: Client for the handles.
        launcher: Launches what is in the batch.
    """

    def __init__(
        self, exchange_client: ExchangeClient[Any], launcher: Launcher
    ) -> None:
        self._exchange_client = exchange_client
        self._launcher = launcher
        self._queued: list[tuple[LaunchSpec[Any], Handle[Any]]] = []
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            self._closed = True
        elif not self._closed:
            await self.submit()

    async def queue(
        self,
        agent: AgentT | type[AgentT],
        *,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        config: RuntimeConfig | None = None,
        executor: str | None = None,
        submit_kwargs: dict[str, Any] | None = None,
        name: str | None = None,
        log_config: LogConfig | None = None,
    ) -> Handle[AgentT]:
        """Note an agent for launch; the parameters are those of `Manager.launch`.

        Returns:
            A handle to pass to the other agents of the batch. It can be called after
            the batch was submitted.

        Raises:
            RuntimeError: The batch was submitted, or its block has raised.
        """
        self._check_open()
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
        handle: Handle[AgentT] = Handle(
            exchange=self._exchange_client, agent_class=spec.agent_type
        )
        self._queued.append((spec, handle))
        return handle

    async def submit(self) -> None:
        """Register all agents in one go, bind their handles, and launch them in order.

        When a launch fails, the agents before it go on, and the mailboxes of the
        others are closed.

        Raises:
            RuntimeError: The batch was submitted already, or its block has raised.
            Exception: What registering or launching raised.
        """
        self._check_open()
        self._closed = True
        queued, self._queued = self._queued, []
        registrations = await self._launcher.register(
            [(spec.agent_type, spec.name) for spec, _ in queued]
        )
        for (_, handle), registration in zip(queued, registrations, strict=True):
            handle._bind(registration.agent_id)
        started = 0
        try:
            for (spec, _), registration in zip(queued, registrations, strict=True):
                await self._launcher.launch(spec, registration)
                started += 1
        except Exception as e:
            reason = f"its batch could not be launched: {type(e).__name__}: {e}"
            left = [registration.agent_id for registration in registrations[started:]]
            await asyncio.gather(*(self._launcher.abandon(a, reason) for a in left))
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(
                "This batch is closed: it was submitted, or its block has raised. Open "
                "another with manager.launch_batch()."
            )
