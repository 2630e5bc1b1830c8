"""One run of the demo: agents, rounds, and an accident half way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import Any

from academy.demo.agents import Coordinator, RoundResult, Site, SiteState, Whereabouts
from academy.demo.calls import DEADLINE, Calls
from academy.demo.report import Accident, Path, Plan, Report, told
from academy.demo.screen import AgentRow, Picture, View
from academy.exchange.link_info import ProcessInfo
from academy.exchange.transport import AgentInfo, MailboxStatus
from academy.handle import Handle
from academy.identifier import AgentId
from academy.manager import Manager

_ROUND_DEADLINE = 3 * DEADLINE  # for several calls to each site
_REFRESH = 0.2  # seconds between two pictures
_TRACE = 1.0  # seconds that a process has to tell its links while others wait
_WATCH = 0.002  # seconds between two looks at a site that is to be killed


class Federation:
    """Launches the agents, has them train, kills one of them, and reports.

    Args:
        manager: Launches the agents, and launches them again when they are lost. Its
            workers must be processes of this machine.
        blocked: Does the same for the site that cannot be reached directly.
        plan: What to do.
        view: Shows what happens.
    """

    def __init__(
        self, manager: Manager[Any], blocked: Manager[Any], plan: Plan, view: View
    ) -> None:
        self._manager = manager
        self._blocked = blocked
        self._plan = plan
        self._view = view
        self._start = time.monotonic()
        self._calls = Calls()
        self._calls_to_sites = [Calls() for _ in range(plan.sites)]
        self._killed: int | None = None
        self._accuracies: list[float] = []
        self._reference: float | None = None
        self._accident: Accident | None = None
        self._paths: dict[int, Path] = {}
        self._told = ""
        self._finished = asyncio.Event()
        self._sites: list[Handle[Site]] = []
        self._coordinator: Handle[Coordinator]

    async def run(self) -> Report:
        """Run everything once, and return what was seen.

        Raises:
            ExceptionGroup: Something does not work.
        """
        await self._launch()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_showing())
            tracing = group.create_task(self._keep_tracing())
            victim = await self._introduce()
            for number in range(1, self._plan.rounds + 1):
                await self._run_round(number, victim)
            self._view.say("The same model now trains with all data in one place.")
            self._reference = await self._calls.wait(
                self._coordinator.reference(self._plan.rounds)
            )
            tracing.cancel()
            await self._trace(None)
            self._finished.set()
        applied = await self._calls.wait(self._coordinator.applied())
        await self._count_calls()
        return Report(
            plan=self._plan,
            accuracies=tuple(self._accuracies),
            reference=self._reference or 0.0,
            applied=applied,
            calls=sum(self._calls_to_sites, self._calls),
            accident=self._accident,
            paths=self._paths,
            seconds=time.monotonic() - self._start,
        )

    async def _launch(self) -> None:
        plan = self._plan
        for index in range(plan.sites):
            manager = self._blocked if index == plan.blocked else self._manager
            site: Handle[Site] = await manager.launch(
                Site, args=(index, plan.sites, plan.seed), name=f"site-{index}"
            )
            self._sites.append(self._manager.get_handle(site.agent_id))
        self._coordinator = await self._manager.launch(
            Coordinator, args=(self._sites, plan.seed), name="coordinator"
        )

    async def _introduce(self) -> int:
        """Say where all run and what each site has.

        Returns:
            The site with most of those that can be reached directly.
        """
        where: Whereabouts = await self._calls.wait(self._coordinator.where())
        self._view.say(f"coordinator runs in process {where.pid}.")
        states = [await self._look_at(site) for site in range(self._plan.sites)]
        for index, state in enumerate(states):
            commonest = sorted(range(10), key=lambda d: -state.digits[d])[:3]
            shares = ", ".join(f"{state.digits[d]} x {d}" for d in commonest)
            self._view.say(
                f"site-{index} runs in process {state.where.pid} and has "
                f"{sum(state.digits)} images, most often {shares}."
            )
        blocked = self._plan.blocked
        self._view.say(
            f"site-{blocked} is blocked: it neither listens nor links to others."
        )
        direct = (site for site in range(len(states)) if site != blocked)
        return max(direct, key=lambda site: sum(states[site].digits))

    async def _run_round(self, number: int, victim: int) -> None:
        """Run a round; from the middle on, kill a site unless that was done."""
        killed: int | None = None
        async with asyncio.TaskGroup() as group:
            call = self._coordinator.run_round(number)
            running = group.create_task(
                self._calls.wait(call, deadline=_ROUND_DEADLINE)
            )
            if self._accident is None and number > self._plan.rounds // 2:
                killed = await self._kill_while_training(victim, number, running)
        result: RoundResult = running.result()
        self._accuracies.append(result.accuracy)
        for failure in result.failures:
            self._view.say(
                f"The call to site-{failure.site} failed with {failure.error} "
                f"(executed: {failure.executed}) and was made again."
            )
        if killed is not None:
            new_pid = (await self._look_at(victim)).where.pid
            self._accident = Accident(victim, number, killed, new_pid)
            self._view.say(f"site-{victim} runs again, in process {new_pid}.")
        self._view.say(
            f"Round {number} of {self._plan.rounds}: {result.accuracy:.1%} of the test "
            "images are read correctly."
        )
        await self._trace(_TRACE)
        self._tell_paths()
        self._view.show(await self._picture())

    async def _kill_while_training(
        self, site: int, number: int, running: asyncio.Task[Any]
    ) -> int | None:
        """Kill the process of a site as soon as it trains for a round.

        Returns:
            The process, or `None` if the round was over too soon.
        """
        self._view.say(f"The process of site-{site} will now be killed as it trains.")
        while not running.done():
            state = await self._look_at(site)
            if state.training == number:
                self._killed = state.where.pid
                os.kill(self._killed, signal.SIGKILL)
                self._view.say(f"Killed process {self._killed} with SIGKILL.")
                return self._killed
            await asyncio.sleep(_WATCH)
        return None

    async def _look_at(self, site: int) -> SiteState:
        state: SiteState = await self._calls.wait(self._sites[site].state())
        return state

    async def _count_calls(self) -> None:
        """Ask the coordinator what became of its calls to the sites."""
        self._calls_to_sites = await self._calls.wait(self._coordinator.calls())

    async def _keep_tracing(self) -> None:
        while True:
            await self._trace(_TRACE)
            await asyncio.sleep(_REFRESH)

    async def _trace(self, patience: float | None) -> None:
        """Note which way messages go between each site and the coordinator.

        Args:
            patience: Seconds that their processes have to tell it; `None` for as long
                as the exchange waits. Of those that do not tell, such as one that was
                just killed, no path is known.
        """
        coordinator, *sites = await asyncio.gather(
            self._ask_links(self._coordinator.agent_id, patience),
            *(self._ask_links(site.agent_id, patience) for site in self._sites),
        )
        found = {
            index: Path.between(site, coordinator)
            for index, site in enumerate(sites)
            if site is not None and coordinator is not None
        }
        self._paths = {index: path for index, path in found.items() if path is not None}

    async def _ask_links(
        self, agent: AgentId[Any], patience: float | None
    ) -> ProcessInfo | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                return await self._manager.exchange_client.links(agent)
        return None

    def _tell_paths(self) -> None:
        """Say which way messages go, if that is news."""
        text = told(self._plan, self._paths)
        if text != self._told:
            self._told = text
            self._view.say(f"Paths to the coordinator: {text}.")

    async def _keep_showing(self) -> None:
        """Show a new picture every now and then, and a last one at the end."""
        while not self._finished.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REFRESH):
                    await self._finished.wait()
            if self._accuracies:
                await self._count_calls()
            self._view.show(await self._picture())

    async def _picture(self) -> Picture:
        census = await self._manager.exchange_client.census()
        found = {info.agent_id: info for info in census}
        own = found.get(self._coordinator.agent_id)
        rows = [self._row("coordinator", own, self._calls, busy="active", path=None)]
        for index, site in enumerate(self._sites):
            info = found.get(site.agent_id)
            calls = self._calls_to_sites[index]
            path = self._paths.get(index)
            rows.append(
                self._row(f"site-{index}", info, calls, busy="training", path=path)
            )
        return Picture(
            rows, tuple(self._accuracies), self._plan.rounds, self._reference
        )

    def _row(
        self,
        name: str,
        info: AgentInfo | None,
        calls: Calls,
        *,
        busy: str,
        path: Path | None,
    ) -> AgentRow:
        """Return what to show of an agent; `busy` is what it does during calls."""
        if info is None or info.status is not MailboxStatus.ACTIVE:
            state = "starting"
        elif info.pid == self._killed:
            state = "killed"  # the exchange has not noticed yet
        else:
            state = busy if calls.unanswered else "active"
        return AgentRow(
            name=name,
            place=f"{info.host}:{info.pid}" if info and info.pid else "",
            state=state,
            path="" if path is None else path.way,
            answered=calls.answered,
            failed=calls.failed.total(),
            queued=info.queued if info else 0,
        )
