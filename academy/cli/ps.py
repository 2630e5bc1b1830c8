"""`academy ps`: the agents there are."""

from __future__ import annotations

from typing import Any

from academy.cli.connection import Connection
from academy.cli.lookup import short
from academy.cli.output import print_json, print_table, print_text
from academy.exchange.transport import AgentInfo

_TITLES = ("AGENT", "ID", "CLASS", "STATE", "HOST:PID", "QUEUE#")


async def list_agents(connection: Connection, *, as_json: bool) -> int:
    """Print the agents of a namespace and return the exit code."""
    async with connection.open() as client:
        agents = await client.census()
    agents = sorted(agents, key=lambda a: (a.agent_id.name or "", a.agent_id.uid))
    if as_json:
        print_json([as_object(agent) for agent in agents])
    elif agents:
        print_table(_TITLES, map(_row, agents))
    else:
        print_text(f"There are no agents in namespace {connection.namespace!r}.")
    return 0


def as_object(agent: AgentInfo) -> dict[str, Any]:
    """Return what is known of an agent as objects that JSON has types for."""
    return {
        "id": str(agent.agent_id.uid),
        "name": agent.agent_id.name,
        "class": agent.agent_class,
        "state": agent.status.value,
        "host": agent.host,
        "pid": agent.pid,
        "queued": agent.queued,
    }


def place(agent: AgentInfo) -> str:
    """Return host and process of an agent, or a dash if it does not run."""
    return f"{agent.host}:{agent.pid}" if agent.pid is not None else "-"


def _row(agent: AgentInfo) -> tuple[str, ...]:
    return (
        agent.agent_id.name or "-",
        short(agent.agent_id),
        agent.agent_class,
        agent.status.value.lower(),
        place(agent),
        str(agent.queued),
    )
