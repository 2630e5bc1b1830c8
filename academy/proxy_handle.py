"""The handle to an agent object in the same process, for tests."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, TypeVar

from academy.exception import AgentTerminatedError
from academy.exchange.transport import MailboxStatus
from academy.identifier import AgentId, UserId
from academy.remote_handle import Handle
from academy.stats import AgentStats

AgentT = TypeVar("AgentT")


@dataclasses.dataclass
class _Life:
    """What the proxies of one agent share, whatever their options."""

    stats: AgentStats = dataclasses.field(default_factory=AgentStats)
    ended: bool = False


class ProxyHandle(Handle[AgentT]):
    """A handle to an agent object in the same process, for tests.

    It calls the actions of the agent directly: nothing is sent or serialized, and
    neither an exchange nor a runtime is needed. Give it to an agent under test in
    place of the handle to another agent.

    Args:
        agent: The agent.

    Raises:
        TypeError: That is no agent.
    """

    def __init__(self, agent: AgentT) -> None:
        if not hasattr(type(agent), "_agent_invoke"):
            raise TypeError(f"ProxyHandle needs an Agent instance, not {agent!r}.")
        super().__init__(AgentId.new())
        self.agent: Any = agent
        self._user_id = UserId.new(name="proxy")
        self._life = _Life()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(agent={self.agent!r})"

    def __str__(self) -> str:
        return f"{type(self).__name__}<{self.agent}>"

    def __getattr__(self, name: str) -> Any:
        call = super().__getattr__(name)
        self.agent._agent_require_action(name)
        return call

    async def action(self, action: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call an action and return its result.

        An action that wants an [`ActionContext`][academy.context.ActionContext] gets
        one that names a user of the proxy's own as the source.

        Args:
            action: Name of the action.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Raises:
            AttributeError: The agent has no such action.
            AgentTerminatedError: The proxy was shut down.
            TimeoutError: It took longer than the timeout of `options`.
            Exception: Whatever the action raised.
        """
        self._check_open()
        self._life.stats.incoming += 1
        self._life.stats.in_progress += 1
        try:
            async with asyncio.timeout(self._options.timeout):
                return await self.agent._agent_invoke(
                    action, self._user_id, None, args, kwargs
                )
        finally:
            self._life.stats.in_progress -= 1
            self._life.stats.completed += 1

    async def ping(self, *, timeout: float | None = None) -> float:
        """Return 0.0.

        Raises:
            AgentTerminatedError: The proxy was shut down.
        """
        self._check_open()
        return 0.0

    async def shutdown(self, *, terminate: bool | None = None) -> None:
        """Let all later calls fail; the agent itself notices nothing.

        Raises:
            AgentTerminatedError: The proxy was shut down already.
        """
        self._check_open()
        self._life.ended = True

    async def agent_status(self) -> MailboxStatus:
        """Return `ACTIVE`, or `TERMINATED` after `shutdown`."""
        return MailboxStatus.TERMINATED if self._life.ended else MailboxStatus.ACTIVE

    async def agent_stats(self) -> AgentStats:
        """Return how many actions were called through this proxy."""
        return dataclasses.replace(self._life.stats)

    def _check_open(self) -> None:
        if self._life.ended:
            raise AgentTerminatedError(self.agent_id, executed="no")
