"""What an exchange offers to one mailbox, and what is shared by all exchanges."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, runtime_checkable

from academy.exception import BadEntityIdError, MailboxTerminatedError
from academy.identifier import AgentId, AgentT, EntityId
from academy.message import Message
from academy.stats import AgentStats

if TYPE_CHECKING:
    from academy.exchange.factory import ExchangeFactory


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


AGENT_CLASS = "academy.agent.Agent"
"""Name of the class that all agents derive from."""


@dataclass(frozen=True)
class AgentInfo:
    """What an exchange shows of an agent.

    Attributes:
        agent_id: Identifier of the agent.
        status: State of its mailbox.
        agent_class: Qualified name of its class.
        host: Host of the process that runs it, if one does.
        pid: That process.
        queued: Messages that wait in its mailbox.
    """

    agent_id: AgentId[Any]
    status: MailboxStatus
    agent_class: str = ""
    host: str | None = None
    pid: int | None = None
    queued: int = 0


@runtime_checkable
class AgentRegistration(Protocol[AgentT]):
    """What an exchange returns for a registered agent, and needs to run it."""

    @property
    def agent_id(self) -> AgentId[AgentT]:
        """Identifier of the agent."""
        ...

    @property
    def exchange_type(self) -> str:
        """Kind of exchange, such as `'hybrid'`."""
        ...


AgentRegistrationT = TypeVar("AgentRegistrationT", bound=AgentRegistration[Any])
AgentRegistrationT_co = TypeVar(
    "AgentRegistrationT_co", bound=AgentRegistration[Any], covariant=True
)


@runtime_checkable
class ExchangeTransport(Protocol[AgentRegistrationT_co]):
    """Access of one mailbox to an exchange.

    A transport is bound to its mailbox: it sends in the mailbox's name and takes its
    messages. When a second transport binds the same mailbox, the newest owns it and
    the older one ends with `FencedError`. Transports belong to the event loop that
    made them. Derive implementations from `ExchangeTransportMixin`, which has the
    parts that are the same everywhere.

    Clients use what a transport has beyond this protocol: `submit(message)`, which is
    `send` without a turn of the event loop; `leased = True`, where the
    exchange itself knows which processes live, so that no client sends heartbeats and
    binding fails for mailboxes that are missing or terminated; `status(uid)`;
    `census()`; `links(uid)`; `register_agents(pairs)`; `fail(uid, reason)`, which
    terminates a mailbox and tells those who wait for it why; and `forget(tag)`, called
    when nobody waits for the answer to a request any more.
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
    ) -> AgentRegistrationT_co:
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


ExchangeTransportT = TypeVar("ExchangeTransportT", bound=ExchangeTransport[Any])


class ExchangeTransportMixin:
    """What transports share: `async with`, text, and `listen` in terms of `_recv`."""

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

    def submit(self, message: Message[Any]) -> Awaitable[None] | None:
        """Accept a message as `send` does, and raise what it raises.

        Returns:
            What is to be awaited until the message is accepted; `None` if it is.
        """
        return self.send(message)  # type: ignore[attr-defined, no-any-return]

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


async def derive_status(
    transport: ExchangeTransport[Any], uid: EntityId, *, stale: float
) -> MailboxStatus:
    """Return the state of a mailbox on an exchange that knows only heartbeats.

    Args:
        transport: Any transport of the exchange.
        uid: Whose mailbox.
        stale: Seconds without a heartbeat after which an entity counts as inactive.
    """
    try:
        age = await transport.heartbeat_status(uid)
    except BadEntityIdError:
        return MailboxStatus.MISSING
    except MailboxTerminatedError:
        return MailboxStatus.TERMINATED
    live = age is not None and age < stale
    return MailboxStatus.ACTIVE if live else MailboxStatus.INACTIVE


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
