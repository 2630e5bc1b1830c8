"""The clients of agents and of users."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Generic

from academy.exception import ExchangeError, FencedError
from academy.exchange.base_client import (
    ExchangeClient,
    RequestHandler,
    exchange_context,
)
from academy.exchange.client_config import ExchangeClientConfig
from academy.exchange.transport import ExchangeTransportT
from academy.identifier import AgentId, AgentT, UserId
from academy.message import AcademyErrorResponse, ErrorCode, Message

__all__ = [
    "AgentExchangeClient",
    "ExchangeClient",
    "RequestHandler",
    "UserExchangeClient",
    "exchange_context",
]

logger = logging.getLogger(__name__)


class AgentExchangeClient(
    ExchangeClient[ExchangeTransportT], Generic[AgentT, ExchangeTransportT]
):
    """Client of an agent: requests go to its request handler.

    Args:
        agent_id: The agent.
        transport: Transport bound to the agent's mailbox; the client owns it.
        request_handler: Takes each request, in order per sender.
        config: Client configuration.
        on_end: Called once when the mailbox ends while the client is open, with the
            error that ended it.
    """

    def __init__(
        self,
        agent_id: AgentId[AgentT],
        transport: ExchangeTransportT,
        request_handler: RequestHandler,
        *,
        config: ExchangeClientConfig | None = None,
        on_end: Callable[[Exception], None] | None = None,
    ) -> None:
        super().__init__(transport, config or ExchangeClientConfig())
        self._agent_id = agent_id
        self._request_handler = request_handler
        self._takes_at_once = not inspect.iscoroutinefunction(request_handler)
        self.on_end = on_end

    @property
    def client_id(self) -> AgentId[AgentT]:
        """The agent."""
        return self._agent_id

    def hold_requests(self) -> None:
        """Take no more requests: they wait for the next client of this mailbox.

        Responses still come. An exchange whose mailboxes do not outlive their process
        goes on to hand requests out.
        """
        hold = getattr(self._transport, "hold_requests", None)
        if hold is not None:
            hold()

    async def close(self) -> None:
        """Close the client. The mailbox stays: the agent can run again later."""
        await self._close()

    def _take_request(self, message: Message[Any]) -> Awaitable[None] | None:
        try:
            work = self._request_handler(message)
        except Exception as e:
            self._handler_failed(message, e)
            return None
        return None if work is None else self._finish(message, work)

    async def _finish(self, message: Message[Any], work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as e:
            self._handler_failed(message, e)

    def _handler_failed(self, message: Message[Any], error: Exception) -> None:
        logger.error("%s: the request handler failed", self, exc_info=error)
        lost = AcademyErrorResponse(
            error_code=ErrorCode.REQUEST_LOST,
            mailbox_id=self.client_id,
            detail=f"its request handler failed with {type(error).__name__}: {error}",
        )
        self.send_soon(message.create_response(lost))

    def _mailbox_ended(self, error: Exception) -> None:
        if self.on_end is not None and not self._closed:
            self.on_end(error)


class UserExchangeClient(ExchangeClient[ExchangeTransportT]):
    """Client of a user: it makes requests and answers none.

    Args:
        user_id: The user.
        transport: Transport bound to the user's mailbox; the client owns it.
        start_listener: Whether the client will listen; without, it can send but not
            wait for answers.
        config: Client configuration.
    """

    def __init__(
        self,
        user_id: UserId,
        transport: ExchangeTransportT,
        *,
        start_listener: bool = True,
        config: ExchangeClientConfig | None = None,
    ) -> None:
        super().__init__(transport, config or ExchangeClientConfig())
        self._user_id = user_id
        if start_listener:
            self.start()

    @property
    def client_id(self) -> UserId:
        """The user."""
        return self._user_id

    async def close(self) -> None:
        """Close the client and terminate its mailbox: nobody will come back to it."""
        await self._close()

    async def _leave(self) -> None:
        if isinstance(self._ended, FencedError):
            return  # The mailbox is that of the newer client.
        try:
            await self._transport.terminate(self.client_id)
        except ExchangeError as e:
            logger.warning("%s could not terminate its mailbox: %s", self, e)

    def _take_request(self, message: Message[Any]) -> None:
        refusal = AcademyErrorResponse(
            error_code=ErrorCode.INVALID_CLIENT,
            executed="no",
            detail=f"{self.client_id} is a user, and users do not answer requests.",
        )
        self.send_soon(message.create_response(refusal))
