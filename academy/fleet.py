"""The agents that a manager has launched, and the pools that they run in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
from collections.abc import Iterable
from concurrent.futures import Executor
from typing import Any

from academy.capsule import RunSpec
from academy.closing import Closing
from academy.debug import get_academy_debug
from academy.exception import (
    AgentStartError,
    BadEntityIdError,
    MailboxTerminatedError,
    raise_exceptions,
)
from academy.exchange.client import ExchangeClient
from academy.exchange.transport import AgentRegistration
from academy.handle import Handle
from academy.identifier import AgentId
from academy.launch import LaunchSpec
from academy.logging.config import LogConfig
from academy.pool import Pool
from academy.runtime_config import RuntimeConfig
from academy.supervisor import EXCHANGE_TIMEOUT, Supervisor

logger = logging.getLogger(__name__)


class Fleet:
    """Launches agents, finds them again, and ends them.

    Args:
        client: The manager's exchange client.
        max_retries: How often an agent that fails is restarted.
        log_config: Logging of agents that are launched without their own.
    """

    def __init__(
        self,
        client: ExchangeClient[Any],
        *,
        max_retries: int,
        log_config: LogConfig | None,
    ) -> None:
        self.client = client
        self.factory = client.factory()
        self.pools: dict[str, Pool] = {}
        self.default = ""
        self._max_retries = max_retries
        self._log_config = log_config
        self._supervisors: dict[AgentId[Any], Supervisor] = {}
        self._closed = False

    def add_pool(self, name: str, executor: Executor | None) -> None:
        """Add an executor; raises `ValueError` if it is none or the name is taken."""
        if name in self.pools:
            raise ValueError(f'Executor named "{name}" already exists.')
        self.pools[name] = Pool(name, executor)

    def pool(self, name: str) -> Pool:
        """Return an executor; raises `ValueError` if there is none of that name."""
        try:
            return self.pools[name]
        except KeyError:
            known = ", ".join(map(repr, self.pools))
            raise ValueError(
                f'No executor named "{name}" exists; there are {known}.'
            ) from None

    def running(self) -> set[AgentId[Any]]:
        """Return the agents that have not ended yet."""
        return {uid for uid, s in self._supervisors.items() if s.running}

    async def register(
        self, agents: list[tuple[type[Any], str | None]]
    ) -> list[AgentRegistration[Any]]:
        """Register agents, given as pairs of class and name, in order."""
        return await self.client.register_agents(agents)

    async def launch(
        self,
        spec: LaunchSpec[Any],
        registration: AgentRegistration[Any] | None = None,
    ) -> AgentId[Any]:
        """Launch an agent; raises as [`Manager.launch`][academy.manager.Manager]."""
        self._check_open()
        pool = self.pool(spec.executor or self.default)
        pool.warn_if_full()
        if registration is not None:
            self._check_not_running(registration.agent_id)
            self._start(spec, registration, pool)
            return registration.agent_id
        registration = await self.client.register_agent(spec.agent_type, name=spec.name)
        try:
            self._check_open()
            self._start(spec, registration, pool)
        except Exception as e:
            await self.abandon(registration.agent_id, str(e))
            raise
        return registration.agent_id

    async def abandon(self, agent_id: AgentId[Any], reason: str) -> None:
        """Close the mailbox of an agent that is not going to run."""
        try:
            async with asyncio.timeout(EXCHANGE_TIMEOUT):
                await self.client.terminate(agent_id, reason=reason)
        except Exception as e:
            logger.warning("Cannot close the mailbox of %s: %r", agent_id, e)

    async def wait(
        self,
        agents: Iterable[AgentId[Any] | Handle[Any]],
        *,
        raise_error: bool,
        return_when: str,
        timeout: float | None,
    ) -> None:
        """Wait for agents; see [`Manager.wait`][academy.manager.Manager.wait]."""
        waited = [self._supervisor(agent) for agent in agents]
        if not waited:
            return
        _, pending = await asyncio.wait(
            {s.ended for s in waited}, timeout=timeout, return_when=return_when
        )
        ended = [s for s in waited if not s.running]
        errors = [s.error for s in ended if s.error is not None]
        enough = {
            asyncio.FIRST_COMPLETED: bool(ended),
            asyncio.FIRST_EXCEPTION: bool(errors),
        }
        if pending and not enough.get(return_when, False):
            raise TimeoutError(
                f"{len(pending)} of {len(waited)} agents still run after {timeout} s."
            )
        if raise_error:
            raise_exceptions(errors, message="Several agents have failed.")

    async def shutdown(
        self,
        agent: AgentId[Any] | Handle[Any],
        *,
        blocking: bool,
        raise_error: bool,
        terminate: bool | None,
        timeout: float | None,
    ) -> None:
        """End an agent; see [`Manager.shutdown`][academy.manager.Manager.shutdown]."""
        supervisor = self._supervisor(agent)
        if not supervisor.running:
            return
        try:
            async with asyncio.timeout(timeout if blocking else None):
                await self._request_shutdown(supervisor, terminate)
                if blocking:
                    await asyncio.wait([supervisor.ended])
        except TimeoutError as e:
            raise TimeoutError(
                f"{supervisor.agent_id} has not ended within {timeout} s."
            ) from e
        if blocking and raise_error and supervisor.error is not None:
            raise supervisor.error

    async def close(self, timeout: float) -> list[BaseException]:
        """End all agents and executors within bounded time. Idempotent.

        Args:
            timeout: Seconds that the agents have to end by themselves.

        Returns:
            The errors of all agents, and what went wrong while closing.
        """
        if self._closed:
            return []
        self._closed = True
        supervisors = self._supervisors.values()
        closing = Closing(supervisors, self.pools.values(), timeout)
        errors: list[BaseException] = []
        try:
            await closing.end_agents(self._try_shutdown)
        finally:
            errors += await closing.close_pools()
        return [s.error for s in supervisors if s.error is not None] + errors

    def _start(
        self, spec: LaunchSpec[Any], registration: AgentRegistration[Any], pool: Pool
    ) -> None:
        agent_id = registration.agent_id
        run_spec = RunSpec(
            agent=spec.agent,
            args=spec.args or (),
            kwargs=spec.kwargs or {},
            config=spec.config or RuntimeConfig(),
            exchange_factory=self.factory,
            registration=registration,
            log_config=spec.log_config or self._log_config,
            debug=get_academy_debug(),
        )
        try:
            self._supervisors[agent_id] = Supervisor(
                run_spec,
                pool,
                self.client,
                submit_kwargs=spec.submit_kwargs or {},
                max_retries=self._max_retries,
            )
        except pickle.PicklingError as e:
            raise AgentStartError(agent_id, str(e)) from e
        except Exception as e:
            raise AgentStartError(
                agent_id,
                f"executor {pool.name!r} refused it ({type(e).__name__}: {e})",
            ) from e

    async def _try_shutdown(self, supervisor: Supervisor) -> None:
        try:
            await self._request_shutdown(supervisor, None)
        except Exception as e:
            logger.warning("Cannot ask %s to shut down: %r", supervisor.agent_id, e)

    async def _request_shutdown(
        self, supervisor: Supervisor, terminate: bool | None
    ) -> None:
        supervisor.leave(terminate)
        handle: Handle[Any] = Handle(
            supervisor.agent_id, exchange=self.client, ignore_context=True
        )
        with contextlib.suppress(MailboxTerminatedError):  # it is ending already
            await handle.shutdown(terminate=terminate)
        await supervisor.cancel_if_queued()

    def _supervisor(self, agent: AgentId[Any] | Handle[Any]) -> Supervisor:
        agent_id = agent if isinstance(agent, AgentId) else agent.agent_id
        try:
            return self._supervisors[agent_id]
        except KeyError:
            raise BadEntityIdError(agent_id) from None

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("The manager is closed and launches no more agents.")

    def _check_not_running(self, agent_id: AgentId[Any]) -> None:
        if agent_id in self._supervisors and self._supervisors[agent_id].running:
            raise RuntimeError(
                f"{agent_id} has already been executed by this manager and still runs. "
                "Shut it down first, or register another agent."
            )
