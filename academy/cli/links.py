"""`academy links`: which way messages go between processes, and why."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from academy.cli.connection import Connection
from academy.cli.error import FAILED, CommandError
from academy.cli.lookup import label, resolve
from academy.cli.output import complain, print_json, print_table, print_text
from academy.exchange.audit import STATS_TIMEOUT
from academy.exchange.client import ExchangeClient
from academy.exchange.link_info import LinkInfo, ProcessInfo
from academy.exchange.transport import AgentInfo, MailboxStatus

_TITLES = (
    "PROCESS",
    "AGENTS",
    "PEER",
    "PATH",
    "REASON",
    "RTT#",
    "RATE#",
    "UNACKED#",
    "QUEUE#",
)
_NAMED = 3
"""Agents of a process that are named; of the others the number is printed."""


@dataclass(frozen=True)
class Answer:
    """A process that was asked.

    Attributes:
        host: Its host.
        pid: Its process number there.
        agents: The agents in it, of those that were asked for.
        info: What it tells; `None` if it did not answer.
    """

    host: str | None
    pid: int | None
    agents: Sequence[AgentInfo]
    info: ProcessInfo | None


async def list_links(
    connection: Connection,
    queries: Sequence[str],
    *,
    own: bool,
    as_json: bool,
) -> int:
    """Print the links of processes and return the exit code.

    Args:
        connection: Where to connect to.
        queries: Agents whose processes are meant; none for all that run agents.
        own: Whether to show this process, too.
        as_json: Whether to print JSON.

    Returns:
        1 if a process did not answer, else 0.

    Raises:
        UsageError: There is no such agent.
        CommandError: No process runs one of them.
    """
    async with connection.open() as client:
        agents = await _running(client, queries)
        answers = await _ask_all(client, agents)
        me = await client.links()
    if own and me is not None:
        answers.append(Answer(me.host, me.pid, (), me))
    elif me is not None:
        answers = [_without(me.process, answer) for answer in answers]
    if not (answers or as_json):
        print_text(f"No process runs agents in namespace {connection.namespace!r}.")
        return 0
    return show(answers, as_json=as_json)


def show(answers: Sequence[Answer], *, as_json: bool = False) -> int:
    """Print what processes tell and return the exit code."""
    if as_json:
        print_json([as_object(answer) for answer in answers])
    else:
        names = _names(answers)
        print_table(_TITLES, [row for a in answers for row in _rows(a, names)])
    silent = [answer for answer in answers if answer.info is None]
    for answer in silent:
        where = _place(answer.host, answer.pid)
        complain(f"{where} did not answer within {STATS_TIMEOUT:g} s.")
    return FAILED if silent else 0


def as_object(answer: Answer) -> dict[str, Any]:
    """Return what a process tells as objects that JSON has types for."""
    known: dict[str, Any] = {"process": None, "host": answer.host, "pid": answer.pid}
    if answer.info is None:
        known["links"] = None
    else:
        known |= answer.info.model_dump(mode="json")
    agents = [
        {"id": str(a.agent_id.uid), "name": a.agent_id.name} for a in answer.agents
    ]
    return known | {"agents": agents}


async def _running(
    client: ExchangeClient[Any], queries: Sequence[str]
) -> list[AgentInfo]:
    """Return the agents that are meant; they run."""
    if not queries:
        census = await client.census()
        return [a for a in census if a.status is MailboxStatus.ACTIVE]
    agents = {}
    for query in queries:
        agent = await resolve(client, query)
        if agent.status is not MailboxStatus.ACTIVE:
            raise CommandError(f"No process runs {label(agent)} now.")
        agents[agent.agent_id] = agent
    return list(agents.values())


async def _ask_all(
    client: ExchangeClient[Any], agents: Sequence[AgentInfo]
) -> list[Answer]:
    """Ask each process that runs some of the agents, through one of them."""
    groups: dict[tuple[str, int], list[AgentInfo]] = {}
    for agent in sorted(agents, key=lambda a: (a.agent_id.name or "", a.agent_id.uid)):
        groups.setdefault((agent.host or "", agent.pid or 0), []).append(agent)
    found = [groups[key] for key in sorted(groups)]
    infos = await asyncio.gather(*(client.links(g[0].agent_id) for g in found))
    return [
        Answer(g[0].host, g[0].pid, g, info)
        for g, info in zip(found, infos, strict=True)
    ]


def _without(process: str, answer: Answer) -> Answer:
    """Leave a process out of what another one tells."""
    if answer.info is None:
        return answer
    kept = tuple(link for link in answer.info.links if link.process != process)
    info = dataclasses.replace(answer.info, links=kept)
    return dataclasses.replace(answer, info=info)


def _names(answers: Sequence[Answer]) -> dict[str, str]:
    """Return what to call processes, as one or the other of them knows it."""
    names: dict[str, str] = {}
    infos = [answer.info for answer in answers if answer.info is not None]
    for link in (link for info in infos for link in info.links):
        if link.pid is not None:
            names[link.process] = _place(link.host, link.pid)
    return names | {info.process: _place(info.host, info.pid) for info in infos}


def _rows(answer: Answer, names: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    head = (_place(answer.host, answer.pid), _listed(answer.agents))
    if answer.info is None:
        yield (*head, "-", "-", f"no answer within {STATS_TIMEOUT:g} s", *"----")
    elif not answer.info.links:
        yield (*head, "-", "-", "no links", *"----")
    else:
        for link in answer.info.links:
            yield (*head, *_row(link, names))
            head = ("", "")


def _row(link: LinkInfo, names: Mapping[str, str]) -> tuple[str, ...]:
    peer = names.get(link.process, link.process[:8]) or "-"
    rtt = "-" if link.rtt is None else f"{1000 * link.rtt:.2f} ms"
    counts = (f"{link.rate:.1f}/s", str(link.unacked), str(link.queued))
    path = f"{link.path}+tls" if link.encrypted else link.path
    return (peer, path, link.reason or "-", rtt, *counts)


def _listed(agents: Sequence[AgentInfo]) -> str:
    named = ", ".join(map(label, agents[:_NAMED]))
    more = f", +{len(agents) - _NAMED}" if len(agents) > _NAMED else ""
    return named + more or "-"


def _place(host: str | None, pid: int | None) -> str:
    return "-" if pid is None else f"{host or '?'}:{pid}"
