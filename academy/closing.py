"""The end of a manager: its agents are asked, then cancelled, then named."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from academy.exception import ShutdownTimeoutError
from academy.pool import Pool
from academy.supervisor import Supervisor

logger = logging.getLogger(__name__)

CANCEL_GRACE = 5.0
"""Seconds that agents have to end after they were cancelled."""

WAVE = 128
"""Agents that are asked to end at a time."""

WAVE_PATIENCE = 0.2
"""Seconds that the next ones wait at most for these to end."""

WAVE_SHARE = 0.3
"""Share of the agents' time to end that may go by with that."""

POOL_GRACE = 30.0
"""Seconds that an executor has to shut down when no agent is left in it."""


class Closing:
    """Ends agents and executors within bounded time, however they behave.

    Args:
        supervisors: All agents that the manager has launched.
        pools: All its executors.
        timeout: Seconds that the agents have to end by themselves.
    """

    def __init__(
        self,
        supervisors: Iterable[Supervisor],
        pools: Iterable[Pool],
        timeout: float,
    ) -> None:
        self._supervisors = [s for s in supervisors if s.running]
        self._pools = [pool for pool in pools if pool.executor is not None]
        self._timeout = timeout
        self._cancelled: list[Supervisor] = []
        self._stuck: list[Supervisor] = []

    async def end_agents(
        self, request_shutdown: Callable[[Supervisor], Awaitable[None]]
    ) -> None:
        """Ask all agents at once to shut down; cancel those that do not in time.

        When this call is cancelled, the agents are cancelled at once.

        Args:
            request_shutdown: Asks one of them.
        """
        if not self._supervisors:
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._ask(request_shutdown)
                await asyncio.wait([s.ended for s in self._supervisors])
        except TimeoutError:
            logger.debug("The agents' time to shut down is over.")
        finally:
            await self._cancel([s for s in self._supervisors if s.running])

    async def close_pools(self) -> list[Exception]:
        """Shut all executors down at once.

        Returns:
            What went wrong, with the agents that still run.
        """
        closed = await asyncio.gather(
            *map(self._close_pool, self._pools), return_exceptions=True
        )
        errors = [e for e in closed if isinstance(e, Exception)]
        if self._stuck:
            uids = [s.agent_id for s in self._stuck]
            errors.append(ShutdownTimeoutError(uids, self._timeout))
        return errors

    async def _ask(
        self, request_shutdown: Callable[[Supervisor], Awaitable[None]]
    ) -> None:
        """Ask all agents, for a while so many at a time.

        What thousands keep while they end at once costs more than waiting does.
        """
        loop = asyncio.get_running_loop()
        patience = loop.time() + WAVE_SHARE * self._timeout
        for start in range(0, len(self._supervisors), WAVE):
            wave = self._supervisors[start : start + WAVE]
            await asyncio.gather(*map(request_shutdown, wave))
            left = min(patience - loop.time(), WAVE_PATIENCE)
            if left > 0 and len(wave) == WAVE:
                await asyncio.wait([s.ended for s in wave], timeout=left)

    async def _cancel(self, supervisors: list[Supervisor]) -> None:
        if not supervisors:
            return
        self._cancelled = supervisors
        for supervisor in supervisors:
            supervisor.stop(
                f"it did not shut down within {self._timeout:g} s and was cancelled"
            )
        for pool in {s.pool for s in supervisors}:
            pool.kill()
        await asyncio.wait([s.ended for s in supervisors], timeout=CANCEL_GRACE)
        for supervisor in supervisors:
            if supervisor.running:
                supervisor.give_up()
                self._stuck.append(supervisor)

    async def _close_pool(self, pool: Pool) -> Any:
        """Shut an executor down; what blocks it are the agents cancelled in it."""
        cancelled = [s for s in self._cancelled if s.pool is pool]
        timeout = CANCEL_GRACE if cancelled else POOL_GRACE
        if await pool.shutdown(timeout):
            return
        self._stuck += [s for s in cancelled if s not in self._stuck]
        if not cancelled:
            logger.warning(
                "Executor %r has not shut down within %g s and is left to itself.",
                pool.name,
                timeout,
            )
