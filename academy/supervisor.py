"""The supervisor of one launched agent: from its launch to its end, tries included."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from academy.capsule import RunSpec, WorkerFailure
from academy.exception import (
    AgentTerminatedError,
    BadEntityIdError,
    ExchangeError,
    FencedError,
    MailboxTerminatedError,
    PeerLostError,
    WorkerMismatchError,
)
from academy.exchange.client import ExchangeClient
from academy.exchange.transport import MailboxStatus
from academy.pool import Attempt, Pool, Prepared
from academy.task import spawn_guarded_background_task

logger = logging.getLogger(__name__)

START_PATIENCE = 30.0
"""Seconds until an agent that has not started is worth a warning."""

EXCHANGE_TIMEOUT = 5.0
"""Seconds that the exchange has to close the mailbox of an agent that ended."""


class Supervisor:
    """Runs one agent in a pool, restarts it when it fails, and closes up after it.

    A restarted agent has the same identity and mailbox, so that messages which wait
    for it are not lost; it is a new binding of the mailbox, and what is left of the
    old one is fenced. When the agent has failed for good, whoever waits for an answer
    gets an error with the cause.

    Args:
        spec: The agent and how to run it.
        pool: Where to run it.
        client: The manager's exchange client.
        submit_kwargs: Further options for the executor.
        max_retries: How often to restart the agent.
    """

    def __init__(
        self,
        spec: RunSpec,
        pool: Pool,
        client: ExchangeClient[Any],
        *,
        submit_kwargs: dict[str, Any],
        max_retries: int,
    ) -> None:
        self.agent_id = spec.registration.agent_id
        self.pool = pool
        self._stopped_because: str | None = None
        self._config = spec.config
        self._client = client
        self._submit_kwargs = submit_kwargs
        self._retries_left = max_retries
        self._terminate: bool | None = None
        self._leaving = False
        self._prepared: Prepared | None = pool.prepare(spec)
        self._attempt = self._submit()
        pool.busy += 1
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when the agent has ended for good, with its error if there is one."""
        self.ended.add_done_callback(self._ended)
        self._patience: asyncio.TimerHandle | None = None
        if not pool.instant:
            self._patience = loop.call_later(START_PATIENCE, self._lose_patience)
        # No task waits for that: of many agents, few end at a time.
        self._attempt.outcome.add_done_callback(self._attempt_ended)

    @property
    def running(self) -> bool:
        """Whether the agent has not ended yet; it may wait for a worker."""
        return not self.ended.done()

    @property
    def error(self) -> BaseException | None:
        """What the agent ended with, if it has ended with an error."""
        if not self.ended.done() or self.ended.cancelled():
            return None
        return self.ended.exception()

    def leave(self, terminate: bool | None) -> None:
        """Note that the agent is being shut down, so it is not restarted any more.

        Args:
            terminate: Whether to close its mailbox, whatever its configuration says.
        """
        self._leaving = True
        if terminate is not None:
            self._terminate = terminate

    async def cancel_if_queued(self) -> None:
        """Take the agent back from the executor if it has not started yet."""
        if not self._attempt.queued:
            return
        if await self._client.status(self.agent_id) is MailboxStatus.INACTIVE:
            self.stop("it was shut down before it had started")

    def stop(self, reason: str) -> None:
        """Cancel the agent, as far as its executor can do that."""
        self._stopped_because = reason
        self._attempt.outcome.cancel()

    def _submit(self) -> Attempt:
        assert self._prepared is not None
        return self.pool.submit(
            self._prepared,
            final=self._retries_left == 0,
            submit_kwargs=self._submit_kwargs,
        )

    def give_up(self) -> None:
        """Wait no longer for an agent that does not end when it is cancelled."""
        self.ended.cancel()

    def _attempt_ended(self, outcome: asyncio.Future[Any]) -> None:
        if self.ended.done():
            return  # it was given up
        if outcome.cancelled() or outcome.exception() is not None:
            self._spawn(self._conclude())
        else:
            self.ended.set_result(None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        spawn_guarded_background_task(work, name=f"supervise-{self.agent_id}")

    async def _conclude(self) -> None:
        """Decide what becomes of an agent whose attempt has not ended well."""
        failure: Exception | None = None
        try:
            if await self._restarted():
                return
        except Exception as e:
            logger.error("%s has failed.", self.agent_id, exc_info=e)
            await self._close_failed(e)
            failure = e
        if self.ended.done():
            return
        if failure is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(failure)

    async def _restarted(self) -> bool:
        """Start the agent again if it may be; return whether it was.

        Raises:
            Exception: What it has failed with.
        """
        if self._attempt.outcome.cancelled():
            await self._close_stopped()
            return False
        error = self._error()
        if error is None or (self._leaving and self._lost_mailbox(error)):
            return False
        if not self._may_restart(error):
            raise error
        logger.warning("Restarting %s, which has failed.", self.agent_id)
        logger.debug("%s failed.", self.agent_id, exc_info=error)
        self._retries_left -= 1
        self._attempt = self._submit()
        self._attempt.outcome.add_done_callback(self._attempt_ended)
        return True

    def _lose_patience(self) -> None:
        if self._attempt.queued:
            self._spawn(self._check_start())

    async def _check_start(self) -> None:
        """Warn if an agent that was launched a while ago has not started."""
        try:
            status = await self._client.status(self.agent_id)
        except ExchangeError as e:
            logger.debug("Cannot tell whether %s has started: %s", self.agent_id, e)
            return
        if status is MailboxStatus.INACTIVE:
            self.pool.warn_waiting(self.agent_id, START_PATIENCE)

    def _error(self) -> Exception | None:
        error = self._attempt.outcome.exception()
        if isinstance(error, WorkerFailure):
            return error.unwrap()
        if error is None or isinstance(error, Exception):
            return error
        return RuntimeError(f"{self.agent_id} ended its worker: {error!r}")

    def _may_restart(self, error: Exception) -> bool:
        if self._retries_left == 0 or self._leaving or self._lost_mailbox(error):
            return False
        return not isinstance(error, WorkerMismatchError)

    def _lost_mailbox(self, error: Exception) -> bool:
        """Return whether the agent has no mailbox any more, or a newer owner has it."""
        return (
            isinstance(error, BadEntityIdError | MailboxTerminatedError | FencedError)
            and error.uid == self.agent_id
        )

    async def _close_failed(self, error: Exception) -> None:
        """Fail the calls that wait for a failed agent, with the cause."""
        if self._lost_mailbox(error):
            return
        reason = f"{type(error).__name__}: {error}"
        await self._close(reason, error, self._config.terminate_on_error)

    async def _close_stopped(self) -> None:
        """Fail the calls that wait for an agent that was cancelled."""
        reason = self._stopped_because or "it was cancelled by its executor"
        logger.warning("%s has ended: %s.", self.agent_id, reason)
        await self._close(reason, None, self._config.terminate_on_success)

    async def _close(
        self, reason: str, cause: Exception | None, terminate: bool
    ) -> None:
        if self._terminate is not None:
            terminate = self._terminate
        error: ExchangeError = (
            AgentTerminatedError(self.agent_id, reason)
            if terminate
            else PeerLostError(self.agent_id, "maybe", reason)
        )
        error.__cause__ = cause
        self._client.fail_pending(self.agent_id, error)
        if not terminate:
            return
        try:
            async with asyncio.timeout(EXCHANGE_TIMEOUT):
                await self._client.terminate(self.agent_id, reason=reason)
        except Exception as e:
            logger.warning("Cannot close the mailbox of %s: %r", self.agent_id, e)

    def _ended(self, ended: asyncio.Future[None]) -> None:
        self.pool.busy -= 1
        self._prepared = None
        if self._patience is not None:
            self._patience.cancel()
        if not ended.cancelled():
            ended.exception()  # it was logged; whoever waits for the agent gets it
