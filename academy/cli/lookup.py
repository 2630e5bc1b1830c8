"""Finding the agent that somebody means."""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Sequence
from typing import Any

from academy.cli.error import CommandError, UsageError
from academy.exchange.client import ExchangeClient
from academy.exchange.transport import AgentInfo, MailboxStatus
from academy.identifier import AgentId

SHORTEST_PREFIX = 4
_LISTED = 10


async def resolve(client: ExchangeClient[Any], query: str) -> AgentInfo:
    """Return the agent of a namespace that somebody means; see `find`.

    Raises:
        UsageError: No agent is meant, or several may be.
        CommandError: The agent has been terminated.
    """
    agents = await client.census()
    try:
        return find(query, agents)
    except UsageError:
        uid = _as_uuid(query)
        if uid is not None and await _is_terminated(client, uid):
            raise CommandError(f"Agent {uid} has been terminated.") from None
        raise


def find(query: str, agents: Sequence[AgentInfo]) -> AgentInfo:
    """Return the agent with a name or an identifier.

    Args:
        query: The whole name, or the beginning of the identifier (at least 4
            characters, dashes may be left out).
        agents: The agents there are.

    Raises:
        UsageError: None fits, or several do; the message lists them.
    """
    found = [agent for agent in agents if _fits(query, agent.agent_id)]
    if len(found) == 1:
        return found[0]
    if found:
        listed = "; ".join(map(describe, found[:_LISTED]))
        more = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise UsageError(
            f"{query!r} stands for {len(found)} agents: {listed}{more}. Give more of "
            "the identifier."
        )
    names = {agent.agent_id.name for agent in agents if agent.agent_id.name}
    close = difflib.get_close_matches(query, names, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    raise UsageError(
        f"There is no agent {query!r} in this namespace. {hint}`academy ps` lists all."
    )


def label(agent: AgentInfo) -> str:
    """Return what to call an agent: its name, or the beginning of its identifier."""
    return agent.agent_id.name or short(agent.agent_id)


def short(agent_id: AgentId[Any]) -> str:
    """Return the beginning of an identifier, mostly enough to find the agent by."""
    return str(agent_id.uid)[:8]


def describe(agent: AgentInfo) -> str:
    """Return what tells an agent from another of the same name."""
    name = agent.agent_id.name or "(no name)"
    status = agent.status.value.lower()
    return f"{name} {short(agent.agent_id)} ({agent.agent_class}, {status})"


def _fits(query: str, agent_id: AgentId[Any]) -> bool:
    beginning = query.replace("-", "").lower()
    return query == agent_id.name or (
        len(beginning) >= SHORTEST_PREFIX and agent_id.uid.hex.startswith(beginning)
    )


def _as_uuid(query: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(query)
    except ValueError:
        return None


async def _is_terminated(client: ExchangeClient[Any], uid: uuid.UUID) -> bool:
    agent_id: AgentId[Any] = AgentId(uid=uid)
    return await client.status(agent_id) is MailboxStatus.TERMINATED
