"""Failing the calls to an agent that turns out not to run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from academy.exception import AgentInactiveError, AgentTerminatedError
from academy.exchange.client import ExchangeClient
from academy.exchange.transport import MailboxStatus
from academy.identifier import AgentId
from academy.message import Message
from academy.task import Tasks

logger = logging.getLogger(__name__)

STATUS_TIMEOUT = 5.0
"""Seconds that asking the exchange for a status may take."""


class StatusWatch:
    """Asks for the status of one agent while calls to it are pending.

    The exchange is asked through one client, every `interval` seconds; nothing runs
    while no call is pending. A status that cannot be had counts as no news.

    Args:
        client: Client that the calls are made with.
        agent_id: The agent.
        interval: Seconds between two questions.
    """

    def __init__(
        self, client: ExchangeClient[Any], agent_id: AgentId[Any], interval: float
    ) -> None:
        self.client = client
        self.agent_id = agent_id
        self.interval = interval
        self._tasks = Tasks(f"status-watch-{agent_id}")
        self._poller: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Timeout] = set()
        self._verdict: type[Exception] | None = None

    async def check(self) -> None:
        """Raise if the agent does not run now.

        Raises:
            AgentInactiveError: No live process runs it.
            AgentTerminatedError: It has ended for good.
        """
        verdict = await self._ask()
        if verdict is not None:
            raise verdict(self.agent_id)

    async def request(self, message: Message[Any]) -> Message[Any]:
        """Send a request and return its response, as the client does.

        Raises:
            AgentInactiveError: Meanwhile no live process runs the agent.
            AgentTerminatedError: Meanwhile it has ended for good.
            ExchangeError: As the client's `request` does.
        """
        try:
            # Nothing but a verdict makes this time out.
            async with asyncio.timeout(None) as call:
                self._calls.add(call)
                if self._poller is None:
                    self._poller = self._tasks.spawn(self._poll(), name="poll")
                return await self.client.request(message)
        except TimeoutError as e:
            if self._verdict is None or not call.expired():
                raise
            raise self._verdict(self.agent_id) from e
        finally:
            self._calls.discard(call)
            if not self._calls and self._poller is not None:
                self._poller.cancel()
                self._poller = None

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.interval)
            self._verdict = await self._ask()
            if self._verdict is not None:
                now = asyncio.get_running_loop().time()
                for call in self._calls:
                    with contextlib.suppress(RuntimeError):  # it has ended by itself
                        call.reschedule(now)

    async def _ask(self) -> type[Exception] | None:
        """Return why the agent will not answer, if that is known."""
        try:
            async with asyncio.timeout(STATUS_TIMEOUT):
                status = await self.client.status(self.agent_id)
        except Exception as e:
            logger.debug("No status of %s: %s: %s", self.agent_id, type(e).__name__, e)
            return None
        if status is MailboxStatus.INACTIVE:
            return AgentInactiveError
        if status is MailboxStatus.TERMINATED:
            return AgentTerminatedError
        return None
