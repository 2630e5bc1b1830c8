"""One call of an action: its deadline, and sending it again when it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from academy.exception import AgentInactiveError, DeliveryError
from academy.exchange.client import ExchangeClient
from academy.identifier import AgentId
from academy.message import (
    AcademyErrorResponse,
    ActionRequest,
    CancelRequest,
    Header,
    Message,
    Response,
)
from academy.tag import new_tag
from academy.trace import outgoing_traceparent

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.05
"""Seconds before a lost call is sent again; each time twice as many."""
LONGEST_PAUSE = 5.0
"""Seconds that it waits at most."""

Send: TypeAlias = Callable[[Message[Any]], Awaitable[Message[Any]]]
"""Sends a request and returns its response."""


class Call:
    """A call of an action. Made once, and run once.

    Args:
        client: Client to call with.
        agent_id: The agent.
        request: What is asked of it.
        send: Sends the request.
    """

    __slots__ = ("_agent_id", "_client", "_deadline", "_lost", "_request", "_send")

    def __init__(
        self,
        client: ExchangeClient[Any],
        agent_id: AgentId[Any],
        request: ActionRequest,
        send: Send,
    ) -> None:
        self._client = client
        self._agent_id = agent_id
        self._request = request
        self._send = send
        self._deadline: float | None = None
        self._lost: DeliveryError | None = None

    async def run(
        self,
        *,
        timeout: float | None = None,
        retry: bool = False,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> Response:
        """Make the call and return the response.

        Args:
            timeout: Seconds that it may take; `None` for no limit.
            retry: Whether to send the request again when it is lost.
            check: Raises if the call should not be made now.

        Raises:
            TimeoutError: There was no response within the timeout.
            Exception: What `check` or sending raised.
        """
        if timeout is None:
            return await self._run(retry, check)
        self._deadline = asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout_at(self._deadline) as scope:
                return await self._run(retry, check)
        except TimeoutError:
            if not scope.expired():
                raise
            raise TimeoutError(
                f"{self._agent_id} did not answer the call of "
                f"{self._request.action!r} within {timeout:g} s. The action may have "
                "run; the agent is asked to cancel it."
            ) from self._lost

    async def _run(
        self, retry: bool, check: Callable[[], Awaitable[None]] | None
    ) -> Response:
        if check is not None:
            await check()
        return await (self._persist() if retry else self._attempt())

    async def _persist(self) -> Response:
        """Send the request until it is answered, or can never be."""
        pause = FIRST_PAUSE
        while True:
            try:
                response = await self._attempt()
            except DeliveryError as e:
                self._lost = e
            else:
                lost = _lost(response)
                if lost is None:
                    return response
                self._lost = lost
            logger.info("Calls %r again: %s", self._request.action, self._lost)
            # Those who lost their calls together should not come back together.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _attempt(self) -> Response:
        left = None
        if self._deadline is not None:
            left = max(0.0, self._deadline - asyncio.get_running_loop().time())
        return await attempt(
            self._client, self._agent_id, self._request, self._send, left
        )


async def attempt(
    client: ExchangeClient[Any],
    agent_id: AgentId[Any],
    request: ActionRequest,
    send: Send,
    deadline: float | None = None,
) -> Response:
    """Send a request once and return the response; cancelling cancels the action.

    Args:
        client: Client to call with.
        agent_id: The agent.
        request: What is asked of it.
        send: Sends the request; the client's `ask`, or what ends in that.
        deadline: Seconds from now after which nobody waits for the response.

    Raises:
        Exception: What sending raised.
    """
    header = Header(
        src=client.client_id,
        dest=agent_id,
        tag=new_tag(),
        kind="request",
        deadline=deadline,
        traceparent=outgoing_traceparent(),
    )
    message: Message[Any] = Message(header=header, body=request)
    try:
        response = await send(message)
    except BaseException as e:
        client.forget(message.tag)
        if isinstance(e, (asyncio.CancelledError, AgentInactiveError)):
            body = CancelRequest(target_tag=message.tag)
            client.send_soon(Message.create(message.src, message.dest, body))
        raise
    answer: Response = response.get_body()
    return answer


def _lost(response: Response) -> DeliveryError | None:
    """Return why there will be no answer, if that is what a response says."""
    if isinstance(response, AcademyErrorResponse):
        error = response.get_exception()
        if isinstance(error, DeliveryError):
            return error
    return None
