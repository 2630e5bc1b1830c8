"""Figures about a running agent."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(slots=True)
class AgentStats:
    """What an agent has done and has still to do, counted in messages."""

    incoming: int = 0
    """Requests that have reached the agent."""
    outgoing: int = 0
    """Requests that the agent has sent to others."""
    completed: int = 0
    """Requests that have been answered, by a result or by an error."""
    in_progress: int = 0
    """Requests that the agent is working on now."""
    queued: int = 0
    """Messages that wait in its mailbox."""
