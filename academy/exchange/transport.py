"""What an exchange offers to one mailbox, and what is shared by all exchanges."""

from __future__ import annotations

import enum
import uuid
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, runtime_checkable

from academy.exception import BadEntityIdError, MailboxTerminatedError
from academy.identifier import AgentId, EntityId
from academy.message import Message
from academy.stats import AgentStats

if TYPE_CHECKING:
    from academy.exchange.factory import ExchangeFactory

STALE_HEARTBEAT = 90.0
"""Seconds without a heartbeat after which an entity counts as inactive, on exchanges
that have no leases."""


class MailboxStatus(enum.Enum):
    """State of a mailbox."""

    MISSING = "MISSING"
    """Nobody registered it."""
    ACTIVE = "ACTIVE"
    """A live process has it bound."""
    INACTIVE = "INACTIVE"
    """It is registered, and no live process has it bound; messages wait in it."""
    TERMINATED = "TERMINATED"
    """It is closed for good."""


@runtime_checkable
class AgentRegistration(Protocol):
    """What an exchange returns for a registered agent, and needs to run it.

    Attributes:
        agent_id: Identifier of the agent.
        exchange_type: Kind of exchange, such as `'hybrid'`.
    """

    agent_id: AgentId[Any]
    exchange_type: str


AgentRegistrationT = TypeVar("AgentRegistrationT", bound=AgentRegistration)


@runtime_checkable
class ExchangeTransport(Protocol):
    """Access of one mailbox to an exchange.

    A transport is bound to its mailbox: it sends in the mailbox's name and takes its
    messages. When a second transport binds the same mailbox, the newest owns it and
    the older one ends with `FencedError`. Transports belong to the event loop that
    made them. Derive implementations from `ExchangeTransportMixin`, which has the
    parts that are the same everywhere.
    """

    @property
    def mailbox_id(self) -> EntityId:
        """Whose mailbox this is."""
        ...

    async def send(self, message: Message[Any]) -> None:
        """Accept a message for delivery.

        When it returns, the message has been taken or waits in the destination's
        queue, or an error response will come back. Cancelling it leaves open which.

        Raises:
            BadEntityIdError: The destination was never registered.
            MailboxTerminatedError: The destination is closed for good.
            ExchangeError: The exchange could not accept it.
        """
        ...

    def listen(self, timeout: float | None = None) -> AsyncGenerator[Message[Any]]:
        """Yield the messages of the mailbox as they come, in order per sender.

        Args:
            timeout: Longest wait in seconds for the next message.

        Raises:
            MailboxTerminatedError: The mailbox was closed for good.
            FencedError: A newer transport has bound the mailbox.
            TimeoutError: No message came within the timeout.
        """
        ...

    async def register_agent(
        self, agent: type[Any], *, name: str | None = None
    ) -> AgentRegistration:
        """Register a new agent with a mailbox of its own."""
        ...

    async def discover(
        self, agent: type[Any] | str, *, allow_subclasses: bool = True
    ) -> tuple[AgentId[Any], ...]:
        """Return the agents of a class that are not terminated."""
        ...

    async def terminate(self, uid: EntityId) -> None:
        """Close a mailbox for good; waiting requests are answered. Idempotent."""
        ...

    async def update_heartbeat(self) -> None:
        """Note that this mailbox is alive now."""
        ...

    async def heartbeat_status(self, uid: EntityId) -> float | None:
        """Return the seconds since a mailbox was last known alive, if it ever was.

        Raises:
            BadEntityIdError: It was never registered.
            MailboxTerminatedError: It is closed for good.
        """
        ...

    async def agent_stats(self, uid: EntityId) -> AgentStats:
        """Return the message counts of an agent.

        Raises:
            BadEntityIdError: It was never registered.
        """
        ...

    def factory(self) -> ExchangeFactory[Any]:
        """Return a factory that makes clients of the same exchange."""
        ...

    async def close(self) -> None:
        """Stop receiving; unread messages stay in the mailbox. Idempotent."""
        ...


ExchangeTransportT = TypeVar("ExchangeTransportT", bound=ExchangeTransport)


class ExchangeTransportMixin:
    """What all transports share: `async with`, text, and what can be derived."""

    leased = False
    """Whether the exchange itself knows which processes live. Where it does not,
    clients send heartbeats."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        await self.close()  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.mailbox_id!r})"  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return f"{type(self).__name__}<{self.mailbox_id}>"  # type: ignore[attr-defined]

    async def listen(
        self, timeout: float | None = None
    ) -> AsyncGenerator[Message[Any]]:
        """Yield the messages of the mailbox; see `ExchangeTransport.listen`."""
        while True:
            yield await self.recv(timeout)

    async def recv(self, timeout: float | None = None) -> Message[Any]:
        """Return the next message of the mailbox; raises as `listen` does.

        Cancelling is safe: no message is lost.
        """
        return await self._recv(timeout)  # type: ignore[attr-defined, no-any-return]

    async def status(self, uid: EntityId) -> MailboxStatus:
        """Return the state of a mailbox."""
        try:
            age = await self.heartbeat_status(uid)  # type: ignore[attr-defined]
        except BadEntityIdError:
            return MailboxStatus.MISSING
        except MailboxTerminatedError:
            return MailboxStatus.TERMINATED
        live = age is not None and age < STALE_HEARTBEAT
        return MailboxStatus.ACTIVE if live else MailboxStatus.INACTIVE

    async def register_agents(
        self, agents: list[tuple[type[Any], str | None]]
    ) -> list[Any]:
        """Register several agents, given as pairs of type and name, in order."""
        return [
            await self.register_agent(agent, name=name)  # type: ignore[attr-defined]
            for agent, name in agents
        ]

    async def fail(self, uid: EntityId, reason: str) -> None:
        """Terminate a mailbox and tell those who wait for it why."""
        await self.terminate(uid)  # type: ignore[attr-defined]

    def forget(self, tag: uuid.UUID) -> None:
        """Note that nobody waits for the answer to a request any more."""


def class_name(agent: type[Any] | str) -> str:
    """Return the name by which agents of a class are discovered.

    Raises:
        TypeError: It is neither a class with an agent's ancestry nor a string.
    """
    if isinstance(agent, str):
        return agent
    return agent_mro(agent)[0]


def agent_mro(agent: type[Any]) -> tuple[str, ...]:
    """Return the names of an agent class and its ancestors, nearest first.

    Raises:
        TypeError: The class does not derive from `Agent`.
    """
    if not isinstance(agent, type) or not hasattr(agent, "_agent_mro"):
        raise TypeError(
            f"{agent!r} is not an agent class: derive it from academy.agent.Agent."
        )
    names: tuple[str, ...] = agent._agent_mro()
    return names
