"""Factories: the picklable description of an exchange, which makes clients of it."""

from __future__ import annotations

import abc
from collections.abc import Callable, Coroutine
from typing import Any, Generic

from academy.exchange.client import (
    AgentExchangeClient,
    RequestHandler,
    UserExchangeClient,
)
from academy.exchange.client_config import ExchangeClientConfig
from academy.exchange.transport import (
    AgentRegistration,
    ExchangeTransport,
    ExchangeTransportT,
)
from academy.identifier import AgentT, EntityId, UserId


class ExchangeFactory(abc.ABC, Generic[ExchangeTransportT]):
    """Makes clients of one exchange.

    Factories are small and picklable, for workers make their clients from them. To add
    an exchange, derive from this class and implement `_create_transport`.

    Args:
        config: Configuration of the clients.
    """

    def __init__(self, config: ExchangeClientConfig | None = None) -> None:
        self.config = config or ExchangeClientConfig()

    @abc.abstractmethod
    async def _create_transport(
        self,
        mailbox_id: EntityId | None = None,
        *,
        name: str | None = None,
        registration: Any = None,
    ) -> ExchangeTransportT:
        """Return a transport bound to a mailbox.

        Args:
            mailbox_id: The mailbox; `None` registers a new user and binds to that.
            name: Name of the new user.
            registration: Registration of the agent whose mailbox it is.
        """

    def _prepare(self) -> Callable[..., Coroutine[Any, Any, ExchangeTransportT]]:
        """Take what each client needs for itself, before anything is awaited.

        Returns:
            What makes the transport: called as `_create_transport` is.
        """
        return self._create_transport

    def create_agent_client(
        self,
        registration: AgentRegistration[AgentT],
        request_handler: RequestHandler,
        *,
        on_end: Callable[[Exception], None] | None = None,
    ) -> Coroutine[Any, Any, AgentExchangeClient[AgentT, ExchangeTransportT]]:
        """Return, when awaited, a client bound to a registered agent's mailbox.

        The client receives messages as soon as it is made.

        Args:
            registration: What `register_agent` returned for the agent.
            request_handler: Takes each request to the agent.
            on_end: Called when the mailbox ends under the open client.

        Raises:
            BadEntityIdError: The agent is not registered with this exchange.
            MailboxTerminatedError: Its mailbox is closed for good.
            StopIteration: The factory's ports are used up (raised by the call, not by
                the `await`).
        """
        return self._agent_client(
            self._prepare(), registration, request_handler, on_end
        )

    def create_user_client(
        self, *, name: str | None = None, start_listener: bool = True
    ) -> Coroutine[Any, Any, UserExchangeClient[ExchangeTransportT]]:
        """Return, when awaited, a client with a new user's mailbox.

        Args:
            name: Optional name of the user for people to read.
            start_listener: Whether to receive messages. Without, the client can send
                but not wait for answers.

        Raises:
            StopIteration: The factory's ports are used up (raised by the call, not by
                the `await`).
        """
        return self._user_client(self._prepare(), name, start_listener)

    async def _agent_client(
        self,
        create: Callable[..., Coroutine[Any, Any, ExchangeTransportT]],
        registration: AgentRegistration[AgentT],
        request_handler: RequestHandler,
        on_end: Callable[[Exception], None] | None,
    ) -> AgentExchangeClient[AgentT, ExchangeTransportT]:
        agent_id = registration.agent_id
        transport = await create(mailbox_id=agent_id, registration=registration)
        if not getattr(transport, "leased", False):
            await _check_mailbox(transport)
        client = AgentExchangeClient(
            agent_id, transport, request_handler, config=self.config, on_end=on_end
        )
        client.start()
        return client

    async def _user_client(
        self,
        create: Callable[..., Coroutine[Any, Any, ExchangeTransportT]],
        name: str | None,
        start_listener: bool,
    ) -> UserExchangeClient[ExchangeTransportT]:
        transport = await create(name=name)
        user_id = transport.mailbox_id
        assert isinstance(user_id, UserId)
        return UserExchangeClient(
            user_id, transport, start_listener=start_listener, config=self.config
        )


async def _check_mailbox(transport: ExchangeTransport[Any]) -> None:
    """Close a transport, and raise, when its mailbox is missing or terminated."""
    try:
        await transport.heartbeat_status(transport.mailbox_id)
    except BaseException:
        await transport.close()
        raise
