"""The part of a client that asks the exchange who there is, and how they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from academy.exchange.client_config import ExchangeClientConfig
from academy.exchange.link_info import ProcessInfo
from academy.exchange.transport import (
    AGENT_CLASS,
    AgentInfo,
    AgentRegistration,
    ExchangeTransportT,
    MailboxStatus,
    agent_mro,
    class_name,
    derive_status,
)
from academy.identifier import AgentId, AgentT, EntityId
from academy.stats import AgentStats

if TYPE_CHECKING:
    from academy.exchange.factory import ExchangeFactory


class Registry(Generic[ExchangeTransportT]):
    """Registration, discovery and state of entities, through one transport.

    Transports of others need no more than `ExchangeTransport` asks for: what they do
    not have is derived here.

    Args:
        transport: Transport of any mailbox.
        config: Client configuration.
    """

    def __init__(
        self, transport: ExchangeTransportT, config: ExchangeClientConfig
    ) -> None:
        self._transport = transport
        self._config = config

    def factory(self) -> ExchangeFactory[ExchangeTransportT]:
        """Return a factory that makes clients of the same exchange."""
        return self._transport.factory()

    async def register_agent(
        self, agent: type[AgentT], *, name: str | None = None
    ) -> AgentRegistration[AgentT]:
        """Register a new agent, so that messages to it can wait until it runs.

        Args:
            agent: Class of the agent.
            name: Optional name for people to read.

        Raises:
            TypeError: The class does not derive from `Agent`.
        """
        agent_mro(agent)
        registration: AgentRegistration[AgentT]
        registration = await self._transport.register_agent(agent, name=name)
        return registration

    async def register_agents(
        self, agents: list[tuple[type[Any], str | None]]
    ) -> list[AgentRegistration[Any]]:
        """Register several agents, given as pairs of class and name.

        Returns:
            Their registrations, in the same order.

        Raises:
            TypeError: A class does not derive from `Agent`; none was registered.
        """
        for agent, _ in agents:
            agent_mro(agent)
        batch = getattr(self._transport, "register_agents", None)
        if batch is not None:
            registrations: list[AgentRegistration[Any]] = await batch(agents)
            return registrations
        return [await self._transport.register_agent(a, name=n) for a, n in agents]

    async def discover(
        self, agent: type[Any] | str, *, allow_subclasses: bool = True
    ) -> tuple[AgentId[Any], ...]:
        """Return the agents of a class that are not terminated.

        Args:
            agent: A class, or its qualified name such as `'package.module.Class'`.
            allow_subclasses: Whether agents of derived classes count too.
        """
        return await self._transport.discover(
            class_name(agent), allow_subclasses=allow_subclasses
        )

    async def census(self) -> list[AgentInfo]:
        """Return all agents that are not terminated: class, state, process, queue.

        Exchanges of others may not know more than who there is.
        """
        if hasattr(self._transport, "census"):
            found: list[AgentInfo] = await self._transport.census()
            return found
        uids = await self.discover(AGENT_CLASS)
        states = [await self.status(uid) for uid in uids]
        return [AgentInfo(u, s) for u, s in zip(uids, states, strict=True)]

    async def status(self, uid: EntityId) -> MailboxStatus:
        """Return the state of a mailbox."""
        if hasattr(self._transport, "status"):
            status: MailboxStatus = await self._transport.status(uid)
            return status
        stale = self._config.heartbeat_interval * self._config.stale_heartbeat_threshold
        return await derive_status(self._transport, uid, stale=stale)

    async def heartbeat_status(self, uid: EntityId) -> float | None:
        """Return the seconds since a mailbox was last known alive, if it ever was.

        Raises:
            BadEntityIdError: It was never registered.
            MailboxTerminatedError: It is closed for good.
        """
        return await self._transport.heartbeat_status(uid)

    async def update_heartbeat(self) -> None:
        """Note that this client is alive now."""
        await self._transport.update_heartbeat()

    async def agent_stats(self, uid: EntityId) -> AgentStats:
        """Return the message counts of an agent.

        Raises:
            BadEntityIdError: It was never registered.
        """
        return await self._transport.agent_stats(uid)

    async def links(self, uid: EntityId | None = None) -> ProcessInfo | None:
        """Return how a process talks to others: which way to each, and why.

        Args:
            uid: An agent that the process runs; `None` for the process of this client.

        Returns:
            What the process tells; `None` if no process runs the agent, it is too busy
            to answer within 5 seconds, or the exchange (of others) cannot tell.

        Raises:
            BadEntityIdError: The agent was never registered.
        """
        ask = getattr(self._transport, "links", None)
        if ask is None:
            return None
        info: ProcessInfo | None = await ask(uid)
        return info

    async def terminate(self, uid: EntityId, *, reason: str | None = None) -> None:
        """Close a mailbox for good; waiting requests are answered. Idempotent.

        Args:
            uid: Whose mailbox.
            reason: Text that those who wait for answers get to see.
        """
        fail = getattr(self._transport, "fail", None)
        if reason is None or fail is None:
            await self._transport.terminate(uid)
        else:
            await fail(uid, reason)
