"""Agents that are registered and do not run, so that the directory is large."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from academy.agent import Agent
from academy.exchange.client import UserExchangeClient
from academy.identifier import AgentId

BATCH = 10_000


class Extra(Agent):
    """One of many that nobody looks for."""


class Crowd:
    """Registers agents through a client, and closes their mailboxes at the end."""

    def __init__(self, user: UserExchangeClient[Any]) -> None:
        self._user = user
        self.agents: list[AgentId[Any]] = []
        self.classes: dict[int, type[Agent]] = {}
        """Classes of which there is a known number."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for start in range(0, len(self.agents), BATCH):
            part = self.agents[start : start + BATCH]
            await asyncio.gather(*map(self._user.terminate, part))

    async def add(self, count: int, agent: type[Agent]) -> None:
        """Register so many agents of a class."""
        made = await self._user.register_agents([(agent, None)] * count)
        self.agents += [registration.agent_id for registration in made]

    async def grow(self, total: int) -> None:
        """Register more until there are so many."""
        while len(self.agents) < total:
            await self.add(min(BATCH, total - len(self.agents)), Extra)
