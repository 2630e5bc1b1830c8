"""What an agent knows about its runtime, and an action about its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from academy.exchange.client import AgentExchangeClient
from academy.handle import Handle
from academy.identifier import AgentId, EntityId, UserId

AgentT = TypeVar("AgentT")

Launch: TypeAlias = Callable[
    [Any, tuple[Any, ...], dict[str, Any]], Coroutine[Any, Any, Handle[Any]]
]
"""Runs an agent, or an agent class with these arguments, beside the one that asks."""


class ActionContext:
    """Who called an action.

    Args:
        source_id: Who sent the request.
        exchange_client: Client of the agent that runs the action.
    """

    def __init__(
        self, source_id: EntityId, exchange_client: AgentExchangeClient[Any, Any] | None
    ) -> None:
        self._source_id = source_id
        self._exchange_client = exchange_client

    def __repr__(self) -> str:
        return f"{type(self).__name__}(source_id={self._source_id!r})"

    @property
    def source_id(self) -> EntityId:
        """Who sent the request."""
        return self._source_id

    @property
    def source_handle(self) -> Handle[Any]:
        """A handle to the agent that sent the request.

        Raises:
            TypeError: A user sent it, and users have no actions.
        """
        if isinstance(self._source_id, UserId):
            raise TypeError(
                f"The action was called by {self._source_id}, which is a user; only "
                "agents can be called back. Ask is_agent_source() first."
            )
        return Handle(self._source_id, exchange=self._exchange_client)

    def is_agent_source(self) -> bool:
        """Return whether an agent sent the request."""
        return isinstance(self._source_id, AgentId)

    def is_user_source(self) -> bool:
        """Return whether a user sent the request."""
        return isinstance(self._source_id, UserId)


@dataclass(frozen=True)
class AgentContext(Generic[AgentT]):
    """What a runtime gives to the agent that it runs."""

    agent_id: AgentId[AgentT]
    """Identifier of the agent."""
    exchange_client: AgentExchangeClient[AgentT, Any]
    """Client with the mailbox of the agent."""
    executor: ThreadPoolExecutor
    """Runs the functions of `agent_run_sync`."""
    shutdown_event: asyncio.Event
    """Set when the agent is to end."""
    launch: Launch | None = None
    """Runs another agent beside this one; None where nothing can."""
    sync_calls: set[Future[Any]] = field(default_factory=set, compare=False, repr=False)
    """The calls of `agent_run_sync` that have not ended."""
